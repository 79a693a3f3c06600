package ivf

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/offheap"
	"github.com/flightd/flightd/object"
	"github.com/flightd/flightd/spill"
)

// layouts make the shufflers that have files.
var layouts = map[string]func(ctx context.Context, folder *spill.Folder, partitions, width int, o ShuffleOptions) (shuffler, error){
	"groups": func(ctx context.Context, folder *spill.Folder, partitions, width int, o ShuffleOptions) (shuffler, error) {
		return newGroupShuffle(ctx, folder, partitions, width, o)
	},
	"writers": func(ctx context.Context, folder *spill.Folder, partitions, width int, o ShuffleOptions) (shuffler, error) {
		return newWriterShuffle(ctx, folder, partitions, width, o)
	},
}

// openShuffle returns a shuffler whose files must be gone when the test ends.
func openShuffle(t testing.TB, layout string, st object.Store, partitions, width int, o ShuffleOptions) shuffler {
	t.Helper()
	folder := spill.NewFolder(st, nil)
	s, err := layouts[layout](t.Context(), folder, partitions, width, o)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		require.NoError(t, s.Close())
		require.Zero(t, folder.Used())
		require.ErrorIs(t, s.Add(nil, nil, nil), object.ErrClosed)
		require.ErrorIs(t, s.Partition(0, nil), object.ErrClosed)
	})
	return s
}

// rowsOf are the rows of a partition.
type rowsOf struct {
	ids   []uint64
	codes []byte
}

// partitionOf returns the rows of a partition.
func partitionOf(t testing.TB, s shuffler, p int) (r rowsOf) {
	t.Helper()
	require.NoError(t, s.Partition(p, func(ids []uint64, codes []byte) error {
		r.ids, r.codes = append(r.ids, ids...), append(r.codes, codes...)
		return nil
	}))
	return r
}

// randomRows makes batches of rows; some partitions get many, some none, some rows have none.
func randomRows(random *rand.Rand, rows, partitions, width int, fn func(parts []int32, ids []uint64, codes []byte)) {
	for id := 0; id < rows; {
		n := min(1+random.IntN(500), rows-id)
		parts, ids, codes := make([]int32, n), make([]uint64, n), make([]byte, n*width)
		for i := range n {
			parts[i] = int32(random.IntN(1 + random.IntN(partitions)))
			if parts[i]%7 == 3 || random.IntN(100) == 0 {
				parts[i] = -1
			}
			ids[i] = uint64(random.IntN(1 << 30))
		}
		for i := range codes {
			codes[i] = byte(random.Uint32())
		}
		fn(parts, ids, codes)
		id += n
	}
}

// TestShufflesAgree runs the same rows through all shufflers: both layouts, with the metadata of pages in memory and in side
// files, give the ids and codes of each partition in the order in which they came, to the byte.
func TestShufflesAgree(t *testing.T) {
	if testing.Short() {
		t.Skip("nothing is concurrent in it")
	}
	shapes := []struct{ rows, partitions, width, buffer int }{
		{5000, 1, 8, 4000}, {5000, 3, 1, 3000}, {20_000, 64, 16, 64 << 10}, {20_000, 1000, 33, 100 << 10},
		{3000, 50, 700, 1 << 20}, {100, 200, 16, 1}, {0, 5, 16, 0}, {30_000, 300, 16, 0},
	}
	for i, shape := range shapes {
		for layout := range layouts {
			for _, inMemory := range []bool{false, true} {
				t.Run(fmt.Sprint(layout, " ", shape, " in memory ", inMemory), func(t *testing.T) {
					random := rand.New(rand.NewPCG(uint64(i), 9))
					root := t.TempDir()
					want := newMemoryShuffle(shape.partitions, shape.width)
					got := openShuffle(t, layout, object.NewScratch(root), shape.partitions, shape.width,
						ShuffleOptions{BufferBytes: int64(shape.buffer), SpillBytes: 1, PagesInMemory: inMemory})
					randomRows(random, shape.rows, shape.partitions, shape.width, func(parts []int32, ids []uint64, codes []byte) {
						require.NoError(t, want.Add(parts, ids, codes))
						require.NoError(t, got.Add(parts, ids, codes))
						clear(codes) // nothing of them was kept
					})
					require.NoError(t, got.Finish())
					for p := range shape.partitions {
						requirePartition(t, want, got, p)
					}
					for range 20 { // out of order and again
						requirePartition(t, want, got, random.IntN(shape.partitions))
					}
					require.NoError(t, got.Close())
					left, err := os.ReadDir(root)
					require.NoError(t, err)
					require.Empty(t, left)
				})
			}
		}
	}
	require.Zero(t, offheap.Default.InUse())
}

