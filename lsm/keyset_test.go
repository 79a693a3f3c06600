package lsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/manifest"
)

// domainSize is how many values the keys of a keyTable take in each column.
const domainSize = 40

// keyTypes are the types of keys, with ascending values to draw from: the order that the test knows is that of their
// places in the list.
func keyTypes(r *rand.Rand) map[string]arrow.Array {
	out := map[string]arrow.Array{}
	ints := make([]int64, 0, domainSize)
	for i := range int64(domainSize) {
		ints = append(ints, i-domainSize/2)
	}
	edges := append([]int64{math.MinInt64, math.MinInt64 + 1}, ints[2:domainSize-2]...)
	edges = append(edges, math.MaxInt64-1, math.MaxInt64)
	small := append([]int64{math.MinInt8}, ints[1:domainSize-1]...)
	small = append(small, math.MaxInt8)
	dec := &arrow.Decimal128Type{Precision: 38, Scale: 2}
	for name, dt := range map[string]arrow.DataType{
		"int8": arrow.PrimitiveTypes.Int8, "int64": arrow.PrimitiveTypes.Int64, "uint8": arrow.PrimitiveTypes.Uint8,
		"uint64": arrow.PrimitiveTypes.Uint64, "date32": arrow.FixedWidthTypes.Date32, "timestamp": arrow.FixedWidthTypes.Timestamp_us,
		"decimal": dec, "utf8": arrow.BinaryTypes.String, "large_utf8": arrow.BinaryTypes.LargeString,
		"binary": arrow.BinaryTypes.Binary, "fixed": &arrow.FixedSizeBinaryType{ByteWidth: 2},
	} {
		b := array.NewBuilder(memory.DefaultAllocator, dt)
		texts := someTexts(r, name == "fixed")
		for i := range domainSize {
			switch b := b.(type) {
			case *array.Int8Builder:
				b.Append(int8(small[i]))
			case *array.Int64Builder:
				b.Append(edges[i])
			case *array.Uint8Builder:
				b.Append(uint8(i * 255 / (domainSize - 1)))
			case *array.Uint64Builder:
				b.Append(uint64(edges[i]) ^ 1<<63)
			case *array.Date32Builder:
				b.Append(arrow.Date32(ints[i]))
			case *array.TimestampBuilder:
				b.Append(arrow.Timestamp(edges[i]))
			case *array.Decimal128Builder:
				b.Append(decimal128.New(ints[i]/3, uint64(i)))
			case *array.StringBuilder:
				b.Append(texts[i])
			case *array.LargeStringBuilder:
				b.Append(texts[i])
			case *array.BinaryBuilder:
				b.Append([]byte(texts[i]))
			case *array.FixedSizeBinaryBuilder:
				b.Append([]byte(texts[i]))
			}
		}
		out[name] = b.NewArray()
		b.Release()
	}
	return out
}

// someTexts returns different texts in ascending order, among them such that begin with others and have the bytes that
// the keys of several columns escape.
func someTexts(r *rand.Rand, two bool) []string {
	letters := []string{"\x00", "\x01", "a", "\x7f", "\xc3\xbf"}
	seen := map[string]bool{}
	for len(seen) < domainSize {
		var t string
		if two {
			t = string([]byte{byte(r.IntN(3) * 127), byte(r.IntN(256))})
		} else {
			for range r.IntN(5) {
				t += letters[r.IntN(len(letters))]
			}
		}
		seen[t] = true
	}
	out := make([]string, 0, domainSize)
	for t := range seen {
		out = append(out, t)
	}
	slices.Sort(out)
	return out
}

// keyTable is a table whose columns after those of the key say the places of the key's values in their domains.
type keyTable struct {
	t       *testing.T
	r       *rand.Rand
	db      *DB
	dir     string
	table   *Table
	domains []arrow.Array
	seq     int64
	// rows is the number of each row that lives, by the places of its key.
	rows map[string]int64
	// old is a snapshot of a while ago with the rows that it had then, nil when there is none.
	old    *Snapshot
	oldAll []string
}

