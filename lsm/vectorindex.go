package lsm

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/google/uuid"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/ivf"
	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
	"github.com/flightd/flightd/vector"
)

// modelID is the identity of a model: a hash of all that it consists of. Segments with models of one identity have the same
// partitions, and codes of one mean the same in the other, whoever wrote them. It is in the manifest with each segment that is
// written here (modelHint).
type modelID uuid.UUID

// String is the identity as a manifest has it.
func (m modelID) String() string { return uuid.UUID(m).String() }

// vectorModel is what rows that come into an index over vectors are put in by.
type vectorModel struct {
	entry indexEntry
	id    modelID
	ivf   *vector.IVF
	// item is the type of the vectors' elements.
	item arrow.DataType
	// trained is how rows lay when it was trained, nil if that is not known, or is just being found out.
	trained *ivf.Trained
}

// newModelID returns the identity of a model for vectors of some elements.
func newModelID(m *vector.IVF, item arrow.DataType) modelID {
	h := sha256.New()
	var head []byte
	head = append(head, m.Metric().String()+" "+item.String()+" "...)
	head = binary.LittleEndian.AppendUint32(head, uint32(m.Dim()))
	head = binary.LittleEndian.AppendUint32(head, uint32(m.Partitions()))
	head = binary.LittleEndian.AppendUint32(head, uint32(m.CodeBytes()))
	h.Write(head)
	h.Write(arrow.Float32Traits.CastToBytes(m.Centroids().Flat()))
	if pq := m.PQ(); pq != nil {
		h.Write([]byte{byte(pq.Bits())})
		h.Write(arrow.Float32Traits.CastToBytes(pq.Codebook()))
	}
	var id modelID
	copy(id[:], h.Sum(nil))
	return id
}

// vectorSegment is an open index over a column of vectors, of a generation or of some fragments of the base. The ids are
// addresses in the base, and rows in a generation.
type vectorSegment struct {
	meta  manifest.Index
	index *ivf.Index
	model modelID
}

// field returns the id of the column.
func (s *vectorSegment) field() int32 { return s.meta.Fields[0] }

// kind returns what kind of index it is of.
func (s *vectorSegment) kind() IndexKind { return IndexKind(s.index.Kind()) }

// vectorSegments are those of a dataset.
type vectorSegments struct {
	// kept are of kinds that are made here, too: rows come into them.
	kept []*vectorSegment
	// found are of kinds that only others make: they are searched, and rows that they do not cover are compared one by one.
	found []*vectorSegment
	// refused says why others cannot be used, by the name of the index, for those over the column with a field id.
	refused map[int32]string
}

// openVectors opens the segments that a dataset has over columns of vectors. One that cannot be used is left out, as openColumns
// does: its rows are compared one by one.
func openVectors(ctx context.Context, st object.Store, root string, v *manifest.Version, now *tableSchema, t *Table) vectorSegments {
	var out vectorSegments
	for _, x := range addressed(v) {
		if !x.Vector() || x.Fragments == nil || len(x.Fields) != 1 {
			continue
		}
		c := now.column(x.Fields[0])
		if c < 0 {
			continue
		}
		index, err := ivf.Open(ctx, st, path.Join(root, x.Dir()), ivf.Options{Files: vectorFiles(x), Models: &t.db.models})
		if err != nil {
			t.warn("open index "+x.Name+"; its rows are compared one by one", err)
			if errors.Is(err, lance.ErrUnsupported) {
				out.refuse(x, err)
			}
			continue
		}
		list, ok := now.arrow.Field(c).Type.(*arrow.FixedSizeListType)
		switch {
		case !ok || int(list.Len()) != index.Dim() || !arrow.TypeEqual(list.Elem(), index.Element()):
			_ = index.Close() // open for reading only
		case index.Extensible():
			out.kept = append(out.kept, &vectorSegment{meta: x, index: index, model: newModelID(index.Model(), index.Element())})
		default:
			out.found = append(out.found, &vectorSegment{meta: x, index: index})
		}
	}
	return out
}

// refuse notes why an index is not used.
func (v *vectorSegments) refuse(x manifest.Index, err error) {
	if v.refused == nil {
		v.refused = map[int32]string{}
	}
	v.refused[x.Fields[0]] = fmt.Sprintf("index %s is not used: %v", x.Name, err)
}

// vectorFiles returns the sizes that the manifest knows of a segment's files.
func vectorFiles(x manifest.Index) []ivf.File {
	files := make([]ivf.File, len(x.Files))
	for i, f := range x.Files {
		files[i] = ivf.File{Path: f.Path, Bytes: f.Bytes}
	}
	return files
}

// closeVectors ends the use of segments.
func closeVectors(list []*vectorSegment) {
	for _, s := range list {
		_ = s.index.Close() // open for reading only
	}
}

// vectorsOver returns the segments over the column of vectors with a field id. Those of one name are one index.
func (b *base) vectorsOver(field int32) []*vectorSegment { return vectorsOver(b.vectors, field) }

// searchedOver returns the segments by which rows are found, those of kinds that only others make included.
func (b *base) searchedOver(field int32) []*vectorSegment {
	return append(b.vectorsOver(field), vectorsOver(b.found, field)...)
}

