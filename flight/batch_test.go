package flight

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
)

// wireMessage is an IPC message as a client would send it.
type wireMessage struct{ header, body []byte }

// wireMessages collects what an ipc.Writer sends.
type wireMessages struct{ all []wireMessage }

func (w *wireMessages) Start() error { return nil }
func (w *wireMessages) Close() error { return nil }
func (w *wireMessages) WritePayload(p ipc.Payload) error {
	meta := p.Meta()
	defer meta.Release()
	var body bytes.Buffer
	if err := p.SerializeBody(&body); err != nil {
		return err
	}
	w.all = append(w.all, wireMessage{bytes.Clone(meta.Bytes()), body.Bytes()})
	return nil
}

// encodeStream returns the messages of a stream of the records.
func encodeStream(t testing.TB, schema *arrow.Schema, records []arrow.RecordBatch, options ...ipc.Option) []wireMessage {
	t.Helper()
	var out wireMessages
	w := ipc.NewWriterWithPayloadWriter(&out, append(options, ipc.WithSchema(schema))...)
	for _, r := range records {
		require.NoError(t, w.Write(r))
	}
	require.NoError(t, w.Close())
	return out.all
}

// recordOf builds a record from JSON, one object per row.
func recordOf(t testing.TB, schema *arrow.Schema, rows string) arrow.RecordBatch {
	t.Helper()
	r, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader(rows))
	require.NoError(t, err)
	t.Cleanup(r.Release)
	return r
}

// bodyBuffer copies a body into memory of alloc.
func bodyBuffer(alloc memory.Allocator, b []byte) *memory.Buffer {
	buffer := memory.NewResizableBuffer(alloc)
	buffer.Resize(len(b))
	copy(buffer.Bytes(), b)
	return buffer
}

// decodeStream decodes messages with memory that is checked for leaks, and calls each with the batches.
func decodeStream(t testing.TB, messages []wireMessage, each func(decoded)) error {
	t.Helper()
	alloc := memory.NewCheckedAllocator(memory.NewGoAllocator())
	defer alloc.AssertSize(t, 0)
	schema, err := parseSchema(messages[0].header)
	if err != nil {
		return err
	}
	d := newDecoder(schema, alloc, 1<<20)
	defer d.Close()
	for _, m := range messages[1:] {
		body := bodyBuffer(alloc, m.body)
		out, ok, err := d.Decode(m.header, body)
		body.Release()
		if err != nil {
			return err
		}
		if ok {
			each(out)
			out.record.Release()
		}
	}
	return nil
}

// plainTypes is a schema of every type that a table can have, and rows with nulls in each.
func plainTypes(t testing.TB) (*arrow.Schema, arrow.RecordBatch) {
	types := []arrow.DataType{
		arrow.FixedWidthTypes.Boolean, arrow.PrimitiveTypes.Int8, arrow.PrimitiveTypes.Int16, arrow.PrimitiveTypes.Int32,
		arrow.PrimitiveTypes.Int64, arrow.PrimitiveTypes.Uint8, arrow.PrimitiveTypes.Uint16, arrow.PrimitiveTypes.Uint32,
		arrow.PrimitiveTypes.Uint64, arrow.FixedWidthTypes.Float16, arrow.PrimitiveTypes.Float32, arrow.PrimitiveTypes.Float64,
		arrow.BinaryTypes.String, arrow.BinaryTypes.LargeString, arrow.BinaryTypes.Binary, arrow.BinaryTypes.LargeBinary,
		arrow.FixedWidthTypes.Date32, arrow.FixedWidthTypes.Date64, arrow.FixedWidthTypes.Time32ms, arrow.FixedWidthTypes.Time64us,
		arrow.FixedWidthTypes.Timestamp_us, &arrow.TimestampType{Unit: arrow.Nanosecond}, arrow.FixedWidthTypes.Duration_ms,
		&arrow.Decimal128Type{Precision: 20, Scale: 3}, &arrow.Decimal256Type{Precision: 50, Scale: 3},
		&arrow.FixedSizeBinaryType{ByteWidth: 3}, arrow.FixedSizeListOf(3, arrow.PrimitiveTypes.Float32), arrow.Null,
		arrow.ListOf(arrow.BinaryTypes.String), arrow.LargeListOf(arrow.PrimitiveTypes.Int16),
		arrow.StructOf(arrow.Field{Name: "x", Type: arrow.PrimitiveTypes.Int32, Nullable: true}),
		arrow.MapOf(arrow.PrimitiveTypes.Int64, arrow.BinaryTypes.String),
	}
	fields := make([]arrow.Field, len(types))
	for i, typ := range types {
		fields[i] = arrow.Field{Name: typ.String(), Type: typ, Nullable: true}
	}
	schema := arrow.NewSchema(fields, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		for i := range fields {
			appendAny(b.Field(i), random)
		}
	}
	r := b.NewRecordBatch()
	t.Cleanup(r.Release)
	return schema, r
}

