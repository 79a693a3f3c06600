package lance

import (
	"encoding/binary"
	"fmt"
)

const (
	// footerBytes is the size of the footer, the last bytes of a file.
	footerBytes = 40
	// bufferAlign is where buffers begin: readers of 2.1 refuse global buffers that do not, and Arrow wants it.
	bufferAlign = 64
	// entryBytes is the size of an entry of the column and global buffer tables.
	entryBytes = 16
)

// magic ends every Lance file.
var magic = [4]byte{'L', 'A', 'N', 'C'}

var le = binary.LittleEndian

// extent is a run of bytes of a file.
type extent struct{ off, size int64 }

// end is the offset behind the extent.
func (e extent) end() int64 { return e.off + e.size }

// footer says where the tables of a file are.
type footer struct {
	columnStart  int64  // metadata of the first column
	columnTable  int64  // CMO table: an entry per column
	globalTable  int64  // GBO table: an entry per global buffer, the schema first
	globals      uint32 // entries of globalTable
	columns      uint32 // entries of columnTable
	major, minor uint16
}

// append adds the bytes of the footer to b.
func (f footer) append(b []byte) []byte {
	b = le.AppendUint64(b, uint64(f.columnStart))
	b = le.AppendUint64(b, uint64(f.columnTable))
	b = le.AppendUint64(b, uint64(f.globalTable))
	b = le.AppendUint32(b, f.globals)
	b = le.AppendUint32(b, f.columns)
	b = le.AppendUint16(b, f.major)
	b = le.AppendUint16(b, f.minor)
	return append(b, magic[:]...)
}

// parseFooter reads the footer of a file of the given size and checks that its tables lie inside.
func parseFooter(b []byte, fileBytes int64) (footer, error) {
	f := footer{
		columnStart: int64(le.Uint64(b[0:])),
		columnTable: int64(le.Uint64(b[8:])),
		globalTable: int64(le.Uint64(b[16:])),
		globals:     le.Uint32(b[24:]),
		columns:     le.Uint32(b[28:]),
		major:       le.Uint16(b[32:]),
		minor:       le.Uint16(b[34:]),
	}
	if [4]byte(b[36:40]) != magic {
		return f, fmt.Errorf("the last four bytes are %q, not %q: this is no Lance file, or its end is missing", b[36:40], magic)
	}
	body := fileBytes - footerBytes
	if err := checkExtent(extent{f.columnTable, int64(f.columns) * entryBytes}, body); err != nil {
		return f, fmt.Errorf("column table: %w", err)
	}
	if err := checkExtent(extent{f.globalTable, int64(f.globals) * entryBytes}, body); err != nil {
		return f, fmt.Errorf("global buffer table: %w", err)
	}
	return f, nil
}

// supported reports whether the file is of a version that this package reads. Writers number 2.0 in two ways.
func (f footer) supported() bool {
	return f.major == 0 && f.minor == 3 || f.major == 2 && f.minor <= 2
}

// structural reports whether the file is of version 2.1 or later, in which only leaves have columns.
func (f footer) structural() bool { return f.major == 2 && f.minor >= 1 }

// version returns the version.
func (f footer) version() Version {
	if f.structural() {
		return Version(f.minor)
	}
	return Version20
}

// checkExtent refuses an extent that does not lie in the first limit bytes.
func checkExtent(e extent, limit int64) error {
	if e.off < 0 || e.size < 0 || e.off > limit || e.size > limit-e.off {
		return fmt.Errorf("%d bytes at offset %d lie outside the %d bytes before the footer", e.size, e.off, limit)
	}
	return nil
}

// appendExtents adds the entries of a table to b.
func appendExtents(b []byte, table []extent) []byte {
	for _, e := range table {
		b = le.AppendUint64(b, uint64(e.off))
		b = le.AppendUint64(b, uint64(e.size))
	}
	return b
}

// parseExtents reads the entries of a table.
func parseExtents(b []byte, limit int64) ([]extent, error) {
	table := make([]extent, len(b)/entryBytes)
	for i := range table {
		table[i] = extent{int64(le.Uint64(b[i*entryBytes:])), int64(le.Uint64(b[i*entryBytes+8:]))}
		if err := checkExtent(table[i], limit); err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
	}
	return table, nil
}
