package manifest

import (
	"math/bits"

	"github.com/flightd/flightd/internal/lancepb"
)

// Feature flags are bits of two words of a manifest: what one must know to read the table, and to write it.
const (
	flagDeletions     = 1 << 0
	flagStableRowIDs  = 1 << 1
	flagObsolete      = 1 << 2
	flagTableConfig   = 1 << 3
	flagNoTxFiles     = 1 << 5
	flagMixedVersions = 1 << 8

	// Stable row ids matter to indexes, which we neither use nor write on such a table, and to fragments that are appended or
	// written anew (rowids.go); mixed file versions matter to the reader of each file, who checks them itself.
	readableFlags = flagDeletions | flagStableRowIDs | flagObsolete | flagTableConfig | flagNoTxFiles | flagMixedVersions
	writableFlags = flagDeletions | flagStableRowIDs | flagObsolete | flagTableConfig | flagNoTxFiles
)

var flagNames = [...]string{
	"deletion files", "stable row ids", "obsolete", "table config", "base paths", "no transaction files",
	"data overlays", "covering index columns", "mixed data file versions", "fragment reuse with stable row ids",
	"tagged fragment reuse", "spilled row lineage", "fragment tree", "independent covering columns",
	"managed blobs", "non-reusable field ids", "zone seeds", "object metadata",
}

func flagName(bit int) string {
	if bit < len(flagNames) {
		return flagNames[bit]
	}
	return "unknown"
}

// checkReadable refuses the lowest flag that we cannot read.
func checkReadable(name string, m *lancepb.Manifest) error {
	if bad := m.GetReaderFeatureFlags() &^ readableFlags; bad != 0 {
		return &UnsupportedError{Name: name, Bit: bits.TrailingZeros64(bad)}
	}
	return nil
}

// Writable returns an *UnsupportedError when the version has a feature that we cannot write, so that nothing can be
// committed on top of it.
func (v *Version) Writable() error { return checkWritable(v.name, v.raw) }

// StableRowIDs returns an *UnsupportedError when rows have ids that outlive their addresses: then indexes name them by
// these, and who takes ids for addresses finds other rows.
func (v *Version) StableRowIDs() error {
	if (v.raw.GetReaderFeatureFlags()|v.raw.GetWriterFeatureFlags())&flagStableRowIDs == 0 {
		return nil
	}
	return &UnsupportedError{Name: v.name, Bit: bits.TrailingZeros64(flagStableRowIDs)}
}

// checkWritable refuses the lowest flag that we cannot write.
func checkWritable(name string, m *lancepb.Manifest) error {
	if bad := (m.GetReaderFeatureFlags() | m.GetWriterFeatureFlags()) &^ writableFlags; bad != 0 {
		return &UnsupportedError{Name: name, Bit: bits.TrailingZeros64(bad), Write: true}
	}
	return nil
}

// setFlags computes both words from the contents of m.
// REQUIRES: checkWritable accepted the version that m builds on, so no flag is lost that other contents need.
func setFlags(m *lancepb.Manifest) {
	keep := m.GetWriterFeatureFlags() & (flagNoTxFiles | flagStableRowIDs)
	m.ReaderFeatureFlags, m.WriterFeatureFlags = m.GetReaderFeatureFlags()&flagStableRowIDs, keep
	for _, f := range m.GetFragments() {
		if f.GetDeletionFile() != nil {
			m.ReaderFeatureFlags |= flagDeletions
			m.WriterFeatureFlags |= flagDeletions
			break
		}
	}
	if len(m.GetConfig()) > 0 {
		m.WriterFeatureFlags |= flagTableConfig
	}
}
