package object

import (
	"context"
	"io"
	"time"
)

// Info describes an object or a folder.
type Info struct {
	// Name is the last element of the path.
	Name string
	// Size is in bytes, 0 for a folder.
	Size int64
	// ModTime is the time of the last write.
	ModTime time.Time
	// Dir is true for a folder.
	Dir bool
}

// Store holds objects under names. The package comment says which of its effects survive a crash.
type Store interface {
	// Open prepares random reads of an object.
	Open(ctx context.Context, name string) (Reader, error)
	// Get reads a whole small object.
	Get(ctx context.Context, name string) ([]byte, error)
	// Stat describes an object or a folder.
	Stat(ctx context.Context, name string) (Info, error)
	// PutIfAbsent stores an object durably, or returns ErrExists when the name is taken.
	PutIfAbsent(ctx context.Context, name string, data []byte) error
	// Put stores an object durably and replaces what had the name; a reader sees the old or the new one whole.
	Put(ctx context.Context, name string, data []byte) error
	// Create begins a new object and makes the folders above it; ErrExists when the name is taken.
	Create(ctx context.Context, name string) (Writer, error)
	// List returns the direct children of a folder, sorted by name. A missing folder has none.
	List(ctx context.Context, dir string) ([]Info, error)
	// Delete removes one object.
	Delete(ctx context.Context, name string) error
	// DeleteAll removes a folder or object and everything below it. A missing one is no error.
	DeleteAll(ctx context.Context, dir string) error
	// SyncDirs makes durable the entries of the folder that holds name and of all folders above it.
	SyncDirs(ctx context.Context, name string) error
}

// Reader gives random access to an object as it was when it was opened.
type Reader interface {
	io.ReaderAt
	io.Closer
	// Size is the length of the object in bytes.
	Size() int64
}

// Mapper is a Reader whose bytes can be had without copying them.
type Mapper interface {
	// Map returns the whole object, read-only and outside the Go heap. It is valid until Reader.Close.
	Map() ([]byte, error)
}

// Writer appends to a new object. After an error only Abort may be called.
type Writer interface {
	io.Writer
	// Close makes the bytes durable. A failed Close is final: the same bytes must not be synced again, because
	// the system may have dropped them and would report success.
	Close() error
	// Abort removes the object. After a Close that succeeded it does nothing.
	Abort()
}
