package lance

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/offheap"
	"github.com/flightd/flightd/object"
)

// countingStore counts the readers that are open.
type countingStore struct {
	*object.Local
	open atomic.Int64
}

type countingReader struct {
	object.Reader
	object.Mapper
	closed func()
}

func (s *countingStore) Open(ctx context.Context, name string) (object.Reader, error) {
	r, err := s.Local.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	s.open.Add(1)
	return countingReader{r, r.(object.Mapper), sync.OnceFunc(func() { s.open.Add(-1) })}, nil
}

func (r countingReader) Close() error {
	r.closed()
	return r.Reader.Close()
}

func TestBatchesOutliveTheReader(t *testing.T) {
	st := &countingStore{Local: object.NewLocal(t.TempDir())}
	schema := allTypes()
	g := newGenerator(3, 0.2)
	rec := g.batch(schema, 500)
	writeFile(t, st, "f", schema, WriterOptions{PageBytes: 300}, rec)
	all := []int{1, 5, 13, 14, 35, 37}
	before := offheap.Default.InUse()

	r, err := Open(t.Context(), st, "f", 0, ReaderOptions{})
	require.NoError(t, err)
	s := r.Scan(all, 0, 500, 0)
	first, err := s.Next(t.Context())
	require.NoError(t, err)
	taken, err := r.Take(t.Context(), all, []int64{499, 0})
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.NoError(t, r.Close())
	require.EqualValues(t, 1, st.open.Load(), "the file was unmapped under a batch")
	for i, c := range all {
		want := joined(t, schema, []arrow.RecordBatch{rec})[c]
		requireSameRows(t, want, first.Column(i), 0)
	}

	_, err = s.Next(t.Context())
	require.ErrorIs(t, err, object.ErrClosed)
	_, err = r.Take(t.Context(), nil, nil)
	require.ErrorIs(t, err, object.ErrClosed)
	require.ErrorIs(t, r.Verify(t.Context()), object.ErrClosed)
	require.ErrorIs(t, r.Describe(io.Discard), object.ErrClosed)

	taken.Release()
	require.EqualValues(t, 1, st.open.Load())
	first.Release()
	require.Zero(t, st.open.Load(), "the file is still mapped")
	require.Equal(t, before, offheap.Default.InUse())
}

func TestScannerCloseReleases(t *testing.T) {
	st := &countingStore{Local: object.NewLocal(t.TempDir())}
	schema := allTypes()
	writeFile(t, st, "f", schema, WriterOptions{}, newGenerator(3, 0.2).batch(schema, 500))
	r, err := Open(t.Context(), st, "f", 0, ReaderOptions{})
	require.NoError(t, err)
	s := r.Scan([]int{5, 13}, 0, 500, 10)
	rec, err := s.Next(t.Context())
	require.NoError(t, err)
	rec.Release()
	require.NoError(t, r.Close())
	require.EqualValues(t, 1, st.open.Load())
	s.Close()
	s.Close()
	require.Zero(t, st.open.Load())
	_, err = s.Next(t.Context())
	require.ErrorIs(t, err, io.EOF)
}

