package spill

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// faulty is a store whose disk becomes full, or gives back less than it took.
type faulty struct {
	object.Store
	room  int   // bytes that can be written
	short bool  // a write that does not fit writes what does, and says nothing
	lose  int64 // bytes that are missing from the end of a file that is read
	fail  error // of reads
}

func (s *faulty) Create(ctx context.Context, name string) (object.Writer, error) {
	w, err := s.Store.Create(ctx, name)
	return &faultyWriter{w, s}, err
}

func (s *faulty) Open(ctx context.Context, name string) (object.Reader, error) {
	r, err := s.Store.Open(ctx, name)
	return &faultyReader{r, s}, err
}

type faultyWriter struct {
	object.Writer
	st *faulty
}

func (w *faultyWriter) Write(p []byte) (int, error) {
	if len(p) <= w.st.room {
		w.st.room -= len(p)
		return w.Writer.Write(p)
	}
	n, err := w.Writer.Write(p[:w.st.room])
	if err == nil && !w.st.short {
		err = syscall.ENOSPC
	}
	return n, err
}

type faultyReader struct {
	object.Reader
	st *faulty
}

func (r *faultyReader) ReadAt(p []byte, off int64) (int, error) {
	if r.st.fail != nil {
		return 0, r.st.fail
	}
	if left := r.Size() - r.st.lose - off; left < int64(len(p)) {
		n, _ := r.Reader.ReadAt(p[:max(left, 0)], off)
		return n, io.EOF
	}
	return r.Reader.ReadAt(p, off)
}

// filled returns a file of two streams with chunks on the disk.
func filled(t *testing.T, folder *Folder) *File {
	f, err := folder.OpenFile(Options{Streams: 2, BufferBytes: 200})
	require.NoError(t, err)
	for i := range 100 {
		require.NoError(t, f.Append(i%2, []byte{byte(i), 1, 2, 3, 4, 5, 6, 7, 8, 9}))
	}
	require.Equal(t, 8, f.Chunks())
	return f
}

// TestDiskFullWhileSpilling: the error stays, also when there is room again, because nobody knows what of it was written.
func TestDiskFullWhileSpilling(t *testing.T) {
	for room := range 250 {
		for _, short := range []bool{false, true} {
			st := &faulty{Store: object.NewMem(), room: room, short: short}
			folder := NewFolder(st, nil)
			f, err := folder.OpenFile(Options{Streams: 2, BufferBytes: 200})
			require.NoError(t, err)
			for i := 0; err == nil; i++ {
				require.Less(t, i, 100)
				err = f.Append(i%2, make([]byte, 10))
			}
			want := error(syscall.ENOSPC)
			if short {
				want = io.ErrShortWrite
			}
			require.ErrorIs(t, err, want)
			require.ErrorContains(t, err, f.name)
			st.room = 1 << 20
			require.ErrorIs(t, f.Append(0, []byte{1}), want)
			_, err = readAll(f, 0)
			require.ErrorIs(t, err, want)
			require.NoError(t, f.Close())
			require.Zero(t, folder.Used())
			requireEmpty(t, st)
		}
	}
}

// TestTheFileCannotBeMade: so says the first chunk.
func TestTheFileCannotBeMade(t *testing.T) {
	root := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(root, nil, 0o600))
	f, err := NewFolder(object.NewLocal(root), nil).OpenFile(Options{Streams: 1, BufferBytes: 64})
	require.NoError(t, err)
	require.ErrorIs(t, f.Append(0, make([]byte, 100)), syscall.ENOTDIR)
	require.NoError(t, f.Close())
}

