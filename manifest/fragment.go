package manifest

import (
	"fmt"
	"io/fs"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/flightd/flightd/internal/lancepb"
)

// Fragment is a horizontal slice of a table. The address of a row is the fragment's ID << 32 | the row's offset in it.
type Fragment struct {
	// ID is given by Commit and never used twice in a table.
	ID uint64
	// Files each hold other fields of the same rows.
	Files []DataFile
	// Deletion names the deleted rows; nil when there are none.
	Deletion *Deletion
	// Rows counts the rows in the files, deleted ones included.
	Rows int64

	raw *lancepb.DataFragment
}

// DataFile is one Lance file of a fragment.
type DataFile struct {
	// Path is relative to the folder data of the table.
	Path string
	// Fields are the ids of the fields in the file; negative ones are columns that no longer count.
	Fields []int32
	// Columns are the columns of the file that hold Fields.
	Columns []int32
	// Major and Minor are the file version, 2 and 0 for what we write.
	Major, Minor uint32
	// Bytes is the size of the file, 0 when the writer did not say.
	Bytes int64
}

// DeletionKind is the format of a deletion file.
type DeletionKind uint8

const (
	// Bitmap is a portable roaring bitmap.
	Bitmap DeletionKind = iota
	// Array is an Arrow IPC file with one column of offsets.
	Array
)

// Deletion is the deletion file of a fragment.
type Deletion struct {
	Kind DeletionKind
	// ReadVersion and ID are parts of the file's name.
	ReadVersion, ID uint64
	// Rows is how many rows are deleted.
	Rows int64
	// Checksum is the CRC32C of the file, 0 when its writer gave none.
	Checksum uint32
}

// Path returns where the deletion file of a fragment lies below the root of the table.
func (d *Deletion) Path(fragment uint64) string {
	ext := "bin"
	if d.Kind == Array {
		ext = "arrow"
	}
	return fmt.Sprintf("_deletions/%d-%d-%d.%s", fragment, d.ReadVersion, d.ID, ext)
}

// fragmentFromProto checks and converts a fragment of a manifest.
func fragmentFromProto(p *lancepb.DataFragment) (Fragment, error) {
	f := Fragment{ID: p.GetId(), Rows: int64(p.GetPhysicalRows()), raw: p}
	if f.ID > math.MaxUint32 {
		return f, fmt.Errorf("fragment id %d does not fit a row address", f.ID)
	}
	if f.Rows < 0 || f.Rows > math.MaxUint32 {
		return f, fmt.Errorf("fragment %d: %d rows do not fit a row address", f.ID, p.GetPhysicalRows())
	}
	for _, file := range p.GetFiles() {
		if file.BaseId != nil {
			return f, fmt.Errorf("fragment %d: file %q lies outside the table", f.ID, file.GetPath())
		}
		if !fs.ValidPath(file.GetPath()) || file.GetPath() == "." {
			return f, fmt.Errorf("fragment %d: %q is no path of a data file", f.ID, file.GetPath())
		}
		if len(file.GetFields()) != len(file.GetColumnIndices()) {
			return f, fmt.Errorf("fragment %d: file %q has %d fields and %d columns", f.ID, file.GetPath(), len(file.GetFields()), len(file.GetColumnIndices()))
		}
		if file.GetFileSizeBytes() > math.MaxInt64 {
			return f, fmt.Errorf("fragment %d: file %q has an impossible size", f.ID, file.GetPath())
		}
		f.Files = append(f.Files, DataFile{
			Path: file.GetPath(), Fields: file.GetFields(), Columns: file.GetColumnIndices(),
			Major: file.GetFileMajorVersion(), Minor: file.GetFileMinorVersion(), Bytes: int64(file.GetFileSizeBytes()),
		})
	}
	d, err := deletionFromProto(p)
	if err != nil {
		return f, fmt.Errorf("fragment %d: %w", f.ID, err)
	}
	f.Deletion = d
	return f, nil
}

func deletionFromProto(p *lancepb.DataFragment) (*Deletion, error) {
	df := p.GetDeletionFile()
	if df == nil {
		return nil, nil
	}
	if df.BaseId != nil {
		return nil, fmt.Errorf("its deletion file lies outside the table")
	}
	if df.GetNumDeletedRows() > p.GetPhysicalRows() {
		return nil, fmt.Errorf("%d of %d rows are deleted", df.GetNumDeletedRows(), p.GetPhysicalRows())
	}
	d := &Deletion{ReadVersion: df.GetReadVersion(), ID: df.GetId(), Rows: int64(df.GetNumDeletedRows()), Checksum: df.GetFlightdCrc32C()}
	switch df.GetFileType() {
	case lancepb.DeletionKind_BITMAP:
		d.Kind = Bitmap
	case lancepb.DeletionKind_ARROW_ARRAY:
		d.Kind = Array
	default:
		return nil, fmt.Errorf("deletion files of kind %d are unknown", df.GetFileType())
	}
	return d, nil
}

// newProto returns the message of a fragment that is being appended. It has no id yet.
func (f *Fragment) newProto() (*lancepb.DataFragment, error) {
	if f.Deletion != nil || f.Rows <= 0 || f.Rows > math.MaxUint32 || len(f.Files) == 0 {
		return nil, fmt.Errorf("append a fragment of %d rows in %d files: it must have rows, files and no deletions", f.Rows, len(f.Files))
	}
	p := &lancepb.DataFragment{PhysicalRows: uint64(f.Rows)}
	for _, file := range f.Files {
		if !fs.ValidPath(file.Path) || len(file.Fields) != len(file.Columns) || file.Bytes <= 0 {
			return nil, fmt.Errorf("append file %q of %d bytes: it needs a path, a size and a column for each field", file.Path, file.Bytes)
		}
		p.Files = append(p.Files, &lancepb.DataFile{
			Path: file.Path, Fields: slices.Clone(file.Fields), ColumnIndices: slices.Clone(file.Columns),
			FileMajorVersion: file.Major, FileMinorVersion: file.Minor, FileSizeBytes: uint64(file.Bytes),
		})
	}
	return p, nil
}

// withDeletion returns the message of f with another deletion file and everything else as it was.
func (f *Fragment) withDeletion(d *Deletion) *lancepb.DataFragment {
	p := proto.CloneOf(f.raw)
	p.DeletionFile = &lancepb.DeletionFile{
		FileType: lancepb.DeletionKind_BITMAP, ReadVersion: d.ReadVersion, Id: d.ID, NumDeletedRows: uint64(d.Rows),
		FlightdCrc32C: &d.Checksum,
	}
	return p
}