// appendAny appends a random value, now and then null.
func appendAny(b array.Builder, random *rand.Rand) {
	if random.IntN(5) == 0 {
		b.AppendNull()
		return
	}
	switch b := b.(type) {
	case *array.StringBuilder:
		b.Append(strings.Repeat("ä", random.IntN(9)))
	case *array.LargeStringBuilder:
		b.Append(strings.Repeat("x", random.IntN(9)))
	case *array.BinaryBuilder:
		b.Append([]byte{0xFF, byte(random.IntN(256))})
	case *array.FixedSizeBinaryBuilder:
		b.Append([]byte{1, 2, byte(random.IntN(256))})
	case *array.Float32Builder:
		b.Append(random.Float32())
	case *array.Float64Builder:
		b.Append(random.Float64())
	case *array.Int16Builder:
		b.Append(int16(random.IntN(1000)))
	case *array.Int64Builder:
		b.Append(random.Int64())
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(random.Int64()))
	case *array.BooleanBuilder:
		b.Append(random.IntN(2) == 0)
	case *array.FixedSizeListBuilder:
		b.Append(true)
		for range 3 {
			appendAny(b.ValueBuilder(), random)
		}
	case *array.MapBuilder:
		b.Append(true)
		for i := range random.IntN(4) {
			b.KeyBuilder().(*array.Int64Builder).Append(int64(i))
			appendAny(b.ItemBuilder(), random)
		}
	case array.ListLikeBuilder:
		b.Append(true)
		for range random.IntN(4) {
			appendAny(b.ValueBuilder(), random)
		}
	case *array.StructBuilder:
		b.Append(true)
		b.FieldBuilder(0).AppendEmptyValue()
	default:
		b.AppendEmptyValue()
	}
}

func TestEveryPlainTypeIsDecodedAsItWas(t *testing.T) {
	schema, record := plainTypes(t)
	slice := record.NewSlice(13, 77)
	defer slice.Release()
	empty := record.NewSlice(0, 0)
	defer empty.Release()
	want := []arrow.RecordBatch{record, slice, empty}
	got := 0
	err := decodeStream(t, encodeStream(t, schema, want), func(d decoded) {
		require.True(t, d.raw)
		require.True(t, array.RecordEqual(want[got], d.record), "batch %d: %v", got, d.record)
		got++
	})
	require.NoError(t, err)
	require.Equal(t, len(want), got)
}

// TestMapsWithNullsForKeysAreRefused: arrow-go panics over them.
func TestMapsWithNullsForKeysAreRefused(t *testing.T) {
	m := arrow.MapOf(arrow.PrimitiveTypes.Int64, arrow.BinaryTypes.String)
	maps := arrow.NewSchema([]arrow.Field{{Name: "m", Type: m, Nullable: true}}, nil)
	entries := arrow.StructOf(arrow.Field{Name: "key", Type: m.KeyType(), Nullable: true}, m.ItemField())
	lists := arrow.NewSchema([]arrow.Field{{Name: "m", Type: arrow.ListOf(entries), Nullable: true}}, nil)
	for _, row := range []string{`{"m": [{"key": null, "value": "x"}]}`, `{"m": [null]}`} {
		rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, lists, strings.NewReader("["+row+"]"))
		require.NoError(t, err)
		defer rec.Release()
		messages := append(encodeStream(t, maps, nil), encodeStream(t, lists, []arrow.RecordBatch{rec})[1:]...)
		require.ErrorContains(t, decodeStream(t, messages, func(decoded) {}), "a map has a key that is null")
	}
}

func TestCompressedBodiesAreDecoded(t *testing.T) {
	schema, record := plainTypes(t)
	for _, codec := range []ipc.Option{ipc.WithLZ4(), ipc.WithZstd()} {
		messages := encodeStream(t, schema, []arrow.RecordBatch{record, record}, codec)
		got := 0
		require.NoError(t, decodeStream(t, messages, func(d decoded) {
			require.False(t, d.raw, "the log would keep a body that only a codec reads")
			require.True(t, array.RecordEqual(record, d.record))
			got++
		}))
		require.Equal(t, 2, got)
	}
}

