package lsm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/python"
	"github.com/flightd/flightd/internal/rows"
)

// bucketValues are values of a type, as JSON.
var bucketValues = []struct {
	typ    arrow.DataType
	values string
}{
	{arrow.FixedWidthTypes.Boolean, `[true, false]`},
	{arrow.PrimitiveTypes.Int8, `[0, 1, -1, 127, -128]`},
	{arrow.PrimitiveTypes.Int16, `[0, 1, -1, 32767, -32768]`},
	{arrow.PrimitiveTypes.Int32, `[1, 2, 3, 0, -1, 2147483647, -2147483648]`},
	{arrow.PrimitiveTypes.Int64, `[0, 1, -1, 34359738368, 9223372036854775807, -9223372036854775808]`},
	{arrow.PrimitiveTypes.Uint8, `[0, 1, 255]`},
	{arrow.PrimitiveTypes.Uint16, `[0, 1, 65535]`},
	{arrow.PrimitiveTypes.Uint32, `[0, 1, 4294967295]`},
	{arrow.PrimitiveTypes.Uint64, `[0, 1, 9223372036854775808, 18446744073709551615]`},
	{arrow.PrimitiveTypes.Date32, `[1, 2, 3, -1]`},
	{arrow.FixedWidthTypes.Timestamp_us, `[0, 1, -1, 1700000000000000]`},
	{&arrow.TimestampType{Unit: arrow.Nanosecond}, `[0, 1, -1, 1700000000000000000]`},
	{arrow.BinaryTypes.String, `["a", "b", "", "abcd", "abcde", "äöü", "a longer text, of thirty-four bytes"]`},
	{arrow.BinaryTypes.LargeString, `["a", "abc", "ÿ"]`},
}

// bucketRecord returns a batch with one column of the values.
func bucketRecord(t *testing.T, typ arrow.DataType, values string) arrow.RecordBatch {
	t.Helper()
	col, _, err := array.FromJSON(memory.DefaultAllocator, typ, bytes.NewReader([]byte(values)))
	require.NoError(t, err)
	defer col.Release()
	return array.NewRecordBatch(arrow.NewSchema([]arrow.Field{{Name: "id", Type: typ}}, nil), []arrow.Array{col}, int64(col.Len()))
}

// TestBucketsOfLance checks values whose buckets Lance's own tests name.
func TestBucketsOfLance(t *testing.T) {
	for _, c := range []struct {
		typ    arrow.DataType
		values string
		want   []uint16
	}{
		{arrow.PrimitiveTypes.Int32, `[1, 2, 3]`, []uint16{2, 7, 1}},
		{arrow.PrimitiveTypes.Date32, `[1, 2, 3]`, []uint16{2, 7, 1}},
		{arrow.BinaryTypes.String, `["a", "b"]`, []uint16{1, 5}},
		{arrow.FixedWidthTypes.Boolean, `[true]`, []uint16{2}},
	} {
		rec := bucketRecord(t, c.typ, c.values)
		codec, err := newKeyCodec(rec.Schema(), []string{"id"})
		require.NoError(t, err)
		require.Equal(t, c.want, codec.shardsOf(rec, 8), c.typ)
		rec.Release()
	}
}

// TestBucketsOfDecimalsAndBinaries checks hashes that Spark has of types that Lance has none of.
func TestBucketsOfDecimalsAndBinaries(t *testing.T) {
	hash := func(typ arrow.DataType, value string) int32 {
		rec := bucketRecord(t, typ, value)
		defer rec.Release()
		codec, err := newKeyCodec(rec.Schema(), []string{"id"})
		require.NoError(t, err)
		return codec.hashKey(codec.normalise(rec, nil), 0)
	}
	require.Equal(t, hashLong(15), hash(&arrow.Decimal128Type{Precision: 18, Scale: 1}, `["1.5"]`))
	require.Equal(t, hashLong(-15), hash(&arrow.Decimal128Type{Precision: 18, Scale: 1}, `["-1.5"]`))
	require.Equal(t, hashBytes([]byte{15}), hash(&arrow.Decimal128Type{Precision: 38, Scale: 1}, `["1.5"]`))
	require.Equal(t, hashBytes([]byte{0xF1}), hash(&arrow.Decimal128Type{Precision: 38, Scale: 1}, `["-1.5"]`))
	require.Equal(t, hashBytes([]byte{0, 0x80}), hash(&arrow.Decimal128Type{Precision: 38, Scale: 0}, `["128"]`))
	require.Equal(t, hashBytes([]byte{0}), hash(&arrow.Decimal128Type{Precision: 38, Scale: 0}, `["0"]`))
	require.Equal(t, hashBytes([]byte("abc")), hash(arrow.BinaryTypes.Binary, `["YWJj"]`))
	require.Equal(t, hashBytes([]byte("abc")), hash(&arrow.FixedSizeBinaryType{ByteWidth: 3}, `["YWJj"]`))
}

