package lance

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"

	"github.com/apache/arrow-go/v18/arrow"
	"google.golang.org/protobuf/proto"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/object"
	"github.com/flightd/flightd/spill"
)

// defaultPageBytes is Lance's own page size: a page costs about 130 bytes of metadata, and readers fetch parts of it.
const defaultPageBytes = 8 << 20

// deterministic makes equal files of equal input, metadata maps included.
var deterministic = proto.MarshalOptions{Deterministic: true}

// WriterOptions tune a Writer. The zero value is ready to use.
type WriterOptions struct {
	// PageBytes is the size in bytes at which a page of a column is cut; 8 MiB when 0. One row is never divided.
	PageBytes int64
	// Metadata is added to the schema's metadata in the file.
	Metadata map[string]string
	// Version is that of the file: Version20, which the zero value is, Version21, which can say null structs, or Version22,
	// which can say maps, too.
	Version Version
	// Compress packs numbers and codes texts, page by page, where that takes less room; vectors and what is wider than
	// 64 bits stay as they are. Files of version 2.0 cannot be compressed.
	Compress bool
	// SpillPages takes what is known of the pages until the end, so that what a Writer holds does not grow with the number
	// of its pages; nil keeps it in memory. The file is the same to the byte. Side files lie there until Finish or Abort.
	SpillPages *spill.Folder
	// SpillBytes is what SpillPages keeps in memory for all columns of the file, 256 KiB when 0: see the package comment.
	SpillBytes int64
}

func (o WriterOptions) validate() (WriterOptions, error) {
	if o.PageBytes == 0 {
		o.PageBytes = defaultPageBytes
	}
	if o.Version < Version20 || o.Version > Version22 {
		return o, fmt.Errorf("lance.WriterOptions.Version is %d: %w", o.Version, ErrUnsupported)
	}
	if o.Compress && o.Version == Version20 {
		return o, fmt.Errorf("lance.WriterOptions.Compress with Version %s, which has no compression: %w", o.Version, ErrUnsupported)
	}
	if o.PageBytes < 0 {
		return o, fmt.Errorf("lance.WriterOptions.PageBytes is %d, want a positive size", o.PageBytes)
	}
	return o, nil
}

// FileInfo describes a finished file.
type FileInfo struct {
	// Name is the name of the object.
	Name string
	// Rows and Bytes are its length.
	Rows, Bytes int64
	// Version is that of the format.
	Version Version
}

// Writer writes one file. It belongs to one goroutine and ends with Finish or Abort.
type Writer struct {
	name    string
	schema  *Schema
	out     *output
	columns []*columnWriter
	ledger  *ledger
	globals []extent // user global buffers
	sums    []uint32 // of the user global buffers
	meta    map[string]string
	rows    int64
	options WriterOptions
	loose   int64 // bytes of rows since columns last let go of the caller's arrays
	err     error // the first failure, or that the writer has ended
}

var errEnded = errors.New("the writer has ended")

// Create begins a file. The folders above it are made; their entries are durable after st.SyncDirs.
func Create(ctx context.Context, st object.Store, name string, s *Schema, o WriterOptions) (*Writer, error) {
	o, err := o.validate()
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	w := &Writer{name: name, schema: s, meta: maps.Clone(s.Metadata), options: o}
	if w.meta == nil {
		w.meta = map[string]string{}
	}
	maps.Copy(w.meta, o.Metadata)
	if err := s.Check(o.Version); err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	for _, f := range s.Fields {
		err := f.check()
		if err == nil {
			err = f.writableForms()
		}
		if err != nil {
			return nil, fmt.Errorf("create %s: column %q: %w", name, f.Name, err)
		}
		w.columns = append(w.columns, newColumnWriter(f, o))
	}
	if w.ledger, err = newLedger(w.lists(), o); err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	obj, err := st.Create(ctx, name)
	if err != nil {
		return nil, err
	}
	w.out = newOutput(obj, o.PageBytes)
	return w, nil
}

