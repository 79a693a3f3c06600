package lance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/protobuf/proto"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/internal/offheap"
	"github.com/flightd/flightd/object"
)

// ReaderOptions tune a Reader. The zero value is ready to use.
type ReaderOptions struct {
	// Alloc makes the buffers that cannot be slices of the file; offheap.Default when nil. Queries keep pointers
	// into them across calls into C, so they should not be Go memory.
	Alloc memory.Allocator
}

// Reader reads one file. It is safe for concurrent use. Batches outlive it.
type Reader struct {
	name   string
	size   int64
	st     object.Store // where files beside it are
	src    source
	guard  guard
	closed atomic.Bool
	alloc  memory.Allocator

	footer  footer
	schema  *Schema
	meta    map[string]string
	rows    int64
	globals []extent   // entry 0 is the schema
	columns []column   // of the file: those of the schema, each with what is nested in it behind it
	tops    []int      // for each column of the schema that of the file; 2.0 only
	trees   []*tree    // for each column of the schema; of 2.1 and later
	sums    *checksums // nil when the file has none
}

// Open opens a file and reads its tail; the metadata of a column is read when it is first used. If size is not 0, the
// file must have it. Bytes that cannot be right give an object.CorruptError, here and in all that follows; a file of
// another version or with types that are not supported gives ErrUnsupported.
func Open(ctx context.Context, st object.Store, name string, size int64, o ReaderOptions) (*Reader, error) {
	obj, err := st.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	r := &Reader{name: name, size: obj.Size(), st: st, alloc: o.Alloc}
	if r.alloc == nil {
		r.alloc = offheap.Default
	}
	// A file that is too short must not be mapped: touching what is missing would end the process.
	if r.size < footerBytes || size != 0 && size != r.size {
		_ = obj.Close() // Nothing was written to it.
		return nil, r.corrupt(min(r.size, max(size, 0)), "the file has %d bytes, want %d", r.size, max(size, footerBytes))
	}
	if r.src, err = newSource(obj, r.alloc); err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	r.guard.users.Store(1)
	if err := r.readTail(); err != nil {
		_ = r.Close() // It never fails.
		return nil, err
	}
	return r, nil
}

// Schema returns the columns of the file. Its metadata is without what this package adds for itself.
func (r *Reader) Schema() *Schema { return r.schema }

// Version returns the version of the file.
func (r *Reader) Version() Version { return r.footer.version() }

// Rows returns the number of rows.
func (r *Reader) Rows() int64 { return r.rows }

// Metadata returns a copy of the schema's metadata.
func (r *Reader) Metadata() map[string]string { return maps.Clone(r.meta) }

// GlobalBuffer returns a copy of the user global buffer with the number that Writer.AddGlobalBuffer gave it.
func (r *Reader) GlobalBuffer(ctx context.Context, i int) ([]byte, error) {
	if err := r.enter(ctx); err != nil {
		return nil, err
	}
	defer r.leave()
	if i < 1 || i > r.userGlobals() {
		return nil, fmt.Errorf("read global buffer %d of %s: it has %d", i, r.name, r.userGlobals())
	}
	b, err := r.read(r.globals[i])
	if err != nil {
		return nil, err
	}
	defer b.Release()
	if err := r.checkGlobal(i, b.Bytes()); err != nil {
		return nil, err
	}
	return bytes.Clone(b.Bytes()), nil
}

// userGlobals is the number of global buffers without the schema and the checksums.
func (r *Reader) userGlobals() int {
	if r.sums != nil {
		return len(r.globals) - 2
	}
	return len(r.globals) - 1
}

// checkGlobal compares user global buffer i with its checksum, if there is one.
func (r *Reader) checkGlobal(i int, b []byte) error {
	if r.sums == nil {
		return nil
	}
	return r.checkSum(b, r.globals[i].off, r.sums.globals[i-1], fmt.Sprintf("global buffer %d", i))
}

