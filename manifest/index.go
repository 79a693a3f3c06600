package manifest

import (
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/flightd/flightd/internal/bitmaps"
	"github.com/flightd/flightd/internal/lancepb"
)

// Index is one segment of an index. Segments of one index share its name and cover different fragments.
type Index struct {
	// UUID names the folder of the segment below _indices.
	UUID uuid.UUID
	// Name is the index as users know it.
	Name string
	// Fields are the ids of the indexed fields.
	Fields []int32
	// Version is the table version that the segment was built from.
	Version uint64
	// Fragments are those it covers; rows of others are not in it. Nil when the writer did not say.
	Fragments *roaring.Bitmap
	// Details wrap the message that tells the kind of index.
	Details *anypb.Any
	// IndexVersion is the version of the index's own format.
	IndexVersion int32
	// Created is when it was built, in milliseconds; zero when the writer did not say.
	Created time.Time
	// Files are those of the segment.
	Files []IndexFile

	raw *lancepb.IndexMetadata
}

// IndexFile is one file of an index segment.
type IndexFile struct {
	// Path is relative to the folder of the segment.
	Path string
	// Bytes is the size of the file.
	Bytes int64
}

// Dir returns the folder of the segment below the root of the table.
func (x *Index) Dir() string { return "_indices/" + x.UUID.String() }

// BTree reports whether the segment is a BTREE, which package btree reads.
func (x *Index) BTree() bool { return lancepb.Is(x.Details, &lancepb.BTreeIndexDetails{}) }

// Bitmap reports whether the segment is a BITMAP, which package bitmap reads.
func (x *Index) Bitmap() bool { return lancepb.Is(x.Details, &lancepb.BitmapIndexDetails{}) }

// LabelList reports whether the segment is a LABEL_LIST: a BITMAP of the items of lists.
func (x *Index) LabelList() bool { return lancepb.Is(x.Details, &lancepb.LabelListIndexDetails{}) }

// Vector reports whether the segment is one over vectors, of whatever kind: its files say which. The message's package was
// another in older versions of Lance.
func (x *Index) Vector() bool {
	return x.Details != nil && strings.HasSuffix(string(x.Details.MessageName()), ".VectorIndexDetails")
}

// indexFromProto checks and converts an index entry of a manifest.
func indexFromProto(p *lancepb.IndexMetadata) (Index, error) {
	x := Index{
		Name: p.GetName(), Fields: p.GetFields(), Version: p.GetDatasetVersion(),
		Details: p.GetIndexDetails(), IndexVersion: p.GetIndexVersion(), raw: p,
	}
	id, err := uuid.FromBytes(p.GetUuid().GetUuid())
	if err != nil {
		return x, fmt.Errorf("index %q: %w", x.Name, err)
	}
	x.UUID = id
	if b := p.GetFragmentBitmap(); len(b) > 0 {
		if x.Fragments, err = bitmaps.Parse(b); err != nil {
			return x, fmt.Errorf("index %q: fragments: %w", x.Name, err)
		}
	}
	if ms := p.GetCreatedAt(); ms > 0 && ms < math.MaxInt64 {
		x.Created = time.UnixMilli(int64(ms)).UTC()
	}
	for _, f := range p.GetFiles() {
		if !fs.ValidPath(f.GetPath()) || f.GetSizeBytes() > math.MaxInt64 {
			return x, fmt.Errorf("index %q: %q of %d bytes is no file of an index", x.Name, f.GetPath(), f.GetSizeBytes())
		}
		x.Files = append(x.Files, IndexFile{Path: f.GetPath(), Bytes: int64(f.GetSizeBytes())})
	}
	return x, nil
}

// newProto returns the message of an index segment that is being added.
func (x *Index) newProto() (*lancepb.IndexMetadata, error) {
	if x.Name == "" || x.Name == memWALIndex || x.Details == nil || x.Fragments == nil || x.UUID == uuid.Nil || len(x.Files) == 0 {
		return nil, fmt.Errorf("add index %q: it needs a name of its own, an id, a kind, fragments and files", x.Name)
	}
	bitmap, err := x.Fragments.ToBytes()
	if err != nil {
		return nil, fmt.Errorf("add index %q: %w", x.Name, err)
	}
	created := x.Created
	if created.IsZero() {
		created = time.Now()
	}
	version, ms := x.IndexVersion, uint64(created.UnixMilli())
	p := &lancepb.IndexMetadata{
		Uuid: uuidProto(x.UUID), Name: x.Name, Fields: slices.Clone(x.Fields), DatasetVersion: x.Version,
		FragmentBitmap: bitmap, IndexDetails: x.Details, IndexVersion: &version, CreatedAt: &ms,
	}
	for _, f := range x.Files {
		if !fs.ValidPath(f.Path) || f.Bytes <= 0 {
			return nil, fmt.Errorf("add index %q: %q of %d bytes is no file", x.Name, f.Path, f.Bytes)
		}
		p.Files = append(p.Files, &lancepb.IndexFile{Path: f.Path, SizeBytes: uint64(f.Bytes)})
	}
	return p, nil
}

func uuidProto(id uuid.UUID) *lancepb.UUID { return &lancepb.UUID{Uuid: id[:]} }