func requirePartition(t *testing.T, want, got shuffler, p int) {
	t.Helper()
	w, g := partitionOf(t, want, p), partitionOf(t, got, p)
	require.True(t, slices.Equal(w.ids, g.ids) && bytes.Equal(w.codes, g.codes), "partition %d", p)
}

// TestShuffleHandles: the files that are open do not grow with the partitions.
func TestShuffleHandles(t *testing.T) {
	open := func() (files int) {
		links, err := filepath.Glob("/proc/self/fd/*")
		require.NoError(t, err)
		for _, link := range links {
			if to, err := os.Readlink(link); err == nil && strings.Contains(to, "/spill-") {
				files++
			}
		}
		return files
	}
	for _, partitions := range []int{16, 4096, 65536} {
		s := openShuffle(t, "groups", object.NewScratch(t.TempDir()), partitions, 16, ShuffleOptions{BufferBytes: 200 << 10, SpillBytes: 1})
		peak := 0
		randomRows(rand.New(rand.NewPCG(1, 1)), 30_000, partitions, 16, func(parts []int32, ids []uint64, codes []byte) {
			require.NoError(t, s.Add(parts, ids, codes))
			peak = max(peak, open())
		})
		require.NoError(t, s.Finish())
		for _, p := range []int{0, partitions / 2, partitions - 1} {
			partitionOf(t, s, p)
			peak = max(peak, open())
		}
		require.LessOrEqual(t, peak, 3, "the data, its metadata while it is written, and that while it is read")
		if peak == 0 {
			t.Skip("the system does not tell which files are open")
		}
	}
}

// fullDisk is a store with room for so many bytes.
type fullDisk struct {
	object.Store
	room int
}

func (s *fullDisk) Create(ctx context.Context, name string) (object.Writer, error) {
	w, err := s.Store.Create(ctx, name)
	return &fullWriter{w, s}, err
}

type fullWriter struct {
	object.Writer
	st *fullDisk
}

func (w *fullWriter) Write(p []byte) (int, error) {
	if len(p) > w.st.room {
		return 0, syscall.ENOSPC
	}
	w.st.room -= len(p)
	return w.Writer.Write(p)
}

// TestNoRoomForTheShuffle fills the disk at many points: an error that says so, which stays, and nothing left behind.
func TestNoRoomForTheShuffle(t *testing.T) {
	for layout := range layouts {
		for room := 0; room < 400_000; room += 23_456 {
			root := t.TempDir()
			disk := &fullDisk{object.NewScratch(root), room}
			s := openShuffle(t, layout, disk, 30, 16, ShuffleOptions{BufferBytes: 100 << 10, SpillBytes: 1})
			var err error
			randomRows(rand.New(rand.NewPCG(1, 1)), 30_000, 30, 16, func(parts []int32, ids []uint64, codes []byte) {
				if err == nil {
					err = s.Add(parts, ids, codes)
				}
			})
			if err == nil {
				err = s.Finish()
			}
			require.ErrorIs(t, err, syscall.ENOSPC)
			require.ErrorContains(t, err, "shuffle: ")
			disk.room = 1 << 30
			require.ErrorIs(t, s.Add([]int32{1}, []uint64{1}, make([]byte, 16)), syscall.ENOSPC)
			require.ErrorIs(t, s.Finish(), syscall.ENOSPC)
			require.ErrorIs(t, s.Partition(1, nil), syscall.ENOSPC)
			require.NoError(t, s.Close())
			left, err := os.ReadDir(root)
			require.NoError(t, err)
			require.Empty(t, left)
		}
	}
}

