package wal

import (
	"errors"
	"fmt"
)

// keeper owns the files that are not in the log, or not yet or no longer: it prepares the next segment while the present
// one is written, and takes trimmed ones back.
type keeper struct {
	log *Local
	// spares are trimmed segments to be used again, by file name. They belong to the goroutine, and to Open before it
	// runs.
	spares []string
	// prepare asks for the segment with an id; the answer comes through ready. There is at most one at a time.
	prepare    chan uint64
	ready      chan prepared
	trims      chan trim
	stop, done chan struct{}
}

// prepared is a segment to go on in.
type prepared struct {
	segment
	err error
}

// trim is one call of Trim.
type trim struct {
	upTo LSN
	done chan error
}

const zerosBytes = 1 << 20

// zeros is what a new segment is filled with.
var zeros [zerosBytes]byte

// errStopped ends a preparation that Close has overtaken.
var errStopped = errors.New("stopped")

func (k *keeper) init(l *Local) {
	k.log = l
	k.prepare, k.ready = make(chan uint64, 1), make(chan prepared, 1)
	k.trims = make(chan trim)
	k.stop, k.done = make(chan struct{}), make(chan struct{})
}

// run is the keeper goroutine.
func (k *keeper) run() {
	defer close(k.done)
	for {
		select {
		case <-k.stop:
			return
		case id := <-k.prepare:
			s, err := k.newSegment(id, k.log.opts.SegmentBytes)
			if err != nil {
				err = fmt.Errorf("prepare log segment %d: %w", id, err)
			}
			k.ready <- prepared{s, err}
		case t := <-k.trims:
			t.done <- k.trim(t.upTo)
		}
	}
}

// close ends the goroutine. A segment that it has prepared stays in the folder: the next Open uses it.
func (k *keeper) close() {
	close(k.stop)
	<-k.done
	select {
	case p := <-k.ready:
		if p.err == nil {
			_ = p.file.Close() // it has been synced, and holds nothing
		}
	default:
	}
}

// sweep removes what an interrupted preparation has left, and finds the spares.
func (k *keeper) sweep() error {
	names, err := k.log.env.disk.List()
	if err != nil {
		return err
	}
	for _, name := range names {
		_, temp := parseName(name, tempSuffix)
		_, spare := parseName(name, spareSuffix)
		switch {
		case spare && len(k.spares) < k.log.opts.Spares:
			k.spares = append(k.spares, name)
		case spare || temp:
			if err := k.log.env.disk.Remove(name); err != nil {
				return fmt.Errorf("remove left-over log file: %w", err)
			}
		}
	}
	return nil
}

// newSegment prepares the segment with an id, from a spare when there is one, else with size bytes of zeros.
func (k *keeper) newSegment(id uint64, size int64) (segment, error) {
	f, name, err := k.openSpare()
	if err == nil && f == nil {
		name = tempName(id)
		f, err = k.createZeroed(name, size)
	}
	if err != nil {
		return segment{}, err
	}
	if err := k.install(f, name, id); err != nil {
		return segment{}, err
	}
	return k.reopen(id)
}

// openSpare opens a spare, if there is one that is large enough. One that an oversized group has made larger is cut.
func (k *keeper) openSpare() (f file, name string, err error) {
	want := k.log.opts.SegmentBytes
	for len(k.spares) > 0 {
		name, k.spares = k.spares[0], k.spares[1:]
		if f, err = k.log.env.disk.Open(name, true); err != nil {
			return nil, "", fmt.Errorf("open spare log segment: %w", err)
		}
		size, err := f.Size()
		if err == nil && size > want {
			err = f.Truncate(want)
		}
		if err != nil {
			return nil, "", errors.Join(fmt.Errorf("cut spare log segment %s: %w", name, err), f.Close())
		}
		if size >= want {
			return f, name, nil
		}
		if err := errors.Join(f.Close(), k.log.env.disk.Remove(name)); err != nil {
			return nil, "", fmt.Errorf("remove spare log segment: %w", err)
		}
	}
	return nil, "", nil
}

