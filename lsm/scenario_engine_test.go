package lsm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
)

// engine runs the commands that are about how the engine works, and reports whether there is one of the name.
func (s *scenario) engine(ctx context.Context, name string, d *datadriven.TestData) (out string, err error, known bool) {
	n, out := TableName{Name: name}, "ok\n"
	switch d.Cmd {
	case "marks": // up to where records are visible, and durable
		out = fmt.Sprintf("visible %s, durable %s\n", s.db.Visible(), s.db.log.DurableLSN())
	case "power-cut": // goes on with a copy of the folder that lacks what was not synced of the log
		s.powerCut()
	case "hold-indexes": // indexes that may follow do not
		s.db.holdIndexes.Store(true)
	case "create-index": // create-index NAME name=INDEX column=COLUMN [replace]
		def := IndexDef{Name: argument(s.t, d, "name"), Kind: BTreeIndex, Columns: []string{argument(s.t, d, "column")}}
		err = s.db.CreateIndex(ctx, n, def, CreateIndexOptions{Replace: d.HasArg("replace")})
	case "drop-index": // drop-index NAME name=INDEX
		err = s.db.DropIndex(ctx, n, argument(s.t, d, "name"))
	case "indexes": // indexes NAME
		out = s.indexes(name)
	case "find": // find NAME by=COLUMN: the input is a value, or two between which it lies; prints how rows are found, and the rows
		out, err = s.find(ctx, n, argument(s.t, d, "by"), strings.Fields(d.Input))
	case "merge-each": // merge-each NAME: each row of the input is put, and merged into the base alone
		for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
			err = errors.Join(err, s.putAs(ctx, name, d, line), mustTable(s.t, s.db, name).optimize(ctx))
		}
	case "reclaim": // reclaim bytes=N: from how many dead bytes on fragments are written anew
		s.db.minReclaim = int64(number(s.t, d, "bytes"))
	case "fragments": // fragments NAME: of the base, and the segments over them
		out = s.fragments(name)
	case "vacuum": // vacuum NAME: what is kept no longer goes
		_, err = s.db.Vacuum(ctx, n)
	case "versions": // versions NAME: how many there are on disk
		var list []string
		list, err = filepath.Glob(filepath.Join(s.dir, n.folder(), "_versions", "*.manifest"))
		out = fmt.Sprintf("%d versions\n", len(list))
	case "spend-memory": // all memory for memtables but for so many bytes is taken
		used, _ := s.db.budget.state()
		s.spent = s.db.opt.Memory - used - int64(number(s.t, d, "but"))
		s.db.budget.add(s.spent)
	case "give-memory":
		s.db.budget.release(s.spent)
	case "put-stalls": // put-stalls NAME: the put has to wait
		s.putStalls(ctx, name, d)
	case "await": // the put that has to wait is over
		err = <-s.stalled
	case "stalls":
		out = s.stalls()
	case "check": // check [flip=REGEXP | cut=REGEXP]: of a copy of the folder, in which the first such file is damaged
		out = s.check(d)
	default:
		return "", nil, false
	}
	return out, err, true
}

// argument returns the value of an argument that the command must have.
func argument(t *testing.T, d *datadriven.TestData, name string) (value string) {
	d.ScanArgs(t, name, &value)
	return value
}

// number is argument for numbers.
func number(t *testing.T, d *datadriven.TestData, name string) (value int) {
	d.ScanArgs(t, name, &value)
	return value
}

// powerCut copies the folder, takes from the log what is not synced, and opens the copy.
func (s *scenario) powerCut() {
	m, err := readMoment(s.dir)
	require.NoError(s.t, err)
	for _, g := range unsafeGroups(logGroups(m.files), s.db.log.DurableLSN()) {
		b := slices.Clone(m.files[g.segment])
		clear(b[g.from:g.to])
		m.files[g.segment] = b
	}
	s.close()
	s.dir = filepath.Join(s.t.TempDir(), "copy")
	require.NoError(s.t, m.write(s.dir))
	s.open()
}

// indexes prints the indexes of a table.
func (s *scenario) indexes(name string) string {
	out := ""
	for _, x := range mustTable(s.t, s.db, name).Indexes() {
		out += fmt.Sprintf("%s over %s: %d rows are in it, %d not, %d segments in the base", x.Name, strings.Join(x.Columns, ", "), x.Covered, x.Uncovered, x.Segments)
		if !x.Maintained {
			out += ", not kept while writing"
		}
		out += "\n"
	}
	if out == "" {
		return "none\n"
	}
	return out
}