func newKeyTable(t *testing.T, r *rand.Rand, mode IndexMode, domains ...arrow.Array) *keyTable {
	k := &keyTable{t: t, r: r, dir: t.TempDir(), domains: domains, rows: map[string]int64{}}
	var fields []arrow.Field
	var key []string
	for i, d := range domains {
		key = append(key, fmt.Sprintf("k%d", i))
		fields = append(fields, arrow.Field{Name: key[i], Type: d.DataType()})
	}
	for i := range domains {
		fields = append(fields, arrow.Field{Name: fmt.Sprintf("n%d", i), Type: arrow.PrimitiveTypes.Int64, Nullable: true})
	}
	fields = append(fields, arrow.Field{Name: "seq", Type: arrow.PrimitiveTypes.Int64, Nullable: true})
	k.open()
	require.NoError(t, k.db.CreateTable(context.Background(), TableDef{Name: TableName{Name: "t"}, Schema: arrow.NewSchema(fields, nil), Key: key, IndexMode: mode}))
	k.find()
	return k
}

// open opens the DB, which puts the keys of memtables in order at once or when that pays.
func (k *keyTable) open() {
	var err error
	k.db, err = Open(context.Background(), Options{Dir: k.dir, wrap: faulty, Memory: minMemory, MemtableBytes: 256 << 10,
		SegmentBytes: 1 << 20, eagerOrder: k.r.IntN(3) > 0})
	require.NoError(k.t, err)
}

func (k *keyTable) find() {
	var err error
	k.table, err = k.db.Table(TableName{Name: "t"})
	require.NoError(k.t, err)
}

// column returns the values of a domain at some places.
func column(domain arrow.Array, places []int64) arrow.Array {
	parts := make([]arrow.Array, len(places))
	for i, p := range places {
		parts[i] = array.NewSlice(domain, p, p+1)
		defer parts[i].Release()
	}
	if len(parts) == 0 {
		return array.NewSlice(domain, 0, 0)
	}
	out, err := array.Concatenate(parts, memory.DefaultAllocator)
	if err != nil {
		panic(err)
	}
	return out
}

// put writes random rows, some of which delete their keys.
func (k *keyTable) put(rows int) error {
	places := make([][]int64, len(k.domains))
	var cols []arrow.Array
	for i, d := range k.domains {
		for range rows {
			places[i] = append(places[i], k.r.Int64N(int64(d.Len())))
		}
		cols = append(cols, column(d, places[i]))
	}
	b := array.NewInt64Builder(memory.DefaultAllocator)
	for i := range k.domains {
		b.AppendValues(places[i], nil)
		cols = append(cols, b.NewArray())
	}
	tombs := array.NewBooleanBuilder(memory.DefaultAllocator)
	written := map[string]int64{} // 0 deletes
	for i := range rows {
		k.seq++
		b.Append(k.seq)
		dead := k.r.IntN(4) == 0
		tombs.Append(dead)
		var at []int64
		for c := range k.domains {
			at = append(at, places[c][i])
		}
		if written[fmt.Sprint(at)] = k.seq; dead {
			written[fmt.Sprint(at)] = 0
		}
	}
	cols = append(cols, b.NewArray(), tombs.NewArray())
	rec := array.NewRecordBatch(k.table.now().withTombstones(true), cols, int64(rows))
	defer rec.Release()
	k.db.holdIndexes.Store(k.r.IntN(2) == 0)
	lsn, err := k.table.Put(context.Background(), Batch{Record: rec})
	if err == nil {
		err = k.db.Wait(context.Background(), lsn)
	}
	for key, seq := range written {
		if k.rows[key] = seq; seq == 0 {
			delete(k.rows, key)
		}
	}
	return err
}

// expected returns the rows as scans have them.
func (k *keyTable) expected() []string {
	var out []string
	for key, seq := range k.rows {
		out = append(out, fmt.Sprintf("%s %d]", strings.TrimSuffix(key, "]"), seq))
	}
	return out
}

