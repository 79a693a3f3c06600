package wal

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

func TestALogInAFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "log")
	ctx := context.Background()
	end, err := Replay(dir, 0, func(*Record) error { return nil })
	require.NoError(t, err)
	require.Equal(t, State{}, end)
	require.NoError(t, Verify(dir))
	require.NoDirExists(t, dir)

	var want []*Record
	for life := range uint64(4) {
		l, err := Open(Options{Dir: dir, End: end, SegmentBytes: 64 << 10})
		require.NoError(t, err)
		for id := range uint64(50) {
			rec := testRecord(life<<32|id, int(id)*200)
			_, err := l.Append(ctx, rec)
			require.NoError(t, err)
			want = append(want, rec)
		}
		require.NoError(t, l.WaitDurable(ctx, l.AppendedLSN()))
		upTo := want[len(want)*2/3].LSN
		require.NoError(t, l.Trim(upTo))
		require.NoError(t, l.Close())
		require.NoError(t, Verify(dir))

		var got []replayed
		end, err = Replay(dir, upTo, func(r *Record) error {
			got = append(got, replayed{*r, bytes.Join(r.Body, nil)})
			return nil
		})
		require.NoError(t, err)
		tail := want[len(want)*2/3+1:]
		require.Len(t, got, len(tail))
		for i := range tail {
			requireRecord(t, tail[i], got[i])
		}
	}
	var out bytes.Buffer
	require.NoError(t, Describe(&out, dir, nil))
	require.Contains(t, out.String(), "end: last record 4-50")

	name := filepath.Join(dir, segmentName(end.tail.segment))
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{1, 2, 3}, firstGroup+70)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	var damage *object.CorruptError
	for _, err := range []error{Verify(dir), Describe(&out, dir, nil)} {
		require.ErrorAs(t, err, &damage)
		require.Equal(t, name, damage.Name)
	}
	_, err = ReplayAll(dir, func(*Record) error { return nil })
	require.ErrorAs(t, err, &damage)
	_, err = Replay(dir, 0, func(*Record) error { return nil })
	require.ErrorContains(t, err, "segments are missing") // those that were trimmed
}

func TestAReplayEndsWithItsFunction(t *testing.T) {
	d := newCrashDisk()
	l := openTest(t, d, Options{})
	_, err := l.Append(context.Background(), testRecord(1, 1), testRecord(2, 1))
	require.NoError(t, err)
	require.NoError(t, l.Close())
	n := 0
	_, err = replay(d, 0, func(*Record) error { n++; return errInjected })
	require.ErrorIs(t, err, errInjected)
	require.ErrorContains(t, err, "1-1")
	require.Equal(t, 1, n)
	require.Zero(t, d.handles)
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{{}, {Dir: "x", SegmentBytes: 100}, {Dir: "x", SegmentBytes: 2 << 30}, {Dir: "x", SegmentBytes: 1<<20 + 1}} {
		_, err := Open(o)
		require.ErrorContains(t, err, "wal: Options.")
	}
}