func TestDictionariesBecomePlainColumns(t *testing.T) {
	encoded := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}
	floats := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Uint16, ValueType: arrow.PrimitiveTypes.Float64}
	flags := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int64, ValueType: arrow.PrimitiveTypes.Int32}
	schema := arrow.NewSchema([]arrow.Field{{Name: "s", Type: encoded, Nullable: true}, {Name: "f", Type: floats, Nullable: true},
		{Name: "b", Type: flags, Nullable: true}, {Name: "i", Type: arrow.PrimitiveTypes.Int64}}, nil)
	plain := arrow.NewSchema([]arrow.Field{{Name: "s", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "f", Type: arrow.PrimitiveTypes.Float64, Nullable: true}, {Name: "b", Type: arrow.PrimitiveTypes.Int32, Nullable: true},
		{Name: "i", Type: arrow.PrimitiveTypes.Int64}}, nil)
	rows := []string{
		`[{"s":"a","f":1.5,"b":7,"i":1},{"s":null,"f":2.5,"b":8,"i":2},{"s":"bb","f":1.5,"b":null,"i":3}]`,
		`[{"s":"a","f":1.5,"b":7,"i":4},{"s":"bb","f":2.5,"b":8,"i":5},{"s":"","f":null,"b":8,"i":6}]`,
	}
	for _, options := range [][]ipc.Option{nil, {ipc.WithDictionaryDeltas(true)}, {ipc.WithZstd()}} {
		var records []arrow.RecordBatch
		for _, r := range rows {
			records = append(records, recordOf(t, schema, r))
		}
		got := 0
		require.NoError(t, decodeStream(t, encodeStream(t, schema, records, options...), func(d decoded) {
			require.False(t, d.raw)
			require.True(t, array.RecordEqual(recordOf(t, plain, rows[got]), d.record), "%v", d.record)
			got++
		}))
		require.Equal(t, 2, got)
	}
}

func TestViewsBecomePlainColumns(t *testing.T) {
	schema := arrow.NewSchema([]arrow.Field{{Name: "s", Type: arrow.BinaryTypes.StringView, Nullable: true},
		{Name: "b", Type: arrow.BinaryTypes.BinaryView, Nullable: true}}, nil)
	plain := arrow.NewSchema([]arrow.Field{{Name: "s", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "b", Type: arrow.BinaryTypes.Binary, Nullable: true}}, nil)
	rows := `[{"s":"short","b":"eHg="},{"s":null,"b":null},{"s":"longer than the twelve bytes of a view","b":"bG9uZ2VyIHRoYW4gdGhlIHR3ZWx2ZSBieXRlcw=="}]`
	called := false
	require.NoError(t, decodeStream(t, encodeStream(t, schema, []arrow.RecordBatch{recordOf(t, schema, rows)}), func(d decoded) {
		called = true
		require.True(t, array.RecordEqual(recordOf(t, plain, rows), d.record), "%v", d.record)
	}))
	require.True(t, called)
}

// patch returns the messages with one of them changed.
func patch(messages []wireMessage, i int, change func(m *wireMessage)) []wireMessage {
	out := make([]wireMessage, len(messages))
	for j, m := range messages {
		out[j] = wireMessage{bytes.Clone(m.header), bytes.Clone(m.body)}
	}
	change(&out[i])
	return out
}

// batchVectors returns the nodes and the buffers of a record batch's header, to be changed in place.
func batchVectors(t testing.TB, header []byte) (nodes, buffers []byte) {
	t.Helper()
	head, err := parseHeader(header)
	require.NoError(t, err)
	nodes, _, err = head.fb.vector(1, 16)
	require.NoError(t, err)
	buffers, _, err = head.fb.vector(2, 16)
	require.NoError(t, err)
	return nodes, buffers
}

