package lance

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// meter is a store whose objects cannot be mapped and that counts what is read of them.
type meter struct {
	object.Store
	reads, bytes, largest int
	fail                  error
}

func (m *meter) Open(ctx context.Context, name string) (object.Reader, error) {
	r, err := m.Store.Open(ctx, name)
	return &metered{r, m}, err
}

type metered struct {
	object.Reader
	m *meter
}

func (r *metered) ReadAt(b []byte, off int64) (int, error) {
	if r.m.fail != nil {
		return 0, r.m.fail
	}
	r.m.reads, r.m.bytes, r.m.largest = r.m.reads+1, r.m.bytes+len(b), max(r.m.largest, len(b))
	return r.Reader.ReadAt(b, off)
}

// TestPartsOfPages reads few rows of large pages that are not mapped, and all of them, once their checksums were verified.
func TestPartsOfPages(t *testing.T) {
	const rows = 40_000
	vectors := arrow.FixedSizeListOf(80, arrow.PrimitiveTypes.Float32)
	texts := shaped(rows, 0.1)
	for _, f := range []struct {
		name  string
		array arrow.Array
	}{
		{"vectors", newGenerator(1, 0).whole(vectors, rows)}, {"vectors, some null", newGenerator(2, 0.2).whole(vectors, rows)},
		{"numbers", newGenerator(3, 0).whole(arrow.PrimitiveTypes.Int64, rows)}, {"text", texts.Column(texts.Schema().FieldIndices("text")[0])},
		{"long text", texts.Column(texts.Schema().FieldIndices("long text")[0])}, {"lists", newGenerator(4, 0.1).whole(arrow.ListOf(arrow.PrimitiveTypes.Int64), rows)},
	} {
		t.Run(f.name, func(t *testing.T) {
			mem := object.NewMem()
			schema := arrow.NewSchema([]arrow.Field{{Name: "c", Type: f.array.DataType(), Nullable: true}}, nil)
			info := writeFile(t, mem, "f", schema, WriterOptions{Version: Version22, Compress: true, PageBytes: 64 << 20}, array.NewRecordBatch(schema, []arrow.Array{f.array}, rows))
			m := &meter{Store: mem}
			r := openFile(t, m, "f")
			want := []arrow.Array{f.array}
			requireTake(t, r, want, []int{0}, []int64{0})
			m.reads, m.bytes, m.largest = 0, 0, 0
			picks := []int64{7, 5000, 5001, 12_345, 20_000, 39_999}
			requireTake(t, r, want, []int{0}, picks)
			require.Less(t, m.bytes, max(int(info.Bytes)*2/3, 2*len(picks)*gapBytes))
			require.LessOrEqual(t, m.reads, 3*len(picks)+3)
			m.reads, m.bytes, m.largest = 0, 0, 0
			requireScan(t, r, want, []int{0}, 0, rows, 0)
			require.LessOrEqual(t, m.largest, windowBytes+gapBytes)
			require.Less(t, m.bytes, int(info.Bytes)*3/2)
			m.fail = errors.New("the store is away")
			_, err := r.Take(t.Context(), []int{0}, picks)
			require.ErrorIs(t, err, m.fail)
			corrupt := (*object.CorruptError)(nil)
			require.False(t, errors.As(err, &corrupt), "a failed read is no damage")
			require.NotErrorIs(t, err, io.EOF)
		})
	}
}
