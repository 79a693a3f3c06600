package wal

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// tailLog is a log whose process has ended at a moment when its last groups were written and not synced, with all that a
// reader must find in it.
type tailLog struct {
	disk   *crashDisk
	groups []groupHeader
	recs   map[LSN]*Record
}

// newTailLog writes a log over two segments. It lets everything but the last groups be synced, and marked.
func newTailLog(t *testing.T) *tailLog {
	t.Helper()
	d := newCrashDisk()
	l := openTest(t, d, Options{SegmentBytes: minSegmentBytes})
	log := &tailLog{recs: map[LSN]*Record{}}
	ctx := context.Background()
	write := func(id uint64, n, bytes int) {
		recs := make([]*Record, n)
		for i := range recs {
			recs[i] = testRecord(id*10+uint64(i), bytes)
		}
		_, err := l.Append(ctx, recs...)
		require.NoError(t, err)
		for _, r := range recs {
			log.recs[r.LSN] = r
		}
	}
	for id := range uint64(7) {
		write(id, 1+int(id)%3, 20+int(id)*70)
		require.NoError(t, l.WaitDurable(ctx, l.AppendedLSN()))
		settled(t, l)
	}
	hold := make(chan struct{})
	d.inject(func(op, name string) error {
		if op == "sync" {
			<-hold
		}
		return nil
	})
	for id := range uint64(4) {
		write(100+id, 2, 90)
	}
	log.disk = d.crash(nil)
	close(hold)
	require.NoError(t, l.Close())

	end, err := walk(log.disk, func(_ *reader, g *group) error {
		log.groups = append(log.groups, g.groupHeader)
		return nil
	})
	require.NoError(t, err)
	require.Len(t, end.segments, 2)
	require.Equal(t, uint64(len(log.recs)), end.LSN.N())
	return log
}

// check replays a disk on which the group at bad is not whole any more, and of which the headers of those in lost are
// gone. A bad of -1 says that all groups are whole.
func (log *tailLog) check(t *testing.T, d disk, bad int, lost func(groupHeader) bool) {
	t.Helper()
	got, end, err := replayAll(d, 0)
	whole := len(log.groups)
	if bad >= 0 {
		whole = bad
		x, proved := log.groups[bad].at, position{}
		for _, h := range log.groups {
			if !lost(h) && proved.less(h.synced) {
				proved = h.synced
			}
		}
		if x.less(proved) {
			var damage *object.CorruptError
			require.ErrorAs(t, err, &damage)
			require.Equal(t, d.Path(segmentName(x.segment)), damage.Name)
			require.Equal(t, x.offset, damage.Offset)
		} else {
			require.NoError(t, err)
			require.Equal(t, x, end.tail)
		}
	} else {
		require.NoError(t, err)
	}
	n := 0
	for _, h := range log.groups[:whole] {
		n += int(h.count)
	}
	require.Len(t, got, n)
	for i := range got {
		require.Equal(t, newLSN(1, uint64(i+1)), got[i].LSN)
		requireRecord(t, log.recs[got[i].LSN], got[i])
	}
}

// groupAt returns the group that holds a place of a segment, -1 when none does.
func (log *tailLog) groupAt(p position) int {
	return slices.IndexFunc(log.groups, func(h groupHeader) bool { return !p.less(h.at) && p.less(h.end()) })
}

func TestEveryFlippedByteIsDroppedOrRefused(t *testing.T) {
	log := newTailLog(t)
	for _, id := range []uint64{1, 2} {
		name := segmentName(id)
		content := log.disk.content(name)
		for off := int64(firstGroup); off < int64(len(content)); off++ {
			bad := log.groupAt(position{id, off})
			if bad < 0 && off%97 != 0 {
				continue // what is not used is all alike
			}
			for _, flip := range []byte{0xff, 1 << (off % 8)} {
				content[off] ^= flip
				log.check(t, log.disk.with(name, content), bad, func(h groupHeader) bool {
					return h.at.segment == id && off >= h.at.offset && off < h.at.offset+groupHeaderBytes
				})
				content[off] ^= flip
			}
		}
	}
}

