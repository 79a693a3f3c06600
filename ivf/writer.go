package ivf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/protobuf/proto"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/object"
	"github.com/flightd/flightd/spill"
	"github.com/flightd/flightd/vector"
)

// WriterOptions tune a Writer. The zero value is the default.
type WriterOptions struct {
	// Element is the type of the elements of the indexed vectors; default float32. A model that was trained here for another type
	// has numbers that this type holds exactly: see Train.
	Element arrow.DataType
	// Version is that of the files; default 2.0, which every reader takes and whose rows are used in place.
	Version lance.Version
	// Trained is what Drift compares with later, nil if it is not known.
	Trained *Trained
	// Loss is the sum of the distances between the rows trained with and their centroids, for people.
	Loss float64
	// spillPages takes what is known of the pages of the rows' file.
	spillPages *spill.Folder
	// large is largeBytes but in tests.
	large int64
}

const (
	// pageBytes is the size of pages that a partition does not exceed by itself: a store that cannot map reads a page at a time.
	pageBytes = 8 << 20
	// endBytes is how much a page has when it ends with a partition. So hardly any partition lies in two pages, where it would have
	// to be copied by who reads it from a mapped file.
	endBytes = 1 << 20
)

// Writer writes an index from rows that come partition by partition. It must be ended by Finish or Abort.
type Writer struct {
	st    object.Store
	dir   string
	kind  Kind
	model *vector.IVF
	elem  element
	width int
	large int64
	o     WriterOptions

	data    *lance.Writer
	schema  *arrow.Schema
	lengths []uint32
	// ids and codes are the rows of the current partition; those of IVF_FLAT are written as they come.
	ids   []uint64
	codes []byte
	part  int
	// pending is the bytes of the page at hand.
	pending int
}

// Create begins an index of a model in a folder of its own. Without product quantisation it is an IVF_FLAT.
func Create(ctx context.Context, st object.Store, dir string, model *vector.IVF, o WriterOptions) (*Writer, error) {
	e, err := elementOf(o.Element)
	if err != nil {
		return nil, fmt.Errorf("create index %s: %w", dir, err)
	}
	w := &Writer{st: st, dir: dir, kind: PQ, model: model, elem: e, width: rowBytes(model, e), large: largeBytes, o: o, lengths: make([]uint32, model.Partitions())}
	if o.large > 0 {
		w.large = o.large
	}
	if model.PQ() == nil {
		w.kind = Flat
	}
	s := dataSchema(w.kind, w.width, model.Dim(), e)
	w.schema = s.Arrow()
	if w.data, err = lance.Create(ctx, st, path.Join(dir, dataFile), s, lance.WriterOptions{PageBytes: pageBytes, Version: o.Version, SpillPages: o.spillPages}); err != nil {
		return nil, fmt.Errorf("create index %s: %w", dir, err)
	}
	return w, nil
}

// rowBytes is what an index stores of a row beside its id.
func rowBytes(model *vector.IVF, e element) int {
	if model.PQ() == nil {
		return model.Dim() * e.bytes
	}
	return model.CodeBytes()
}

// Add appends rows to a partition, whose number is not below that of the call before: their ids, and their codes, which stand in
// rows; in IVF_FLAT the elements as the model prepared them, in bytes. It keeps neither.
func (w *Writer) Add(ctx context.Context, part int, ids []uint64, codes []byte) error {
	if len(codes) != len(ids)*w.width {
		return fmt.Errorf("add to index %s: %d bytes for %d rows of %d", w.dir, len(codes), len(ids), w.width)
	}
	if err := w.enter(ctx, part, len(ids)); err != nil {
		return err
	}
	w.ids, w.codes = append(w.ids, ids...), append(w.codes, codes...)
	if w.kind == Flat && len(w.codes) >= endBytes {
		return w.flush(ctx)
	}
	return nil
}

// enter goes on to a partition, if it is another one, and counts rows of it.
func (w *Writer) enter(ctx context.Context, part, n int) error {
	switch {
	case part < w.part || part >= len(w.lengths):
		return fmt.Errorf("add to index %s: partition %d of %d behind partition %d", w.dir, part, len(w.lengths), w.part)
	case uint64(w.lengths[part])+uint64(n) > math.MaxUint32:
		return fmt.Errorf("add to index %s: partition %d would have more than %d rows", w.dir, part, uint32(math.MaxUint32))
	}
	if part != w.part {
		if err := w.flush(ctx); err != nil {
			return err
		}
		w.part = part
		if w.pending >= endBytes {
			if err := w.data.EndPages(ctx); err != nil {
				return fmt.Errorf("add to index %s: %w", w.dir, err)
			}
			w.pending = 0
		}
	}
	w.lengths[part] += uint32(n)
	return nil
}

// flush writes the rows that wait: all of the current partition, because its codes are turned into columns.
func (w *Writer) flush(ctx context.Context) error {
	n := len(w.ids)
	if n == 0 {
		return nil
	}
	// The lance.Writer keeps what it is given until a page is full.
	ids, codes := make([]uint64, n), make([]byte, len(w.codes))
	copy(ids, w.ids)
	if w.kind == PQ {
		vector.TransposeCodes(codes, w.codes, n)
	} else {
		copy(codes, w.codes)
	}
	w.ids, w.codes = w.ids[:0], w.codes[:0]
	return w.write(ctx, ids, codes)
}

