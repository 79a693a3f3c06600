package lsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
)

// TestScenarios runs the files of testdata/scenarios, on a disk. Their commands are methods of scenario, described there.
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/scenarios", func(t *testing.T, path string) {
		s := &scenario{t: t, dir: diskDir(t), snapshots: map[string]*Snapshot{}, stages: map[string]*Stage{}}
		s.open()
		defer s.close()
		datadriven.RunTest(t, path, s.run)
	})
}

// scenario is a DB that a file's commands act on.
type scenario struct {
	t         *testing.T
	dir       string
	db        *DB
	snapshots map[string]*Snapshot
	stages    map[string]*Stage
	// def is the next table that is made, but for its name and schema.
	def TableDef
	// spent is memory that was taken, stalled has how a put ended that had to wait.
	spent   int64
	stalled chan error
	// retain is Options.Retain.
	retain time.Duration
}

func (s *scenario) open() {
	db, err := Open(context.Background(), Options{Dir: s.dir, wrap: faulty, SegmentBytes: 1 << 20, StageBytes: 2500, LogInterval: time.Hour, Retain: s.retain, manual: true})
	require.NoError(s.t, err)
	s.db = db
}

func (s *scenario) close() {
	for _, x := range s.snapshots {
		x.Release()
	}
	clear(s.snapshots)
	clear(s.stages)
	require.NoError(s.t, s.db.Close())
}

// run dispatches a command. Its first argument is the table.
func (s *scenario) run(t *testing.T, d *datadriven.TestData) string {
	var name string
	if len(d.CmdArgs) > 0 && len(d.CmdArgs[0].Vals) == 0 {
		name = d.CmdArgs[0].Key
	}
	ctx := context.Background()
	var err error
	out := "ok\n"
	switch d.Cmd {
	case "create": // create NAME [shards=N] [durability=buffered] [index-mode=async] [maintain=INDEX]: the input is a schema
		s.define(d)
		err = s.create(ctx, name, d.Input)
	case "alter": // alter NAME: each line is add COLUMN TYPE [not null] [= VALUE], drop COLUMN, rename COLUMN NAME, forbid-null COLUMN
		err = s.alter(ctx, name, d.Input)
	case "drop": // drop NAME
		err = s.db.DropTable(ctx, TableName{Name: name})
	case "put": // put NAME [deletes] [durable]: the input is rows, with `deletes` with _tombstone as the last column
		err = s.putAs(ctx, name, d, d.Input)
	case "insert": // insert NAME: the input is rows whose keys must be new
		err = s.insert(ctx, name, d.Input)
	case "flush": // flush NAME
		err = s.db.Flush(ctx, TableName{Name: name})
	case "optimize": // optimize NAME
		err = s.db.Optimize(ctx, TableName{Name: name})
	case "scan": // scan NAME [columns=(0,1) | count] [at=SNAPSHOT]: prints the rows, sorted
		out, err = s.scan(ctx, name, d)
	case "layers": // layers NAME: prints the layers, with physical rows
		out, err = s.layers(ctx, name)
	case "snapshot": // snapshot NAME: takes one
		s.snapshots[name], err = s.db.Snapshot(ctx)
	case "release": // release NAME
		s.snapshots[name].Release()
		delete(s.snapshots, name)
	case "stage": // stage NAME [new | replace] [shards=N]: begins a stage; of a new table the input is the schema
		err = s.stage(ctx, name, d)
	case "stage-put": // stage-put NAME [deletes]: the input is rows
		err = s.stagePut(ctx, name, d.HasArg("deletes"), d.Input)
	case "commit": // commit NAME
		_, err = s.stages[name].Commit(ctx)
	case "abort": // abort NAME
		s.stages[name].Abort()
	case "create-view": // create-view NAME [replace]: the input is its SQL
		err = s.db.CreateView(ctx, ViewDef{Name: TableName{Name: name}, SQL: d.Input}, d.HasArg("replace"))
	case "drop-view": // drop-view NAME
		err = s.db.DropView(ctx, TableName{Name: name})
	case "comment": // comment NAME [column=NAME]: the input is the text, without one the comment goes away
		err = s.comment(ctx, name, d)
	case "comments": // comments NAME: of a table or view and its columns
		out = s.comments(name)
	case "views":
		out = ""
		for _, v := range s.db.Views() {
			out += fmt.Sprintf("%s: %s\n", v.Name, v.SQL)
		}
	case "tables":
		out = ""
		for _, t := range s.db.Tables() {
			out += fmt.Sprintf("%s key=%v\n", t.Name(), t.Key())
		}
	case "reopen": // reopen [retain-nothing]: closes and opens again
		if d.HasArg("retain-nothing") {
			s.retain = -1
		}
		s.close()
		s.open()
	case "crash": // goes on with a copy of the folder, as a process killed now would have left it
		s.crash()
	default:
		var known bool
		if out, err, known = s.engine(ctx, name, d); !known {
			t.Fatalf("%s: there is no command %q", d.Pos, d.Cmd)
		}
	}
	if err != nil {
		return "error: " + strings.ReplaceAll(err.Error(), s.dir, "DIR") + "\n"
	}
	return out
}