func TestHostileBatchesAreRefused(t *testing.T) {
	schema := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
		{Name: "s", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "v", Type: arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Float32), Nullable: true}}, nil)
	record := recordOf(t, schema, `[{"id":1,"s":"one","v":[1,2]},{"id":null,"s":"two","v":null},{"id":3,"s":null,"v":[5,6]}]`)
	messages := encodeStream(t, schema, []arrow.RecordBatch{record})
	// Buffers: id validity, id values, s validity, s offsets, s bytes, v validity, element validity, elements.
	setBuffer := func(i int, offset, length int64) func(*wireMessage) {
		return func(m *wireMessage) {
			_, buffers := batchVectors(t, m.header)
			binary.LittleEndian.PutUint64(buffers[16*i:], uint64(offset))
			binary.LittleEndian.PutUint64(buffers[16*i+8:], uint64(length))
		}
	}
	setNode := func(i int, rows, nulls int64) func(*wireMessage) {
		return func(m *wireMessage) {
			nodes, _ := batchVectors(t, m.header)
			binary.LittleEndian.PutUint64(nodes[16*i:], uint64(rows))
			binary.LittleEndian.PutUint64(nodes[16*i+8:], uint64(nulls))
		}
	}
	setOffset := func(i int, to int32) func(*wireMessage) {
		return func(m *wireMessage) {
			_, buffers := batchVectors(t, m.header)
			at := binary.LittleEndian.Uint64(buffers[16*3:])
			binary.LittleEndian.PutUint32(m.body[at+4*uint64(i):], uint32(to))
		}
	}
	for _, c := range []struct {
		name   string
		change func(*wireMessage)
		want   string
	}{
		{"buffer beyond the body", setBuffer(1, 1<<40, 24), "lies outside the body"},
		{"buffer of negative length", setBuffer(1, 0, -8), "lies outside the body"},
		{"buffer that overflows", setBuffer(1, 8, 1<<63-1), "lies outside the body"},
		{"buffer at an odd place", setBuffer(1, 3, 8), "no multiple of 8"},
		{"buffer too short", setBuffer(1, 0, 8), "the rows need 24"},
		{"rows beyond the values", setNode(0, 1<<25, 1), "the rows need"},
		{"rows that overflow", setNode(0, 1<<62, 1), "cannot be"},
		{"negative rows", setNode(0, -1, 0), "cannot be"},
		{"column shorter than the batch", setNode(0, 2, 1), "2 rows in a batch of 3"},
		{"too few list elements", setNode(3, 5, 0), "have 5 elements, want 6"},
		{"offsets that fall", setOffset(2, 1), "below the"},
		{"a negative offset", setOffset(1, -5), "below the"},
		{"an offset beyond the text", setOffset(3, 1000), "beyond the"},
		{"no body", func(m *wireMessage) { m.body = nil }, "lies outside the body of 0 bytes"},
		{"a truncated header", func(m *wireMessage) { m.header = m.header[:len(m.header)/2] }, "flatbuffer"},
		{"no header", func(m *wireMessage) { m.header = nil }, "flatbuffer"},
		{"text that is not UTF-8", func(m *wireMessage) {
			_, buffers := batchVectors(t, m.header)
			m.body[binary.LittleEndian.Uint64(buffers[16*4:])] = 0xFF
		}, "not UTF-8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := decodeStream(t, patch(messages, 1, c.change), func(decoded) { t.Error("it was decoded") })
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestWrongNullCountIsCorrectedAndNotLogged(t *testing.T) {
	schema := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64, Nullable: true}}, nil)
	record := recordOf(t, schema, `[{"id":1},{"id":null},{"id":3}]`)
	messages := patch(encodeStream(t, schema, []arrow.RecordBatch{record}), 1, func(m *wireMessage) {
		nodes, _ := batchVectors(t, m.header)
		binary.LittleEndian.PutUint64(nodes[8:], ^uint64(0))
	})
	require.NoError(t, decodeStream(t, messages, func(d decoded) {
		require.False(t, d.raw)
		require.Equal(t, 1, d.record.Column(0).NullN())
	}))
}

func TestBytesUnderANullAreNobodysBusiness(t *testing.T) {
	schema := arrow.NewSchema([]arrow.Field{{Name: "s", Type: arrow.BinaryTypes.String, Nullable: true}}, nil)
	bytesSchema := arrow.NewSchema([]arrow.Field{{Name: "s", Type: arrow.BinaryTypes.Binary, Nullable: true}}, nil)
	b := array.NewBinaryBuilder(memory.DefaultAllocator, arrow.BinaryTypes.Binary)
	defer b.Release()
	b.AppendValues([][]byte{[]byte("ok"), {0xFF, 0xFE}, []byte("fine")}, nil)
	whole := b.NewBinaryArray()
	defer whole.Release()
	validity := memory.NewBufferBytes([]byte{0b101, 0, 0, 0, 0, 0, 0, 0})
	data := array.NewData(arrow.BinaryTypes.Binary, 3, []*memory.Buffer{validity, whole.Data().Buffers()[1], whole.Data().Buffers()[2]}, nil, 1, 0)
	defer data.Release()
	masked := array.MakeFromData(data)
	defer masked.Release()
	record := array.NewRecordBatch(bytesSchema, []arrow.Array{masked}, 3)
	defer record.Release()
	messages := encodeStream(t, bytesSchema, []arrow.RecordBatch{record})
	messages[0] = encodeStream(t, schema, nil)[0]
	got := ""
	require.NoError(t, decodeStream(t, messages, func(d decoded) { got = d.record.Column(0).String() }))
	require.Equal(t, `["ok" (null) "fine"]`, got)
}

