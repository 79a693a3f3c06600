package lance

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime/metrics"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/object"
)

// boundedAllocator knows how much was out at most.
type boundedAllocator struct {
	memory.Allocator
	out, peak atomic.Int64
}

func (a *boundedAllocator) Allocate(n int) []byte {
	a.note(int64(n))
	return a.Allocator.Allocate(n)
}

func (a *boundedAllocator) Reallocate(n int, b []byte) []byte {
	a.note(int64(n - len(b)))
	return a.Allocator.Reallocate(n, b)
}

func (a *boundedAllocator) Free(b []byte) {
	a.note(-int64(len(b)))
	a.Allocator.Free(b)
}

func (a *boundedAllocator) note(n int64) {
	a.peak.Store(max(a.peak.Load(), a.out.Add(n)))
}

// FuzzRead reads anything as a file: there must be no panic, no error of an unknown kind, no memory out of proportion and
// nothing left behind. It begins with files of a kilobyte or two, of which thousands are read in a second; what larger ones
// have besides is TestDamagedFiles's.
func FuzzRead(f *testing.F) {
	for _, name := range formFiles(f) {
		b, err := os.ReadFile(name)
		require.NoError(f, err)
		f.Add(b)
	}
	b, _ := smallFile(f)
	f.Add(b)
	f.Add(withoutChecksums(f, b))
	for _, b := range tinyFiles(f) {
		f.Add(b)
	}
	f.Fuzz(requireSafe)
}

// tinyFiles are files of one column each without checksums, in every version and style, of types whose pages differ.
func tinyFiles(t testing.TB) (files [][]byte) {
	styles := map[string]WriterOptions{"2.0": {}, "2.0, cut": {PageBytes: 40}, "2.1": {Version: Version21}}
	maps.Copy(styles, laterStyles)
	for _, name := range slices.Sorted(maps.Keys(styles)) {
		for i, dt := range []arrow.DataType{
			arrow.PrimitiveTypes.Int32, arrow.BinaryTypes.LargeString, arrow.FixedWidthTypes.Boolean, arrow.FixedSizeListOf(3, arrow.PrimitiveTypes.Int16),
			arrow.FixedSizeListOf(70, arrow.PrimitiveTypes.Float32), arrow.ListOf(arrow.BinaryTypes.String), arrow.LargeListOf(arrow.ListOf(arrow.PrimitiveTypes.Int8)), point,
		} {
			nulls := 0.2
			if dt.ID() == arrow.STRUCT {
				nulls = 0 // its second field has none
			}
			rec := oneColumn(newGenerator(uint64(i), nulls).whole(dt, 20))
			st := object.NewMem()
			writeFile(t, st, "f", rec.Schema(), styles[name], rec)
			b, err := st.Get(t.Context(), "f")
			require.NoError(t, err)
			files = append(files, withoutChecksums(t, b))
		}
	}
	return files
}

// requireSafe reads anything as a file, from a mapping or in parts.
func requireSafe(t *testing.T, b []byte) {
	alloc := &boundedAllocator{Allocator: memory.NewGoAllocator()}
	err := readAnything(t, b, alloc)
	var corrupt *object.CorruptError
	if err != nil && !errors.As(err, &corrupt) && !errors.Is(err, ErrUnsupported) {
		t.Fatalf("an error of no kind: %v", err)
	}
	require.Zero(t, alloc.out.Load(), "memory is left behind")
	require.Less(t, alloc.peak.Load(), memoryFor(b))
}

// memoryFor is what reading a batch of a file may take.
func memoryFor(b []byte) int64 { return int64(len(b))*2 + 64<<20 }

// requireMemory calls fn, which may take from the heap, garbage included, what reading a batch of a file may.
func requireMemory(t *testing.T, b []byte, fn func() error) error {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	before := sample[0].Value.Uint64()
	err := fn()
	metrics.Read(sample)
	require.Less(t, sample[0].Value.Uint64()-before, uint64(memoryFor(b)))
	return err
}

// mappable is a store whose objects are mapped: they are in memory as they are.
type mappable struct{ object.Store }

type mappedObject struct {
	object.Reader
	b []byte
}

func (m mappable) Open(ctx context.Context, name string) (object.Reader, error) {
	b, err := m.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	r, err := m.Store.Open(ctx, name)
	return mappedObject{r, b}, err
}

