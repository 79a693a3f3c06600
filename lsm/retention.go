package lsm

import (
	"time"

	"github.com/flightd/flightd/manifest"
)

// commitGrace is how old a file must at least be that no version ever named, whatever Options.Retain says: another
// program may have written it and be about to commit it. Lance itself waits seven days for such files; here they are
// kept as long as versions are, and the grace only keeps a short Retain from cutting into a commit that is under way.
const commitGrace = 10 * time.Second

// Bounds of the time between two collections: a 24th of Options.Retain within them.
const (
	minCollect = 10 * time.Second
	maxCollect = time.Hour
)

// collectEvery returns the time between two collections.
func collectEvery(retain time.Duration) time.Duration {
	return min(max(retain/24, minCollect), maxCollect)
}

// storedFile is a file below a table's root, or a folder whose files belong together.
type storedFile struct {
	// name is where it lies, owner what a version must name for it to be needed: mostly the same.
	name, owner string
	dir         bool
	bytes       int64
	// time is when it was last written.
	time time.Time
}

// expiredVersions returns those of a chain, which is sorted, that may go: the next version has been there for as long as
// versions are kept, so nobody who opened the chain since then has found this one as the newest. The newest version
// stays, and so do those in keep and those at or above stay.
func expiredVersions(chain []manifest.VersionFile, keep map[uint64]bool, stay uint64, cutoff time.Time) []manifest.VersionFile {
	var out []manifest.VersionFile
	for i, v := range chain {
		if i < len(chain)-1 && v.Number < stay && !keep[v.Number] && !chain[i+1].Time.After(cutoff) {
			out = append(out, v)
		}
	}
	return out
}

// expiredFiles returns the files that may go. A file that a version names which stays is needed. One that only versions
// name which have gone (known) is not: it was part of a commit once, so nobody is about to commit it. Of one that was
// never named only its age tells.
func expiredFiles(files []storedFile, needed, known map[string]bool, cutoff, unnamed time.Time) []storedFile {
	var out []storedFile
	for _, f := range files {
		if needed[f.owner] {
			continue
		}
		if known[f.owner] || !f.time.After(cutoff) && !f.time.After(unnamed) {
			out = append(out, f)
		}
	}
	return out
}
