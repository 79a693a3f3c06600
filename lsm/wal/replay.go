package wal

import (
	"errors"
	"fmt"
	"io"
	"math"
)

// State is where a log ends, as Replay found it. Open goes on from there. The zero State is that of a log that does not
// exist yet.
type State struct {
	// LSN is that of the last record, 0 when the log has seen none.
	LSN LSN
	// Begins is the LSN behind which the log has all records.
	Begins LSN
	// Dropped is the number of groups of which parts were in a torn tail. They were never acknowledged as durable.
	Dropped int

	// next is the LSN after the last one in its epoch.
	next LSN
	// tail is the end of the last group, tailSum the header checksum of its segment.
	tail    position
	tailSum uint32
	// proved is up to where the log says itself that it was synced.
	proved position
	// segments are those up to the one of tail.
	segments []sealedSegment
	// prepared tells that an empty segment follows.
	prepared bool
}

// Sync makes durable what Replay will return. A process that was killed leaves groups that it has written and not
// synced: who writes anything down that follows from them before Open has returned calls Sync first. A folder that does
// not exist has nothing to sync.
func Sync(dir string) error { return syncTail(folder(dir)) }

// syncTail syncs the segments that may have groups that are not synced: the last that has any, behind which there may
// be one that was prepared.
func syncTail(d disk) error {
	ids, err := listSegments(d)
	if err != nil {
		return err
	}
	for _, id := range ids[max(0, len(ids)-2):] {
		name := segmentName(id)
		f, err := d.Open(name, true)
		if err != nil {
			return fmt.Errorf("sync the end of the log: %w", err)
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("sync the end of the log in %s: %w", d.Path(name), err)
		}
	}
	return nil
}

// Replay verifies the log in a folder and calls fn with each record above an LSN, in order. The record and its body are
// valid only during fn; an error of fn ends the replay. A folder that does not exist has no records.
//
// A torn tail is dropped. Damage is an object.CorruptError, and so is a log that begins later than behind after; by then fn has seen
// only records before the damage. What fn has seen may still be lost in a power cut until Open has returned, unless Sync went before.
func Replay(dir string, after LSN, fn func(*Record) error) (State, error) {
	return replay(folder(dir), after, fn)
}

// ReplayAll is Replay of all that the log holds, wherever it begins.
func ReplayAll(dir string, fn func(*Record) error) (State, error) {
	return replayFrom(folder(dir), 0, anywhere, fn)
}

func replay(d disk, after LSN, fn func(*Record) error) (State, error) {
	return replayFrom(d, after, after, fn)
}

// anywhere is for a log that may begin behind any LSN.
const anywhere LSN = math.MaxUint64

// replayFrom is replay of a log that may begin behind an LSN, and not later.
func replayFrom(d disk, after, begins LSN, fn func(*Record) error) (State, error) {
	var recs []Record
	return walk(d, func(r *reader, g *group) error {
		if first := r.ids[0]; g.at == (position{first, firstGroup}) && g.prev > begins {
			return r.corruptAt(g.at, fmt.Errorf("the log begins behind LSN %s, but what follows %s is needed: segments are missing", g.prev, begins))
		}
		if g.last() <= after || g.typ != recordGroup {
			return nil
		}
		var err error
		if recs, err = g.decodeRecords(g.body, recs); err != nil {
			return r.corruptAt(g.at, err)
		}
		for i := range recs {
			if recs[i].LSN <= after {
				continue
			}
			if err := fn(&recs[i]); err != nil {
				return fmt.Errorf("replay log record %s: %w", recs[i].LSN, err)
			}
		}
		return nil
	})
}

// walk calls visit with each group of a log and returns where it ends.
func walk(d disk, visit func(*reader, *group) error) (State, error) {
	r, err := newReader(d)
	if err != nil {
		return State{}, err
	}
	defer r.close()
	var end State
	var g group
	for {
		g, err = r.read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return State{}, err
		}
		if len(end.segments) == 0 {
			end.Begins = g.prev
		}
		if n := len(end.segments); n == 0 || end.segments[n-1].id != g.at.segment {
			end.segments = append(end.segments, sealedSegment{id: g.at.segment})
		}
		if g.typ == recordGroup {
			end.segments[len(end.segments)-1].last = g.last()
		}
		if err := visit(r, &g); err != nil {
			return State{}, err
		}
	}
	if len(r.ids) == 0 {
		return State{}, nil
	}
	if n := len(end.segments); n == 0 || end.segments[n-1].id != r.at.segment {
		end.segments = append(end.segments, sealedSegment{id: r.at.segment})
	}
	end.LSN, end.next, end.Dropped = r.last, r.next, r.dropped
	end.tail, end.tailSum, end.proved = r.at, r.sum, r.proved
	end.prepared = r.i+1 < len(r.ids)
	return end, nil
}