func TestDecodingHasALimit(t *testing.T) {
	schema := arrow.NewSchema([]arrow.Field{{Name: "s", Type: arrow.BinaryTypes.String}}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	b.Field(0).(*array.StringBuilder).Append(strings.Repeat("bomb", 1<<19))
	record := b.NewRecordBatch()
	defer record.Release()
	for _, codec := range []ipc.Option{ipc.WithLZ4(), ipc.WithZstd()} {
		err := decodeStream(t, encodeStream(t, schema, []arrow.RecordBatch{record}, codec), func(decoded) { t.Error("it was decoded") })
		require.ErrorIs(t, err, errTooLarge)
	}

	encoded := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}
	schema = arrow.NewSchema([]arrow.Field{{Name: "s", Type: encoded}}, nil)
	row := `{"s":"` + strings.Repeat("x", 64<<10) + `"}`
	record = recordOf(t, schema, "["+strings.Repeat(row+",", 31)+row+"]")
	err := decodeStream(t, encodeStream(t, schema, []arrow.RecordBatch{record}), func(decoded) { t.Error("it was decoded") })
	require.ErrorIs(t, err, errTooLarge)
}

// FuzzDecode changes bytes of valid streams. Whatever comes out must be safe to read to its last value.
func FuzzDecode(f *testing.F) {
	schema, record := plainTypes(f)
	small := record.NewSlice(0, 9)
	defer small.Release()
	encoded := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}
	lookup := arrow.NewSchema([]arrow.Field{{Name: "s", Type: encoded, Nullable: true}, {Name: "v", Type: arrow.BinaryTypes.StringView, Nullable: true}}, nil)
	words := recordOf(f, lookup, `[{"s":"a","v":"a view longer than twelve bytes"},{"s":null,"v":"b"},{"s":"bb","v":null}]`)
	streams := [][]wireMessage{
		encodeStream(f, schema, []arrow.RecordBatch{small}),
		encodeStream(f, schema, []arrow.RecordBatch{small}, ipc.WithLZ4()),
		encodeStream(f, schema, []arrow.RecordBatch{small}, ipc.WithZstd()),
		encodeStream(f, lookup, []arrow.RecordBatch{words}),
	}
	random := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		f.Add(byte(random.IntN(256)), random.Uint64(), random.Uint64())
	}
	f.Fuzz(func(t *testing.T, which byte, seed1, seed2 uint64) {
		random := rand.New(rand.NewPCG(seed1, seed2))
		messages := streams[int(which)%len(streams)]
		messages = patch(messages, 1+random.IntN(len(messages)-1), func(m *wireMessage) { damage(random, m) })
		_ = decodeStream(t, messages, func(d decoded) { readAll(t, d.record) })
	})
}

// damage changes some bytes of a message, with numbers that are likely to hurt.
func damage(random *rand.Rand, m *wireMessage) {
	part := m.header
	if random.IntN(3) == 0 && len(m.body) > 0 {
		part = m.body
	}
	for range 1 + random.IntN(4) {
		at := random.IntN(len(part))
		switch random.IntN(4) {
		case 0:
			part[at] ^= 1 << random.IntN(8)
		case 1:
			part[at] = byte(random.IntN(256))
		case 2:
			if at = at &^ 7; at+8 <= len(part) {
				hostile := []uint64{0, 1, 8, 1 << 20, 1 << 31, 1<<32 - 1, 1 << 40, 1<<63 - 1, 1 << 63, 1<<64 - 1}
				binary.LittleEndian.PutUint64(part[at:], hostile[random.IntN(len(hostile))])
			}
		case 3:
			if at = at &^ 3; at+4 <= len(part) {
				binary.LittleEndian.PutUint32(part[at:], uint32(random.IntN(2*len(part))))
			}
		}
	}
}

// readAll reads every value of a record.
func readAll(t testing.TB, record arrow.RecordBatch) {
	for _, column := range record.Columns() {
		require.EqualValues(t, record.NumRows(), column.Len())
		for i := range min(column.Len(), 1000) {
			_ = column.ValueStr(i)
		}
	}
	payload, err := ipc.GetRecordBatchPayload(record)
	require.NoError(t, err)
	payload.Release()
}