// TestDamagedShuffle flips bytes of what was shuffled: the partitions that have them say so, and none comes back wrong.
func TestDamagedShuffle(t *testing.T) {
	for layout := range layouts {
		root := t.TempDir()
		want := newMemoryShuffle(20, 16)
		s := openShuffle(t, layout, object.NewScratch(root), 20, 16, ShuffleOptions{BufferBytes: 100 << 10})
		randomRows(rand.New(rand.NewPCG(1, 1)), 20_000, 20, 16, func(parts []int32, ids []uint64, codes []byte) {
			require.NoError(t, want.Add(parts, ids, codes))
			require.NoError(t, s.Add(parts, ids, codes))
		})
		require.NoError(t, s.Finish())
		files, err := filepath.Glob(filepath.Join(root, "*", "*.lance"))
		require.NoError(t, err)
		for _, name := range files {
			b, err := os.ReadFile(name)
			require.NoError(t, err)
			for at := 1000; at < len(b)/2; at += 1 << 10 {
				b[at] ^= 1
			}
			f, err := os.OpenFile(name, os.O_WRONLY, 0) // in place: it is mapped
			require.NoError(t, err)
			_, err = f.Write(b)
			require.NoError(t, err)
			require.NoError(t, f.Close())
		}
		var found error
		for p := range 20 {
			var got rowsOf
			err := s.Partition(p, func(ids []uint64, codes []byte) error {
				got.ids, got.codes = append(got.ids, ids...), append(got.codes, codes...)
				return nil
			})
			if err != nil {
				found = err
				break
			}
			require.Equal(t, rowsOf{want.ids[p], want.codes[p]}, got)
		}
		corrupt := &object.CorruptError{}
		require.ErrorAs(t, found, &corrupt, layout)
	}
}

// TestShuffleRefuses what cannot be meant.
func TestShuffleRefuses(t *testing.T) {
	for layout, open := range layouts {
		for _, shape := range [][2]int{{0, 16}, {-1, 16}, {4, 0}} {
			_, err := open(t.Context(), spill.NewFolder(object.NewMem(), nil), shape[0], shape[1], ShuffleOptions{})
			require.ErrorContains(t, err, "partitions")
		}
		_, err := open(t.Context(), spill.NewFolder(object.NewMem(), nil), 4, 4, ShuffleOptions{BufferBytes: -1})
		require.ErrorContains(t, err, "negative")
		s := openShuffle(t, layout, object.NewMem(), 4, 2, ShuffleOptions{})
		require.ErrorIs(t, s.Partition(0, nil), errShuffle)
		require.ErrorContains(t, s.Add([]int32{1}, []uint64{1, 2}, make([]byte, 4)), "1 partitions and 4 bytes of codes for 2 rows of 2 bytes")
		require.ErrorContains(t, s.Add([]int32{4}, []uint64{9}, make([]byte, 2)), "row 9 is of partition 4, there are 4")
		require.ErrorContains(t, s.Finish(), "row 9 is of partition 4")

		s = openShuffle(t, layout, object.NewMem(), 4, 2, ShuffleOptions{})
		require.NoError(t, s.Add([]int32{3}, []uint64{9}, []byte{1, 2}))
		require.NoError(t, s.Finish())
		require.ErrorIs(t, s.Finish(), errShuffle)
		require.ErrorIs(t, s.Add(nil, nil, nil), errShuffle)
		require.Equal(t, rowsOf{[]uint64{9}, []byte{1, 2}}, partitionOf(t, s, 3), layout)
	}
}

