package main

import (
	"strings"

	"github.com/flightd/flightd/btree"
	"github.com/flightd/flightd/ivf"
	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/lsm"
	"github.com/flightd/flightd/lsm/wal"
	"github.com/flightd/flightd/manifest"
)

// fields is an object of the JSON that inspect prints. Its keys are a promise to programs.
type fields = map[string]any

// schemaJSON lists columns.
func schemaJSON(s *lance.Schema) []fields {
	list := make([]fields, len(s.Fields))
	for i, f := range s.Fields {
		list[i] = fields{"id": f.ID, "name": f.Name, "type": f.Type.String(), "nullable": f.Nullable, "key": f.Key}
	}
	return list
}

// versionJSON describes a version of a table.
func versionJSON(v *manifest.Version) fields {
	fragments := make([]fields, len(v.Fragments))
	for i := range v.Fragments {
		fragments[i] = fragmentJSON(&v.Fragments[i])
	}
	indexes := make([]fields, len(v.Indexes))
	for i := range v.Indexes {
		indexes[i] = segmentJSON(&v.Indexes[i])
	}
	return fields{"version": v.Number, "format": v.Format, "rows": v.Rows(), "schema": schemaJSON(v.Schema),
		"fragments": fragments, "indexes": indexes, "compacted": v.Compacted}
}

// fragmentJSON describes a fragment of a version.
func fragmentJSON(f *manifest.Fragment) fields {
	files := make([]fields, len(f.Files))
	for i, x := range f.Files {
		files[i] = fields{"path": "data/" + x.Path, "bytes": x.Bytes, "fields": x.Fields, "columns": x.Columns}
	}
	out := fields{"id": f.ID, "rows": f.Rows, "files": files}
	if f.Deletion != nil {
		out["deleted"] = fields{"path": f.Deletion.Path(f.ID), "rows": f.Deletion.Rows}
	}
	return out
}

// segmentJSON describes an index segment of a version.
func segmentJSON(x *manifest.Index) fields {
	files := make([]fields, len(x.Files))
	for i, f := range x.Files {
		files[i] = fields{"path": f.Path, "bytes": f.Bytes}
	}
	out := fields{"name": x.Name, "path": x.Dir(), "kind": x.Details.GetTypeUrl(), "fields": x.Fields, "version": x.Version, "files": files}
	if x.Fragments != nil {
		out["fragments"] = x.Fragments.ToArray()
	}
	return out
}

// shardJSON describes a shard.
func shardJSON(s *manifest.Shard) fields {
	generations := make([]fields, len(s.Generations))
	for i, g := range s.Generations {
		generations[i] = fields{"number": g.Number, "path": g.Path, "rows": g.Rows, "bytes": g.Bytes}
	}
	out := fields{"shard": s.ID, "version": s.Version, "epoch": s.Epoch, "sealed": s.Sealed, "replay_after": s.ReplayAfter,
		"current_generation": s.CurrentGeneration, "generations": generations}
	if s.Bucket != nil {
		out["bucket"] = *s.Bucket
	}
	return out
}

// fileJSON describes a Lance file.
func fileJSON(r *lance.Reader) fields {
	return fields{"rows": r.Rows(), "schema": schemaJSON(r.Schema()), "metadata": r.Metadata(), "checksums": r.HasChecksums()}
}

// indexJSON describes a BTREE.
func indexJSON(x *btree.Index) fields {
	out := fields{"type": x.Type().String(), "rows": x.Rows()}
	if least, greatest := x.Bounds(); least != nil {
		out["least"], out["greatest"] = least.ValueStr(0), greatest.ValueStr(0)
		least.Release()
		greatest.Release()
	}
	return out
}

// vectorsJSON describes an index over vectors.
func vectorsJSON(x *ivf.Index) fields {
	model := x.Model()
	out := fields{"kind": x.Kind(), "metric": x.Metric().String(), "element": x.Element().String(), "dimension": x.Dim(), "rows": x.Rows(),
		"partitions": x.Partitions(), "sizes": x.Sizes(), "imbalance": ivf.Imbalance(x.Sizes()), "retrain": x.Drifted()}
	if pq := model.PQ(); pq != nil {
		out["sub_vectors"], out["bits"] = pq.SubVectors(), pq.Bits()
	}
	return out
}

// recordJSON describes a record of the log.
func recordJSON(r *wal.Record) fields {
	bytes := 0
	for _, b := range r.Body {
		bytes += len(b)
	}
	f := fields{"lsn": r.LSN, "kind": r.Kind.String(), "shard": r.Shard, "incarnation": r.Incarnation,
		"schema": r.Schema, "rows": r.Rows, "bytes": bytes}
	if text := strings.TrimSpace(lsm.Describe(r)); text != "" {
		f["body"] = strings.Split(text, "\n")
	}
	return f
}