func TestConcurrentReaders(t *testing.T) {
	for name, st := range stores(t) {
		t.Run(name, func(t *testing.T) {
			schema := allTypes()
			g := newGenerator(4, 0.2)
			rec := g.batch(schema, 400)
			writeFile(t, st, "f", schema, WriterOptions{PageBytes: 500}, rec)
			want := joined(t, schema, []arrow.RecordBatch{rec})
			r := openFile(t, st, "f")
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					requireScan(t, r, want, []int{5, 13, 35, i}, int64(i*20), 400, 33)
					requireTake(t, r, want, []int{13, 5, 35}, []int64{399, int64(i), 7, 7})
					if err := r.Verify(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestCloseDuringReads(t *testing.T) {
	st := object.NewLocal(t.TempDir())
	schema := allTypes()
	writeFile(t, st, "f", schema, WriterOptions{PageBytes: 500}, newGenerator(4, 0.2).batch(schema, 400))
	for range 20 {
		r := openFile(t, st, "f")
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				s := r.Scan([]int{5, 13, 35}, 0, 400, 0)
				for {
					rec, err := s.Next(context.Background())
					if err != nil {
						if !errors.Is(err, io.EOF) && !errors.Is(err, object.ErrClosed) {
							t.Error(err)
						}
						return
					}
					rec.Release()
				}
			})
		}
		require.NoError(t, r.Close())
		wg.Wait()
	}
}

func TestCancelledReads(t *testing.T) {
	st := object.NewMem()
	schema := allTypes()
	writeFile(t, st, "f", schema, WriterOptions{}, newGenerator(4, 0).batch(schema, 10))
	r := openFile(t, st, "f")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.Scan([]int{1}, 0, 10, 0).Next(ctx)
	require.ErrorIs(t, err, context.Canceled)
	_, err = r.Take(ctx, []int{1}, []int64{1})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, r.Verify(ctx), context.Canceled)
}

func TestWrongQuestions(t *testing.T) {
	st := object.NewMem()
	schema := allTypes()
	writeFile(t, st, "f", schema, WriterOptions{}, newGenerator(4, 0).batch(schema, 10))
	r := openFile(t, st, "f")
	_, err := r.Scan([]int{99}, 0, 10, 0).Next(t.Context())
	require.ErrorContains(t, err, "no column 99")
	_, err = r.Take(t.Context(), []int{-1}, []int64{1})
	require.ErrorContains(t, err, "no column -1")
	for _, row := range []int64{-1, 10} {
		_, err = r.Take(t.Context(), []int{1}, []int64{0, row})
		require.ErrorContains(t, err, "there is no row")
	}
	_, err = Open(t.Context(), st, "nowhere", 0, ReaderOptions{})
	require.ErrorIs(t, err, object.ErrNotExist)
}

// smallFile returns the bytes of a small file with a column of each layout, two pages of each, and its schema.
func smallFile(t testing.TB) ([]byte, *arrow.Schema) {
	st := object.NewMem()
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "number", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, {Name: "bit", Type: arrow.FixedWidthTypes.Boolean},
		{Name: "text", Type: arrow.BinaryTypes.String, Nullable: true}, {Name: "nothing", Type: arrow.Null, Nullable: true},
		{Name: "list", Type: arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Int32), Nullable: true},
		{Name: "lists", Type: nested[0], Nullable: true},
	}, nil)
	g := newGenerator(9, 0.2)
	columns := g.batch(schema, 24).Columns()
	columns[1] = newGenerator(1, 0).array(arrow.FixedWidthTypes.Boolean, 24)
	rec := array.NewRecordBatch(schema, columns, 24)
	ls, err := SchemaFromArrow(schema, 0)
	require.NoError(t, err)
	w, err := Create(t.Context(), st, "f", ls, WriterOptions{PageBytes: 128})
	require.NoError(t, err)
	_, err = w.AddGlobalBuffer(t.Context(), []byte("a global buffer"))
	require.NoError(t, err)
	require.NoError(t, w.Write(t.Context(), rec))
	_, err = w.Finish(t.Context())
	require.NoError(t, err)
	b, err := st.Get(t.Context(), "f")
	require.NoError(t, err)
	return b, schema
}

// readAll reads everything that there is in a file.
func readAll(ctx context.Context, b []byte, want func(r *Reader) error) error {
	st := object.NewMem()
	if err := st.Put(ctx, "f", b); err != nil {
		return err
	}
	r, err := Open(ctx, st, "f", 0, ReaderOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	return want(r)
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	b, _ := smallFile(t)
	require.NoError(t, readAll(t.Context(), b, func(r *Reader) error { return r.Verify(t.Context()) }))
	silent := 0
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1 << (i % 8)
		err := readAll(t.Context(), bad, func(r *Reader) error { return r.Verify(t.Context()) })
		if err == nil {
			silent++
			require.True(t, isPadding(t, b, int64(i)), "the flip at %d was not found", i)
			continue
		}
		var corrupt *object.CorruptError
		if !errors.As(err, &corrupt) {
			require.ErrorIs(t, err, ErrUnsupported, "the flip at %d", i)
			require.ErrorContains(t, err, "file version")
		}
	}
	require.NotZero(t, silent, "there is no padding in the file")
}

