package wal

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/python"
	"github.com/flightd/flightd/object"
)

// readEntries prints what Arrow reads in the entries of a folder, as a reader of Lance's MemWAL would: by position until
// there is none, with the metadata that are Lance's.
const readEntries = `
import os, sys
import pyarrow as pa
position = 1
while True:
    name = os.path.join(sys.argv[1], format(position, "064b")[::-1] + ".arrow")
    if not os.path.exists(name):
        break
    with pa.ipc.open_stream(open(name, "rb").read()) as r:
        m = r.schema.metadata
        print(position, m[b"writer_epoch"].decode(), m.get(b"generation", b"-").decode(), m.get(b"fence_sentinel", b"-").decode(),
              [list(zip(*b.to_pydict().values())) for b in r])
    position += 1
`

// TestArrowReadsEntriesAsLanceLaysThemOut has another implementation of Arrow read a stream.
func TestArrowReadsEntriesAsLanceLaysThemOut(t *testing.T) {
	python.Need(t)
	dir := t.TempDir()
	st := object.NewLocal(dir)
	id := uuid.New()
	for epoch := uint64(1); epoch < 3; epoch++ {
		s := testStream(id, epoch)
		s.Generation.Store(6 + epoch)
		b, _ := openBucket(t, st, BucketOptions{Epoch: epoch}, s)
		for i := int64(1); i < 3; i++ {
			lsn, err := b.Append(t.Context(), numbered(id, 2, i, i+1), numbered(id, 2, 9), &Record{Kind: Idempotency, Shard: id, Body: [][]byte{{0xff}}})
			require.NoError(t, err)
			require.NoError(t, b.WaitDurable(t.Context(), lsn))
		}
		require.NoError(t, b.Close())
	}
	out := python.Run(t, readEntries, filepath.Join(dir, testStream(id, 1).Dir))
	var want strings.Builder
	for epoch := range 2 {
		p := 3 * epoch
		fmt.Fprintf(&want, "%d %d - true []\n", p+1, epoch+1)
		fmt.Fprintf(&want, "%d %d %d - [[(1, 1, False), (2, 2, True)], [(9, 9, False)]]\n", p+2, epoch+1, epoch+7)
		fmt.Fprintf(&want, "%d %d %d - [[(2, 2, True), (3, 3, False)], [(9, 9, False)]]\n", p+3, epoch+1, epoch+7)
	}
	require.Equal(t, want.String(), string(out))
}
