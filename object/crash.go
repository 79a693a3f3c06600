package object

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
)

// CrashClone returns the store as a power cut at this moment could leave it. Everything that was promised as durable
// is there. Of the rest random chooses: entries that no SyncDirs covered, deletions likewise, and how much of a file
// that was not closed. A nil random keeps nothing of the rest.
func (m *Mem) CrashClone(random *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := map[string]bool{}
	for name := range m.files {
		names[name] = true
	}
	for name := range m.durable {
		names[name] = true
	}
	left := NewMem()
	// Sorted, so that one seed gives one outcome.
	for _, name := range slices.Sorted(maps.Keys(names)) {
		f := m.durable[name]
		if shown := m.files[name]; shown != f && random != nil && random.IntN(2) == 0 {
			f = shown
		}
		if f == nil {
			continue
		}
		keep := f.synced
		if rest := len(f.data) - f.synced; random != nil && rest > 0 {
			keep += random.IntN(rest + 1)
		}
		survivor := &memFile{data: bytes.Clone(f.data[:keep]), synced: keep, mod: f.mod}
		left.setLocked(name, survivor)
		left.durable[name] = survivor
	}
	return left
}
