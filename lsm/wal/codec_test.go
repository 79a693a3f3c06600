package wal

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// rawSegment writes the segment with an id by hand: groups in a row, each with its own header and no check of its sense.
func rawSegment(t testing.TB, d *crashDisk, id uint64, groups ...rawGroup) {
	t.Helper()
	f, err := d.Create(segmentName(id))
	require.NoError(t, err)
	h := segmentHeader{id: id, salt: 5}
	b := make([]byte, firstGroup)
	h.encode(b)
	_, err = f.WriteAt(b, 0)
	require.NoError(t, err)
	var w groupWriter
	at := int64(firstGroup)
	for _, g := range groups {
		w.start(f, at)
		for _, r := range g.recs {
			g.kinds |= 1 << r.Kind
			require.NoError(t, w.record(r))
		}
		g.at, g.count = position{id, at}, uint32(len(g.recs))
		require.NoError(t, w.finish(&g.groupHeader, h.sum))
		at += g.length
	}
	require.NoError(t, f.Close())
}

// rawGroup is a group to write by hand.
type rawGroup struct {
	groupHeader
	recs []*Record
}

// recordsAt returns a group of n records.
func recordsAt(lsn, prev LSN, n int) rawGroup {
	g := rawGroup{groupHeader: groupHeader{typ: recordGroup, lsn: lsn, prev: prev}}
	for i := range n {
		g.recs = append(g.recs, testRecord(uint64(i), 10))
	}
	return g
}

// markAt returns a mark.
func markAt(typ groupType, lsn, prev LSN) rawGroup {
	return rawGroup{groupHeader: groupHeader{typ: typ, lsn: lsn, prev: prev}}
}

func TestGroupsThatDoNotContinueAreDamage(t *testing.T) {
	start := []rawGroup{markAt(epochMark, newLSN(1, 0), 0), recordsAt(newLSN(1, 1), 0, 3)}
	for name, bad := range map[string]rawGroup{
		"a record is skipped":      recordsAt(newLSN(1, 5), newLSN(1, 3), 1),
		"a record comes again":     recordsAt(newLSN(1, 3), newLSN(1, 3), 1),
		"a group is skipped":       recordsAt(newLSN(1, 4), newLSN(1, 2), 1),
		"an epoch without a mark":  recordsAt(newLSN(2, 1), newLSN(1, 3), 1),
		"a mark of another place":  markAt(syncMark, newLSN(1, 9), newLSN(1, 3)),
		"a mark after another LSN": markAt(syncMark, newLSN(1, 4), newLSN(1, 2)),
		"an epoch comes again":     markAt(epochMark, newLSN(1, 0), newLSN(1, 3)),
		"an epoch in its middle":   markAt(epochMark, newLSN(2, 7), newLSN(1, 3)),
	} {
		t.Run(name, func(t *testing.T) {
			d := newCrashDisk()
			rawSegment(t, d, 1, append(start[:2:2], bad)...)
			got, _, err := replayAll(d, 0)
			var damage *object.CorruptError
			require.ErrorAs(t, err, &damage)
			require.Len(t, got, 3)
		})
	}
	d := newCrashDisk()
	rawSegment(t, d, 1, append(start[:2:2], recordsAt(newLSN(1, 4), newLSN(1, 3), 1), markAt(epochMark, newLSN(7, 0), newLSN(1, 4)),
		recordsAt(newLSN(7, 1), newLSN(1, 4), 2), markAt(syncMark, newLSN(7, 3), newLSN(7, 2)))...)
	got, end, err := replayAll(d, 0)
	require.NoError(t, err)
	require.Len(t, got, 6)
	require.Equal(t, newLSN(7, 2), end.LSN)
}

func TestAForgedGroupInsideARecordIsNotFound(t *testing.T) {
	// The client knows everything but the salt: it forges a group header that proves a sync at its own place, in the
	// body of a record whose group is torn.
	forged := func(salt uint64) error {
		d := newCrashDisk()
		guess := segmentHeader{id: 1, salt: salt}
		guess.encode(make([]byte, segmentHeaderBytes))
		at := int64(firstGroup + 3*groupAlign)
		h := groupHeader{at: position{1, at}, typ: syncMark, length: groupHeaderBytes, synced: position{1, at}}
		body := make([]byte, 1000)
		h.encode(body[at-firstGroup-groupHeaderBytes-recordHeaderBytes:], guess.sum)
		rawSegment(t, d, 1, rawGroup{groupHeader{typ: recordGroup, lsn: newLSN(1, 1)}, []*Record{{Kind: Batch, Body: [][]byte{body}}}})
		content := d.content(segmentName(1))
		content[firstGroup] ^= 1
		_, _, err := replayAll(d.with(segmentName(1), content), 0)
		return err
	}
	require.NoError(t, forged(6))
	require.Error(t, forged(5), "this test forges nothing")
}

func TestEachSegmentHasASaltOfItsOwn(t *testing.T) {
	seen := map[uint64]bool{}
	for range 2 {
		dir := t.TempDir()
		l, err := Open(Options{Dir: dir, SegmentBytes: minSegmentBytes})
		require.NoError(t, err)
		require.NoError(t, l.Close())
		r, err := newReader(folder(dir))
		require.NoError(t, err)
		h, err := readSegmentHeader(r.win.file, 1, "")
		require.NoError(t, err)
		r.close()
		require.False(t, seen[h.salt])
		seen[h.salt] = true
	}
}

func TestGroupsAreLaidAlikeInOneWriteOrMany(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var recs []*Record
		for range 1 + random.IntN(5) {
			rec := testRecord(random.Uint64N(1000), 0)
			for range random.IntN(4) {
				sizes := []int{0, 1, random.IntN(1000), directBytes - 1, directBytes, bufferBytes, bufferBytes + random.IntN(1000)}
				rec.Body = append(rec.Body, testBody(rec.Incarnation, sizes[random.IntN(len(sizes))]))
			}
			recs = append(recs, rec)
		}
		d := newCrashDisk()
		rawSegment(t, d, 1, rawGroup{groupHeader{typ: recordGroup, lsn: newLSN(1, 1)}, recs})
		got, _, err := replayAll(d, 0)
		require.NoError(t, err)
		require.Len(t, got, len(recs))
		size := int64(groupHeaderBytes)
		for i := range recs {
			recs[i].LSN = newLSN(1, uint64(i+1))
			requireRecord(t, recs[i], got[i])
			size += recs[i].encodedBytes()
		}
		require.Len(t, d.content(segmentName(1)), int(firstGroup+align(size, groupAlign)))
	}
}

func TestAppendAllocatesNothing(t *testing.T) {
	l, err := Open(Options{Dir: t.TempDir(), SegmentBytes: 1 << 20})
	require.NoError(t, err)
	rec := testRecord(1, 1000)
	allocs := testing.AllocsPerRun(200, func() {
		last, err := l.Append(t.Context(), rec)
		if err == nil {
			err = l.WaitDurable(t.Context(), last)
		}
		require.NoError(t, err)
	})
	require.NoError(t, l.Close())
	require.LessOrEqual(t, allocs, 2.0) // it is 0, but the race detector empties pools on purpose
}
