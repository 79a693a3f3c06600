package lsm

import (
	"context"
	"errors"
	"iter"

	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// back yields a version of the base and then those before it, down to a number, the newest first. One that another program
// removed meanwhile is passed over. It ends with the first error.
func (t *Table) back(ctx context.Context, v *manifest.Version, down uint64) iter.Seq2[*manifest.Version, error] {
	return func(yield func(*manifest.Version, error) bool) {
		for n, u := v.Number, v; n >= max(down, 1); n-- {
			if n < v.Number {
				var err error
				if u, err = manifest.Load(ctx, t.db.st, t.root, n); errors.Is(err, object.ErrNotExist) {
					continue
				} else if err != nil {
					yield(nil, err)
					return
				}
			}
			if !yield(u, nil) {
				return
			}
		}
	}
}
