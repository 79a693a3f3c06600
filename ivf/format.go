package ivf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"google.golang.org/protobuf/proto"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/vector"
)

const (
	// IndexFile is the file by which the folder of an index over vectors is known; it holds the centroids.
	IndexFile = "index.idx"
	// dataFile holds the rows.
	dataFile = "auxiliary.idx"

	markerColumn = "__flat_marker"
	idColumn     = "_rowid"
	codeColumn   = "__pq_code"
	flatColumn   = "flat"
	scalarColumn = "__sq_code"

	metaIVF     = "lance:ivf"
	metaIndex   = "lance:index"
	metaFlat    = "lance:flat"
	metaMetric  = "distance_type"
	metaStorage = "storage_metadata"

	// ivfBuffer and codebookBuffer are the global buffers in which a Writer puts them, as Lance does.
	ivfBuffer      = 1
	codebookBuffer = 2
)

// Kind is what an index keeps of its rows.
type Kind string

// The kinds, by Lance's names. Those behind Flat are read only. One with HNSW has a graph in each partition, which nothing here looks at: its rows
// lie beside it as in the kind without.
const (
	PQ       Kind = "IVF_PQ"
	Flat     Kind = "IVF_FLAT"
	SQ       Kind = "IVF_SQ"
	HNSWPQ   Kind = "IVF_HNSW_PQ"
	HNSWFlat Kind = "IVF_HNSW_FLAT"
	HNSWSQ   Kind = "IVF_HNSW_SQ"
)

// rows returns the kind of index that stores rows as this one does, "" for one that is not read.
func (k Kind) rows() Kind {
	switch k {
	case PQ, HNSWPQ:
		return PQ
	case Flat, HNSWFlat:
		return Flat
	case SQ, HNSWSQ:
		return SQ
	}
	return ""
}

var errUnsupported = lance.ErrUnsupported

// indexMeta is the JSON of metaIndex.
type indexMeta struct {
	Type   string `json:"type"`
	Metric string `json:"distance_type"`
}

// pqMeta is the JSON of metaStorage for IVF_PQ, in the order in which Lance writes it. It stands as a string in an array of one.
type pqMeta struct {
	CodebookPosition int   `json:"codebook_position"`
	Bits             int   `json:"nbits"`
	SubVectors       int   `json:"num_sub_vectors"`
	Dimension        int   `json:"dimension"`
	CodebookTensor   []int `json:"codebook_tensor"`
	Transposed       bool  `json:"transposed"`
}

// flatMeta is that for IVF_FLAT.
type flatMeta struct {
	Dim int `json:"dim"`
}

// readMeta reads kind and metric from the metadata of index.idx.
func readMeta(r *lance.Reader) (Kind, vector.Metric, error) {
	var m indexMeta
	if err := json.Unmarshal([]byte(r.Metadata()[metaIndex]), &m); err != nil {
		return "", 0, fmt.Errorf("metadata %s %q: %w", metaIndex, r.Metadata()[metaIndex], err)
	}
	metric, err := vector.ParseMetric(m.Metric)
	if err != nil {
		return "", 0, err
	}
	kind := Kind(m.Type)
	if kind.rows() == "" {
		return "", 0, fmt.Errorf("an index of kind %q, only %s, %s, %s, and these with HNSW are read: %w", m.Type, PQ, Flat, SQ, errUnsupported)
	}
	if metric == vector.Hamming && kind.rows() != Flat {
		return "", 0, fmt.Errorf("an index of kind %s under %s: %w", kind, metric, errUnsupported)
	}
	return kind, metric, nil
}

// readIVF reads the message whose global buffer the metadata name.
func readIVF(ctx context.Context, r *lance.Reader) (*lancepb.IVF, error) {
	n, err := strconv.Atoi(r.Metadata()[metaIVF])
	if err != nil {
		return nil, fmt.Errorf("metadata %s: %w", metaIVF, err)
	}
	b, err := r.GlobalBuffer(ctx, n)
	if err != nil {
		return nil, err
	}
	m := &lancepb.IVF{}
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("global buffer %d: %w", n, err)
	}
	return m, nil
}

// readCentroids returns the centroids of index.idx.
func readCentroids(m *lancepb.IVF, metric vector.Metric) (*vector.Centroids, error) {
	flat, dim := m.GetCentroids(), 0
	if t := m.GetCentroidsTensor(); t != nil {
		var err error
		if flat, _, dim, _, err = readTensor(t); err != nil {
			return nil, err
		}
	} else if n := len(m.GetLengths()); n > 0 {
		dim = len(flat) / n
	}
	if dim == 0 {
		return nil, errors.New("there are no centroids")
	}
	if metric == vector.Cosine {
		metric = vector.L2
	}
	return vector.NewCentroids(metric, dim, flat)
}

