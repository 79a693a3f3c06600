package lsm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"golang.org/x/sys/unix"
)

// reserveFile is the room that is kept for flushes, merges and deletes, below the data folder: a file of random bytes,
// so that no file system can store it in less, which is removed when they need it. A threshold alone would not do:
// others write to the disk, too.
const reserveFile = systemFolder + "/reserve"

// The reserve is a 32nd of the disk within these bounds: enough for the log's next segment, the manifests and deletion
// files of a merge, and a few tombstones.
const (
	minReserve = 4 << 20
	maxReserve = 256 << 20
)

// spaceEvery is how often the room on the disk is looked at when nobody writes, and trustSpace how long and for how many
// bytes of writes a look is good: it costs a microsecond.
const (
	spaceEvery = time.Second
	trustSpace = 50 * time.Millisecond
	trustBytes = 1 << 20
)

// space watches the room on the disk of the data folder. Rows are only accepted while there is room for them, for
// flushing all memtables and merging the generations of any table, and for the reserve: what was accepted can always be
// flushed and merged, and both give room back.
type space struct {
	dir     string
	reserve int64
	// debt returns what flushing and merging would write before they give anything back.
	debt func() int64
	// relieve does both, and collects, between begin and what that returns: a DB that is closed refuses to begin.
	relieve func()
	begin   func() (done func(), err error)

	// stalls counts the waits for relief.
	stalls *stallCounter
	// credit is what may be written without another look, until a time since began.
	credit, until atomic.Int64
	began         time.Time

	mu sync.Mutex
	// stat returns the free and all bytes of the disk.
	stat func(dir string) (free, all int64, err error)
	// free is what the last look found, at a time, and taken what was admitted since.
	free  int64
	taken int64
	at    time.Time
	// held is true while the reserve file is there.
	held bool
	// relief is closed when the relief that runs has ended, nil while none runs.
	relief chan struct{}
	// refused counts the writes that were refused.
	refused int64
}

// statDisk asks the system for the room on a disk, for processes without privileges.
func statDisk(dir string) (free, all int64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, fmt.Errorf("look for room on the disk of %s: %w", dir, err)
	}
	return int64(s.Bavail) * s.Bsize, int64(s.Blocks) * s.Bsize, nil
}

// newSpace looks at the disk for the first time. What keeps the reserve of an earlier process stays until it is needed.
func newSpace(dir string) (*space, error) {
	free, all, err := statDisk(dir)
	if err != nil {
		return nil, err
	}
	s := &space{dir: dir, stat: statDisk, stalls: &stallCounter{}, began: time.Now(), free: free, reserve: min(max(all/32, minReserve), maxReserve)}
	s.held = fileBytes(filepath.Join(dir, reserveFile)) > 0
	return s, nil
}

// boundless is the space of data that do not lie on a disk.
func boundless() *space {
	const all = 1 << 60
	return &space{stat: func(string) (int64, int64, error) { return all, all, nil }, stalls: &stallCounter{}, began: time.Now(), free: all, reserve: maxReserve}
}

// fileBytes returns the size of a file, 0 when there is none.
func fileBytes(name string) int64 {
	fi, err := os.Stat(name)
	if err != nil {
		return 0
	}
	return fi.Size()
}

// diskSegmentBytes returns the size of log segments that suits a disk: a few are there at a time.
func diskSegmentBytes(dir string) int64 {
	_, all, err := statDisk(dir)
	if err != nil {
		return defaultSegmentBytes
	}
	return min(max(all/64/(1<<20), 1)<<20, defaultSegmentBytes)
}

// look returns the free bytes and takes n of them. The last look is good enough for a while.
func (s *space) look(n int64) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken+n > trustBytes || time.Since(s.at) > trustSpace || s.free < 8*s.reserve {
		free, _, err := s.stat(s.dir)
		if err != nil {
			return 0, err
		}
		s.free, s.taken, s.at = free, 0, time.Now()
	}
	free := s.free - s.taken
	s.taken += n
	return free, nil
}

