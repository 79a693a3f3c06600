package lsm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/flightd/flightd/lsm/wal"
	"github.com/flightd/flightd/object"
)

// System says what lies in the folder _flightd of a data folder: what is nobody's table.
type System struct {
	// Format is the format marker.
	Format string `json:"format"`
	// Owner is the process that has the folder, or had it last; Running whether it has it now, as far as the machine's list of
	// locks tells. In a store there is no such owner, the leases tell.
	Owner   string `json:"owner"`
	Running bool   `json:"running"`
	// Segments and Spares are files of the log: those with records, and those that wait to be written again.
	Segments Files `json:"log_segments"`
	Spares   Files `json:"spare_segments"`
	// Entries are objects of the log's stream of the catalog, Catalogs versions of the catalog. There are none in a folder.
	Entries  Files `json:"log_entries"`
	Catalogs Files `json:"catalog_versions"`
	// Reserve is how many bytes are held for flushes, merges and deletes on a full disk, 0 when they were needed.
	Reserve int64 `json:"reserve_bytes"`
	// Temp are scratch files, which the next start removes.
	Temp Files `json:"scratch_files"`
	// Stages are tables that are being made, or that a crash left unfinished: the next start removes those.
	Stages []StageFolder `json:"stages"`
	Leases []Lease       `json:"leases"`
}

// Files counts files.
type Files struct {
	Count int   `json:"count"`
	Bytes int64 `json:"bytes"`
}

// StageFolder is the folder of a table that is not there yet.
type StageFolder struct {
	Folder string `json:"folder"`
	Bytes  int64  `json:"bytes"`
}

// Lease is the sign of life of a process that has or had the data in a store.
type Lease struct {
	Epoch    uint64 `json:"epoch"`
	Owner    string `json:"owner"`
	Beat     uint64 `json:"beat"`
	LastsMS  int64  `json:"lasts_ms"`
	Released bool   `json:"released"`
}

// LoadSystem looks at the folder _flightd below dir, which may be in use, and changes nothing.
func LoadSystem(ctx context.Context, dir string) (*System, error) {
	st := object.NewLocal(dir)
	format, err := st.Get(ctx, formatFile)
	if errors.Is(err, object.ErrNotExist) {
		return nil, fmt.Errorf("%s is no data folder of flightd: it has no %s", dir, formatFile)
	}
	if err != nil {
		return nil, err
	}
	s := &System{Format: strings.TrimSpace(string(format)), Reserve: max(0, fileBytes(filepath.Join(dir, reserveFile)))}
	if owner, err := st.Get(ctx, systemFolder+"/LOCK"); err == nil {
		s.Owner = strings.TrimSpace(string(owner))
	}
	s.Running = lockHeld(filepath.Join(dir, systemFolder, "LOCK"))
	for _, x := range []struct {
		folder, suffix string
		files          *Files
	}{
		{walFolder, ".wal", &s.Segments}, {walFolder, ".spare", &s.Spares}, {catalogLog, ".arrow", &s.Entries},
		{catalogFolder, ".json", &s.Catalogs}, {systemFolder + "/tmp", "", &s.Temp},
	} {
		if err := x.files.count(ctx, st, x.folder, x.suffix); err != nil {
			return nil, err
		}
	}
	return s, errors.Join(s.loadStages(ctx, st), s.loadLeases(ctx, st))
}

// lockHeld tells whether a process on this machine has locked a file. It does not try the lock itself: a server that starts
// at that moment would find it taken.
func lockHeld(name string) bool {
	var fi unix.Stat_t
	locks, err := os.ReadFile("/proc/locks")
	if err != nil || unix.Stat(name, &fi) != nil {
		return false
	}
	for line := range strings.Lines(string(locks)) {
		if f := strings.Fields(line); slices.Contains(f, "FLOCK") && slices.Contains(f, "WRITE") &&
			slices.ContainsFunc(f, func(s string) bool { return strings.HasSuffix(s, fmt.Sprintf(":%d", fi.Ino)) }) {
			return true
		}
	}
	return false
}

