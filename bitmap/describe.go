package bitmap

import (
	"context"
	"fmt"
	"io"

	"github.com/RoaringBitmap/roaring/v2"
)

// Summary is what an index holds.
type Summary struct {
	// Values counts the values, without the null.
	Values int
	// Entries counts the rows of all values, the null's included; a row of a list is there once for each item. Rows of
	// fragments that a bitmap has as a whole are not among them.
	Entries uint64
	// Whole counts those fragments, for each value anew.
	Whole int
	// Fragments are those that any value has rows of.
	Fragments []uint32
	// Least and Greatest are texts of values, empty when there is none.
	Least, Greatest string
}

// Summarise reads all bitmaps.
func (x *Index) Summarise(ctx context.Context) (Summary, error) {
	s := Summary{Values: len(x.order)}
	if n := len(x.order); n > 0 {
		s.Least, s.Greatest = x.keys.ValueStr(int(x.order[0])), x.keys.ValueStr(int(x.order[n-1]))
	}
	fragments := roaring.New()
	for row := range x.r.Rows() {
		list, err := x.bitmap(ctx, int32(row))
		if err != nil {
			return s, err
		}
		for _, f := range list {
			fragments.Add(f.fragment)
			if f.rows == nil {
				s.Whole++
			} else {
				s.Entries += f.rows.GetCardinality()
			}
		}
	}
	s.Fragments = fragments.ToArray()
	return s, nil
}

// Describe tells people what is in the index.
func (x *Index) Describe(w io.Writer) error {
	s, err := x.Summarise(context.Background())
	if err != nil {
		return err
	}
	text := fmt.Sprintf("bitmap of %s, %d values, %d entries, fragments %v", x.value, s.Values, s.Entries, s.Fragments)
	if s.Whole > 0 {
		text += fmt.Sprintf(", %d times all rows of one", s.Whole)
	}
	if s.Values > 0 {
		text += fmt.Sprintf("\nfrom %s to %s", s.Least, s.Greatest)
	}
	_, err = fmt.Fprintln(w, text)
	return err
}