func (s *scenario) create(ctx context.Context, name, schema string) error {
	as, err := rows.Schema(schema)
	if err != nil {
		return err
	}
	def := s.def
	def.Name, def.Schema = TableName{Name: name}, as
	return s.db.CreateTable(ctx, def)
}

// define reads what a command says of a table that it makes, beside its schema.
func (s *scenario) define(d *datadriven.TestData) {
	s.def = TableDef{}
	var durability, mode, maintain string
	d.MaybeScanArgs(s.t, "shards", &s.def.Shards)
	d.MaybeScanArgs(s.t, "durability", &durability)
	d.MaybeScanArgs(s.t, "index-mode", &mode)
	s.def.Durability, s.def.IndexMode = Durability(durability), IndexMode(mode)
	if d.MaybeScanArgs(s.t, "maintain", &maintain) {
		s.def.Maintain = []string{maintain}
	}
}

func (s *scenario) alter(ctx context.Context, name, text string) error {
	t, err := s.db.Table(TableName{Name: name})
	if err != nil {
		return err
	}
	a := unchanged(t)
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		if err := alterLine(&a, line); err != nil {
			return err
		}
	}
	return s.db.AlterTable(ctx, t.Name(), a)
}

func (s *scenario) comment(ctx context.Context, name string, d *datadriven.TestData) error {
	var column string
	d.MaybeScanArgs(s.t, "column", &column)
	var text *string
	if d.Input != "" {
		text = &d.Input
	}
	return s.db.Comment(ctx, TableName{Name: name}, column, text)
}

// comments prints the comments on a table or view.
func (s *scenario) comments(name string) string {
	var c Comments
	if t, err := s.db.Table(TableName{Name: name}); err == nil {
		c = t.Comments()
	}
	for _, v := range s.db.Views() {
		if v.Name.fold() == (TableName{Name: name}).fold() {
			c = v.Comments
		}
	}
	out := "no comment\n"
	if c.Self != nil {
		out = *c.Self + "\n"
	}
	for _, column := range slices.Sorted(maps.Keys(c.Columns)) {
		out += column + ": " + c.Columns[column] + "\n"
	}
	return out
}

// unchanged returns the alteration of a table that changes nothing yet.
func unchanged(t *Table) Alteration {
	a := Alteration{Incarnation: t.Incarnation(), SchemaID: t.SchemaID(), SQL: t.SQL()}
	for _, f := range t.Schema().Fields() {
		a.Columns = append(a.Columns, AlteredColumn{Was: f.Name, Field: f})
	}
	return a
}

// alterLine adds what a line says to an alteration.
func alterLine(a *Alteration, line string) error {
	words := strings.Fields(line)
	i := slices.IndexFunc(a.Columns, func(c AlteredColumn) bool { return c.Field.Name == words[1] })
	if i < 0 && words[0] != "add" {
		return fmt.Errorf("there is no column %q", words[1])
	}
	switch words[0] {
	case "add":
		def, value, has := strings.Cut(strings.TrimPrefix(line, "add "), " = ")
		schema, err := rows.Schema(strings.ReplaceAll(def, " not null", ""))
		if err != nil {
			return err
		}
		c := AlteredColumn{Field: schema.Field(0)}
		c.Field.Nullable = !strings.Contains(def, " not null")
		if has {
			rec, err := rows.Parse(schema, value)
			if err != nil {
				return err
			}
			c.Fill = rec.Column(0)
		}
		a.Columns = append(a.Columns, c)
	case "drop":
		a.Columns = slices.Delete(a.Columns, i, i+1)
	case "rename":
		a.Columns[i].Field.Name = words[2]
	case "widen":
		schema, err := rows.Schema(strings.Join(words[1:], " "))
		if err != nil {
			return err
		}
		a.Columns[i].Field.Type, a.Columns[i].Widen = schema.Field(0).Type, true
	case "forbid-null":
		a.Columns[i].Field.Nullable = false
	}
	return nil
}

func (s *scenario) put(ctx context.Context, name string, deletes bool, text string) error {
	return s.putBatch(ctx, name, deletes, false, text)
}

// putAs is put with what a command says.
func (s *scenario) putAs(ctx context.Context, name string, d *datadriven.TestData, text string) error {
	return s.putBatch(ctx, name, d.HasArg("deletes"), d.HasArg("durable"), text)
}

func (s *scenario) putBatch(ctx context.Context, name string, deletes, durable bool, text string) error {
	t, err := s.db.Table(TableName{Name: name})
	if err != nil {
		return err
	}
	rec, err := rows.Parse(t.now().withTombstones(deletes), text)
	if err != nil {
		return err
	}
	defer rec.Release()
	lsn, err := t.Put(ctx, Batch{Record: rec, Durable: durable})
	if err != nil {
		return err
	}
	return s.db.Wait(ctx, lsn)
}