// vectorsOver returns the generation's segments over the column of vectors with a field id.
func (g *generation) vectorsOver(field int32) []*vectorSegment {
	return slices.DeleteFunc(vectorsOver(g.vectors, field), func(s *vectorSegment) bool { return !s.meta.Fragments.Contains(uint32(g.frag.id)) })
}

// vectorOf returns the generation's segment of an index, nil without one.
func (g *generation) vectorOf(x indexEntry) *vectorSegment {
	for _, s := range g.vectorsOver(x.Fields[0]) {
		if strings.EqualFold(s.meta.Name, x.Name) {
			return s
		}
	}
	return nil
}

func vectorsOver(list []*vectorSegment, field int32) []*vectorSegment {
	var out []*vectorSegment
	for _, s := range list {
		if s.field() == field {
			out = append(out, s)
		}
	}
	return out
}

// vectorsOf returns the segments of an index over vectors.
func (b *base) vectorsOf(x indexEntry) []*vectorSegment {
	return slices.DeleteFunc(b.vectorsOver(x.Fields[0]), func(s *vectorSegment) bool { return !strings.EqualFold(s.meta.Name, x.Name) })
}

// vectorCovers returns the fragments of the version whose rows a segment has.
func (b *base) vectorCovers(s *vectorSegment) *roaring.Bitmap { return b.living(s.meta.Fragments) }

// vectorEntries returns the indexes over vectors: those of the catalog, and those that another program made in a base, which may be
// nil. Rows come into these, too.
func (t *Table) vectorEntries(b *base) []indexEntry {
	list := t.indexList()
	var out []indexEntry
	for _, x := range list {
		if x.Kind.isVector() {
			out = append(out, x)
		}
	}
	if b == nil {
		return out
	}
	for _, s := range b.vectors {
		named := func(x indexEntry) bool { return strings.EqualFold(x.Name, s.meta.Name) }
		if !slices.ContainsFunc(list, named) && !slices.ContainsFunc(out, named) {
			out = append(out, indexEntry{Name: s.meta.Name, Kind: s.kind(), Fields: s.meta.Fields, Options: s.options()})
		}
	}
	return out
}

// options returns the options by which an index like the segment's is defined.
func (s *vectorSegment) options() map[string]string {
	m := s.index.Model()
	o := map[string]string{optionMetric: s.index.Metric().String(), optionPartitions: strconv.Itoa(m.Partitions())}
	if pq := m.PQ(); pq != nil {
		o[optionSubVectors], o[optionBits] = strconv.Itoa(pq.SubVectors()), strconv.Itoa(pq.Bits())
	}
	return o
}

// fits reports whether a segment is one that the definition of an index allows for.
func (s *vectorSegment) fits(x indexEntry) bool {
	if s.kind() != x.Kind {
		return false
	}
	have := s.options()
	if want := x.Options[optionMetric]; want != "" {
		m, err := vector.ParseMetric(want)
		if err != nil || m != s.index.Model().Metric() {
			return false
		}
	} else if s.index.Model().Metric() != vector.L2 {
		return false
	}
	for _, name := range []string{optionPartitions, optionSubVectors, optionBits} {
		if want := x.Options[name]; want != "" && want != have[name] {
			return false
		}
	}
	return true
}

// modelOf returns the model of an index in a base, which may be nil: that of the newest segment. It returns false for an index that
// is not trained yet.
func (b *base) modelOf(x indexEntry) (vectorModel, bool) {
	if b == nil {
		return vectorModel{}, false
	}
	list := b.vectorsOf(x)
	if len(list) == 0 {
		return vectorModel{}, false
	}
	s := list[len(list)-1] // a manifest has them in the order in which they came
	return vectorModel{entry: x, id: s.model, ivf: s.index.Model(), item: s.index.Element(), trained: trainedOf(list, s.model)}, true
}

// trainedOf returns how rows lay when a model of some segments was trained: what the largest training says.
func trainedOf(list []*vectorSegment, model modelID) (out *ivf.Trained) {
	for _, s := range list {
		if s.model != model {
			continue
		}
		if was := s.index.Trained(); was != nil && (out == nil || was.Rows > out.Rows) {
			out = was
		}
	}
	return out
}

// vectorModels returns the models of all indexes that have one and whose columns the table still has: a base goes on naming others
// until the next merge.
func (t *Table) vectorModels(b *base) []vectorModel {
	var out []vectorModel
	for _, x := range t.vectorEntries(b) {
		if m, ok := b.modelOf(x); ok && t.now().column(x.Fields[0]) >= 0 {
			out = append(out, m)
		}
	}
	return out
}

// modelHint is the key of a model's identity among the runtime hints that Lance's details of an index over vectors have for whom it
// may concern.
const modelHint = "flightd.model"

// newVectorMeta returns what a manifest says of a segment that is to be written: all but its fragments and files.
func newVectorMeta(m vectorModel, version uint64) (manifest.Index, error) {
	out := manifest.Index{Name: m.entry.Name, UUID: uuid.New(), Fields: m.entry.Fields, Version: version, Fragments: roaring.New(), IndexVersion: ivf.IndexVersion}
	details, err := ivf.Details(m.ivf)
	if err != nil {
		return out, err
	}
	var d lancepb.VectorIndexDetails
	if err = lancepb.Unwrap(details, &d); err != nil {
		return out, err
	}
	d.RuntimeHints = map[string]string{modelHint: m.id.String()}
	out.Details, err = lancepb.NewAny(&d)
	return out, err
}
