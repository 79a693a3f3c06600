package main

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"

	"github.com/flightd/flightd/lsm"
	"github.com/flightd/flightd/lsm/wal"
)

// entries describes log entries in Lance's form: the object that path names, or all in the folder, in their order. A position
// in the middle without an entry is damage.
func (v *inspector) entries(ctx context.Context) error {
	st, name := store(v.path)
	if v.file {
		p, ok := wal.EntryPosition(name)
		if !ok {
			return fmt.Errorf("%s is not named like a log entry", v.path)
		}
		return v.entry(ctx, p)
	}
	list, err := st.List(ctx, name)
	if err != nil {
		return err
	}
	var positions []uint64
	for _, x := range list {
		if p, ok := wal.EntryPosition(x.Name); ok {
			positions = append(positions, p)
		}
	}
	slices.Sort(positions)
	var faults []error
	for i, p := range positions {
		if i > 0 && p != positions[i-1]+1 && !v.json {
			if _, err := fmt.Fprintf(v.out, "no entries %d to %d\n", positions[i-1]+1, p-1); err != nil {
				return err
			}
		}
		if err := v.entry(ctx, p); err != nil { // the others may be whole
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

// ownEntry describes an entry that flightd wrote.
func (v *inspector) ownEntry(e *wal.OwnEntry) error {
	if !v.json {
		return lsm.DescribeEntry(v.out, e)
	}
	records := []fields{}
	for i := range e.Records {
		records = append(records, recordJSON(&e.Records[i]))
	}
	return v.object(fields{"position": e.Position, "epoch": e.Epoch, "sentinel": e.Sentinel, "records": records})
}

// entry describes the entry at a position.
func (v *inspector) entry(ctx context.Context, position uint64) error {
	dir := v.path
	if v.file {
		dir = filepath.Dir(dir)
	}
	st, folder := store(dir)
	name := path.Join(folder, wal.EntryName(position))
	own, err := wal.ReadOwnEntry(ctx, st, name, position)
	if err != nil {
		return err
	}
	if own != nil {
		return v.ownEntry(own)
	}
	e, err := wal.ReadLanceEntry(ctx, st, name, position)
	if err != nil {
		return err
	}
	defer e.Release()
	if v.json {
		columns := []string{}
		if e.Schema != nil {
			for _, f := range e.Schema.Fields() {
				columns = append(columns, f.Name)
			}
		}
		return v.object(fields{"position": e.Position, "epoch": e.Epoch, "generation": e.Generation, "sentinel": e.Sentinel,
			"batches": len(e.Batches), "rows": e.Rows(), "columns": columns})
	}
	if e.Sentinel {
		_, err = fmt.Fprintf(v.out, "entry %d: sentinel of epoch %d\n", e.Position, e.Epoch)
		return err
	}
	_, err = fmt.Fprintf(v.out, "entry %d: epoch %d, generation %d, %s in %s\n", e.Position, e.Epoch, e.Generation,
		counted(e.Rows(), "row"), countedAs(int64(len(e.Batches)), "batch", "batches"))
	return err
}
