package flight

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	flatbuffers "github.com/google/flatbuffers/go"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/lsm"
)

func TestSchemasAreReadAsTheyWere(t *testing.T) {
	schema, _ := plainTypes(t)
	meta := arrow.NewMetadata([]string{"k"}, []string{"v"})
	fields := schema.Fields()
	fields[0].Metadata = arrow.NewMetadata([]string{"lance-schema:unenforced-primary-key"}, []string{"true"})
	schema = arrow.NewSchema(fields, &meta)
	got, err := parseSchema(encodeStream(t, schema, nil)[0].header)
	require.NoError(t, err)
	require.True(t, schema.Equal(got.plain))
	require.Equal(t, schema.Field(0).Metadata, got.plain.Field(0).Metadata)
	require.Equal(t, schema.Metadata(), got.plain.Metadata())
}

func TestColumnsThatCannotBeReadAreNamed(t *testing.T) {
	sorted := arrow.MapOf(arrow.BinaryTypes.String, arrow.PrimitiveTypes.Int8)
	sorted.KeysSorted = true
	for _, c := range []struct {
		typ  arrow.DataType
		want string
	}{
		{sorted, `column "c": type map`},
		{arrow.RunEndEncodedOf(arrow.PrimitiveTypes.Int32, arrow.BinaryTypes.String), `column "c": type run_end`},
		{arrow.ListViewOf(arrow.PrimitiveTypes.Int8), `column "c": type list_view`},
		{arrow.DenseUnionOf([]arrow.Field{{Name: "a", Type: arrow.PrimitiveTypes.Int8}}, []arrow.UnionTypeCode{0}), "union"},
		{arrow.ListOf(&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.FixedWidthTypes.Boolean}), `column "c": item: a dictionary of bool`},
		{arrow.StructOf(arrow.Field{Name: "m", Type: arrow.MapOf(arrow.BinaryTypes.String, arrow.ListViewOf(arrow.PrimitiveTypes.Int8))}), `column "c": m: entries: value: type list_view`},
		{&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.ListOf(arrow.PrimitiveTypes.Int8)}, `column "c": a dictionary of list`},
	} {
		schema := arrow.NewSchema([]arrow.Field{{Name: "c", Type: c.typ}}, nil)
		_, err := parseSchema(encodeStream(t, schema, nil)[0].header)
		require.ErrorContains(t, err, c.want)
	}
}

// TestSchemasWithSharedVtablesAreRead has an extension before dictionaries, upon which arrow-go lets the table of a
// dictionary share the vtable of a metadata pair.
func TestSchemasWithSharedVtablesAreRead(t *testing.T) {
	dictionary := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int16, ValueType: arrow.BinaryTypes.String}
	name := arrow.NewMetadata([]string{"ARROW:extension:name", "ARROW:extension:metadata"}, []string{"a.b", ""})
	schema := arrow.NewSchema([]arrow.Field{{Name: "x", Type: arrow.PrimitiveTypes.Int8, Metadata: name}, {Name: "a", Type: dictionary},
		{Name: "b", Type: dictionary}, {Name: "c", Type: arrow.ListOf(dictionary)}}, nil)
	got, err := parseSchema(encodeStream(t, schema, nil)[0].header)
	require.NoError(t, err)
	require.Len(t, got.dictionaries, 3)
	require.True(t, schema.Equal(lsm.WireSchema(got.plain)), "%s", got.plain)
	require.Equal(t, name, got.plain.Field(0).Metadata)
}