// lists returns what is known of the pages of all columns of the file, in order.
func (w *Writer) lists() (lists []*pageList) {
	for _, c := range w.columns {
		lists = append(lists, c.root.columns()...)
	}
	return lists
}

// Write appends a batch. Its columns are those of the schema, in order, and are matched by type, not by name. The
// Writer retains what does not fill a page yet; it holds a few times PageBytes of the caller's memory at most.
func (w *Writer) Write(ctx context.Context, rec arrow.RecordBatch) error {
	if err := w.ready(ctx); err != nil {
		return fmt.Errorf("write %s: %w", w.name, err)
	}
	if err := w.check(rec); err != nil {
		return fmt.Errorf("write %s: %w", w.name, err)
	}
	w.rows += rec.NumRows()
	for i, c := range w.columns {
		size, err := c.add(w.out, rec.Column(i).Data())
		if err != nil {
			w.err = err
			return fmt.Errorf("write %s: column %q: %w", w.name, c.field.Name, err)
		}
		w.loose += size
	}
	if w.loose >= w.options.PageBytes {
		return w.own()
	}
	return nil
}

// EndPages writes the rows that wait for their pages to become full, as smaller ones, so that nothing of the caller's is
// held. Each call that has something to write costs a page of every column.
func (w *Writer) EndPages(ctx context.Context) error {
	if err := w.ready(ctx); err != nil {
		return fmt.Errorf("write %s: %w", w.name, err)
	}
	for _, c := range w.columns {
		if err := c.flush(w.out); err != nil {
			w.err = err
			return fmt.Errorf("write %s: column %q: %w", w.name, c.field.Name, err)
		}
	}
	w.loose = 0
	return nil
}

// own lets columns copy what they hold, where that is little of what it keeps alive.
func (w *Writer) own() error {
	for _, c := range w.columns {
		if err := c.own(w.loose / 4); err != nil {
			w.err = err
			return fmt.Errorf("write %s: column %q: %w", w.name, c.field.Name, err)
		}
	}
	w.loose = 0
	return nil
}

// check refuses a batch that the file cannot hold before any of it is taken.
func (w *Writer) check(rec arrow.RecordBatch) error {
	if int(rec.NumCols()) != len(w.columns) {
		return fmt.Errorf("the batch has %d columns, the file %d", rec.NumCols(), len(w.columns))
	}
	for i, c := range w.columns {
		if err := c.check(rec.Column(i).Data(), rec.NumRows()); err != nil {
			return fmt.Errorf("column %q: %w", c.field.Name, err)
		}
	}
	return nil
}

// AddGlobalBuffer stores b in the file and returns the number under which Reader.GlobalBuffer finds it, from 1.
func (w *Writer) AddGlobalBuffer(ctx context.Context, b []byte) (int, error) {
	if err := w.ready(ctx); err != nil {
		return 0, fmt.Errorf("add a global buffer to %s: %w", w.name, err)
	}
	if err := w.addGlobal(b); err != nil {
		return 0, fmt.Errorf("add a global buffer to %s: %w", w.name, err)
	}
	return len(w.globals), nil
}

func (w *Writer) addGlobal(b []byte) error {
	at, sum, err := w.out.append(b)
	if err != nil {
		w.err = err
		return err
	}
	w.globals, w.sums = append(w.globals, at), append(w.sums, sum)
	return nil
}

// SetMetadata sets an entry of the schema's metadata in the file.
func (w *Writer) SetMetadata(k, v string) { w.meta[k] = v }

// Finish writes the last pages and the tail and makes the file durable. On an error the file is removed.
func (w *Writer) Finish(ctx context.Context) (FileInfo, error) {
	err := w.ready(ctx)
	if err == nil {
		err = w.finish()
	}
	if err != nil {
		w.Abort()
		return FileInfo{}, fmt.Errorf("finish %s: %w", w.name, err)
	}
	w.err = errEnded
	w.ledger.close()
	return FileInfo{Name: w.name, Rows: w.rows, Bytes: w.out.pos, Version: w.options.Version}, nil
}

