package lance

import (
	"fmt"
	"math"

	"github.com/apache/arrow-go/v18/arrow"
)

// Values that cannot be zipped, those of dictionaries and fixed-size lists of booleans, need chunks, and the lists without
// values between two of them go with the second: a chunk says in 16 bits how many they are. A row with more of them in lists
// of lists cannot be written in 2.1 and later, which is found out before a batch is taken.

// chunksOnly reports whether a column has lists of lists whose values cannot be zipped.
func (f *Field) chunksOnly(lists int) bool {
	if isListType(f.Type) {
		lists++
	}
	if f.leaf() {
		return lists > 1 && !f.zips()
	}
	for i := range f.Children {
		if f.Children[i].chunksOnly(lists) {
			return true
		}
	}
	return false
}

// check implements pages.
func (c *structuralColumn) check(d arrow.ArrayData) error {
	if err := c.node.check(d); err != nil || !c.node.field.chunksOnly(0) {
		return err
	}
	return c.checkLong(d)
}

// checkLong refuses rows with more lists in a row than there are levels for.
func (c *structuralColumn) checkLong(d arrow.ArrayData) error {
	for row := range d.Len() {
		if entriesOf(d, d.Offset()+row) <= math.MaxUint16 {
			continue
		}
		for _, path := range c.paths {
			f := path[len(path)-1].field
			if f.zips() {
				continue
			}
			s, err := shred(d, row, 1, path)
			if err == nil && !s.allNull() {
				_, err = s.writeChunks(&pageWriter{out: newOutput(nowhere{}, 0)}, f, c.style)
			}
			if err != nil {
				return fmt.Errorf("row %d: %w", row, err)
			}
		}
	}
	return nil
}

// nowhere is an object that nobody keeps.
type nowhere struct{}

func (nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (nowhere) Close() error                { return nil }
func (nowhere) Abort()                      {}
