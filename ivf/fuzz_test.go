package ivf

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/object"
)

// damaged opens an index whose files are these bytes and uses all of it: nothing may panic, and what is wrong is damage, or not
// supported.
func damaged(t *testing.T, index, data []byte) {
	ctx, st := context.Background(), object.NewMem()
	require.NoError(t, st.PutIfAbsent(ctx, "x/"+IndexFile, index))
	require.NoError(t, st.PutIfAbsent(ctx, "x/"+dataFile, data))
	fine := func(err error) bool {
		var corrupt *object.CorruptError
		require.True(t, err == nil || errors.As(err, &corrupt) || errors.Is(err, lance.ErrUnsupported), "%v", err)
		return err == nil
	}
	x, err := Open(ctx, st, "x", Options{})
	if !fine(err) {
		return
	}
	defer x.Close()
	require.NoError(t, x.Describe(&bytes.Buffer{}))
	x.Drifted()
	fine(x.Verify(ctx, nil))
	fine(x.Scan(ctx, func(int, []uint64, []byte) error { return nil }))
	q := make([]float32, x.Model().Dim())
	for i := range q {
		q[i] = 1
	}
	_, err = x.Search(ctx, q, SearchOptions{Limit: 5, NProbes: 3})
	fine(err)
}

// seeds are the files of small indexes, without checksums, so that what is changed in them is looked at.
func seeds(t testing.TB) [][2][]byte {
	const dim = 4
	rows := clustered(30, 300, dim, 3)
	var out [][2][]byte
	for _, o := range []TrainOptions{{SubVectors: 2}, {SubVectors: 2, Bits: 4}, {Kind: Flat}} {
		o.Partitions = 3
		for _, v := range []lance.Version{lance.Version20, lance.Version22} {
			st := object.NewMem()
			build(t, st, "x", train(t, rows, dim, o), rows, BuildOptions{WriterOptions: WriterOptions{Version: v}})
			var files [2][]byte
			for i, name := range []string{IndexFile, dataFile} {
				b, err := st.Get(context.Background(), "x/"+name)
				require.NoError(t, err)
				// The checksums begin otherwise, and so does the name of the entry that says where they are.
				b = bytes.ReplaceAll(b, []byte("fd-crc3"), []byte("fd-none"))
				files[i] = bytes.ReplaceAll(b, []byte("flightd:checksums"), []byte("flightd:chekcsums"))
			}
			out = append(out, files)
		}
	}
	return out
}

func FuzzIndexFile(f *testing.F) {
	list := seeds(f)
	for i, s := range list {
		f.Add(i, s[0])
	}
	f.Fuzz(func(t *testing.T, which int, b []byte) {
		damaged(t, b, list[uint(which)%uint(len(list))][1])
	})
}

func FuzzDataFile(f *testing.F) {
	list := seeds(f)
	for i, s := range list {
		f.Add(i, s[1])
	}
	f.Fuzz(func(t *testing.T, which int, b []byte) {
		damaged(t, list[uint(which)%uint(len(list))][0], b)
	})
}

func TestDamageIsFound(t *testing.T) {
	const dim = 4
	rows := clustered(31, 300, dim, 3)
	ctx, st := context.Background(), object.NewMem()
	build(t, st, "x", train(t, rows, dim, TrainOptions{Partitions: 3, SubVectors: 2}), rows, BuildOptions{})
	index, err := st.Get(ctx, "x/"+IndexFile)
	require.NoError(t, err)
	data, err := st.Get(ctx, "x/"+dataFile)
	require.NoError(t, err)
	for at := 0; at < len(data); at += 97 {
		other := bytes.Clone(data)
		other[at] ^= 0x10
		damaged(t, index, other)
	}
	for at := 0; at < len(index); at += 13 {
		other := bytes.Clone(index)
		other[at] ^= 0x10
		damaged(t, other, data)
	}
	for _, n := range []int{0, 39, 40, len(data) / 2, len(data) - 1} {
		damaged(t, index, data[:n])
	}
	// Files of two indexes do not fit.
	build(t, st, "y", train(t, rows, dim, TrainOptions{Partitions: 5, SubVectors: 2}), rows, BuildOptions{})
	other, err := st.Get(ctx, "y/"+IndexFile)
	require.NoError(t, err)
	damaged(t, other, data)
}
