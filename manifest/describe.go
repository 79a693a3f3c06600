package manifest

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
)

// Describe tells people what is in the version, one thing a line.
func (v *Version) Describe(w io.Writer) error {
	var b bytes.Buffer
	writer := v.raw.GetWriterVersion()
	fmt.Fprintf(&b, "version %d by %s %s", v.Number, writer.GetLibrary(), writer.GetVersion())
	if t := v.raw.GetTimestamp(); t != nil {
		fmt.Fprintf(&b, " at %s", t.AsTime().UTC().Format(time.RFC3339))
	}
	fmt.Fprintf(&b, "\nfiles %s %s, %d fragments, %d rows\n", v.raw.GetDataFormat().GetFileFormat(), v.Format, len(v.Fragments), v.Rows())
	fmt.Fprintf(&b, "flags reader %#x writer %#x\n", v.raw.GetReaderFeatureFlags(), v.raw.GetWriterFeatureFlags())
	for _, f := range v.raw.GetFields() {
		fmt.Fprintf(&b, "field %d %q %s", f.GetId(), f.GetName(), f.GetLogicalType())
		if f.GetUnenforcedPrimaryKey() {
			b.WriteString(" key")
		}
		if f.GetNullable() {
			b.WriteString(" nullable")
		}
		b.WriteByte('\n')
	}
	for i := range v.Fragments {
		v.Fragments[i].describe(&b)
	}
	for i := range v.Indexes {
		v.Indexes[i].describe(&b)
	}
	if v.memWAL != nil {
		fmt.Fprintf(&b, "shards %d\n", v.memWAL.GetNumShards())
	}
	for _, id := range slices.SortedFunc(maps.Keys(v.Compacted), func(x, y uuid.UUID) int { return bytes.Compare(x[:], y[:]) }) {
		fmt.Fprintf(&b, "shard %s compacted to generation %d\n", id, v.Compacted[id])
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (f *Fragment) describe(b *bytes.Buffer) {
	fmt.Fprintf(b, "fragment %d, %d rows\n", f.ID, f.Rows)
	for _, file := range f.Files {
		fmt.Fprintf(b, "  data/%s %d.%d, %d bytes, fields %v in columns %v\n", file.Path, file.Major, file.Minor, file.Bytes, file.Fields, file.Columns)
	}
	if f.Deletion != nil {
		fmt.Fprintf(b, "  %s, %d rows deleted\n", f.Deletion.Path(f.ID), f.Deletion.Rows)
	}
}

func (x *Index) describe(b *bytes.Buffer) {
	kind := x.Details.GetTypeUrl()
	fmt.Fprintf(b, "index %q %s over fields %v, built from version %d", x.Name, kind, x.Fields, x.Version)
	if x.Fragments != nil {
		fmt.Fprintf(b, ", fragments %v", x.Fragments)
	}
	b.WriteByte('\n')
	for _, f := range x.Files {
		fmt.Fprintf(b, "  %s/%s, %d bytes\n", x.Dir(), f.Path, f.Bytes)
	}
}

// Describe tells people what is in the shard's version, one thing a line.
func (s *Shard) Describe(w io.Writer) error {
	var b bytes.Buffer
	status := "active"
	if s.Sealed {
		status = "sealed"
	}
	fmt.Fprintf(&b, "shard %s version %d, %s, spec %d\n", s.ID, s.Version, status, s.SpecID)
	if s.Bucket != nil {
		fmt.Fprintf(&b, "bucket %d\n", *s.Bucket)
	}
	fmt.Fprintf(&b, "epoch %d, replay after %d, last seen %d, current generation %d\n", s.Epoch, s.ReplayAfter, s.LastSeen, s.CurrentGeneration)
	if s.Entry > 0 {
		fmt.Fprintf(&b, "replay after log entry %d\n", s.Entry)
	}
	for _, g := range s.Generations {
		fmt.Fprintf(&b, "generation %d in %s, %d rows, %d bytes, %d of them keys\n", g.Number, g.Path, g.Rows, g.Bytes, g.KeyBytes)
	}
	_, err := w.Write(b.Bytes())
	return err
}
