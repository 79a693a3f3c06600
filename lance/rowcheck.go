package lance

import (
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
)

// CheckRows refuses rows of the field that no page of a version's files can hold, though their type can be stored: what a Writer refuses
// with its whole batch, for those who have to know earlier. It is ErrUnsupported.
func (f *Field) CheckRows(v Version, rows arrow.Array) error {
	if v == Version20 || !f.tight(0) {
		return nil
	}
	formed := f.formField()
	return newStructuralColumn(&formed, style{version: v}).checkRows(rows.Data())
}

// check implements pages.
func (c *structuralColumn) check(d arrow.ArrayData) error {
	if err := c.node.check(d); err != nil || !c.node.field.tight(0) {
		return err
	}
	return c.checkRows(d)
}

// checkRows refuses rows whose values have to fit into chunks and do not.
func (c *structuralColumn) checkRows(d arrow.ArrayData) error {
	for row := range d.Len() {
		// A page of several rows is cut so that its levels fit one chunk; a row of more is a page by itself.
		if entriesOf(d, d.Offset()+row) <= chunkLevels {
			continue
		}
		for _, path := range c.paths {
			if err := c.checkRow(d, row, path); err != nil {
				return fmt.Errorf("row %d: %w", row, err)
			}
		}
	}
	return nil
}

// tight reports whether there are leaves below lists of lists whose values have to fit into chunks.
func (f *Field) tight(lists int) bool {
	if isListType(f.Type) {
		lists++
	}
	if f.leaf() {
		return lists > 1 && !f.zips()
	}
	for i := range f.Children {
		if f.Children[i].tight(lists) {
			return true
		}
	}
	return false
}

// checkRow cuts a row of a leaf into chunks, if it cannot be written otherwise.
func (c *structuralColumn) checkRow(d arrow.ArrayData, row int, path []*tree) error {
	leaf := path[len(path)-1].field
	if leaf.zips() {
		return nil
	}
	s, err := shred(d, row, 1, path)
	if err != nil || s.allNull() {
		return err
	}
	chunks, _ := s.newChunker(leaf, c.style)
	return chunks.cut(chunks.values.perChunk())
}