// TestBucketsOfKeysAreThoseOfTheirRows compares the shard that a row goes to with the one in which its key is looked for,
// for keys of one column and of two.
func TestBucketsOfKeysAreThoseOfTheirRows(t *testing.T) {
	types := append(bucketValues[:len(bucketValues):len(bucketValues)], []struct {
		typ    arrow.DataType
		values string
	}{
		{arrow.BinaryTypes.Binary, `["", "YWJj", "AAAA", "AAEA"]`},
		{&arrow.FixedSizeBinaryType{ByteWidth: 3}, `["YWJj", "AAAA"]`},
		{&arrow.Decimal128Type{Precision: 10, Scale: 2}, `["1.50", "-1.50", "0.00"]`},
		{&arrow.Decimal128Type{Precision: 38, Scale: 2}, `["1.50", "-1.50", "0.00", "-100000000000000000000000.00"]`},
		{arrow.FixedWidthTypes.Date64, `[0, 86400000, -86400000]`},
	}...)
	for _, c := range types {
		rec := bucketRecord(t, c.typ, c.values)
		two := array.NewRecordBatch(arrow.NewSchema([]arrow.Field{{Name: "x", Type: c.typ}, {Name: "id", Type: c.typ}}, nil),
			[]arrow.Array{rec.Column(0), rec.Column(0)}, rec.NumRows())
		for _, key := range [][]string{{"id"}, {"id", "x"}} {
			codec, err := newKeyCodec(two.Schema(), key)
			require.NoError(t, err)
			keys := codec.normalise(two, nil)
			for i, s := range codec.shardsOf(two, 7) {
				require.EqualValues(t, s, bucketOf(codec.hashKey(keys, i), 7), "%s, key %v, row %d", c.typ, key, i)
			}
		}
		two.Release()
		rec.Release()
	}
}

// pylance runs a script with an argument and returns what it prints as JSON.
func pylance(t *testing.T, into any, script, arg string) {
	t.Helper()
	require.NoError(t, json.Unmarshal(python.Run(t, script, arg), into))
}

// TestPylanceHasTheSameBuckets has Lance evaluate a sharding spec on the same values.
func TestPylanceHasTheSameBuckets(t *testing.T) {
	const script = `import json, lance, pyarrow as pa, sys
batch = pa.ipc.open_stream(sys.argv[1]).read_next_batch()
ds = lance.write_dataset(pa.table(batch), sys.argv[1] + ".lance")
ds.initialize_mem_wal(bucket_column="id", num_buckets=1000)
spec = lance.dataset(ds.uri).mem_wal_index_details()["sharding_specs"][0]
print(json.dumps(lance.evaluate_sharding_spec(batch, spec, ds.lance_schema).column(0).to_pylist()))`
	for _, c := range bucketValues {
		rec := bucketRecord(t, c.typ, c.values)
		codec, err := newKeyCodec(rec.Schema(), []string{"id"})
		require.NoError(t, err)
		name := filepath.Join(t.TempDir(), "batch")
		f, err := os.Create(name)
		require.NoError(t, err)
		w := ipc.NewWriter(f, ipc.WithSchema(rec.Schema()))
		require.NoError(t, errors.Join(w.Write(rec), w.Close(), f.Close()))
		var got []uint16
		pylance(t, &got, script, name)
		require.Equal(t, codec.shardsOf(rec, 1000), got, c.typ)
		rec.Release()
	}
}

