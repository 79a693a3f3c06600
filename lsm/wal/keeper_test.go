package wal

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// fill appends records of one size until the log is in another segment, and returns them.
func fill(t *testing.T, l *Local, id *uint64, bytes int) []*Record {
	t.Helper()
	ctx := context.Background()
	var recs []*Record
	for segment := l.segmentForTest(); segment == l.segmentForTest(); {
		*id++
		rec := testRecord(*id, bytes)
		_, err := l.Append(ctx, rec)
		require.NoError(t, err)
		recs = append(recs, rec)
	}
	require.NoError(t, l.WaitDurable(ctx, l.AppendedLSN()))
	settled(t, l)
	return recs
}

// segmentForTest returns the segment that is written.
func (l *Local) segmentForTest() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.written.segment
}

// segmentsOn returns the ids of the segments on a disk.
func segmentsOn(t *testing.T, d disk) []uint64 {
	t.Helper()
	ids, err := listSegments(d)
	require.NoError(t, err)
	return ids
}

func TestTrimKeepsWhatIsAboveItsMark(t *testing.T) {
	d := newCrashDisk()
	l := openTest(t, d, Options{})
	var id uint64
	var last []LSN // of each segment
	for range 4 {
		recs := fill(t, l, &id, 500)
		last = append(last, recs[len(recs)-2].LSN) // the last one is in the next segment already
	}
	require.NoError(t, l.Trim(0))
	require.Equal(t, []uint64{1, 2, 3, 4, 5, 6}, segmentsOn(t, d))
	require.NoError(t, l.Trim(last[0]-1))
	require.Equal(t, []uint64{1, 2, 3, 4, 5, 6}, segmentsOn(t, d))
	require.NoError(t, l.Trim(last[0]))
	require.Equal(t, []uint64{2, 3, 4, 5, 6}, segmentsOn(t, d))
	require.NoError(t, l.Trim(last[2]+1))
	require.Equal(t, []uint64{4, 5, 6}, segmentsOn(t, d))
	got, _, err := replayAll(d, last[2])
	require.NoError(t, err)
	require.Equal(t, last[2]+1, got[0].LSN)
	require.NoError(t, l.Trim(l.AppendedLSN()))
	require.Equal(t, []uint64{5, 6}, segmentsOn(t, d), "the segment that is written stays")
	require.NoError(t, l.Close())

	_, end, err := replayAll(d, 0)
	require.NoError(t, err)
	require.Equal(t, id, end.LSN.N())
	l = openTest(t, d, Options{})
	require.Equal(t, newLSN(2, 0), l.AppendedLSN())
	require.NoError(t, l.Close())
}

func TestTrimWaitsUntilTheSuccessorHasSyncedGroups(t *testing.T) {
	d := newCrashDisk()
	l := openTest(t, d, Options{})
	var id uint64
	for range 3 { // records that leave no room for a fourth, so that the next append changes segments
		id++
		_, err := l.Append(context.Background(), testRecord(id, 1000))
		require.NoError(t, err)
	}
	require.NoError(t, l.WaitDurable(context.Background(), l.AppendedLSN()))
	settled(t, l)
	hold := make(chan struct{})
	d.inject(func(op, name string) error {
		if op == "sync" && name == segmentName(2) {
			<-hold
		}
		return nil
	})
	_, err := l.Append(context.Background(), testRecord(9, 1000))
	require.NoError(t, err)
	require.NoError(t, l.Trim(l.AppendedLSN()))
	require.Contains(t, segmentsOn(t, d), uint64(1))
	for seed := range uint64(20) {
		_, end, err := replayAll(d.crash(rand.New(rand.NewPCG(seed, 0))), 0)
		require.NoError(t, err)
		require.GreaterOrEqual(t, end.LSN, newLSN(1, 3), "the log has forgotten its last LSN")
	}
	close(hold)
	require.NoError(t, l.Close())
}

func TestTrimmedSegmentsAreUsedAgain(t *testing.T) {
	d, tr := newCrashDisk(), &trace{}
	l := openTest(t, d, Options{Spares: 2})
	var id uint64
	for range 3 {
		fill(t, l, &id, 300)
		require.NoError(t, l.Trim(l.DurableLSN()))
	}
	d.inject(tr.try)
	old := id
	for range 6 {
		fill(t, l, &id, 300)
		require.NoError(t, l.Trim(l.DurableLSN()))
	}
	tr.mu.Lock()
	require.False(t, slices.ContainsFunc(tr.ops, func(op string) bool { return strings.HasPrefix(op, "create") }), "%v", tr.ops)
	tr.mu.Unlock()
	// The segment that is written has the remains of older records, of the same size and at the same places.
	d.inject(nil)
	for _, left := range []*crashDisk{d.crash(nil), d.crash(rand.New(rand.NewPCG(1, 1)))} {
		got, end, err := replayAll(left, 0)
		require.NoError(t, err)
		require.NotEmpty(t, got)
		require.Greater(t, got[0].LSN.N(), old)
		require.Equal(t, id, end.LSN.N())
	}
	require.NoError(t, l.Close())
}

