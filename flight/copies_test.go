package flight

import (
	"bytes"
	"context"
	"reflect"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/offheap"
	"github.com/flightd/flightd/lsm"
)

// TestReceivedBytesAreWhatReadersGet sends a batch over the wire and reads it from the memtable: its columns lie where the
// message's body had them, one behind the other, in one block of memory outside the Go heap, and there is no second block of
// that size: nobody holds a copy of its own.
func TestReceivedBytesAreWhatReadersGet(t *testing.T) {
	ctx, h := context.Background(), serve(t)
	h.createTable("events", false)
	record := events(t, false, 0, 300_000, "some text")
	messages := dataOf(t, pathTo("events"), eventSchema(false), record)
	body := messages[len(messages)-1].DataBody
	before := offheap.Default.InUse()
	_, err := h.rawPut(messages...)
	require.NoError(t, err)
	require.Less(t, offheap.Default.InUse()-before, int64(len(body))*3/2, "a body of %d bytes is in memory more than once", len(body))

	snapshot, err := h.db.Snapshot(ctx)
	require.NoError(t, err)
	defer snapshot.Release()
	view, err := snapshot.Table(lsm.TableName{Name: "events"})
	require.NoError(t, err)
	scan, err := view.Scan(ctx, lsm.ScanOptions{Columns: []int{0, 1}})
	require.NoError(t, err)
	defer scan.Close()
	m, err := scan.Next(ctx)
	require.NoError(t, err)
	defer m.Release()
	require.Equal(t, record.NumRows(), m.Record.NumRows())
	stored, sent := buffersOf(m.Record), buffersOf(record)
	require.Equal(t, len(sent), len(stored))
	first, at := reflect.ValueOf(stored[0]).Pointer(), 0
	for i, b := range stored {
		require.True(t, bytes.Equal(sent[i], b[:len(sent[i])]), "buffer %d has other bytes", i)
		off := int(reflect.ValueOf(b).Pointer() - first)
		require.GreaterOrEqual(t, off, at, "buffer %d does not lie behind the one before", i)
		at = off + len(sent[i])
	}
	require.LessOrEqual(t, at, len(body), "the buffers are further apart than in the message")
}

// buffersOf returns the buffers of a record's columns but for those that say what is null: nothing is.
func buffersOf(record arrow.RecordBatch) (out [][]byte) {
	for _, c := range record.Columns() {
		for _, b := range c.Data().Buffers()[1:] {
			out = append(out, b.Bytes())
		}
	}
	return out
}
