package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/flightd/flightd/bitmap"
	"github.com/flightd/flightd/btree"
	"github.com/flightd/flightd/ivf"
	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/lsm"
	"github.com/flightd/flightd/lsm/keyfilter"
	"github.com/flightd/flightd/lsm/wal"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// kinds are what inspect knows, in the order of its help.
var kinds = []string{"wal", "shard", "manifest", "file", "index", "filter", "deletions", "catalog", "entry", "system"}

func (p process) inspectCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "inspect PATH [wal|shard|manifest|file|index|filter|deletions|catalog|entry|system]",
		Short: "Describe what is on disk, for people or as JSON",
		Long: "inspect describes a file or a folder of a data folder, which may be in use. Without a kind it is guessed:\n\n" +
			"  wal       the log: DATA or DATA/_flightd/wal, or one segment in it\n" +
			"  shard     what is flushed and not merged: TABLE.lance/_mem_wal/SHARD, one of its manifests, or TABLE.lance for\n" +
			"            all of them\n" +
			"  manifest  a version of a table: TABLE.lance for the newest, or a file in TABLE.lance/_versions\n" +
			"  file      a Lance data file\n" +
			"  index     a BTREE, BITMAP or LABEL_LIST: a folder in TABLE.lance/_indices, or the _pk_index of a generation\n" +
			"  filter    the filter of a generation's keys: its key_filter.bin\n" +
			"  deletions which rows of fragments are deleted: TABLE.lance/_deletions, or a file in it\n" +
			"  catalog   tables, schemas, views and options: DATA/_flightd/catalog.json; in a store of objects catalog/N.json\n" +
			"  entry     an object of a log in a store, or of what another MemWAL writer logged: TABLE.lance/_mem_wal/SHARD/wal,\n" +
			"            _flightd/log, or one .arrow object in them\n" +
			"  system    what is nobody's table: DATA/_flightd with its owner, log, reserve, stages and leases, or a file in it\n\n" +
			"DATA alone lists its tables. With --json each line of the output is one JSON object.",
		Example: "  flightd inspect /var/lib/flightd\n" +
			"  flightd inspect /var/lib/flightd/readings.lance\n" +
			"  flightd inspect /var/lib/flightd wal --json",
		Args: pathArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind := ""
			if len(args) > 1 {
				if kind = args[1]; !slices.Contains(kinds, kind) {
					return &usageError{fmt.Errorf("unknown kind %q, want one of %s", kind, strings.Join(kinds, ", "))}
				}
			}
			ctx, stop := untilSignal(cmd.Context(), p.stderr)
			defer stop()
			return p.inspect(ctx, args[0], kind, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object a line")
	return cmd
}

// inspect describes the thing of a kind at a path.
func (p process) inspect(ctx context.Context, path, kind string, asJSON bool) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("inspect: %w", err)
	}
	// "." has no name that a store could take.
	if path, err = filepath.Abs(path); err != nil {
		return fmt.Errorf("inspect: %w", err)
	}
	switch {
	case kind != "" || !info.IsDir():
	case filepath.Base(path) == "_mem_wal": // of the table in whose folder they are
		path, kind = filepath.Dir(path), "shard"
	case filepath.Base(path) == "_versions":
		path, kind = filepath.Dir(path), "manifest"
	}
	if kind == "" {
		if kind = guessKind(path, info); kind == "" {
			return fmt.Errorf("inspect: cannot tell what %s is; say one of %s", path, strings.Join(kinds, ", "))
		}
	}
	out := bufio.NewWriter(p.stdout)
	v := &inspector{out: out, json: asJSON, path: path, file: !info.IsDir()}
	if err := v.describe(ctx, kind); err != nil {
		// What was written before the damage helps to find it.
		_ = out.Flush()
		return fmt.Errorf("inspect %s: %w", kind, err)
	}
	return out.Flush()
}

// kindData is the kind of a whole data folder. It has no name on the command line.
const kindData = "data folder"