// count adds the files of a folder, and of those in it, whose names end so.
func (f *Files) count(ctx context.Context, st object.Store, folder, suffix string) error {
	list, err := st.List(ctx, folder)
	if err != nil {
		return err
	}
	for _, x := range list {
		if x.Dir {
			err = f.count(ctx, st, path.Join(folder, x.Name), suffix)
		} else if strings.HasSuffix(x.Name, suffix) {
			f.Count++
			f.Bytes += x.Size
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *System) loadStages(ctx context.Context, st object.Store) error {
	list, err := st.List(ctx, stageFolder)
	if err != nil {
		return err
	}
	for _, x := range list {
		var files Files
		if err := files.count(ctx, st, path.Join(stageFolder, x.Name), ""); x.Dir && err != nil {
			return err
		}
		s.Stages = append(s.Stages, StageFolder{Folder: path.Join(stageFolder, x.Name), Bytes: files.Bytes})
	}
	return nil
}

func (s *System) loadLeases(ctx context.Context, st object.Store) error {
	list, err := st.List(ctx, leaseFolder)
	if err != nil {
		return err
	}
	for _, x := range list {
		digits, ok := strings.CutSuffix(x.Name, ".json")
		if _, err := strconv.ParseUint(digits, 10, 64); !ok || err != nil {
			continue
		}
		l, err := LoadLease(ctx, st, path.Join(leaseFolder, x.Name))
		if err != nil {
			return err
		}
		s.Leases = append(s.Leases, *l)
	}
	slices.SortFunc(s.Leases, func(a, b Lease) int { return int(int64(a.Epoch) - int64(b.Epoch)) })
	return nil
}

// LoadLease reads one lease.
func LoadLease(ctx context.Context, st object.Store, name string) (*Lease, error) {
	epoch, err := strconv.ParseUint(strings.TrimSuffix(path.Base(name), ".json"), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%s is not named like a lease, EPOCH.json", name)
	}
	b, err := st.Get(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read lease: %w", err)
	}
	var s leaseState
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, &object.CorruptError{Name: name, Err: err}
	}
	return &Lease{Epoch: epoch, Owner: s.Owner, Beat: s.Beat, LastsMS: s.Lasts, Released: s.Released}, nil
}

// Describe says what a lease means.
func (l *Lease) Describe(w io.Writer) error {
	state := fmt.Sprintf("sign of life %d, each good for %d ms", l.Beat, l.LastsMS)
	if l.Released {
		state = "it ended in order"
	}
	_, err := fmt.Fprintf(w, "lease of epoch %d, %s: %s\n", l.Epoch, l.Owner, state)
	return err
}

// Describe prints it for people.
func (s *System) Describe(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "format: %s\n", s.Format)
	switch {
	case s.Running:
		fmt.Fprintf(&b, "owner: %s, which has the folder open\n", s.Owner)
	case s.Owner != "":
		fmt.Fprintf(&b, "owner: none that has it open on this machine; the last one was %s\n", s.Owner)
	}
	line := func(what string, f Files, means string) {
		if f.Count > 0 {
			fmt.Fprintf(&b, "%s: %d, %d bytes%s\n", what, f.Count, f.Bytes, means)
		}
	}
	line("log segments", s.Segments, "")
	line("spare log segments", s.Spares, ", trimmed, to be written again; no record in them counts")
	line("log entries of the catalog", s.Entries, "")
	line("catalog versions", s.Catalogs, "; the highest number counts")
	if s.Reserve > 0 {
		fmt.Fprintf(&b, "reserve: %d bytes, for flushes, merges and deletes on a full disk\n", s.Reserve)
	} else if s.Segments.Count > 0 {
		b.WriteString("reserve: none, the disk has plenty of room or the reserve is in use\n")
	}
	line("scratch files", s.Temp, ", which the next start removes")
	for _, x := range s.Stages {
		fmt.Fprintf(&b, "stage %s: %d bytes of a table that is being made; the next start removes what a crash left\n", x.Folder, x.Bytes)
	}
	for i := range s.Leases {
		if err := s.Leases[i].Describe(&b); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// DescribeSpare says what a file of the log is that holds no records.
func DescribeSpare(w io.Writer, name string, bytes int64) error {
	what := "a segment of the log that was trimmed and waits to be written again; no record in it counts"
	if path.Ext(name) == ".tmp" {
		what = "a segment of the log that is being prepared, or that a crash left; the next start removes it then"
	}
	_, err := fmt.Fprintf(w, "%s: %d bytes, %s\n", name, bytes, what)
	return err
}

// DescribeEntry prints an entry of the bucket form of the log.
func DescribeEntry(w io.Writer, e *wal.OwnEntry) error { return e.Describe(w, Describe) }