func (r mappedObject) Map() ([]byte, error) { return r.b, nil }

// formFiles are small files whose columns have forms of their own.
func formFiles(t testing.TB) []string {
	names, err := filepath.Glob(filepath.Join(fixtures, "forms", "*.lance"))
	require.NoError(t, err)
	require.NotEmpty(t, names)
	return names
}

// TestDamagedFiles changes a few bytes, mostly of what describes the pages, in files without checksums.
func TestDamagedFiles(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 30
	}
	names := formFiles(t)
	for _, name := range []string{"few21", "few22", "types22", "nested"} {
		names = append(names, filepath.Join(fixtures, name+".lance"))
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			whole, err := os.ReadFile(name)
			require.NoError(t, err)
			dice := newGenerator(5, 0)
			for range rounds {
				b := bytes.Clone(whole)
				for range 1 + dice.IntN(4) {
					from := 0
					if dice.IntN(3) > 0 {
						from = int(le.Uint64(b[len(b)-footerBytes:])) // where the metadata of the columns begins
					}
					b[from+dice.IntN(len(b)-footerBytes-from)] ^= byte(1 + dice.IntN(255))
				}
				requireSafe(t, b)
			}
		})
	}
}

// withoutChecksums returns the file without its checksums, so that what is changed in it is not found at once.
func withoutChecksums(t testing.TB, b []byte) []byte {
	b = append([]byte{}, b...)
	require.NoError(t, readAll(t.Context(), b, func(r *Reader) error {
		b[r.globals[len(r.globals)-1].off] ^= 1
		return nil
	}))
	// The key in the schema must go as well.
	i := len(b) - 1
	for string(b[i-len(metaChecksums):i]) != metaChecksums {
		i--
	}
	b[i-1] ^= 1
	require.NoError(t, readAll(t.Context(), b, func(r *Reader) error {
		require.False(t, r.HasChecksums())
		return nil
	}))
	return b
}

