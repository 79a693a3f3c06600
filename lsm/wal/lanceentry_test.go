package wal

import (
	"bytes"
	"context"
	"encoding/binary"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// lanceSchema is that of an entry as Lance writes it.
var lanceSchema = arrow.NewSchema([]arrow.Field{{Name: "k", Type: arrow.PrimitiveTypes.Int64}, {Name: "v", Type: arrow.BinaryTypes.String, Nullable: true},
	{Name: "_tombstone", Type: arrow.FixedWidthTypes.Boolean}}, nil)

// lanceEntry returns an entry with two rows, without a schema a sentinel.
func lanceEntry(t testing.TB, schema *arrow.Schema) []byte {
	t.Helper()
	meta, fields := map[string]string{metaEpoch: "3", metaSentinel: "true"}, []arrow.Field(nil)
	if schema != nil {
		meta, fields = map[string]string{metaEpoch: "3", metaGeneration: "7"}, schema.Fields()
	}
	md := arrow.MetadataFrom(meta)
	s := arrow.NewSchema(fields, &md)
	var out bytes.Buffer
	w := ipc.NewWriter(&out, ipc.WithSchema(s))
	if schema != nil {
		b := array.NewRecordBuilder(memory.DefaultAllocator, s)
		defer b.Release()
		b.Field(0).(*array.Int64Builder).AppendValues([]int64{5, 6}, nil)
		b.Field(1).(*array.StringBuilder).AppendValues([]string{"five", ""}, []bool{true, false})
		b.Field(2).(*array.BooleanBuilder).AppendValues([]bool{false, true}, nil)
		rec := b.NewRecordBatch()
		defer rec.Release()
		require.NoError(t, w.Write(rec))
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}

func TestEntriesOfLanceAreRead(t *testing.T) {
	st := object.NewMem()
	ctx := context.Background()
	require.NoError(t, st.Put(ctx, "wal/1", lanceEntry(t, lanceSchema)))
	e, err := ReadLanceEntry(ctx, st, "wal/1", 4)
	require.NoError(t, err)
	defer e.Release()
	require.Equal(t, []uint64{4, 3, 7}, []uint64{e.Position, e.Epoch, e.Generation})
	require.False(t, e.Sentinel)
	require.EqualValues(t, 2, e.Rows())
	require.Equal(t, "five", e.Batches[0].Column(1).ValueStr(0))

	own, err := sealSentinel(9)
	require.NoError(t, err)
	for epoch, b := range map[uint64][]byte{3: lanceEntry(t, nil), 9: own} {
		e, err := decodeLanceEntry(b)
		require.NoError(t, err)
		require.True(t, e.Sentinel)
		require.Equal(t, epoch, e.Epoch)
		require.Empty(t, e.Batches)
	}
}

// TestDamagedEntriesOfLance cuts an entry off at every byte, and makes its offsets lead out of it.
func TestDamagedEntriesOfLance(t *testing.T) {
	good := lanceEntry(t, lanceSchema)
	for n := range good {
		_, err := decodeLanceEntry(good[:n])
		require.Error(t, err, "%d of %d bytes", n, len(good))
	}
	_, err := decodeLanceEntry(append(bytes.Clone(good), 0))
	require.ErrorContains(t, err, "1 bytes follow the end")
	at := bytes.Index(good, []byte("five"))
	offsets := bytes.LastIndex(good[:at], binary.LittleEndian.AppendUint32(nil, 4))
	bad := bytes.Clone(good)
	binary.LittleEndian.PutUint32(bad[offsets:], 1<<30)
	_, err = decodeLanceEntry(bad)
	require.ErrorContains(t, err, "offsets")

	other := entryOfOurs(t)
	_, err = decodeLanceEntry(other)
	require.ErrorContains(t, err, "another flightd")
}

// entryOfOurs returns an entry with a record of flightd's.
func entryOfOurs(t *testing.T) []byte {
	t.Helper()
	e := newEntry(&Stream{})
	require.NoError(t, e.add(&Record{LSN: 1, Kind: Idempotency, Body: [][]byte{{1}}}, nil, false))
	b, err := e.seal(1, 1)
	require.NoError(t, err)
	return b
}