// admit returns ErrDiskFull when there is no room for n bytes more. Before it does it tries to make some.
func (s *space) admit(ctx context.Context, n int64) error {
	if s.credit.Add(-n) >= 0 && time.Since(s.began) < time.Duration(s.until.Load()) {
		return nil
	}
	return s.admitLooking(ctx, n)
}

// lend lets the next writes pass without a look, while the last one is good and as long as they fit into what it found to
// spare: each byte that is accepted is a byte of the log and two of debt.
func (s *space) lend(spare int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free < 8*s.reserve {
		s.credit.Store(0)
		return
	}
	n := min(spare/4, trustBytes)
	s.taken += n
	s.until.Store(int64(s.at.Add(trustSpace).Sub(s.began)))
	s.credit.Store(n)
}

// admitLooking is admit when there is no credit.
func (s *space) admitLooking(ctx context.Context, n int64) error {
	for tries := 0; ; tries++ {
		free, err := s.look(n)
		if err != nil {
			return err
		}
		debt := s.debt()
		if spare := free - n - debt - s.margin(); spare >= 0 {
			s.lend(spare)
			return nil
		}
		// What flushes and merges cannot give back is not worth waiting for.
		if tries == 2 || debt < s.reserve/4 {
			s.mu.Lock()
			s.refused++
			s.mu.Unlock()
			return s.full(free, n)
		}
		ended := s.stalls.begin()
		err = s.waitRelief(ctx)
		ended()
		if err != nil {
			return err
		}
	}
}

// margin returns the free bytes that writes must leave: as many as the reserve has, and as many again when it is not
// there, so that there is room to restore it.
func (s *space) margin() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held {
		return s.reserve
	}
	return 2 * s.reserve
}

// spare returns what a merge may write beside what it must.
func (s *space) spare() int64 {
	free, _, _ := s.state()
	return max(free-s.debt()-s.reserve/2, 0)
}

// roomFor returns ErrDiskFull when the disk has no room for a batch. Deletes may use the reserve: they lead to room.
func (db *DB) roomFor(ctx context.Context, s *tableSchema, b Batch, bytes int64) error {
	if onlyDeletes(s, b.Record) {
		db.space.need()
		return nil
	}
	return db.space.admit(ctx, bytes)
}

// onlyDeletes reports whether a batch has tombstones and nothing else.
func onlyDeletes(s *tableSchema, rec arrow.RecordBatch) bool {
	n := s.arrow.NumFields()
	if int(rec.NumCols()) != n+1 {
		return false
	}
	dead, ok := rec.Column(n).(*array.Boolean)
	for i := 0; ok && i < dead.Len(); i++ {
		ok = dead.IsValid(i) && dead.Value(i)
	}
	return ok
}

// full returns ErrDiskFull with the place, the numbers and the remedy.
func (s *space) full(free, n int64) error {
	return fmt.Errorf("%w: %s has %d bytes free, and %d are kept for merges and deletes: no room for %d more; "+
		"delete rows or drop tables, then OPTIMIZE and VACUUM, or make room on the disk", ErrDiskFull, s.dir, max(free, 0), s.reserve, n)
}

// waitRelief has everything flushed and merged, and waits for it. Callers that come meanwhile share it.
func (s *space) waitRelief(ctx context.Context) error {
	end, err := s.begin()
	if err != nil {
		return err
	}
	s.mu.Lock()
	done := s.relief
	if done != nil {
		end()
	} else {
		done = make(chan struct{})
		s.relief = done
		go func() {
			defer end()
			s.relieve()
			s.mu.Lock()
			s.relief = nil
			s.mu.Unlock()
			close(done)
		}()
	}
	s.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// relieving reports whether somebody waits for room.
func (s *space) relieving() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.relief != nil
}