// checkAll reads all rows, those of the old snapshot, too, which it then lets go for one of now.
func (k *keyTable) checkAll(r *rand.Rand) {
	if k.old != nil {
		k.readsAll(k.old, k.oldAll)
		v, err := k.old.Table(TableName{Name: "t"})
		require.NoError(k.t, err)
		k.compare(r, v, 2)
		k.old.Release()
	}
	var err error
	k.old, err = k.db.Snapshot(context.Background())
	require.NoError(k.t, err)
	k.oldAll = k.expected()
	k.readsAll(k.old, k.oldAll)
	k.getSome(r)
}

// getSome gets rows by their keys.
func (k *keyTable) getSome(r *rand.Rand) {
	for range 8 {
		var key []arrow.Array
		var places []int64
		for _, d := range k.domains {
			places = append(places, r.Int64N(int64(d.Len())))
			key = append(key, column(d, places[len(places)-1:]))
		}
		row, err := k.table.Get(context.Background(), key, k.places())
		require.NoError(k.t, err)
		seq, ok := k.rows[fmt.Sprint(places)]
		require.Equal(k.t, ok, row != nil, "%v", places)
		if ok {
			require.EqualValues(k.t, 1, row.NumRows())
			require.Equal(k.t, seq, row.Column(len(places)).(*array.Int64).Value(0))
			row.Release()
		}
	}
}

// readsAll compares all rows of a snapshot with a list.
func (k *keyTable) readsAll(s *Snapshot, want []string) {
	v, err := s.Table(TableName{Name: "t"})
	require.NoError(k.t, err)
	all, _, err := k.read(v, nil)
	require.NoError(k.t, err)
	require.ElementsMatch(k.t, want, all)
}

// dropIndexes commits a version of the base without its key index, as programs that do not keep it up leave it.
func (k *keyTable) dropIndexes() {
	ctx := context.Background()
	v, err := manifest.Latest(ctx, k.db.st, k.table.root, manifest.Options{})
	require.NoError(k.t, err)
	var ids []uuid.UUID
	for _, x := range v.Indexes {
		if x.BTree() {
			ids = append(ids, x.UUID)
		}
	}
	if len(ids) > 0 {
		_, err = manifest.Commit(ctx, k.db.st, k.table.root, v, manifest.Change{RemoveIndexes: ids}, manifest.Options{})
		require.NoError(k.t, err)
	}
}

// A wanted is a set of keys as the test knows it: boxes of places, closed.
type wanted struct {
	set   *KeySet
	boxes [][][2]int64
	exact bool // nothing but points
}

func (w *wanted) has(places []int64) bool {
	return slices.ContainsFunc(w.boxes, func(box [][2]int64) bool {
		for i, b := range box {
			if places[i] < b[0] || places[i] > b[1] {
				return false
			}
		}
		return true
	})
}

// some draws a set of keys.
func (k *keyTable) some(r *rand.Rand, v *View) *wanted {
	w := &wanted{set: v.NewKeySet(), exact: true}
	for range 1 + r.IntN(3) {
		if r.IntN(2) == 0 {
			k.somePoints(r, w)
		} else {
			w.exact = false
			k.someRange(r, w)
		}
	}
	return w
}

// somePoints adds keys, or prefixes of keys.
func (k *keyTable) somePoints(r *rand.Rand, w *wanted) {
	width, n := 1+r.IntN(len(k.domains)), 1+r.IntN(4)
	w.exact = w.exact && width == len(k.domains)
	var values []arrow.Array
	boxes := make([][][2]int64, n)
	for _, d := range k.domains[:width] {
		var places []int64
		for i := range n {
			places = append(places, r.Int64N(domainSize))
			boxes[i] = append(boxes[i], [2]int64{places[i], places[i]})
		}
		values = append(values, column(d, places))
	}
	require.NoError(k.t, w.set.Add(values))
	w.boxes = append(w.boxes, boxes...)
}