// write appends rows to the file as they will stand there, and keeps them.
func (w *Writer) write(ctx context.Context, ids []uint64, codes []byte) error {
	n := len(ids)
	w.pending += len(codes)
	list := w.schema.Field(1).Type.(*arrow.FixedSizeListType)
	items := array.NewData(list.Elem(), n*int(list.Len()), []*memory.Buffer{nil, memory.NewBufferBytes(codes)}, nil, 0, 0)
	defer items.Release()
	rows := array.NewData(list, n, []*memory.Buffer{nil}, []arrow.ArrayData{items}, 0, 0)
	defer rows.Release()
	rowArray := array.MakeFromData(rows)
	defer rowArray.Release()
	idData := array.NewData(arrow.PrimitiveTypes.Uint64, n, []*memory.Buffer{nil, memory.NewBufferBytes(arrow.Uint64Traits.CastToBytes(ids))}, nil, 0, 0)
	defer idData.Release()
	idArray := array.NewUint64Data(idData)
	defer idArray.Release()
	rec := array.NewRecordBatch(w.schema, []arrow.Array{idArray, rowArray}, int64(n))
	defer rec.Release()
	if err := w.data.Write(ctx, rec); err != nil {
		return fmt.Errorf("add to index %s: %w", w.dir, err)
	}
	return nil
}

// Finish completes the index, makes it durable and lists its files. After an error only Abort may be called.
func (w *Writer) Finish(ctx context.Context) ([]File, error) {
	files, err := w.finish(ctx)
	if err != nil {
		return nil, fmt.Errorf("finish index %s: %w", w.dir, err)
	}
	return files, nil
}

func (w *Writer) finish(ctx context.Context) ([]File, error) {
	if err := w.flush(ctx); err != nil {
		return nil, err
	}
	data, err := w.finishData(ctx)
	if err != nil {
		return nil, err
	}
	index, err := w.writeIndex(ctx)
	if err != nil {
		return nil, err
	}
	if err := w.st.SyncDirs(ctx, path.Join(w.dir, IndexFile)); err != nil {
		return nil, err
	}
	return []File{{Path: dataFile, Bytes: data.Bytes}, {Path: IndexFile, Bytes: index.Bytes}}, nil
}

// finishData writes the tail of auxiliary.idx.
func (w *Writer) finishData(ctx context.Context) (lance.FileInfo, error) {
	m := &lancepb.IVF{Lengths: w.lengths, Offsets: make([]uint64, len(w.lengths))}
	at := uint64(0)
	for p, n := range w.lengths {
		m.Offsets[p] = at
		at += uint64(n)
	}
	if err := addMessage(ctx, w.data, m, ivfBuffer); err != nil {
		return lance.FileInfo{}, err
	}
	var storage any = flatMeta{Dim: w.model.Dim()}
	if pq := w.model.PQ(); pq != nil {
		storage = pqMeta{codebookBuffer, pq.Bits(), pq.SubVectors(), pq.Dim(), []int{}, true}
		// The shape says code words and elements whatever the order is in memory.
		t := writeTensor(pq.Codebook(), pq.Dim(), w.elem)
		if err := addMessage(ctx, w.data, t, codebookBuffer); err != nil {
			return lance.FileInfo{}, err
		}
	}
	one, err := json.Marshal(storage)
	if err != nil {
		return lance.FileInfo{}, err
	}
	list, err := json.Marshal([]string{string(one)})
	if err != nil {
		return lance.FileInfo{}, err
	}
	w.data.SetMetadata(metaIVF, strconv.Itoa(ivfBuffer))
	w.data.SetMetadata(metaMetric, w.model.Metric().String())
	w.data.SetMetadata(metaStorage, string(list))
	return w.data.Finish(ctx)
}

// writeIndex writes index.idx.
func (w *Writer) writeIndex(ctx context.Context) (lance.FileInfo, error) {
	kind, err := json.Marshal(indexMeta{string(w.kind), w.model.Metric().String()})
	if err != nil {
		return lance.FileInfo{}, err
	}
	empty, err := json.Marshal(make([]string, len(w.lengths)))
	if err != nil {
		return lance.FileInfo{}, err
	}
	s := &lance.Schema{Fields: []lance.Field{{ID: 0, Name: markerColumn, Type: arrow.PrimitiveTypes.Uint64}}}
	f, err := lance.Create(ctx, w.st, path.Join(w.dir, IndexFile), s, lance.WriterOptions{Version: w.o.Version, Metadata: map[string]string{
		metaIndex: string(kind), metaFlat: string(empty), metaIVF: strconv.Itoa(ivfBuffer),
	}})
	if err != nil {
		return lance.FileInfo{}, err
	}
	defer f.Abort()
	if w.o.Trained != nil {
		text, err := json.Marshal(w.o.Trained)
		if err != nil {
			return lance.FileInfo{}, err
		}
		f.SetMetadata(metaTrained, string(text))
	}
	c, loss := w.model.Centroids(), w.o.Loss
	m := &lancepb.IVF{
		Offsets: make([]uint64, len(w.lengths)), Lengths: make([]uint32, len(w.lengths)),
		CentroidsTensor: writeTensor(c.Flat(), c.Dim(), w.elem), Loss: &loss,
	}
	if err := addMessage(ctx, f, m, ivfBuffer); err != nil {
		return lance.FileInfo{}, err
	}
	return f.Finish(ctx)
}

// addMessage stores a message in a global buffer that must get the number want.
func addMessage(ctx context.Context, w *lance.Writer, m proto.Message, want int) error {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return err
	}
	if n, err := w.AddGlobalBuffer(ctx, b); err != nil || n != want {
		return errors.Join(err, fmt.Errorf("global buffer %d, expected %d", n, want))
	}
	return nil
}

// Abort removes what was written. After a Finish that succeeded it does nothing.
func (w *Writer) Abort() { w.data.Abort() }