// find scans a table by a value of a column, or by those between two.
func (s *scenario) find(ctx context.Context, n TableName, by string, values []string) (string, error) {
	snap, err := s.db.Snapshot(ctx)
	if err != nil {
		return "", err
	}
	defer snap.Release()
	v, err := snap.Table(n)
	if err != nil {
		return "", err
	}
	column := columnIndex(v.Schema(), by)
	set, o := v.NewColumnSet(column), ScanOptions{Columns: allColumns(v.Schema())}
	if slices.Equal(v.table.Key(), []string{by}) {
		set = v.NewKeySet()
		o.Keys = set
	} else {
		o.Where = set
	}
	rec, err := rows.Parse(arrow.NewSchema([]arrow.Field{v.Schema().Field(column)}, nil), strings.Join(values, "\n"))
	if err != nil {
		return "", err
	}
	defer rec.Release()
	if values := rec.Column(0); values.Len() == 1 {
		err = set.Add([]arrow.Array{values})
	} else {
		from, to := array.NewSlice(values, 0, 1), array.NewSlice(values, 1, 2)
		defer from.Release()
		defer to.Release()
		err = set.AddRange(nil, KeyBound{Value: from}, KeyBound{Value: to})
	}
	if err != nil {
		return "", err
	}
	sc, err := v.Scan(ctx, o)
	if err != nil {
		return "", err
	}
	out := ""
	for _, l := range sc.Plan().Layers {
		if l.Rows > 0 {
			out += fmt.Sprintf("%s: %s, %d rows\n", l.Layer, l.Access, l.Rows)
		}
	}
	sc.Close()
	lines, err := scanWith(ctx, v, o)
	for _, l := range lines {
		// A scan may give more than it was asked for: the tail of an index, or all of a layer.
		if len(values) > 1 || strings.Fields(l)[column] == values[0] {
			out += l + "\n"
		}
	}
	return out, err
}

// fragments prints the fragments of a base and which of them the segments of its indexes are over.
func (s *scenario) fragments(name string) string {
	b := mustTable(s.t, s.db, name).set.Load().base
	out, segments := "", []string(nil)
	for _, f := range b.frags {
		out += fmt.Sprintf("fragment: %d rows, %d deleted\n", f.rows, f.rows-f.live)
	}
	for _, x := range b.version.Indexes {
		live := 0
		for _, f := range b.frags {
			if x.BTree() && x.Fragments.Contains(uint32(f.id)) {
				live++
			}
		}
		if x.BTree() {
			segments = append(segments, fmt.Sprintf("segment of %s: %d fragments\n", x.Name, live))
		}
	}
	slices.Sort(segments)
	return out + strings.Join(segments, "")
}

// putStalls begins a put and returns once it waits.
func (s *scenario) putStalls(ctx context.Context, name string, d *datadriven.TestData) {
	before := s.db.stalls.memory.count.Load()
	s.stalled = make(chan error, 1)
	go func() { s.stalled <- s.putAs(ctx, name, d, d.Input) }()
	require.Eventually(s.t, func() bool { return s.db.stalls.memory.count.Load() > before && s.db.budget.short() }, time.Minute, time.Millisecond)
}

// stalls prints what writers waited for, and wait.
func (s *scenario) stalls() string {
	out := ""
	for _, x := range s.db.Stats().Stalls {
		if x.Count > 0 {
			out += fmt.Sprintf("%s: %d wait, %d waits so far\n", x.Cause, x.Waiting, x.Count)
		}
	}
	if out == "" {
		return "none\n"
	}
	return out
}

// randomName matches what is another name each time.
var randomName = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}|[01]{24}[0-9a-f]+|[0-9a-f]{8}_gen|[0-9]{20}`)

// check has flightd check look at a copy of the folder.
func (s *scenario) check(d *datadriven.TestData) string {
	dir := crashCopy(s.t, s.dir)
	for how, damage := range map[string]func([]byte) []byte{
		"flip": func(b []byte) []byte { b[len(b)/3] ^= 0x10; return b },
		"cut":  func(b []byte) []byte { return b[:len(b)/2] },
	} {
		if !d.HasArg(how) {
			continue
		}
		pattern := regexp.MustCompile(argument(s.t, d, how))
		m, err := readMoment(dir)
		require.NoError(s.t, err)
		names := slices.Sorted(maps.Keys(m.files))
		i := slices.IndexFunc(names, pattern.MatchString)
		require.GreaterOrEqual(s.t, i, 0, "%s: there is no such file", d.Pos)
		require.NoError(s.t, os.WriteFile(filepath.Join(dir, filepath.FromSlash(names[i])), damage(slices.Clone(m.files[names[i]])), 0o644))
	}
	sum, list := faults(s.t, dir)
	out := fmt.Sprintf("%d faults\n", sum.Faults)
	for _, f := range list {
		out += randomName.ReplaceAllString(f.File, "*") + "\n"
	}
	return out
}
