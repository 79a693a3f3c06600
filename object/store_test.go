package object

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// eachStore runs a test against every kind of store.
func eachStore(t *testing.T, test func(t *testing.T, st Store)) {
	t.Run("local", func(t *testing.T) { test(t, NewLocal(filepath.Join(t.TempDir(), "root"))) })
	t.Run("mem", func(t *testing.T) { test(t, NewMem()) })
}

// write creates an object of the given pieces and closes it.
func write(t *testing.T, st Store, name string, pieces ...string) {
	t.Helper()
	w, err := st.Create(t.Context(), name)
	require.NoError(t, err)
	for _, p := range pieces {
		n, err := io.WriteString(w, p)
		require.NoError(t, err)
		require.Equal(t, len(p), n)
	}
	require.NoError(t, w.Close())
	w.Abort()
}

func read(t *testing.T, st Store, name string) string {
	t.Helper()
	b, err := st.Get(t.Context(), name)
	require.NoError(t, err)
	return string(b)
}

func list(t *testing.T, st Store, dir string) []string {
	t.Helper()
	infos, err := st.List(t.Context(), dir)
	require.NoError(t, err)
	names := []string{}
	for _, in := range infos {
		if in.Dir {
			in.Name += "/"
		}
		names = append(names, in.Name)
	}
	return names
}

func TestCreateReadDelete(t *testing.T) {
	eachStore(t, func(t *testing.T, st Store) {
		ctx := t.Context()
		write(t, st, "a/b/file", "hello ", "world")
		require.Equal(t, "hello world", read(t, st, "a/b/file"))
		_, err := st.Create(ctx, "a/b/file")
		require.ErrorIs(t, err, ErrExists)

		r, err := st.Open(ctx, "a/b/file")
		require.NoError(t, err)
		require.EqualValues(t, 11, r.Size())
		part := make([]byte, 5)
		_, err = r.ReadAt(part, 6)
		require.NoError(t, err)
		require.Equal(t, "world", string(part))
		_, err = r.ReadAt(part, 8)
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, r.Close())

		in, err := st.Stat(ctx, "a/b/file")
		require.NoError(t, err)
		require.Equal(t, Info{Name: "file", Size: 11, ModTime: in.ModTime}, in)
		in, err = st.Stat(ctx, "a/b")
		require.NoError(t, err)
		require.True(t, in.Dir)

		require.NoError(t, st.SyncDirs(ctx, "a/b/file"))
		require.NoError(t, st.Delete(ctx, "a/b/file"))
		require.ErrorIs(t, st.Delete(ctx, "a/b/file"), ErrNotExist)
		_, err = st.Get(ctx, "a/b/file")
		require.ErrorIs(t, err, ErrNotExist)
		_, err = st.Open(ctx, "a/b/file")
		require.ErrorIs(t, err, ErrNotExist)
		_, err = st.Stat(ctx, "a/b/file")
		require.ErrorIs(t, err, ErrNotExist)
	})
}

func TestAbortLeavesNothing(t *testing.T) {
	eachStore(t, func(t *testing.T, st Store) {
		w, err := st.Create(t.Context(), "dir/file")
		require.NoError(t, err)
		_, err = w.Write([]byte("half"))
		require.NoError(t, err)
		w.Abort()
		w.Abort()
		require.Empty(t, list(t, st, "dir"))
		require.ErrorIs(t, w.Close(), ErrClosed)
		write(t, st, "dir/file", "whole")
	})
}

func TestPutIfAbsentHasOneWinner(t *testing.T) {
	eachStore(t, func(t *testing.T, st Store) {
		const rivals = 16
		var wg sync.WaitGroup
		errs := make([]error, rivals)
		for i := range rivals {
			wg.Go(func() { errs[i] = st.PutIfAbsent(context.Background(), "v/1", []byte{byte(i)}) })
		}
		wg.Wait()
		winner := -1
		for i, err := range errs {
			if err == nil {
				require.Equal(t, -1, winner, "two winners")
				winner = i
				continue
			}
			require.ErrorIs(t, err, ErrExists)
		}
		require.Equal(t, string([]byte{byte(winner)}), read(t, st, "v/1"))
		require.Equal(t, []string{"1"}, list(t, st, "v"), "a temporary file is left or shown")
	})
}

func TestPutReplaces(t *testing.T) {
	eachStore(t, func(t *testing.T, st Store) {
		require.NoError(t, st.Put(t.Context(), "hint", []byte("one")))
		require.NoError(t, st.Put(t.Context(), "hint", []byte("three")))
		require.Equal(t, "three", read(t, st, "hint"))
		require.ErrorIs(t, st.PutIfAbsent(t.Context(), "hint", nil), ErrExists)
	})
}

func TestListAndDeleteAll(t *testing.T) {
	eachStore(t, func(t *testing.T, st Store) {
		require.Empty(t, list(t, st, "nowhere"))
		for _, name := range []string{"t/c", "t/a", "t/sub/x", "t/sub/deep/y", "tz/other", "top"} {
			write(t, st, name, name)
		}
		require.Equal(t, []string{"a", "c", "sub/"}, list(t, st, "t"))
		require.Equal(t, []string{"t/", "top", "tz/"}, list(t, st, "."))
		require.NoError(t, st.DeleteAll(t.Context(), "t/sub"))
		require.Equal(t, []string{"a", "c"}, list(t, st, "t"))
		require.NoError(t, st.DeleteAll(t.Context(), "t"))
		require.NoError(t, st.DeleteAll(t.Context(), "t"))
		require.Equal(t, []string{"top", "tz/"}, list(t, st, "."))
		require.ErrorContains(t, st.DeleteAll(t.Context(), "."), "root of the store")
	})
}