func TestOneLargeGroupHasASegmentOfItsOwn(t *testing.T) {
	d := newCrashDisk()
	l := openTest(t, d, Options{Spares: 8})
	ctx := context.Background()
	large := testRecord(7, 100_000)
	for _, rec := range []*Record{testRecord(1, 100), large, testRecord(2, 100)} {
		_, err := l.Append(ctx, rec)
		require.NoError(t, err)
	}
	require.Equal(t, uint64(3), l.segmentForTest())
	require.NoError(t, l.WaitDurable(ctx, l.AppendedLSN()))
	require.NoError(t, l.Trim(large.LSN))
	require.NoError(t, l.Close())
	require.Greater(t, len(d.content(spareName(2))), 100_000)

	l = openTest(t, d, Options{Spares: 8})
	var id uint64
	for range 4 {
		fill(t, l, &id, 300)
	}
	require.NoError(t, l.Close())
	for _, id := range segmentsOn(t, d) {
		require.LessOrEqual(t, len(d.content(segmentName(id))), minSegmentBytes)
	}
}

func TestIdleRestartsTakeNoSpace(t *testing.T) {
	d := newCrashDisk()
	for range 20 {
		l := openTest(t, d, Options{})
		require.NoError(t, l.Close())
	}
	names, err := d.List()
	require.NoError(t, err)
	require.LessOrEqual(t, len(names), 3, "%v", names)
}

func TestOpenSweepsWhatAPreparationLeft(t *testing.T) {
	d := newCrashDisk()
	for _, name := range []string{tempName(1), tempName(9), spareName(3), spareName(4), "notes.txt"} {
		f, err := d.Create(name)
		require.NoError(t, err)
		_, err = f.WriteAt([]byte("left over"), 0)
		require.NoError(t, err)
	}
	l := openTest(t, d, Options{Spares: 1})
	p := <-l.keeper.ready // Close would cut its preparation off
	l.keeper.ready <- p
	require.NoError(t, l.Close())
	names, err := d.List()
	require.NoError(t, err)
	require.Equal(t, []string{segmentName(1), segmentName(2), "notes.txt"}, names)
}

func TestOpenWantsItsReplay(t *testing.T) {
	d := newCrashDisk()
	l := openTest(t, d, Options{})
	require.NoError(t, l.Close())
	o := Options{Dir: "log", SegmentBytes: minSegmentBytes}
	require.NoError(t, o.validate())
	_, err := open(o, testEnv(d))
	require.ErrorIs(t, err, ErrNotReplayed)
	_, o.End, err = replayAll(d, 0)
	require.NoError(t, err)
	l, err = open(o, testEnv(d))
	require.NoError(t, err)
	require.NoError(t, l.Close())
	_, err = open(o, testEnv(d)) // that end is an old one now
	require.ErrorIs(t, err, ErrNotReplayed)
}

func TestLSNsRiseAboveAllThatWereGiven(t *testing.T) {
	d := newCrashDisk()
	l := openTest(t, d, Options{After: newLSN(41, 7)})
	last, err := l.Append(context.Background(), testRecord(1, 1))
	require.NoError(t, err)
	require.Equal(t, newLSN(42, 1), last)
	require.NoError(t, l.WaitDurable(context.Background(), newLSN(41, 7)))
	require.NoError(t, l.Close())
	l = openTest(t, d, Options{})
	require.Equal(t, newLSN(43, 0), l.AppendedLSN())
	require.NoError(t, l.Close())
	_, end, err := replayAll(d, 0)
	require.NoError(t, err)
	o := Options{Dir: "log", End: end, After: newLSN(maxEpoch, 1)}
	require.NoError(t, o.validate())
	_, err = open(o, testEnv(d))
	require.ErrorContains(t, err, "used up")
	require.Zero(t, d.handles)
}

func TestAFullEpochOpensTheNext(t *testing.T) {
	d := newCrashDisk()
	o := Options{Dir: "log", SegmentBytes: minSegmentBytes}
	require.NoError(t, o.validate())
	e := testEnv(d)
	e.maxCount = 3
	l, err := open(o, e)
	require.NoError(t, err)
	var want []LSN
	for id := range uint64(10) {
		lsn, err := l.Append(context.Background(), testRecord(id, 10))
		require.NoError(t, err)
		want = append(want, lsn)
	}
	require.Equal(t, newLSN(4, 1), want[9])
	require.NoError(t, l.Close())
	got, end, err := replayAll(d, want[1])
	require.NoError(t, err)
	require.Len(t, got, 8)
	for i, r := range got {
		require.Equal(t, want[i+2], r.LSN)
	}
	require.Equal(t, want[9], end.LSN)
}
