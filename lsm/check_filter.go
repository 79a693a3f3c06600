package lsm

import (
	"context"
	"fmt"
	"path"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/btree"
	"github.com/flightd/flightd/object"
)

// keyFilter checks that the filter of a generation has each of its keys: rows of one that it lacks would be found by no
// key, and older rows of that key would come back.
func (c *checker) keyFilter(ctx context.Context, dir string) error {
	f, err := openKeyFilter(ctx, c.st, dir)
	if err != nil || f == nil {
		return err
	}
	defer f.Close()
	c.sum.KeyFilters++
	x, err := btree.Open(ctx, c.st, path.Join(dir, keyIndexFolder), btree.Options{})
	if err != nil {
		return nil // that is the index's fault, which was reported
	}
	defer x.Close()
	codec := &keyCodec{typ: x.Type(), wide: isWideKey(x.Type())}
	row, missing, first := int64(0), 0, ""
	var scratch []int64
	err = x.Scan(ctx, func(values arrow.Array, _ []uint64) error {
		keys := codec.normaliseArray(values, scratch[:0])
		scratch = keys.ints
		for i := range values.Len() {
			if f.Has(keys.hashOf(i)) {
				continue
			}
			if missing++; missing == 1 {
				first = fmt.Sprintf("the first is entry %d of its index, %s", row+int64(i), values.ValueStr(i))
			}
		}
		row += int64(values.Len())
		return nil
	})
	switch name := path.Join(dir, keyFilterFile); {
	case err != nil:
		return nil // as above
	case missing > 0:
		return &object.CorruptError{Name: name, Err: fmt.Errorf("%d of the generation's %d keys are not in it; %s", missing, row, first)}
	case f.Keys() != row:
		return &object.CorruptError{Name: name, Err: fmt.Errorf("it has %d keys, the generation %d", f.Keys(), row)}
	}
	return nil
}
