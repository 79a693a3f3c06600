package lsm

import (
	"context"
	"errors"
	"fmt"

	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// Tag gives a version of the table a name, under which it stays until Untag, and returns its number. With version 0 it is one that has
// everything that was written before the call: it is brought into the base, unless the table can only be read.
func (t *Table) Tag(ctx context.Context, name string, version uint64) (uint64, error) {
	if err := manifest.CheckTagName(name); err != nil {
		return 0, fmt.Errorf("%w tag %q: %w", ErrInvalid, name, err)
	}
	if version == 0 && t.refuseWrite() == nil {
		if err := t.optimize(ctx); err != nil {
			return 0, fmt.Errorf("tag table %q: %w", t.name, err)
		}
	}
	if version == 0 {
		b, err := t.holdBase()
		if err != nil {
			return 0, err
		}
		defer b.unref()
		version = b.version.Number
	} else {
		v, err := t.At(ctx, AsOf{Version: version}) // nobody collects it meanwhile
		if err != nil {
			return 0, err
		}
		defer v.Close()
	}
	err := manifest.PutTag(ctx, t.db.st, t.root, name, version)
	if errors.Is(err, object.ErrExists) {
		err = fmt.Errorf("tag %q of table %q: %w", name, t.name, ErrTagExists)
	}
	return version, err
}

// Untag takes a tag away, and returns the number of the version that had it, 0 for one of a branch.
func (t *Table) Untag(ctx context.Context, name string) (uint64, error) {
	if err := manifest.CheckTagName(name); err != nil {
		return 0, fmt.Errorf("tag %q of table %q: %w", name, t.name, ErrTagNotFound)
	}
	version, err := manifest.DeleteTag(ctx, t.db.st, t.root, name)
	if errors.Is(err, object.ErrNotExist) {
		err = fmt.Errorf("tag %q of table %q: %w", name, t.name, ErrTagNotFound)
	}
	return version, err
}