// Abort removes the file. After Finish or Abort it does nothing.
func (w *Writer) Abort() {
	if errors.Is(w.err, errEnded) {
		return
	}
	w.err = errEnded
	for _, c := range w.columns {
		c.release()
	}
	w.out.obj.Abort()
	w.ledger.close()
}

// ready reports why the writer cannot go on, if so.
func (w *Writer) ready(ctx context.Context) error {
	if w.err != nil {
		return w.err
	}
	return ctx.Err()
}

// finish writes everything behind the pages. The checksums come before what they cover; of where they are, that has their
// offset only.
func (w *Writer) finish() error {
	for _, c := range w.columns {
		err := c.flush(w.out)
		if err == nil {
			err = c.root.end()
		}
		if err != nil {
			return fmt.Errorf("column %q: %w", c.field.Name, err)
		}
	}
	if err := w.out.begin(); err != nil {
		return err
	}
	w.meta[metaChecksums] = checksumPlace(len(w.globals)+1, w.out.pos)
	desc := &lancepb.FileDescriptor{
		Schema: &lancepb.FileSchema{Fields: w.schema.Proto(), Metadata: bytesMap(w.meta)},
		Length: uint64(w.rows),
	}
	schema, err := deterministic.Marshal(desc)
	if err != nil {
		return fmt.Errorf("encode the schema: %w", err)
	}
	if err := w.writeChecksums(crc32.Checksum(schema, castagnoli)); err != nil {
		return err
	}
	return w.writeTail(schema)
}

// writeChecksums writes the last user global buffer, column by column. REQUIRES: the buffer is begun.
func (w *Writer) writeChecksums(schema uint32) error {
	lists := w.lists()
	b := le.AppendUint32(checksumMagic[:], schema)
	b = le.AppendUint32(b, uint32(len(w.sums)))
	b = le.AppendUint32(b, uint32(len(lists)))
	for _, sum := range w.sums {
		b = le.AppendUint32(b, sum)
	}
	if err := w.out.Write(b); err != nil {
		return err
	}
	for _, l := range lists {
		head := le.AppendUint32(nil, l.sum)
		if err := w.out.Write(le.AppendUint32(head, l.buffers)); err != nil {
			return err
		}
		if err := l.writeSums(w.out); err != nil {
			return err
		}
	}
	if err := w.out.Write(le.AppendUint32(nil, w.out.sum)); err != nil {
		return err
	}
	at, sum := w.out.end()
	w.globals, w.sums = append(w.globals, at), append(w.sums, sum)
	return nil
}

// writeTail writes the schema, the metadata of the columns, the tables and the footer.
func (w *Writer) writeTail(schema []byte) error {
	at, _, err := w.out.append(schema)
	if err != nil {
		return err
	}
	lists := w.lists()
	f := footer{
		columnStart: w.out.pos, globals: uint32(1 + len(w.globals)), columns: uint32(len(lists)),
		major: 0, minor: 3, // This is how the file format writes 2.0; manifests write it as 2 and 0.
	}
	if v := w.options.Version; v > Version20 {
		f.major, f.minor = 2, uint16(v)
	}
	table := make([]extent, len(lists))
	for i, l := range lists {
		table[i] = extent{w.out.pos, l.size}
		if err := l.writeMetadata(w.out); err != nil {
			return err
		}
	}
	f.columnTable = w.out.pos
	tail := appendExtents(nil, table)
	f.globalTable = f.columnTable + int64(len(tail))
	tail = appendExtents(tail, []extent{at})
	tail = appendExtents(tail, w.globals)
	if err := w.out.Write(f.append(tail)); err != nil {
		return err
	}
	return w.out.close()
}