func TestBadNamesAreRefused(t *testing.T) {
	eachStore(t, func(t *testing.T, st Store) {
		for _, name := range []string{"", "/etc/passwd", "../x", "a/../x", "a//b", "a/", "nul\x00byte"} {
			require.Error(t, st.Put(t.Context(), name, nil), "%q", name)
			_, err := st.Open(t.Context(), name)
			require.Error(t, err, "%q", name)
			require.Error(t, st.DeleteAll(t.Context(), name), "%q", name)
		}
	})
}

func TestCancelledContext(t *testing.T) {
	eachStore(t, func(t *testing.T, st Store) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, st.PutIfAbsent(ctx, "x", nil), context.Canceled)
		_, err := st.Get(t.Context(), "x")
		require.ErrorIs(t, err, ErrNotExist)
	})
}

func TestLocalMap(t *testing.T) {
	st := NewLocal(t.TempDir())
	write(t, st, "full", "mapped bytes")
	write(t, st, "empty")
	for name, want := range map[string]string{"full": "mapped bytes", "empty": ""} {
		r, err := st.Open(t.Context(), name)
		require.NoError(t, err)
		b, err := r.(Mapper).Map()
		require.NoError(t, err)
		require.Equal(t, want, string(b))
		require.NoError(t, r.Close())
		require.NoError(t, r.Close())
		_, err = r.(Mapper).Map()
		require.ErrorIs(t, err, ErrClosed)
	}
	require.NoError(t, os.Mkdir(filepath.Join(st.root, "folder"), 0o755))
	_, err := st.Open(t.Context(), "folder")
	require.ErrorContains(t, err, "folder")
}

func TestLocalSweep(t *testing.T) {
	st := NewLocal(filepath.Join(t.TempDir(), "root"))
	require.NoError(t, st.Sweep(t.Context()))
	write(t, st, "a/keep", "x")
	left := filepath.Join(st.root, "a", tempPrefix+"LEFT")
	require.NoError(t, os.WriteFile(left, nil, 0o644))
	require.Equal(t, []string{"keep"}, list(t, st, "a"))
	require.NoError(t, st.Sweep(t.Context()))
	require.NoFileExists(t, left)
	require.Equal(t, "x", read(t, st, "a/keep"))
}

func TestLocalSync(t *testing.T) {
	st := NewLocal(t.TempDir())
	write(t, st, "a/file", "x")
	require.NoError(t, st.Sync(t.Context(), "a/file"))
	require.ErrorIs(t, st.Sync(t.Context(), "a/absent"), ErrNotExist)
}

func TestCrashKeepsWhatWasPromised(t *testing.T) {
	ctx := t.Context()
	m := NewMem()
	require.NoError(t, m.PutIfAbsent(ctx, "v/1", []byte("manifest")))
	write(t, m, "data/synced", "synced")
	require.NoError(t, m.SyncDirs(ctx, "data/synced"))
	write(t, m, "data/entry-not-synced", "closed")
	require.NoError(t, m.Put(ctx, "gone", []byte("x")))
	require.NoError(t, m.Delete(ctx, "gone"))
	w, err := m.Create(ctx, "data/open")
	require.NoError(t, err)
	_, err = w.Write([]byte("0123456789"))
	require.NoError(t, err)

	worst := m.CrashClone(nil)
	require.Equal(t, []string{"synced"}, list(t, worst, "data"))
	require.Equal(t, []string{"data/", "gone", "v/"}, list(t, worst, "."))

	outcomes := map[string]bool{}
	for seed := range uint64(200) {
		left := m.CrashClone(rand.New(rand.NewPCG(seed, 0)))
		require.Equal(t, "manifest", read(t, left, "v/1"))
		require.Equal(t, "synced", read(t, left, "data/synced"))
		for _, name := range []string{"data/entry-not-synced", "data/open", "gone"} {
			b, err := left.Get(ctx, name)
			if !errors.Is(err, ErrNotExist) {
				require.NoError(t, err)
				outcomes[name+"="+string(b)] = true
			}
		}
	}
	for _, want := range []string{"data/entry-not-synced=closed", "data/open=", "data/open=01234", "data/open=0123456789", "gone=x"} {
		require.True(t, outcomes[want], "no crash left %s", want)
	}
}

func TestCorruptErrorNamesThePlace(t *testing.T) {
	err := error(&CorruptError{Name: "data/x.lance", Offset: 64, Err: io.ErrUnexpectedEOF})
	require.EqualError(t, err, "data/x.lance is corrupt at offset 64: unexpected EOF")
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

// TestScratch: a scratch store is a local one to everybody but the disk.
func TestScratch(t *testing.T) {
	st := NewScratch(filepath.Join(t.TempDir(), "root"))
	write(t, st, "a/file", "hello ", "world")
	require.Equal(t, "hello world", read(t, st, "a/file"))
	w, err := st.Create(t.Context(), "a/other")
	require.NoError(t, err)
	w.Abort()
	require.Equal(t, []string{"file"}, list(t, st, "a"))
	free, err := st.Free()
	require.NoError(t, err)
	require.Positive(t, free)
	_, err = NewScratch(filepath.Join(t.TempDir(), "missing")).Free()
	require.ErrorIs(t, err, ErrNotExist)
	require.NoError(t, st.DeleteAll(t.Context(), "a"))
	require.Empty(t, list(t, st, "."))
}