// Close ends the reader. Operations that are under way and batches that are alive keep what they need; later calls
// return object.ErrClosed. It always returns nil, a second time as well.
func (r *Reader) Close() error {
	if r.closed.CompareAndSwap(false, true) {
		r.leave()
	}
	return nil
}

// enter begins an operation on the file; leave must follow.
func (r *Reader) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("read %s: %w", r.name, err)
	}
	if r.closed.Load() || !r.guard.enter() {
		return fmt.Errorf("read %s: %w", r.name, object.ErrClosed)
	}
	return nil
}

func (r *Reader) leave() {
	if r.guard.leave() {
		r.src.release()
	}
}

// read returns the bytes of an extent that was checked to lie in the file.
func (r *Reader) read(e extent) (*memory.Buffer, error) {
	b, err := r.src.read(e)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", r.name, err)
	}
	return b, nil
}

// mapped reports whether what is read is a slice of a mapping.
func (r *Reader) mapped() bool {
	_, ok := r.src.(mappedSource)
	return ok
}

// corrupt returns the error for bad bytes at the given offset.
func (r *Reader) corrupt(off int64, format string, args ...any) error {
	return &object.CorruptError{Name: r.name, Offset: off, Err: fmt.Errorf(format, args...)}
}

// checkSum compares bytes with the checksum that was stored for them.
func (r *Reader) checkSum(b []byte, off int64, stored uint32, what string) error {
	if sum := crc32.Checksum(b, castagnoli); sum != stored {
		return r.corrupt(off, "the checksum of %s is %08x, the file says %08x", what, sum, stored)
	}
	return nil
}

// readTail reads everything that Open needs: footer, tables, checksums and schema.
func (r *Reader) readTail() error {
	foot, err := r.read(extent{r.size - footerBytes, footerBytes})
	if err != nil {
		return err
	}
	defer foot.Release()
	if r.footer, err = parseFooter(foot.Bytes(), r.size); err != nil {
		return r.corrupt(r.size-footerBytes, "footer: %w", err)
	}
	if !r.footer.supported() {
		return fmt.Errorf("open %s: file version %d.%d: %w; this package reads 2.0, 2.1 and 2.2", r.name, r.footer.major, r.footer.minor, ErrUnsupported)
	}
	if r.globals, err = r.readTable(r.footer.globalTable, r.footer.globals, "global buffer table"); err != nil {
		return err
	}
	if len(r.globals) == 0 {
		return r.corrupt(r.footer.globalTable, "the file has no schema")
	}
	columns, err := r.readTable(r.footer.columnTable, r.footer.columns, "column table")
	if err != nil {
		return err
	}
	r.columns = make([]column, len(columns))
	for i := range r.columns {
		r.columns[i].at = columns[i]
	}
	if err := r.readChecksums(); err != nil {
		return err
	}
	return r.readSchema()
}

// readTable reads the entries of the column or global buffer table.
func (r *Reader) readTable(off int64, entries uint32, what string) ([]extent, error) {
	b, err := r.read(extent{off, int64(entries) * entryBytes})
	if err != nil {
		return nil, err
	}
	defer b.Release()
	table, err := parseExtents(b.Bytes(), r.size-footerBytes)
	if err != nil {
		return nil, r.corrupt(off, "%s: %w", what, err)
	}
	return table, nil
}

// readChecksums looks for checksums in the last global buffer.
func (r *Reader) readChecksums() error {
	last := len(r.globals) - 1
	at := r.globals[last]
	b, err := r.read(at)
	if err != nil {
		return err
	}
	defer b.Release()
	if last == 0 || !hasChecksums(b.Bytes()) {
		return nil
	}
	if r.sums, err = parseChecksums(b.Bytes()); err != nil {
		return r.corrupt(at.off, "checksums: %w", err)
	}
	if len(r.sums.columns) != len(r.columns) || len(r.sums.globals) != last-1 {
		return r.corrupt(at.off, "checksums of %d columns and %d global buffers, the file has %d and %d",
			len(r.sums.columns), len(r.sums.globals), len(r.columns), last-1)
	}
	return nil
}