// TestShuffleEndsWithItsContext: a build that is cancelled leaves nothing.
func TestShuffleEndsWithItsContext(t *testing.T) {
	for layout, open := range layouts {
		root := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		s, err := open(ctx, spill.NewFolder(object.NewScratch(root), nil), 4, 2, ShuffleOptions{BufferBytes: 100})
		require.NoError(t, err)
		rows := func() error { return s.Add(make([]int32, 100), make([]uint64, 100), make([]byte, 200)) }
		require.NoError(t, rows())
		cancel()
		require.ErrorIs(t, rows(), context.Canceled, layout)
		require.NoError(t, s.Close())
		left, err := os.ReadDir(root)
		require.NoError(t, err)
		require.Empty(t, left)
	}
}

// TestBuildsThroughScratchFilesAreTheSame builds indexes with all rows in memory and through scratch files of both layouts, in
// a store that is not local: the files are equal to the byte, and nothing of the scratch is left, nor of a build that is
// given up.
func TestBuildsThroughScratchFilesAreTheSame(t *testing.T) {
	const dim, n = 16, 6000
	rows := clustered(4, n, dim, 12)
	for _, o := range []TrainOptions{{Partitions: 20}, {Kind: Flat, Partitions: 20}} {
		model := train(t, rows, dim, o)
		st, root := object.NewMem(), t.TempDir()
		want := build(t, st, "memory", model, rows, BuildOptions{})
		small := ShuffleOptions{BufferBytes: 40 << 10, SpillBytes: 1}
		variants := map[string]BuildOptions{
			"buffer": {Scratch: object.NewScratch(root)},
			"groups": {Scratch: object.NewScratch(root), ScratchBytes: 1 << 20, Shuffle: small},
			"writers": {newShuffle: func(partitions, width int) (shuffler, error) {
				return newWriterShuffle(t.Context(), spill.NewFolder(object.NewScratch(root), nil), partitions, width, small)
			}},
		}
		for name, b := range variants {
			require.Equal(t, want, build(t, st, name, model, rows, b))
			for _, f := range want {
				a, err := st.Get(t.Context(), "memory/"+f.Path)
				require.NoError(t, err)
				b, err := st.Get(t.Context(), name+"/"+f.Path)
				require.NoError(t, err)
				require.True(t, bytes.Equal(a, b), "%s of %s", f.Path, name)
			}
		}
		b, err := NewBuilder(t.Context(), st, "given up", model, variants["groups"])
		require.NoError(t, err)
		require.NoError(t, b.Add(t.Context(), make([]uint64, n), rows))
		b.Abort()
		left, err := os.ReadDir(root)
		require.NoError(t, err)
		require.Empty(t, left)
	}
}

// TestABuildWithoutRoom: the quota ends it with its reason.
func TestABuildWithoutRoom(t *testing.T) {
	rows := clustered(4, 6000, 16, 12)
	root := t.TempDir()
	o := BuildOptions{Scratch: object.NewScratch(root), ScratchBytes: 20_000, Shuffle: ShuffleOptions{BufferBytes: 40 << 10}}
	st := object.NewMem()
	b, err := NewBuilder(t.Context(), st, "x", train(t, rows, 16, TrainOptions{Partitions: 20}), o)
	require.NoError(t, err)
	if err = b.Add(t.Context(), make([]uint64, 6000), rows); err == nil {
		_, err = b.Finish(t.Context())
	}
	require.ErrorIs(t, err, spill.ErrQuota)
	require.ErrorIs(t, err, syscall.EDQUOT)
	require.ErrorContains(t, err, "index x: shuffle: ")
	b.Abort()
	left, err := os.ReadDir(root)
	require.NoError(t, err)
	require.Empty(t, left)
	infos, err := st.List(t.Context(), "x")
	require.NoError(t, err)
	require.Empty(t, infos)
}
