package main

import (
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/flightd/flightd/lsm"
	"github.com/flightd/flightd/manifest"
)

// guessOwn tells what a file is that has its kind from its own name and that of its folder, "" for others.
func guessOwn(name string) string {
	base, folder := filepath.Base(name), filepath.Base(filepath.Dir(name))
	switch {
	case base == "catalog.json", folder == "catalog" && filepath.Ext(base) == ".json":
		return "catalog"
	case folder == "_deletions":
		return "deletions"
	case folder == "_flightd" && (base == "LOCK" || base == "format" || base == "reserve"),
		folder == "lease" && filepath.Ext(base) == ".json",
		folder == "wal" && (filepath.Ext(base) == ".spare" || filepath.Ext(base) == ".tmp"):
		return "system"
	}
	return ""
}

// system describes the folder _flightd, whichever file or folder of it is named, or one file in it that has something to
// say for itself.
func (v *inspector) system(ctx context.Context) error {
	switch filepath.Ext(v.path) {
	case ".spare", ".tmp":
		info, err := os.Stat(v.path)
		if err != nil {
			return err
		}
		if v.json {
			return v.object(fields{"name": info.Name(), "bytes": info.Size(), "records": 0})
		}
		return lsm.DescribeSpare(v.out, info.Name(), info.Size())
	case ".json":
		st, name := store(v.path)
		l, err := lsm.LoadLease(ctx, st, name)
		if err != nil {
			return err
		}
		return v.print(l, func() any { return l })
	}
	dir := v.path
	if before, _, in := strings.Cut(dir+"/", "/_flightd/"); in {
		dir = before
	}
	s, err := lsm.LoadSystem(ctx, dir)
	if err != nil {
		return err
	}
	return v.print(s, func() any { return s })
}

// deletions describes a deletion file, or all in the folder. One that is damaged does not hide the others.
func (v *inspector) deletions(ctx context.Context) error {
	st, name := store(v.path)
	names := []string{name}
	if !v.file {
		list, err := st.List(ctx, name)
		if err != nil {
			return err
		}
		names = names[:0]
		for _, x := range list {
			names = append(names, path.Join(name, x.Name))
		}
	}
	var faults []error
	for _, name := range names {
		d, err := manifest.LoadDeletionFile(ctx, st, name)
		if err == nil {
			err = v.print(d, func() any {
				return fields{"fragment": d.Fragment, "read_version": d.ReadVersion, "id": d.ID, "rows": d.Rows, "offsets": d.Offsets.ToArray(),
					"crc32c": d.Checksum}
			})
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}