// readSchema reads global buffer 0.
func (r *Reader) readSchema() error {
	at := r.globals[0]
	b, err := r.read(at)
	if err != nil {
		return err
	}
	defer b.Release()
	if r.sums != nil {
		if err := r.checkSum(b.Bytes(), at.off, r.sums.schema, "the schema"); err != nil {
			return err
		}
	}
	desc := &lancepb.FileDescriptor{}
	if err := proto.Unmarshal(b.Bytes(), desc); err != nil {
		return r.corrupt(at.off, "schema: %w", err)
	}
	if desc.GetLength() > math.MaxInt64 {
		return r.corrupt(at.off, "schema: %d rows", desc.GetLength())
	}
	r.rows = int64(desc.GetLength())
	if r.schema, err = SchemaFromProto(desc.GetSchema().GetFields(), desc.GetSchema().GetMetadata()); err != nil {
		if errors.Is(err, ErrUnsupported) {
			return fmt.Errorf("open %s: %w", r.name, err)
		}
		return r.corrupt(at.off, "schema: %w", err)
	}
	if err := r.placeFields(); err != nil {
		if errors.Is(err, ErrUnsupported) {
			return fmt.Errorf("open %s: %w", r.name, err)
		}
		return r.corrupt(at.off, "%w", err)
	}
	if err := r.matchChecksums(); err != nil {
		return err
	}
	delete(r.schema.Metadata, metaChecksums)
	r.meta = r.schema.Metadata
	return nil
}

// matchChecksums compares what the schema says of the checksums with what was found. Lance copies the metadata of an index's
// files when it writes them anew: such a file names a place that has none, and is read without.
func (r *Reader) matchChecksums() error {
	last := len(r.globals) - 1
	here := checksumPlace(last, r.globals[last].off)
	named, ok := r.schema.Metadata[metaChecksums]
	switch {
	case ok == (r.sums != nil) && (!ok || named == here):
		return nil
	case ok && r.sums == nil && named != here:
		there, err := r.checksumsAt(named)
		if err != nil || !there {
			return err
		}
	}
	return r.corrupt(r.globals[0].off, "the schema says that the checksums are in global buffer %q, which is not so", named)
}

// checksumsAt reports whether a buffer of checksums begins where the schema says.
func (r *Reader) checksumsAt(named string) (bool, error) {
	off, ok := checksumOffset(named)
	if !ok || off > r.size-footerBytes-int64(len(checksumMagic)) {
		return false, nil
	}
	b, err := r.read(extent{off, int64(len(checksumMagic))})
	if err != nil {
		return false, err
	}
	defer b.Release()
	return hasChecksums(b.Bytes()), nil
}

// placeFields finds the columns of the file that the fields of the schema have.
func (r *Reader) placeFields() error {
	next := 0
	if r.footer.structural() {
		for i := range r.schema.Fields {
			t, err := r.newTree(&r.schema.Fields[i], r.schema.Fields[i].Name, &next)
			if err != nil {
				return err
			}
			r.trees = append(r.trees, t)
		}
		if next != len(r.columns) {
			return fmt.Errorf("the schema has %d columns, the file %d", next, len(r.columns))
		}
		return nil
	}
	if n := len(r.schema.ColumnIDs(Version20)); n != len(r.columns) {
		return fmt.Errorf("the schema has %d columns, the file %d", n, len(r.columns))
	}
	for i := range r.schema.Fields {
		r.tops = append(r.tops, next)
		next = r.placeColumns(&r.schema.Fields[i], r.schema.Fields[i].Name, -1, next)
	}
	return nil
}

// placeColumns tells column col what it holds, and those behind it that are nested in it. It returns the next.
func (r *Reader) placeColumns(f *Field, path string, parent, col int) int {
	c := &r.columns[col]
	c.field, c.path, c.parent = f, path, parent
	next := col + 1
	if f.leaf() {
		return next
	}
	for i := range f.Children {
		c.children = append(c.children, next)
		next = r.placeColumns(&f.Children[i], path+"."+f.Children[i].Name, col, next)
	}
	return next
}