// guessKind tells what a path is from names alone, "" when it cannot.
func guessKind(path string, info fs.FileInfo) string {
	has := func(names ...string) bool {
		_, err := os.Stat(filepath.Join(append([]string{path}, names...)...))
		return err == nil
	}
	if !info.IsDir() {
		if kind := guessOwn(path); kind != "" {
			return kind
		}
		switch filepath.Ext(path) {
		case ".wal":
			return "wal"
		case ".binpb":
			return "shard"
		case ".manifest":
			return "manifest"
		case ".lance":
			return "file"
		case ".arrow":
			if _, ok := wal.EntryPosition(filepath.Base(path)); ok {
				return "entry"
			}
		}
		if filepath.Base(path) == "key_filter.bin" {
			return "filter"
		}
		return ""
	}
	segments, _ := filepath.Glob(filepath.Join(path, "*.wal")) // the patterns are good
	entries, _ := filepath.Glob(filepath.Join(path, "*.arrow"))
	switch {
	case has("_flightd", "format"):
		return kindData
	case filepath.Base(path) == "_flightd", filepath.Base(path) == "stage" && filepath.Base(filepath.Dir(path)) == "_flightd":
		return "system"
	case filepath.Base(path) == "_deletions":
		return "deletions"
	case has("_versions"):
		return "manifest"
	case has("manifest"):
		return "shard"
	case has("page_data.lance"), has(bitmap.File), has(ivf.IndexFile):
		return "index"
	case len(segments) > 0:
		return "wal"
	case (filepath.Base(path) == "wal" || filepath.Base(path) == "log") && len(entries) > 0:
		return "entry"
	}
	return ""
}

// inspector describes one path.
type inspector struct {
	out  *bufio.Writer
	json bool
	path string // absolute
	file bool   // path is no folder
}

func (v *inspector) describe(ctx context.Context, kind string) error {
	switch kind {
	case kindData:
		return v.data(ctx)
	case "wal":
		return v.wal()
	case "shard":
		return v.shards(ctx)
	case "manifest":
		return v.manifest(ctx)
	case "file":
		return v.dataFile(ctx)
	case "catalog":
		return v.catalog(ctx)
	case "filter":
		return v.filter(ctx)
	case "entry":
		return v.entries(ctx)
	case "deletions":
		return v.deletions(ctx)
	case "system":
		return v.system(ctx)
	}
	return v.index(ctx)
}

// store returns a store and the name of path in it.
func store(path string) (object.Store, string) {
	return object.NewLocal(filepath.Dir(path)), filepath.Base(path)
}

// object prints a value as a line of JSON.
func (v *inspector) object(x any) error {
	return json.NewEncoder(v.out).Encode(x)
}

// describer is what every format can do.
type describer interface{ Describe(w io.Writer) error }

// print describes one thing, for people or programs.
func (v *inspector) print(d describer, asJSON func() any) error {
	if v.json {
		return v.object(asJSON())
	}
	return d.Describe(v.out)
}

// data lists the tables of a data folder.
func (v *inspector) data(ctx context.Context) error {
	st := object.NewLocal(v.path)
	list, err := st.List(ctx, ".")
	if err != nil {
		return err
	}
	for _, x := range list {
		if !x.Dir || !strings.HasSuffix(x.Name, ".lance") {
			continue
		}
		t, err := manifest.Latest(ctx, st, x.Name, manifest.Options{})
		if err != nil {
			return err
		}
		shards, err := loadShards(ctx, st, x.Name)
		if err != nil {
			return err
		}
		h, err := loadHistory(ctx, st, x.Name)
		if err != nil {
			return err
		}
		if err := v.table(x.Name, t, shards, h); err != nil {
			return err
		}
	}
	if v.json {
		return nil
	}
	_, err = fmt.Fprintf(v.out, "the log: flightd inspect %[1]s wal\nwho has it, and the server's own files: flightd inspect %[1]s system\n", v.path)
	return err
}

