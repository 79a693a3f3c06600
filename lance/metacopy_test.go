package lance

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// TestAFileWithTheMetadataOfOurs changes what the schema of a file says of its checksums. A place that has none is that of the file
// whose metadata another program copied: this one is read without. A place that has them is not given up for a damaged table.
func TestAFileWithTheMetadataOfOurs(t *testing.T) {
	ctx, st := context.Background(), object.NewMem()
	s := arrow.NewSchema([]arrow.Field{{Name: "n", Type: arrow.PrimitiveTypes.Int64}}, nil)
	b := array.NewInt64Builder(memory.DefaultAllocator)
	defer b.Release()
	b.AppendValues([]int64{1, 2, 3}, nil)
	column := b.NewArray()
	defer column.Release()
	rec := array.NewRecordBatch(s, []arrow.Array{column}, 3)
	defer rec.Release()
	writeFile(t, st, "f", s, WriterOptions{}, rec)
	sound, err := st.Get(ctx, "f")
	require.NoError(t, err)
	open := func(b []byte) (checksums bool, err error) {
		err = readAll(ctx, b, func(r *Reader) error { checksums = r.HasChecksums(); return nil })
		return checksums, err
	}
	magic, at := checksumMagic[:7], bytes.Index(sound, []byte("1@"))
	require.Positive(t, at)
	change := func(noMagic, otherPlace bool) []byte {
		b := bytes.Clone(sound)
		if otherPlace {
			b[at+2] ^= 1 // the first digit of the offset
		}
		if noMagic {
			b[bytes.Index(b, magic)] ^= 1
		}
		return b
	}
	has, err := open(sound)
	require.NoError(t, err)
	require.True(t, has)
	has, err = open(change(true, true))
	require.NoError(t, err)
	require.False(t, has)
	var corrupt *object.CorruptError
	for _, b := range [][]byte{change(true, false), change(false, true)} {
		_, err = open(b)
		require.True(t, errors.As(err, &corrupt), "%v", err)
	}
	// The table of global buffers leads elsewhere: the schema still tells where the checksums are.
	torn := bytes.Clone(sound)
	entry := len(torn) - footerBytes - entryBytes
	require.NoError(t, readAll(ctx, torn, func(r *Reader) error {
		require.Equal(t, r.globals[len(r.globals)-1].off, int64(le.Uint64(torn[entry:])))
		return nil
	}))
	le.PutUint64(torn[entry:], 0)
	_, err = open(torn)
	require.True(t, errors.As(err, &corrupt), "%v", err)
}
