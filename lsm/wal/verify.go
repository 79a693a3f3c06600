package wal

import (
	"errors"
	"fmt"
	"io"
)

// maxFaults bounds what Verify reports: a lost disk should not fill a screen.
const maxFaults = 100

// Verify reads all of the log in a folder and returns every damage as an object.CorruptError, joined, up to 100 of them.
// A torn tail is none. It changes nothing.
func Verify(dir string) error { return verify(folder(dir)) }

func verify(d disk) error {
	r, err := newReader(d)
	if err != nil {
		return err
	}
	defer r.close()
	var faults []error
	var recs []Record
	for len(faults) < maxFaults {
		g, err := r.read()
		switch {
		case err == io.EOF:
			return errors.Join(faults...)
		case err != nil:
			var more bool
			if faults, more = r.resume(append(faults, err)); !more {
				return errors.Join(faults...)
			}
		case g.typ == recordGroup:
			if recs, err = g.decodeRecords(g.body, recs); err != nil {
				faults = append(faults, r.corruptAt(g.at, err))
			}
		}
	}
	return errors.Join(append(faults, fmt.Errorf("more than %d faults: stopped in %s", maxFaults, r.win.path))...)
}
