package lsm

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// MainSchema is the schema that tables live in when none is named.
const MainSchema = "main"

// TombstoneColumn is the boolean column by which a row deletes its key. No table may have a column of its own
// under this name.
const TombstoneColumn = "_tombstone"

// reservedColumns are the names that search functions and the storage format add to rows.
var reservedColumns = []string{TombstoneColumn, "_rowid", "_distance", "_score", "_hybrid_score"}

// IsReserved reports whether a name is one that no column of a table may have.
func IsReserved(column string) bool {
	return slices.ContainsFunc(reservedColumns, func(reserved string) bool { return strings.EqualFold(reserved, column) })
}

// maxNameBytes bounds a table's name: its folder, with every byte escaped and ".lance" behind it, must fit in
// the 255 bytes that file systems allow.
const maxNameBytes = 80

// TableName names a table. Names keep their case and match without it.
type TableName struct {
	// Schema is the name of the schema; empty means MainSchema.
	Schema string
	// Name is the table's own name.
	Name string
}

// String returns schema.name, without the schema where it is MainSchema.
func (n TableName) String() string {
	if n.Schema == "" || strings.EqualFold(n.Schema, MainSchema) {
		return n.Name
	}
	return n.Schema + "." + n.Name
}

// fold returns the key under which names that differ in case only are the same name.
func (n TableName) fold() string {
	s := n.Schema
	if s == "" {
		s = MainSchema
	}
	return strings.ToLower(s) + "\x00" + strings.ToLower(n.Name)
}

// validate reports names that no table can have.
func (n TableName) validate() error {
	switch {
	case n.Name == "":
		return fmt.Errorf("%w table name: it is empty", ErrInvalid)
	case len(n.Name) > maxNameBytes:
		return fmt.Errorf("%w table name %.20q…: it has %d bytes, at most %d are allowed", ErrInvalid, n.Name, len(n.Name), maxNameBytes)
	case !utf8.ValidString(n.Name) || strings.ContainsRune(n.Name, 0):
		return fmt.Errorf("%w table name %q: it is not UTF-8 text", ErrInvalid, n.Name)
	case n.Schema != "" && !strings.EqualFold(n.Schema, MainSchema):
		return fmt.Errorf("%w schema %q: %q is the only schema", ErrInvalid, n.Schema, MainSchema)
	}
	return nil
}

// folderSuffix ends the names of the folders of tables.
const folderSuffix = ".lance"

// folder returns the folder of the table below the data folder. Letters, digits, '_', '-' and inner '.' stand
// for themselves, every other byte is %XX: so no name leaves the data folder, and none meets flightd's own.
func (n TableName) folder() string {
	var b strings.Builder
	for i := 0; i < len(n.Name); i++ {
		c := n.Name[i]
		plain := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' ||
			(c == '_' || c == '.') && i > 0
		if c == '_' && i == 0 && !strings.EqualFold(n.Name, "_flightd") {
			plain = true
		}
		if plain {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String() + folderSuffix
}