// someRange adds a range of the column behind a prefix, often an empty one.
func (k *keyTable) someRange(r *rand.Rand, w *wanted) {
	var prefix []arrow.Array
	var box [][2]int64
	at := r.IntN(len(k.domains))
	for _, d := range k.domains[:at] {
		p := r.Int64N(domainSize)
		prefix = append(prefix, column(d, []int64{p}))
		box = append(box, [2]int64{p, p})
	}
	var bounds [2]KeyBound
	last := [2]int64{0, domainSize - 1}
	for i := range bounds {
		if r.IntN(4) == 0 {
			continue
		}
		p := r.Int64N(domainSize)
		bounds[i] = KeyBound{Value: column(k.domains[at], []int64{p}), Exclusive: r.IntN(2) == 0}
		last[i] = p
		if bounds[i].Exclusive {
			last[i] += []int64{1, -1}[i]
		}
	}
	require.NoError(k.t, w.set.AddRange(prefix, bounds[0], bounds[1]))
	w.boxes = append(w.boxes, append(box, last))
}

// read returns the rows of a scan: what a row says of its key's places, and its number.
func (k *keyTable) read(v *View, keys *KeySet) ([]string, [][]int64, error) {
	return k.readPart(v, ScanOptions{Keys: keys})
}

func (k *keyTable) readPart(v *View, o ScanOptions) ([]string, [][]int64, error) {
	ctx := context.Background()
	o.Columns = k.places()
	sc, err := v.Scan(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	defer sc.Close()
	var texts []string
	var places [][]int64
	for {
		m, err := sc.Next(ctx)
		if errors.Is(err, io.EOF) {
			return texts, places, nil
		}
		if err != nil {
			return nil, nil, err
		}
		for i := range m.Record.NumRows() {
			if m.Live != nil && !slices.Contains(m.Live, uint32(i)) {
				continue
			}
			var row []int64
			for c := range m.Record.Columns() {
				row = append(row, m.Record.Column(c).(*array.Int64).Value(int(i)))
			}
			texts, places = append(texts, fmt.Sprint(row)), append(places, row)
		}
		m.Release()
	}
}

// places are the columns that say the key's places, and seq.
func (k *keyTable) places() []int {
	var out []int
	for i := range len(k.domains) + 1 {
		out = append(out, len(k.domains)+i)
	}
	return out
}

// check compares scans of random keys with the scan of everything.
func (k *keyTable) check(r *rand.Rand, n int) {
	snap, err := k.db.Snapshot(context.Background())
	require.NoError(k.t, err)
	defer snap.Release()
	v, err := snap.Table(TableName{Name: "t"})
	require.NoError(k.t, err)
	if r.IntN(2) == 0 {
		k.compare(r, v, n) // before anything has extended a mask
	}
	_, _, err = k.read(v, nil)
	require.NoError(k.t, err)
	k.compare(r, v, n)
}

func (k *keyTable) compare(r *rand.Rand, v *View, n int) {
	type answer struct {
		w     *wanted
		texts []string
	}
	var got []answer
	for range n {
		w := k.some(r, v)
		texts, _, err := k.read(v, w.set)
		require.NoError(k.t, err)
		got = append(got, answer{w, texts})
		var parts []string
		for part := range 3 {
			texts, _, err := k.readPart(v, ScanOptions{Keys: w.set, Part: part, Parts: 3})
			require.NoError(k.t, err)
			parts = append(parts, texts...)
		}
		require.ElementsMatch(k.t, texts, parts, "parts")
	}
	all, places, err := k.read(v, nil)
	require.NoError(k.t, err)
	for _, a := range got {
		var want []string
		for i, text := range all {
			if a.w.has(places[i]) {
				want = append(want, text)
			}
		}
		twice := slices.Compact(slices.Sorted(slices.Values(a.texts)))
		require.Len(k.t, twice, len(a.texts), "a row comes twice")
		for _, text := range a.texts {
			require.Contains(k.t, all, text, "a row that the table has not")
		}
		if a.w.exact {
			require.ElementsMatch(k.t, want, a.texts)
		}
		require.Subset(k.t, a.texts, want, "%v", a.w.boxes)
	}
}

// TestScanOfKeysEqualsFilteredScan draws tables of every type of key, in all layers, with replaced and deleted rows,
// and compares scans of some keys with what the whole table has under them, and that with a list of the rows. Where
// indexes may follow, half of the batches find them held back.
func TestScanOfKeysEqualsFilteredScan(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 1))
	types := keyTypes(r)
	cases := map[string][]arrow.Array{}
	for name, d := range types {
		cases[name] = []arrow.Array{d}
	}
	cases["utf8 and int64"] = []arrow.Array{types["utf8"], types["int64"]}
	cases["binary, decimal and uint8"] = []arrow.Array{types["binary"], types["decimal"], types["uint8"]}
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for n := range cases {
			if !yield(n) {
				return
			}
		}
	}) {
		for _, mode := range []IndexMode{Sync, Async} {
			t.Run(strings.ReplaceAll(name, " ", "_")+"/"+string(mode), func(t *testing.T) {
				k := newKeyTable(t, r, mode, cases[name]...)
				defer func() { require.NoError(t, k.db.Close()) }()
				for range fewer[int64](14, 3) {
					k.checkAll(r)
					k.step()
					k.check(r, 4)
				}
				k.old.Release()
			})
		}
	}
}