func (s *scenario) insert(ctx context.Context, name, text string) error {
	t, err := s.db.Table(TableName{Name: name})
	if err != nil {
		return err
	}
	rec, err := rows.Parse(t.Schema(), text)
	if err != nil {
		return err
	}
	defer rec.Release()
	_, err = t.Insert(ctx, rec)
	return err
}

func (s *scenario) stage(ctx context.Context, name string, d *datadriven.TestData) error {
	if !d.HasArg("new") && !d.HasArg("replace") {
		t, err := s.db.Table(TableName{Name: name})
		if err == nil {
			s.stages[name] = t.Stage()
		}
		return err
	}
	as, err := rows.Schema(d.Input)
	if err != nil {
		return err
	}
	s.define(d)
	s.def.Name, s.def.Schema = TableName{Name: name}, as
	st, err := s.db.StageTable(ctx, s.def, d.HasArg("replace"))
	if err == nil {
		s.stages[name] = st
	}
	return err
}

func (s *scenario) stagePut(ctx context.Context, name string, deletes bool, text string) error {
	st := s.stages[name]
	rec, err := rows.Parse(st.Table().now().withTombstones(deletes), text)
	if err != nil {
		return err
	}
	defer rec.Release()
	return st.Put(ctx, Batch{Record: rec})
}

func (s *scenario) scan(ctx context.Context, name string, d *datadriven.TestData) (string, error) {
	var at string
	d.MaybeScanArgs(s.t, "at", &at)
	snap := s.snapshots[at]
	if at == "" {
		var err error
		if snap, err = s.db.Snapshot(ctx); err != nil {
			return "", err
		}
		defer snap.Release()
	}
	v, err := snap.Table(TableName{Name: name})
	if err != nil {
		return "", err
	}
	columns := allColumns(v.Schema())
	if d.HasArg("columns") || d.HasArg("count") {
		columns = nil
		for _, a := range d.CmdArgs {
			for i := 0; a.Key == "columns" && i < len(a.Vals); i++ {
				var c int
				a.Scan(s.t, i, &c)
				columns = append(columns, c)
			}
		}
	}
	lines, err := scanRows(ctx, v, columns)
	if err != nil {
		return "", err
	}
	total := fmt.Sprintf("%d rows\n", len(lines))
	if len(columns) == 0 {
		return total, nil
	}
	return strings.Join(append(lines, total), "\n"), nil
}

// allColumns returns the numbers of all columns of a schema.
func allColumns(s *arrow.Schema) []int {
	columns := make([]int, s.NumFields())
	for i := range columns {
		columns[i] = i
	}
	return columns
}

// scanRows returns the rows of a view as text, sorted.
func scanRows(ctx context.Context, v *View, columns []int) ([]string, error) {
	return scanWith(ctx, v, ScanOptions{Columns: columns})
}

// scanWith is scanRows with all options.
func scanWith(ctx context.Context, v *View, o ScanOptions) ([]string, error) {
	sc, err := v.Scan(ctx, o)
	if err != nil {
		return nil, err
	}
	defer sc.Close()
	var lines []string
	for {
		m, err := sc.Next(ctx)
		if errors.Is(err, io.EOF) {
			slices.Sort(lines)
			return lines, nil
		}
		if err != nil {
			return nil, err
		}
		lines = append(lines, rows.Format(m.Record, m.Live)...)
		m.Release()
	}
}

func (s *scenario) layers(ctx context.Context, name string) (string, error) {
	snap, err := s.db.Snapshot(ctx)
	if err != nil {
		return "", err
	}
	defer snap.Release()
	v, err := snap.Table(TableName{Name: name})
	if err != nil {
		return "", err
	}
	var b strings.Builder
	masks, err := v.baseMask(ctx)
	if err != nil {
		return "", err
	}
	replaced := int64(0)
	for _, m := range masks {
		replaced += m.count()
	}
	x := v.set.base
	fmt.Fprintf(&b, "base version %d: %d fragments, %d rows, %d index segments, %d replaced\n",
		x.version.Number, len(x.frags), x.rows, len(x.indexes), replaced)
	for n, c := range v.set.chains {
		if len(v.set.chains) > 1 {
			fmt.Fprintf(&b, "shard %d\n", n)
		}
		for i, l := range c.layers {
			m, err := v.mask(ctx, c, i)
			if err != nil {
				return "", err
			}
			switch x := l.layer.(type) {
			case *generation:
				fmt.Fprintf(&b, "generation %d: %d rows, %d hidden", x.number, x.frag.rows, x.frag.rows-x.frag.live)
			case *memtable:
				fmt.Fprintf(&b, "memtable: %d rows", x.rows.Load().rowCount())
			}
			fmt.Fprintf(&b, ", %d replaced\n", m.count())
		}
	}
	return b.String(), nil
}

// crash copies the folder while the DB runs, and opens the copy.
func (s *scenario) crash() {
	next := crashCopy(s.t, s.dir)
	s.close()
	s.dir = next
	s.open()
}