// need gives the reserve free when the disk has nothing else for what gives room back, or is small.
func (s *space) need() {
	s.mu.Lock()
	defer s.mu.Unlock()
	free, _, err := s.stat(s.dir)
	if err != nil || !s.held || free >= s.reserve/2 {
		return
	}
	if err := os.Remove(filepath.Join(s.dir, reserveFile)); err == nil || errors.Is(err, os.ErrNotExist) {
		s.held = false
	}
}

// restore takes the reserve while there is room for it and the disk is not nearly empty: an empty one needs none, and it
// takes longer to fill than until the next look.
func (s *space) restore() error {
	s.mu.Lock()
	free, _, err := s.stat(s.dir)
	if err != nil || s.held || free < 2*s.reserve || free > 16*s.reserve {
		s.mu.Unlock()
		return err
	}
	s.held = true
	s.mu.Unlock()
	if err := writeReserve(filepath.Join(s.dir, reserveFile), s.reserve); err != nil {
		s.mu.Lock()
		s.held = false
		s.mu.Unlock()
		return fmt.Errorf("keep room in reserve: %w", err)
	}
	return nil
}

// writeReserve writes a file of random bytes. One that a crash cut short serves as well.
func writeReserve(name string, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	_, _ = rand.Read(block) // it never fails
	for at := int64(0); at < size && err == nil; at += int64(len(block)) {
		_, err = f.WriteAt(block[:min(int64(len(block)), size-at)], at)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}

// state returns the free bytes, whether the reserve is there, and how many writes were refused.
func (s *space) state() (free, refused int64, held bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now, _, err := s.stat(s.dir); err == nil {
		s.free, s.taken, s.at = now, 0, time.Now()
	}
	return s.free, s.refused, s.held
}

// spaceLoop keeps the reserve.
func (db *DB) spaceLoop() {
	defer db.done.Done()
	tick := time.NewTicker(spaceEvery)
	defer tick.Stop()
	for warned := false; ; {
		err := db.space.restore()
		if err != nil && !warned {
			db.logger.Warn("the disk has no reserve for merges and deletes", "error", err)
		}
		warned = err != nil
		select {
		case <-db.stop.Done():
			return
		case <-tick.C:
		}
	}
}

// diskDebt returns what flushing all memtables and merging the generations of a table would write before anything is
// given back: a memtable is in the log still when it is a generation, and may be when that is merged, and a generation is
// removed when the base has its rows.
func (db *DB) diskDebt() int64 {
	debt := db.budget.unflushed()
	most := int64(0)
	db.moment.Lock()
	defer db.moment.Unlock()
	for _, t := range db.tables {
		set := t.set.Load()
		if set == nil {
			continue
		}
		n := int64(0)
		for _, c := range set.chains {
			for _, g := range c.generations() {
				n += g.layer.(*generation).bytes
			}
		}
		most = max(most, n)
	}
	return 2*debt + most
}

// makeRoom flushes and merges everything and collects: what a writer who finds the disk full waits for.
func (db *DB) makeRoom() {
	db.logger.Warn("the disk is nearly full: merging and collecting", "dir", db.opt.Dir)
	for _, t := range db.Tables() {
		if err := db.Flush(db.stop, t.name); err != nil && db.stop.Err() == nil {
			t.warn("make room by flushing", err)
		}
	}
	db.poke()
	for _, t := range db.Tables() {
		if err := db.Optimize(db.stop, t.name); err != nil && db.stop.Err() == nil {
			t.warn("make room by merging", err)
		}
	}
	db.collectAll()
	db.poke()
}

// diskError gives an error that a full disk caused its name, or that a quota did, the system's or that of scratch files.
func (db *DB) diskError(err error) error {
	if err == nil || errors.Is(err, ErrDiskFull) {
		return err
	}
	if errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrDiskFull, err) // what is free on the disk has nothing to do with it
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	free, _, _ := db.space.state()
	return fmt.Errorf("%w (%w)", db.space.full(free, 0), err)
}