func TestEveryCutIsDroppedOrRefused(t *testing.T) {
	log := newTailLog(t)
	for _, id := range []uint64{1, 2} {
		name := segmentName(id)
		content := log.disk.content(name)
		for off := int64(firstGroup); off < int64(len(content)); off++ {
			bad := log.groupAt(position{id, off})
			if next := slices.IndexFunc(log.groups, func(h groupHeader) bool { return h.at == position{id, off} }); next >= 0 {
				bad = next
			}
			if bad < 0 && off%97 != 0 {
				continue
			}
			lost := func(h groupHeader) bool { return h.at.segment == id && h.at.offset+groupHeaderBytes > off }
			log.check(t, log.disk.with(name, content[:off:off]), bad, lost)
			zeroed := append(content[:off:off], make([]byte, int64(len(content))-off)...)
			if bad >= 0 && bytes.Equal(zeroed[:log.groups[bad].end().offset], content[:log.groups[bad].end().offset]) {
				bad = bad + 1 // only padding was lost, which is zero anyway
				if bad == len(log.groups) || log.groups[bad].at.segment != id {
					continue
				}
			}
			log.check(t, log.disk.with(name, zeroed), bad, lost)
		}
	}
}

func TestEveryByteOfASegmentHeaderCounts(t *testing.T) {
	log := newTailLog(t)
	for id := uint64(1); id <= 3; id++ {
		name := segmentName(id)
		content := log.disk.content(name)
		for off := range segmentHeaderBytes {
			content[off] ^= 0x10
			for _, damaged := range [][]byte{content, content[:off:off]} {
				_, _, err := replayAll(log.disk.with(name, damaged), 0)
				var damage *object.CorruptError
				require.ErrorAs(t, err, &damage, "%s at %d", name, off)
				require.Equal(t, log.disk.Path(name), damage.Name)
				require.Zero(t, damage.Offset)
			}
			content[off] ^= 0x10
		}
	}
}

func TestAClosedLogHasNoTail(t *testing.T) {
	log := newTailLog(t)
	l := openTest(t, log.disk, Options{SegmentBytes: minSegmentBytes})
	_, err := l.Append(context.Background(), testRecord(1, 1000))
	require.NoError(t, err)
	require.NoError(t, l.Close())
	var groups []groupHeader
	_, err = walk(log.disk, func(_ *reader, g *group) error {
		groups = append(groups, g.groupHeader)
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, syncMark, groups[len(groups)-1].typ)
	for _, h := range groups[:len(groups)-1] {
		name := segmentName(h.at.segment)
		for _, off := range []int64{h.at.offset, h.end().offset - 1} {
			content := log.disk.content(name)
			content[off] ^= 1
			_, _, err := replayAll(log.disk.with(name, content), 0)
			var damage *object.CorruptError
			require.ErrorAs(t, err, &damage)
			require.Equal(t, h.at.offset, damage.Offset)
		}
	}
}

func TestAMissingSegmentIsDamage(t *testing.T) {
	log := newTailLog(t)
	l := openTest(t, log.disk, Options{SegmentBytes: minSegmentBytes}) // seals 2, goes on in 3
	require.NoError(t, l.Close())
	for id := uint64(2); id <= 3; id++ {
		d := log.disk.with(segmentName(id), nil)
		if id == 3 {
			d = d.with(segmentName(4), nil)
		}
		_, _, err := replayAll(d, 0)
		var damage *object.CorruptError
		require.ErrorAs(t, err, &damage)
		require.Equal(t, d.Path(segmentName(id)), damage.Name)
	}
	// Of the first one only the caller knows that it was there.
	d := log.disk.with(segmentName(1), nil)
	_, _, err := replayAll(d, 1)
	var damage *object.CorruptError
	require.ErrorAs(t, err, &damage)
	require.Equal(t, d.Path(segmentName(2)), damage.Name)
}

func TestAReadErrorIsNoTornTail(t *testing.T) {
	log := newTailLog(t)
	log.disk.inject(func(op, name string) error {
		if op == "read" && name == segmentName(2) {
			return errInjected
		}
		return nil
	})
	_, _, err := replayAll(log.disk, 0)
	require.ErrorIs(t, err, errInjected)
	damage := (*object.CorruptError)(nil)
	require.False(t, errors.As(err, &damage))
}

func TestVerifyReportsEveryFault(t *testing.T) {
	log := newTailLog(t)
	require.NoError(t, verify(log.disk))
	d := log.disk
	var want []position
	for _, i := range []int{1, 5, 9} {
		h := log.groups[i]
		name := segmentName(h.at.segment)
		content := d.content(name)
		content[h.end().offset-1] ^= 1
		d = d.with(name, content)
		want = append(want, h.at)
	}
	err := verify(d)
	faults, ok := err.(interface{ Unwrap() []error })
	require.True(t, ok, "%v", err)
	require.Len(t, faults.Unwrap(), len(want))
	for i, fault := range faults.Unwrap() {
		var damage *object.CorruptError
		require.ErrorAs(t, fault, &damage)
		require.Equal(t, d.Path(segmentName(want[i].segment)), damage.Name)
		require.Equal(t, want[i].offset, damage.Offset)
	}
}