// table prints one table of a data folder.
func (v *inspector) table(folder string, t *manifest.Version, shards []*manifest.Shard, h tableHistory) error {
	var generations int
	var rows int64
	for _, s := range shards {
		for _, g := range s.Generations {
			if g.Number > t.Compacted[s.ID] {
				generations++
				rows += g.Rows
			}
		}
	}
	if v.json {
		return v.object(map[string]any{"folder": folder, "version": t.Number, "rows": t.Rows(), "fragments": len(t.Fragments),
			"indexes": len(t.Indexes), "generations": generations, "generation_rows": rows,
			"versions": len(h.chain), "tags": h.json(false), "branches": h.json(true)})
	}
	_, err := fmt.Fprintf(v.out, "%s: version %d, %s in %s; in front of it %s with %s\n", folder, t.Number,
		counted(t.Rows(), "row"), counted(int64(len(t.Fragments)), "fragment"), counted(int64(generations), "generation"), counted(rows, "row"))
	if err != nil {
		return err
	}
	return h.print(v.out)
}

// tableHistory is which versions of a table are there, and what names them.
type tableHistory struct {
	chain []manifest.VersionFile
	refs  []manifest.Ref
}

// loadHistory reads the history of a table.
func loadHistory(ctx context.Context, st object.Store, table string) (h tableHistory, err error) {
	if h.chain, err = manifest.TableHistory(st, table, manifest.Options{}).List(ctx); err != nil {
		return h, err
	}
	h.refs, err = manifest.Refs(ctx, st, table)
	return h, err
}

// json returns the names of one kind with their versions.
func (h tableHistory) json(branches bool) map[string]uint64 {
	out := make(map[string]uint64)
	for _, r := range h.refs {
		if r.Branch == branches {
			out[r.Name] = r.Version
		}
	}
	return out
}

// print tells people.
func (h tableHistory) print(w io.Writer) error {
	var err error
	if len(h.chain) > 0 {
		_, err = fmt.Fprintf(w, "  %s, the oldest %d of %s\n", counted(int64(len(h.chain)), "version"), h.chain[0].Number, h.chain[0].Time.UTC().Format(time.RFC3339))
	}
	for _, r := range h.refs {
		kind := "tag"
		if r.Branch {
			kind = "branch"
		}
		if err == nil {
			_, err = fmt.Fprintf(w, "  %s %q keeps version %d\n", kind, r.Name, r.Version)
		}
	}
	return err
}

// loadShards returns the shards of a table.
func loadShards(ctx context.Context, st object.Store, table string) ([]*manifest.Shard, error) {
	folders, err := st.List(ctx, table+"/_mem_wal")
	if err != nil {
		return nil, err
	}
	var shards []*manifest.Shard
	for _, x := range folders {
		s, err := manifest.LoadShard(ctx, st, table+"/_mem_wal/"+x.Name, manifest.Options{})
		if err != nil {
			return nil, err
		}
		shards = append(shards, s)
	}
	return shards, nil
}

// wal describes the log.
func (v *inspector) wal() error {
	dir := v.path
	if v.file {
		dir = filepath.Dir(dir)
	}
	if below := filepath.Join(dir, "_flightd", "wal"); exists(below) {
		dir = below
	}
	one := v.file && filepath.Ext(v.path) == ".wal"
	switch {
	case !v.json && one:
		return wal.DescribeSegment(v.out, v.path, lsm.Describe)
	case !v.json:
		return wal.Describe(v.out, dir, lsm.Describe)
	}
	line := func(r *wal.Record) error { return v.object(recordJSON(r)) }
	if one {
		return wal.ReplaySegment(v.path, line)
	}
	_, err := wal.ReplayAll(dir, line)
	return err
}

