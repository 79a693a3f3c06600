package spill

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// stores are where side files may lie; the one in memory does not show a Reader what is written after it was opened.
func stores(t *testing.T) map[string]object.Store {
	return map[string]object.Store{"local": object.NewLocal(t.TempDir()), "mem": object.NewMem()}
}

// readAll returns the bytes of a stream.
func readAll(f *File, stream int) (all []byte, err error) {
	err = f.Read(stream, func(b []byte) error {
		all = append(all, b...)
		return nil
	})
	return all, err
}

// requireEmpty checks that nothing is left in a store.
func requireEmpty(t *testing.T, st object.Store) {
	t.Helper()
	infos, err := st.List(t.Context(), ".")
	require.NoError(t, err)
	for _, in := range infos {
		files, err := st.List(t.Context(), in.Name)
		require.NoError(t, err)
		require.Empty(t, files, "left in %s", in.Name)
	}
}

// TestStreamsComeBackAsTheyWereAppended appends pieces of all sizes to streams at random, and reads now and then.
func TestStreamsComeBackAsTheyWereAppended(t *testing.T) {
	for name, st := range stores(t) {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(30) {
				random := rand.New(rand.NewPCG(seed, 7))
				folder := NewFolder(st, nil)
				o := Options{Streams: 1 + random.IntN(40), BufferBytes: int64(random.IntN(20_000))}
				f, err := folder.OpenFile(o)
				require.NoError(t, err)
				want := make([][]byte, o.Streams)
				for range 600 {
					stream, size := random.IntN(o.Streams), random.IntN(30)
					if random.IntN(20) == 0 {
						size = random.IntN(3000)
					}
					piece := make([]byte, size)
					for i := range piece {
						piece[i] = byte(random.Uint32())
					}
					require.NoError(t, f.Append(stream, piece))
					want[stream] = append(want[stream], piece...)
					clear(piece) // nothing of it was kept
					if random.IntN(50) == 0 {
						all, err := readAll(f, stream)
						require.NoError(t, err)
						require.True(t, bytes.Equal(want[stream], all), "seed %d", seed)
					}
				}
				for i := range want {
					require.LessOrEqual(t, cap(f.streams[i].buf), f.limit)
					all, err := readAll(f, i)
					require.NoError(t, err)
					require.True(t, bytes.Equal(want[i], all), "seed %d, stream %d", seed, i)
				}
				require.Equal(t, f.Bytes(), folder.Used())
				require.NoError(t, f.Close())
				require.NoError(t, f.Close())
				require.Zero(t, folder.Used())
				requireEmpty(t, st)
			}
		})
	}
}

// TestFormat pins what lies where: chunks of whole pieces, one behind the other, as their buffers became full.
func TestFormat(t *testing.T) {
	root := t.TempDir()
	folder := NewFolder(object.NewLocal(root), nil)
	f, err := folder.OpenFile(Options{Streams: 2, BufferBytes: 1})
	require.NoError(t, err)
	piece := func(stream int, c byte, n int) {
		require.NoError(t, f.Append(stream, bytes.Repeat([]byte{c}, n)))
	}
	piece(0, 'a', 40)
	piece(1, 'x', 64) // as large as a buffer: written at once
	require.Equal(t, int64(64), f.Bytes())
	piece(0, 'b', 24) // the buffer is full to the byte
	piece(1, 'y', 1)
	require.Equal(t, int64(64), f.Bytes())
	piece(0, 'c', 1)
	piece(0, 'd', 100) // larger than a buffer, behind what waits in it
	piece(0, 'e', 2)

	file, err := os.ReadFile(filepath.Join(root, f.name))
	require.NoError(t, err)
	runs := func(parts ...any) (b []byte) {
		for i := 0; i < len(parts); i += 2 {
			b = append(b, bytes.Repeat([]byte(parts[i].(string)), parts[i+1].(int))...)
		}
		return b
	}
	require.Equal(t, runs("x", 64, "a", 40, "b", 24, "c", 1, "d", 100), file)
	require.Equal(t, 4, f.Chunks())
	var got []string
	require.NoError(t, f.Read(0, func(b []byte) error {
		got = append(got, fmt.Sprintf("%c%d", b[0], len(b)))
		return nil
	}))
	require.Equal(t, []string{"a64", "c1", "d100", "e2"}, got)
	require.Equal(t, uintptr(16), reflect.TypeFor[chunk]().Size())
	require.NoError(t, f.Close())
	_, err = os.Stat(filepath.Join(root, f.name))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestWhatFitsIsNotWritten: no file is made while the buffers hold everything.
func TestWhatFitsIsNotWritten(t *testing.T) {
	st := object.NewMem()
	f, err := NewFolder(st, nil).OpenFile(Options{Streams: 4})
	require.NoError(t, err)
	for i := range 4 {
		require.NoError(t, f.Append(i, make([]byte, 64<<10-1)))
	}
	all, err := readAll(f, 2)
	require.NoError(t, err)
	require.Len(t, all, 64<<10-1)
	requireEmpty(t, st)
	require.NoError(t, f.Append(2, make([]byte, 2)))
	require.Equal(t, int64(64<<10-1), f.Bytes())
	require.NoError(t, f.Close())
	requireEmpty(t, st)
}

// TestMemoryIsBounded appends a hundred megabytes: what is kept of it is the buffers and the chunks.
func TestMemoryIsBounded(t *testing.T) {
	f, err := NewFolder(discard{object.NewMem()}, nil).OpenFile(Options{Streams: 100})
	require.NoError(t, err)
	piece := make([]byte, 110)
	for i := range 1_000_000 {
		require.NoError(t, f.Append(i%100, piece))
	}
	buffers, chunks := 0, 0
	for _, s := range f.streams {
		buffers += cap(s.buf)
		chunks += cap(s.chunks)
	}
	require.LessOrEqual(t, buffers, defaultBufferBytes)
	require.Less(t, chunks*16, 2*(110_000_000/2500)*16, "chunks that are much smaller than the buffers")
	require.NoError(t, f.Close())
}

// discard is a store whose files take everything and keep nothing.
type discard struct{ object.Store }

func (discard) Create(context.Context, string) (object.Writer, error) {
	return discardWriter{io.Discard}, nil
}

type discardWriter struct{ io.Writer }

func (discardWriter) Close() error { return nil }
func (discardWriter) Abort()       {}

func TestOptionsAreChecked(t *testing.T) {
	folder := NewFolder(object.NewMem(), nil)
	_, err := folder.OpenFile(Options{})
	require.ErrorContains(t, err, "0 streams")
	_, err = folder.OpenFile(Options{Streams: 1, BufferBytes: -1})
	require.ErrorContains(t, err, "-1 bytes")
}