// TestPylanceReadsShards has Lance read a table with several shards, say what it knows of them, and find their rows as
// we do.
func TestPylanceReadsShards(t *testing.T) {
	const script = `import json, lance, sys
ds = lance.dataset(sys.argv[1])
rows = ds.to_table()
details = ds.mem_wal_index_details()
buckets = lance.evaluate_sharding_spec(rows.combine_chunks().to_batches()[0], details["sharding_specs"][0], ds.lance_schema)
print(json.dumps({"details": details, "rows": dict(zip(rows["key"].to_pylist(), buckets.column(0).to_pylist()))}))`
	ctx, dir := context.Background(), t.TempDir()
	db := openTest(t, dir)
	table := createShards(t, db, "t", writesSchema, 3)
	keys := make([]int64, 100)
	for i := range keys {
		keys[i] = int64(i)
	}
	putKeys(t, db, table, 1, keys...)
	shards := map[int64]int{}
	for i, c := range table.set.Load().chains {
		for _, b := range c.active().rows.Load().batches {
			for _, k := range b.rec.Column(0).(*array.Int64).Values() {
				shards[k] = i
			}
		}
	}
	require.NoError(t, db.Optimize(ctx, table.Name()))
	require.NoError(t, db.Close())
	var got struct {
		Details struct {
			NumShards int `json:"num_shards"`
			Specs     []struct {
				Fields []struct {
					ID         string            `json:"field_id"`
					Sources    []int             `json:"source_ids"`
					Transform  string            `json:"transform"`
					Result     string            `json:"result_type"`
					Parameters map[string]string `json:"parameters"`
				} `json:"fields"`
			} `json:"sharding_specs"`
		} `json:"details"`
		Rows map[int64]int `json:"rows"`
	}
	pylance(t, &got, script, filepath.Join(dir, "t.lance"))
	require.Equal(t, shards, got.Rows)
	require.Equal(t, 3, got.Details.NumShards)
	f := got.Details.Specs[0].Fields[0]
	require.Equal(t, "bucket/bucket/int32/3", f.ID+"/"+f.Transform+"/"+f.Result+"/"+f.Parameters["num_buckets"])
	require.Equal(t, []int{0}, f.Sources)
}

// TestPartsTakeNoMoreThanWasTakenForThem admits batches that are cut: the memory of the parts is waited for with that of the
// batch, since both are there until the log has it, and what they do not need goes back.
func TestPartsTakeNoMoreThanWasTakenForThem(t *testing.T) {
	ctx, r := context.Background(), rand.New(rand.NewPCG(21, 22))
	db := openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	for i, schema := range []string{"k int64 key, v int64", "k int64 key, a utf8, b bool, c double", "k utf8 key, v binary"} {
		for shards := 1; shards <= 9; shards += 4 {
			table := createShards(t, db, fmt.Sprintf("t%d_%d", i, shards), schema, shards)
			for range 50 {
				var lines []string
				for range 1 + r.IntN(1+r.IntN(300)) {
					line := fmt.Sprint(r.IntN(1000))
					for _, f := range table.Schema().Fields()[1:] {
						switch f.Type.ID() {
						case arrow.BOOL:
							line += " true"
						case arrow.STRING, arrow.BINARY:
							line += " " + strings.Repeat("61", r.IntN(20)+1)
						default:
							line += " 1"
						}
					}
					lines = append(lines, line)
				}
				rec, err := rows.Parse(table.Schema(), strings.Join(lines, "\n"))
				require.NoError(t, err)
				b := Batch{Record: rec}
				p, err := table.admit(ctx, b)
				require.NoError(t, err)
				parts := int64(0)
				for _, x := range p.parts {
					parts += x.bytes
				}
				require.LessOrEqual(t, parts, table.splitBytes(b))
				require.Equal(t, p.held(), db.budget.used.Load())
				p.drop(table)
				require.Zero(t, db.budget.used.Load())
				rec.Release()
			}
		}
	}
}