// readAnything opens a file and reads a bounded part of it in every way.
func readAnything(t *testing.T, b []byte, alloc memory.Allocator) error {
	ctx := t.Context()
	var st object.Store = object.NewMem()
	if err := st.Put(ctx, "f", b); err != nil {
		return err
	}
	if len(b)%2 == 0 {
		st = mappable{st}
	}
	var r *Reader
	if err := requireMemory(t, b, func() (err error) {
		r, err = Open(ctx, st, "f", 0, ReaderOptions{Alloc: alloc})
		return err
	}); err != nil {
		return err
	}
	defer r.Close()
	errs := []error{requireMemory(t, b, func() error { return r.Verify(ctx) }), r.Describe(io.Discard)}
	for c := range r.Schema().Fields {
		errs = append(errs, scanSome(t, b, r, []int{c}, 0), scanSome(t, b, r, []int{c}, r.Rows()/2))
		if r.Rows() > 0 {
			errs = append(errs, requireMemory(t, b, func() error {
				rec, err := r.Take(ctx, []int{c}, []int64{0, r.Rows() - 1, r.Rows() / 2, 0})
				if err == nil {
					touch(rec.Column(0).Data())
					rec.Release()
				}
				return err
			}))
		}
	}
	for i := range 3 {
		if _, err := r.GlobalBuffer(ctx, i+1); i < r.userGlobals() {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// scanSome reads a few batches: a file can claim any number of null rows.
func scanSome(t *testing.T, b []byte, r *Reader, columns []int, off int64) error {
	s := r.Scan(columns, off, r.Rows(), 0)
	defer s.Close()
	for range 5 {
		err := requireMemory(t, b, func() error {
			rec, err := s.Next(t.Context())
			if err == nil {
				touch(rec.Column(0).Data())
				rec.Release()
			}
			return err
		})
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// touch reads every value.
func touch(d interface{ Len() int }) {
	switch a := array.MakeFromData(d.(*array.Data)).(type) {
	case *array.String:
		for i := range a.Len() {
			_ = len(a.Value(i))
		}
		a.Release()
	default:
		if a.Len() < 1<<20 {
			_ = array.Equal(a, a)
		}
		a.Release()
	}
}

// FuzzBlock decodes anything as the values of a chunk, in any encoding that a page can name.
func FuzzBlock(f *testing.F) {
	text := flatBlock(8)
	inline := func(bits uint64) *lancepb.CompressiveEncoding {
		return &lancepb.CompressiveEncoding{Compression: &lancepb.CompressiveEncoding_InlineBitpacking{InlineBitpacking: &lancepb.InlineBitpacking{UncompressedBitsPerValue: bits}}}
	}
	general := func(scheme lancepb.CompressionScheme) *lancepb.CompressiveEncoding {
		return &lancepb.CompressiveEncoding{Compression: &lancepb.CompressiveEncoding_General{General: &lancepb.GeneralBlock{
			Compression: &lancepb.BufferCompression{Scheme: scheme}, Values: flatBlock(32)}}}
	}
	symbols := append([]byte{0, 0, 0, 0, 0, 0, 0, 0}, "abcdefgh"...)
	for _, e := range []*lancepb.CompressiveEncoding{
		text, flatBlock(1), flatBlock(64), variableBlock(32), variableBlock(64), inline(8), inline(16), inline(32), inline(64), levelsEncoding(3),
		valueEncoding(arrow.FixedSizeListOf(3, arrow.PrimitiveTypes.Int16), true),
		general(lancepb.CompressionScheme_COMPRESSION_ALGORITHM_LZ4), general(lancepb.CompressionScheme_COMPRESSION_ALGORITHM_ZSTD),
		{Compression: &lancepb.CompressiveEncoding_Fsst{Fsst: &lancepb.FsstBlock{SymbolTable: symbols, Values: variableBlock(32)}}},
		{Compression: &lancepb.CompressiveEncoding_Rle{Rle: &lancepb.RleBlock{Values: flatBlock(32), RunLengths: flatBlock(8)}}},
		{Compression: &lancepb.CompressiveEncoding_ByteStreamSplit{ByteStreamSplit: &lancepb.ByteStreamSplit{Values: flatBlock(32)}}},
	} {
		b, err := proto.Marshal(e)
		require.NoError(f, err)
		for _, n := range []uint16{1, 100, 1024} {
			f.Add(b, bytes.Repeat([]byte{12, 0, 0, 0, 1, 2, 3, 4}, 700), n)
		}
	}
	f.Fuzz(func(t *testing.T, encoding, b []byte, n uint16) {
		var e lancepb.CompressiveEncoding
		if proto.Unmarshal(encoding, &e) != nil {
			return
		}
		d, err := parseBlock(&e)
		if err != nil || int(n) > maxValues {
			return
		}
		bufs := make([][]byte, d.buffers())
		for i := range bufs {
			bufs[i] = b[len(b)*i/len(bufs) : len(b)*(i+1)/len(bufs)]
		}
		out, err := d.decode(bufs, int(n), &scratch{})
		if err != nil || out.bits*out.n > 1<<30 { // null items take no room, and a scan asks for fewer of them at once
			return
		}
		var dt arrow.DataType = arrow.BinaryTypes.LargeBinary
		switch {
		case out.bits == 1:
			dt = arrow.FixedWidthTypes.Boolean
		case out.bits%8 == 0 && out.bits > 0:
			dt = &arrow.FixedSizeBinaryType{ByteWidth: out.bits / 8}
		case out.bits > 0:
			return
		}
		alloc := &boundedAllocator{Allocator: memory.NewGoAllocator()}
		values := newLeafValues(dt, out.n, alloc)
		_ = values.add(&out, 0, out.n) // what does not fit is an error
		values.release()
		require.Zero(t, alloc.out.Load(), "memory is left behind")
	})
}

func FuzzChecksums(f *testing.F) {
	f.Add((&checksums{schema: 1, globals: []uint32{2}, columns: []columnSums{{3, []uint32{4, 5}}, {6, nil}}}).encode())
	f.Add((&checksums{}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseChecksums(b)
		if err == nil {
			require.Equal(t, b, c.encode())
		}
	})
}

func FuzzLogicalType(f *testing.F) {
	for _, dt := range storable {
		name, err := logicalType(dt)
		require.NoError(f, err)
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		dt, err := parseLogicalType(name)
		if err != nil {
			return
		}
		again, err := logicalType(dt)
		require.NoError(t, err)
		back, err := parseLogicalType(again)
		require.NoError(t, err)
		require.Equal(t, dt, back)
	})
}