// createZeroed makes a file of zeros. It syncs as it goes, so that the log's own syncs never queue behind more than one
// chunk.
func (k *keeper) createZeroed(name string, size int64) (file, error) {
	f, err := k.log.env.disk.Create(name)
	if err != nil {
		return nil, err
	}
	for off := int64(0); off < size && err == nil; off += zerosBytes {
		select {
		case <-k.stop:
			err = errStopped
		default:
			if _, err = f.WriteAt(zeros[:min(zerosBytes, size-off)], off); err == nil {
				err = f.Sync()
			}
		}
	}
	if err != nil {
		// It may be the disk that is full: what was taken is given back.
		return nil, errors.Join(err, f.Close(), k.log.env.disk.Remove(name))
	}
	return f, nil
}

// install gives a file its header and its final name, and closes it.
//
// INVARIANT: a file has a segment's name only after its header is synced, and the log uses it only after the name is.
func (k *keeper) install(f file, name string, id uint64) error {
	var b [segmentHeaderBytes]byte
	h := segmentHeader{id: id, salt: k.log.env.salt()}
	h.encode(b[:])
	_, err := f.WriteAt(b[:], 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := k.log.env.disk.Rename(name, segmentName(id)); err != nil {
		return err
	}
	return k.log.env.disk.Sync()
}

// reopen opens a prepared segment.
func (k *keeper) reopen(id uint64) (segment, error) {
	name := segmentName(id)
	f, err := k.log.env.disk.Open(name, true)
	if err != nil {
		return segment{}, fmt.Errorf("open log segment: %w", err)
	}
	s := segment{file: f}
	if s.size, err = f.Size(); err == nil {
		s.segmentHeader, err = readSegmentHeader(f, id, k.log.env.disk.Path(name))
	}
	if err != nil {
		return segment{}, errors.Join(fmt.Errorf("open log segment: %w", err), f.Close())
	}
	return s, nil
}

// askTrim has the goroutine trim.
func (k *keeper) askTrim(upTo LSN) error {
	t := trim{upTo, make(chan error, 1)}
	select {
	case k.trims <- t:
		return <-t.done
	case <-k.done:
		return ErrClosed
	}
}

// trim takes the oldest segments out of the log as long as they hold no record above an LSN.
//
// INVARIANT: segments leave one after the other, each durably before the next: a crash leaves no gap.
func (k *keeper) trim(upTo LSN) error {
	for {
		s, ok := k.oldestIdle(upTo)
		if !ok {
			return nil
		}
		if err := k.retire(s.id); err != nil {
			return fmt.Errorf("trim log segment %d: %w", s.id, err)
		}
		k.log.mu.Lock()
		k.log.mu.sealed = k.log.mu.sealed[1:]
		k.log.mu.Unlock()
	}
}

// oldestIdle returns the oldest segment if no replay needs it. One whose successor has no synced group yet stays, so
// that the log never forgets its last LSN, and one whose successor has no synced checkpoint.
func (k *keeper) oldestIdle(upTo LSN) (sealedSegment, bool) {
	k.log.mu.Lock()
	defer k.log.mu.Unlock()
	if len(k.log.mu.sealed) == 0 {
		return sealedSegment{}, false
	}
	s := k.log.mu.sealed[0]
	checked := s.id+1 < k.log.mu.checked.segment || !k.log.mu.synced.less(k.log.mu.checked)
	return s, s.last <= upTo && (position{s.id + 1, firstGroup}).less(k.log.mu.synced) && checked
}

// retire takes a segment out of the log, as a spare when one is wanted.
func (k *keeper) retire(id uint64) error {
	name := segmentName(id)
	if len(k.spares) >= k.log.opts.Spares {
		if err := k.log.env.disk.Remove(name); err != nil {
			return err
		}
		return k.log.env.disk.Sync()
	}
	spare := spareName(id)
	if err := k.log.env.disk.Rename(name, spare); err != nil {
		return err
	}
	k.spares = append(k.spares, spare)
	return k.log.env.disk.Sync()
}