// isPadding reports whether a byte lies between buffers, or in the one number that no reader needs.
func isPadding(t *testing.T, b []byte, at int64) bool {
	padding := true
	require.NoError(t, readAll(t.Context(), b, func(r *Reader) error {
		used := append([]extent{
			{r.footer.columnTable, int64(len(r.columns)) * entryBytes}, {r.footer.globalTable, int64(len(r.globals)) * entryBytes},
			{r.size - footerBytes + 8, footerBytes - 8},
		}, r.globals...)
		for c := range r.columns {
			used = append(used, r.columns[c].at)
			pages, err := r.column(c)
			if err != nil {
				return err
			}
			for _, p := range pages {
				used = append(used, p.bufs...)
			}
		}
		for _, e := range used {
			padding = padding && (at < e.off || at >= e.end())
		}
		return nil
	}))
	return padding
}

func TestEveryTruncationIsFound(t *testing.T) {
	b, _ := smallFile(t)
	for n := range b {
		err := readAll(t.Context(), b[:n], func(r *Reader) error { return r.Verify(t.Context()) })
		var corrupt *object.CorruptError
		require.True(t, errors.As(err, &corrupt), "%d bytes: %v", n, err)
	}
}

func TestDamageIsFoundWhenAPageIsFirstTouched(t *testing.T) {
	b, schema := smallFile(t)
	require.NoError(t, readAll(t.Context(), b, func(r *Reader) error {
		pages, err := r.column(0)
		require.NoError(t, err)
		last := pages[len(pages)-1]
		b[last.bufs[len(last.bufs)-1].off] ^= 1
		return nil
	}))
	require.NoError(t, readAll(t.Context(), b, func(r *Reader) error {
		check := func(err error) {
			t.Helper()
			var corrupt *object.CorruptError
			require.True(t, errors.As(err, &corrupt), "%v", err)
			require.ErrorContains(t, err, `column "`+schema.Field(0).Name)
		}
		_, err := r.Take(t.Context(), []int{0, 2}, []int64{0})
		require.NoError(t, err, "a sound page of the same column")
		_, err = r.Take(t.Context(), []int{0}, []int64{23})
		check(err)
		s := r.Scan([]int{0}, 0, 24, 0)
		for {
			var rec arrow.RecordBatch
			if rec, err = s.Next(t.Context()); err != nil {
				break
			}
			rec.Release()
		}
		check(err)
		_, again := s.Next(t.Context())
		require.Equal(t, err, again)
		check(r.Verify(t.Context()))
		return nil
	}))
}

func TestFileSizeIsComparedFirst(t *testing.T) {
	st := object.NewLocal(t.TempDir())
	schema := allTypes()
	info := writeFile(t, st, "f", schema, WriterOptions{}, newGenerator(4, 0).batch(schema, 10))
	for _, size := range []int64{info.Bytes - 1, info.Bytes + 1, 1, -5} {
		_, err := Open(t.Context(), st, "f", size, ReaderOptions{})
		var corrupt *object.CorruptError
		require.True(t, errors.As(err, &corrupt), "size %d: %v", size, err)
	}
	r, err := Open(t.Context(), st, "f", info.Bytes, ReaderOptions{})
	require.NoError(t, err)
	require.NoError(t, r.Close())
}

func TestOtherVersionsAreUnsupported(t *testing.T) {
	b, _ := smallFile(t)
	for _, v := range [][2]uint16{{2, 3}, {0, 2}, {9, 9}} {
		bad := bytes.Clone(b)
		le.PutUint16(bad[len(bad)-8:], v[0])
		le.PutUint16(bad[len(bad)-6:], v[1])
		err := readAll(t.Context(), bad, func(*Reader) error { return nil })
		require.ErrorIs(t, err, ErrUnsupported)
	}
	le.PutUint16(b[len(b)-8:], 2)
	le.PutUint16(b[len(b)-6:], 0)
	require.NoError(t, readAll(t.Context(), b, func(r *Reader) error { return r.Verify(t.Context()) }))
}
