package ivf

import (
	"errors"
	"fmt"

	"github.com/flightd/flightd/lance"
)

const (
	// defaultShuffleBytes is a group of a million rows with codes of 16 bytes. Smaller groups are more ranges to read for each
	// partition; larger ones are memory that an index build has no other use for.
	defaultShuffleBytes = 32 << 20
	// maxShufflePage is the size of pages of a shuffle's file: what is read beside a range is little, and so is what there
	// is to know of pages.
	maxShufflePage = 1 << 20
	// minShufflePage is the size of pages when there are very many files; smaller ones would be less than what is known of them.
	minShufflePage = 1 << 10
)

// ShuffleOptions tune a shuffle. The zero value is ready to use.
type ShuffleOptions struct {
	// BufferBytes is what is sorted in memory at a time, and later what is read at a time; 32 MiB when 0.
	BufferBytes int64
	// SpillBytes is what all open files keep of their pages' metadata in memory together, 256 KiB when 0, though never less
	// than 64 bytes for each stream of metadata, and 2 KiB for each file where partitions have their own.
	SpillBytes int64
	// PagesInMemory keeps the metadata of pages in memory instead of in side files. It is there to measure what that costs.
	PagesInMemory bool
}

func (o ShuffleOptions) validate(partitions, width int) (ShuffleOptions, error) {
	if partitions <= 0 || width <= 0 {
		return o, fmt.Errorf("shuffle rows of %d bytes into %d partitions: there have to be both", width, partitions)
	}
	if o.BufferBytes < 0 || o.SpillBytes < 0 {
		return o, fmt.Errorf("ivf.ShuffleOptions has %d bytes for rows and %d for metadata, neither can be negative", o.BufferBytes, o.SpillBytes)
	}
	if o.BufferBytes == 0 {
		o.BufferBytes = defaultShuffleBytes
	}
	if o.SpillBytes == 0 {
		o.SpillBytes = 256 << 10
	}
	return o, nil
}

// errShuffle is returned when calls of a shuffler come in a wrong order.
var errShuffle = errors.New("the shuffle is not in a state for this call")

// checkRows refuses rows whose parts do not fit each other.
func checkRows(parts []int32, ids []uint64, codes []byte, width int) error {
	if len(parts) != len(ids) || len(codes) != len(ids)*width {
		return fmt.Errorf("shuffle: %d partitions and %d bytes of codes for %d rows of %d bytes", len(parts), len(codes), len(ids), width)
	}
	return nil
}

// shuffleFile returns the schema and options of a shuffle's file.
func shuffleFile(width int) (*lance.Schema, error) {
	return lance.SchemaFromArrow(shuffleSchema(width), 0)
}