// TestShortReads: a chunk that is not all there is damage with its place.
func TestShortReads(t *testing.T) {
	st := &faulty{Store: object.NewMem(), room: 1 << 20}
	f := filled(t, NewFolder(st, nil))
	for lose := int64(1); lose <= f.Bytes(); lose++ {
		st.lose = lose
		_, err0 := readAll(f, 0)
		_, err1 := readAll(f, 1)
		corrupt := &object.CorruptError{}
		require.ErrorAs(t, errors.Join(err0, err1), &corrupt)
		require.Equal(t, f.name, corrupt.Name)
		require.Less(t, corrupt.Offset, f.Bytes())
	}
	st.lose, st.fail = 0, syscall.EIO
	_, err := readAll(f, 0)
	require.ErrorIs(t, err, syscall.EIO)
	corrupt := &object.CorruptError{}
	require.NotErrorAs(t, err, &corrupt, "a disk that does not answer says nothing of the bytes")
	st.fail = nil
	_, err = readAll(f, 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// TestFlippedBytes flips each byte of a file: the stream that has it is damaged there, and the other is not.
func TestFlippedBytes(t *testing.T) {
	root := t.TempDir()
	f := filled(t, NewFolder(object.NewLocal(root), nil))
	file, err := os.OpenFile(filepath.Join(root, f.name), os.O_RDWR, 0)
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	for at := range f.Bytes() {
		b := make([]byte, 1)
		_, err := file.ReadAt(b, at)
		require.NoError(t, err)
		for _, wrong := range []byte{b[0] ^ 1, b[0] ^ 0x80} {
			_, err = file.WriteAt([]byte{wrong}, at)
			require.NoError(t, err)
			_, err0 := readAll(f, 0)
			_, err1 := readAll(f, 1)
			require.True(t, (err0 == nil) != (err1 == nil))
			corrupt := &object.CorruptError{}
			require.ErrorAs(t, errors.Join(err0, err1), &corrupt)
			require.LessOrEqual(t, corrupt.Offset, at)
			require.Greater(t, corrupt.Offset+100, at)
		}
		_, err = file.WriteAt(b, at)
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
}

// TestChunksThatChangedPlaces: each has a sound checksum, but not that of its place.
func TestChunksThatChangedPlaces(t *testing.T) {
	f := filled(t, NewFolder(object.NewMem(), nil))
	a, b := &f.streams[0].chunks[0], &f.streams[0].chunks[1]
	require.Equal(t, a.length, b.length)
	a.position, b.position = b.position, a.position
	_, err := readAll(f, 0)
	corrupt := &object.CorruptError{}
	require.ErrorAs(t, err, &corrupt)
	require.NoError(t, f.Close())
}

// TestQuota: who would exceed it is refused before anything is written, and what goes away makes room.
func TestQuota(t *testing.T) {
	st := object.NewMem()
	q := NewQuota(1000)
	one, two := NewFolder(st, q), NewFolder(st, q)
	f, err := one.OpenFile(Options{Streams: 1, BufferBytes: 64})
	require.NoError(t, err)
	require.NoError(t, f.Append(0, make([]byte, 600)))
	w, err := two.Create(t.Context(), two.Path("other"))
	require.NoError(t, err)
	_, err = w.Write(make([]byte, 401))
	require.ErrorIs(t, err, ErrQuota)
	require.ErrorContains(t, err, "600 of 1000 bytes are taken, 401 more are wanted")
	_, err = w.Write(make([]byte, 400))
	require.NoError(t, err)
	require.ErrorIs(t, f.Append(0, make([]byte, 100)), ErrQuota)
	require.NoError(t, f.Close())
	require.Equal(t, int64(400), q.Used())
	require.NoError(t, w.Close())
	w.Abort() // nothing after Close
	require.Equal(t, int64(400), q.Used())
	require.NoError(t, two.Close())
	require.NoError(t, one.Close())
	require.Zero(t, q.Used())
	requireEmpty(t, st)
}

// TestClose: nothing can be done with a file that was closed, and a folder takes with it what was not.
func TestClose(t *testing.T) {
	st := object.NewMem()
	folder := NewFolder(st, nil)
	filled(t, folder)
	f := filled(t, folder)
	require.NoError(t, f.Close())
	require.ErrorIs(t, f.Append(0, []byte{1}), object.ErrClosed)
	require.NoError(t, folder.Close())
	requireEmpty(t, st)
}