// readStorage decodes metaStorage, which is an array that holds JSON as a string.
func readStorage(r *lance.Reader, into any) error {
	var list []string
	text := r.Metadata()[metaStorage]
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return fmt.Errorf("metadata %s: %w", metaStorage, err)
	}
	if len(list) != 1 {
		return fmt.Errorf("metadata %s has %d entries, expected 1", metaStorage, len(list))
	}
	if err := json.Unmarshal([]byte(list[0]), into); err != nil {
		return fmt.Errorf("metadata %s: %w", metaStorage, err)
	}
	return nil
}

// pqBook is a product quantiser as it is stored.
type pqBook struct {
	meta   pqMeta
	tensor *lancepb.Tensor
}

// readPQ returns the product quantiser of auxiliary.idx.
func readPQ(ctx context.Context, r *lance.Reader) (*pqBook, error) {
	var m pqMeta
	if err := readStorage(r, &m); err != nil {
		return nil, err
	}
	var b []byte
	var err error
	if len(m.CodebookTensor) > 0 {
		// Writers before 2024 have the tensor in the metadata, as an array of bytes.
		b = make([]byte, len(m.CodebookTensor))
		for i, x := range m.CodebookTensor {
			b[i] = byte(x)
		}
	} else if b, err = r.GlobalBuffer(ctx, m.CodebookPosition); err != nil {
		return nil, err
	}
	t := &lancepb.Tensor{}
	if err := proto.Unmarshal(b, t); err != nil {
		return nil, fmt.Errorf("codebook: %w", err)
	}
	return &pqBook{m, t}, nil
}

// decode makes the quantiser.
func (b *pqBook) decode() (*vector.PQ, error) {
	flat, _, dim, _, err := readTensor(b.tensor)
	if err != nil {
		return nil, fmt.Errorf("codebook: %w", err)
	}
	if dim != b.meta.Dimension {
		return nil, fmt.Errorf("codebook of %d dimensions, the metadata say %d", dim, b.meta.Dimension)
	}
	return vector.NewPQ(dim, b.meta.SubVectors, b.meta.Bits, flat)
}

// readPartitions returns where the rows of each partition begin; one more place is the end of the last. Partitions lie back
// to back, so a table that says otherwise is damaged.
func readPartitions(m *lancepb.IVF, partitions int, rows int64) ([]int64, error) {
	if len(m.GetLengths()) != partitions || len(m.GetOffsets()) != partitions {
		return nil, fmt.Errorf("%d offsets and %d lengths of %d partitions", len(m.GetOffsets()), len(m.GetLengths()), partitions)
	}
	starts := make([]int64, 0, partitions+1)
	at := int64(0)
	for p, n := range m.GetLengths() {
		if n > 0 && m.GetOffsets()[p] != uint64(at) {
			return nil, fmt.Errorf("partition %d begins at row %d, expected %d", p, m.GetOffsets()[p], at)
		}
		starts = append(starts, at)
		at += int64(n)
	}
	if at != rows {
		return nil, fmt.Errorf("partitions have %d rows, the file has %d", at, rows)
	}
	return append(starts, at), nil
}

// dataSchema is that of auxiliary.idx: codes of width bytes, or vectors of dim elements.
func dataSchema(kind Kind, width, dim int, e element) *lance.Schema {
	rows := lance.Field{ID: 1, Name: codeColumn, Type: arrow.FixedSizeListOf(int32(width), arrow.PrimitiveTypes.Uint8), Nullable: true}
	switch kind {
	case SQ:
		rows.Name = scalarColumn
	case Flat:
		rows = lance.Field{ID: 1, Name: flatColumn, Type: arrow.FixedSizeListOf(int32(dim), e.arrow)}
	}
	return &lance.Schema{Fields: []lance.Field{{ID: 0, Name: idColumn, Type: arrow.PrimitiveTypes.Uint64, Nullable: true}, rows}}
}

// checkColumns refuses an auxiliary.idx whose columns are not those of dataSchema.
func checkColumns(s *lance.Schema, want *lance.Schema) error {
	if len(s.Fields) != 2 {
		return fmt.Errorf("%d columns, expected 2", len(s.Fields))
	}
	for i, f := range s.Fields {
		w := want.Fields[i]
		if f.Name != w.Name || f.Type.ID() != w.Type.ID() {
			return fmt.Errorf("column %q of %s, expected %q of %s", f.Name, f.Type, w.Name, w.Type)
		}
		list, ok := f.Type.(*arrow.FixedSizeListType)
		if !ok {
			continue
		}
		wl := w.Type.(*arrow.FixedSizeListType)
		if list.Len() != wl.Len() || !arrow.TypeEqual(list.Elem(), wl.Elem()) {
			return fmt.Errorf("column %q of %s, expected %s", f.Name, f.Type, w.Type)
		}
	}
	return nil
}