// catalog prints the catalog, whose checksum it verifies.
func (v *inspector) catalog(ctx context.Context) error {
	st, name := store(v.path)
	text, err := lsm.CatalogText(ctx, st, name)
	if err != nil || v.json {
		_, writeErr := v.out.Write(append(text, '\n'))
		return errors.Join(err, writeErr)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return err
	}
	_, err = fmt.Fprintln(v.out, out.String())
	return err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// shards describes one shard or all of a table.
func (v *inspector) shards(ctx context.Context) error {
	path := v.path
	st, name := store(path)
	if v.file {
		s, err := manifest.LoadShardFile(ctx, st, name)
		if err != nil {
			return err
		}
		return v.print(s, func() any { return shardJSON(s) })
	}
	if !exists(filepath.Join(path, "_mem_wal")) {
		s, err := manifest.LoadShard(ctx, st, name, manifest.Options{})
		if err != nil {
			return err
		}
		return v.print(s, func() any { return shardJSON(s) })
	}
	shards, err := loadShards(ctx, st, name)
	if err != nil {
		return err
	}
	for _, s := range shards {
		if err := v.print(s, func() any { return shardJSON(s) }); err != nil {
			return err
		}
	}
	return nil
}

// manifest describes a version of a table.
func (v *inspector) manifest(ctx context.Context) error {
	if !v.file {
		st, name := store(v.path)
		t, err := manifest.Latest(ctx, st, name, manifest.Options{})
		if err != nil {
			return err
		}
		return v.print(t, func() any { return versionJSON(t) })
	}
	// The digits of the name fall as versions rise.
	digits, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(v.path), ".manifest"), 10, 64)
	if err != nil {
		return fmt.Errorf("%s is not named like a version of a table: %w", v.path, err)
	}
	st, name := store(filepath.Dir(filepath.Dir(v.path)))
	t, err := manifest.Load(ctx, st, name, math.MaxUint64-digits)
	if err != nil {
		return err
	}
	return v.print(t, func() any { return versionJSON(t) })
}

// dataFile describes a Lance file.
func (v *inspector) dataFile(ctx context.Context) error {
	st, name := store(v.path)
	r, err := lance.Open(ctx, st, name, 0, lance.ReaderOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	return v.print(r, func() any { return fileJSON(r) })
}

// index describes a BTREE, a BITMAP, which a LABEL_LIST is, too, or an index over vectors.
func (v *inspector) index(ctx context.Context) error {
	path := v.path
	if v.file {
		path = filepath.Dir(path)
	}
	st, name := store(path)
	if _, err := os.Stat(filepath.Join(path, bitmap.File)); err == nil {
		return v.bitmap(ctx, st, name)
	}
	if _, err := os.Stat(filepath.Join(path, ivf.IndexFile)); err == nil {
		return v.vectors(ctx, st, name)
	}
	x, err := btree.Open(ctx, st, name, btree.Options{})
	if err != nil {
		return err
	}
	defer x.Close()
	return v.print(x, func() any { return indexJSON(x) })
}

// vectors describes an index over vectors.
func (v *inspector) vectors(ctx context.Context, st object.Store, name string) error {
	x, err := ivf.Open(ctx, st, name, ivf.Options{})
	if err != nil {
		return err
	}
	defer x.Close()
	return v.print(x, func() any { return vectorsJSON(x) })
}

// bitmap describes a BITMAP.
func (v *inspector) bitmap(ctx context.Context, st object.Store, name string) error {
	x, err := bitmap.Open(ctx, st, name, bitmap.Options{FragmentRows: func(uint32) int64 { return 0 }})
	if err != nil {
		return err
	}
	defer x.Close()
	s, err := x.Summarise(ctx)
	if err != nil {
		return err
	}
	return v.print(x, func() any {
		return fields{"type": x.Type().String(), "values": s.Values, "entries": s.Entries, "whole_fragments": s.Whole, "fragments": s.Fragments,
			"least": s.Least, "greatest": s.Greatest}
	})
}

// filter describes the key filter of a generation.
func (v *inspector) filter(ctx context.Context) error {
	st, name := store(v.path)
	f, err := keyfilter.Open(ctx, st, name)
	if err != nil {
		return err
	}
	defer f.Close()
	return v.print(f, func() any {
		return fields{"keys": f.Keys(), "bytes": f.Bytes(), "bits_per_key": f.BitsPerKey(), "false_positive_rate": f.Rate()}
	})
}