// deepSchema returns a schema message with a column of the depth. With back, the innermost field is the outermost
// again: flatbuffers' offsets are unsigned 32-bit numbers, which wrap around.
func deepSchema(depth int, back bool) []byte {
	b := flatbuffers.NewBuilder(1024)
	name := b.CreateString("x")
	list := func() flatbuffers.UOffsetT {
		b.StartObject(0)
		return b.EndObject()
	}
	var child flatbuffers.UOffsetT
	for range depth {
		var children flatbuffers.UOffsetT
		if child != 0 || back {
			b.StartVector(4, 1, 4)
			if child != 0 {
				b.PrependUOffsetT(child)
			} else {
				b.PrependUint32(0)
			}
			children = b.EndVector(1)
		}
		typ := list()
		b.StartObject(7)
		b.PrependUOffsetTSlot(0, name, 0)
		b.PrependByteSlot(2, 12, 0) // List
		b.PrependUOffsetTSlot(3, typ, 0)
		if children != 0 {
			b.PrependUOffsetTSlot(5, children, 0)
		}
		child = b.EndObject()
	}
	b.StartVector(4, 1, 4)
	b.PrependUOffsetT(child)
	fields := b.EndVector(1)
	b.StartObject(4)
	b.PrependUOffsetTSlot(1, fields, 0)
	schema := b.EndObject()
	b.StartObject(5)
	b.PrependInt16Slot(0, 4, 0)
	b.PrependByteSlot(1, headerSchema, 0)
	b.PrependUOffsetTSlot(2, schema, 0)
	b.Finish(b.EndObject())
	return b.FinishedBytes()
}

func TestDeepAndCyclicSchemasAreRefused(t *testing.T) {
	_, err := parseSchema(deepSchema(100_000, false))
	require.ErrorContains(t, err, "levels")

	// The innermost child points to itself: a vector whose element's offset is 0.
	_, err = parseSchema(deepSchema(2, true))
	require.Error(t, err)
}

func TestSchemasWhoseStringsOverlapAreRefused(t *testing.T) {
	b := flatbuffers.NewBuilder(1024)
	name := b.CreateString(strings.Repeat("n", 4096))
	var fields []flatbuffers.UOffsetT
	for range 64 {
		b.StartObject(0)
		typ := b.EndObject()
		b.StartObject(7)
		b.PrependUOffsetTSlot(0, name, 0)
		b.PrependByteSlot(2, 1, 0) // Null
		b.PrependUOffsetTSlot(3, typ, 0)
		fields = append(fields, b.EndObject())
	}
	b.StartVector(4, len(fields), 4)
	for _, f := range fields {
		b.PrependUOffsetT(f)
	}
	vector := b.EndVector(len(fields))
	b.StartObject(4)
	b.PrependUOffsetTSlot(1, vector, 0)
	schema := b.EndObject()
	b.StartObject(5)
	b.PrependInt16Slot(0, 4, 0)
	b.PrependByteSlot(1, headerSchema, 0)
	b.PrependUOffsetTSlot(2, schema, 0)
	b.Finish(b.EndObject())
	_, err := parseSchema(b.FinishedBytes())
	require.ErrorContains(t, err, "strings overlap")
}

// FuzzSchema changes bytes of a valid schema message.
func FuzzSchema(f *testing.F) {
	schema, _ := plainTypes(f)
	header := encodeStream(f, schema, nil)[0].header
	random := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		f.Add(random.Uint64(), random.Uint64())
	}
	f.Fuzz(func(t *testing.T, seed1, seed2 uint64) {
		m := wireMessage{header: bytes.Clone(header)}
		damage(rand.New(rand.NewPCG(seed1, seed2)), &m)
		if got, err := parseSchema(m.header); err == nil {
			require.Equal(t, got.wire.NumFields(), got.plain.NumFields())
		}
	})
}

func TestFlatbufferTablesStayInside(t *testing.T) {
	for _, b := range [][]byte{nil, {1}, {0xFF, 0xFF, 0xFF, 0xFF}, {4, 0, 0, 0}, {4, 0, 0, 0, 0, 0, 0, 0x80},
		binary.LittleEndian.AppendUint32([]byte{4, 0, 0, 0}, 1<<31-1)} {
		_, err := fbRoot(b)
		require.ErrorIs(t, err, errFlatbuffer)
	}
}