// step changes the table's rows or layers.
func (k *keyTable) step() {
	ctx, name := context.Background(), TableName{Name: "t"}
	switch k.r.IntN(9) {
	case 0, 1:
		require.NoError(k.t, k.db.Flush(ctx, name))
	case 2, 3:
		require.NoError(k.t, k.db.Optimize(ctx, name))
	case 4:
		require.NoError(k.t, k.db.Close())
		k.open()
		k.find()
	case 5:
		k.dropIndexes()
		require.NoError(k.t, k.put(20))
		require.NoError(k.t, k.db.Optimize(ctx, name))
	default:
		require.NoError(k.t, k.put(1+k.r.IntN(60)))
	}
}

// TestScanOfKeysDuringWrites compares scans of keys with the whole of the same snapshot while rows are written,
// flushed and merged: the key index of a memtable is then ahead of the snapshot.
func TestScanOfKeysDuringWrites(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	k := newKeyTable(t, r, Async, keyTypes(r)["utf8"])
	defer func() { require.NoError(t, k.db.Close()) }()
	require.NoError(t, k.put(100))
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			err := k.put(30)
			if err == nil && i%20 == 7 {
				err = k.db.Flush(context.Background(), TableName{Name: "t"})
			}
			if err == nil && i%50 == 13 {
				err = k.db.Optimize(context.Background(), TableName{Name: "t"})
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	mine := rand.New(rand.NewPCG(5, 6))
	for range 60 {
		k.check(mine, 4)
	}
	close(stop)
	require.NoError(t, <-done)
}

// TestAfterPrefix has prefixes without a successor.
func TestAfterPrefix(t *testing.T) {
	require.Equal(t, []byte{1, 3}, afterPrefix([]byte{1, 2}))
	require.Equal(t, []byte{2}, afterPrefix([]byte{1, 0xFF, 0xFF}))
	require.Nil(t, afterPrefix(bytes.Repeat([]byte{0xFF}, 3)))
	require.Nil(t, afterPrefix(nil))
}

// TestDescribedTuplesAreTheirValues reads a key of several columns back for a message: empty texts, zero bytes that are
// escaped, and negative numbers.
func TestDescribedTuplesAreTheirValues(t *testing.T) {
	schema := arrow.NewSchema([]arrow.Field{{Name: "a", Type: arrow.BinaryTypes.Binary}, {Name: "b", Type: arrow.PrimitiveTypes.Int32},
		{Name: "c", Type: arrow.BinaryTypes.String}, {Name: "d", Type: &arrow.Decimal128Type{Precision: 5, Scale: 2}}}, nil)
	codec, err := newKeyCodec(schema, []string{"a", "b", "c", "d"})
	require.NoError(t, err)
	rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader(
		`[{"a":"AAD/AQ==","b":-7,"c":"","d":"-1.5"},{"a":"","b":7,"c":"x\u0000y","d":"2.25"}]`))
	require.NoError(t, err)
	defer rec.Release()
	keys := codec.normalise(rec, nil)
	for i, want := range []string{"(0x0000ff01, -7, , -1.5)", "(0x, 7, x\x00y, 2.25)"} {
		run := &keyRun{codec: codec, wide: [][]byte{keys.wide(i)}}
		require.Equal(t, want, run.describe(0))
	}
}
