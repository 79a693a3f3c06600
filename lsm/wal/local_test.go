package wal

import (
	"bytes"
	"context"
	"encoding/binary"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openTest opens a log on a disk, replayed before, with salts that count.
func openTest(t testing.TB, d *crashDisk, o Options) *Local {
	t.Helper()
	end, err := replayFrom(d, 0, anywhere, func(*Record) error { return nil })
	require.NoError(t, err)
	o.End = end
	return openAt(t, d, o)
}

// openAt opens a log where o.End says.
func openAt(t testing.TB, d disk, o Options) *Local {
	t.Helper()
	o.Dir = "log"
	if o.SegmentBytes == 0 {
		o.SegmentBytes = minSegmentBytes
	}
	require.NoError(t, o.validate())
	l, err := open(o, testEnv(d))
	require.NoError(t, err)
	return l
}

func testEnv(d disk) env {
	salt := uint64(0)
	return env{disk: d, maxCount: maxCount, after: afterFunc, rest: afterFunc, salt: func() uint64 { salt++; return salt }}
}

// testRecord returns a record whose fields all tell which one it is.
func testRecord(id uint64, bytes int) *Record {
	head := binary.LittleEndian.AppendUint64(nil, id)
	r := &Record{Kind: Batch, Shard: uuid.UUID(append(head, head...)), Incarnation: id + 1, Schema: uint32(id + 2), Rows: uint32(id + 3)}
	if bytes > 0 {
		body := testBody(id, bytes)
		cut := int(id) % (len(body) + 1)
		r.Body = [][]byte{body[:cut], nil, body[cut:]}
	}
	return r
}

// testBody returns bytes that only this record has.
func testBody(id uint64, n int) []byte {
	b := make([]byte, n)
	x := id*0x9e3779b97f4a7c15 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}

// replayed is a record as Replay gave it, with a body of its own.
type replayed struct {
	Record
	body []byte
}

// replayAll returns the records of a log behind an LSN, all that it holds for 0.
func replayAll(d disk, after LSN) ([]replayed, State, error) {
	begins := after
	if after == 0 {
		begins = anywhere
	}
	var got []replayed
	end, err := replayFrom(d, after, begins, func(r *Record) error {
		got = append(got, replayed{*r, bytes.Join(r.Body, nil)})
		return nil
	})
	return got, end, err
}

// requireRecord compares a record with the one that was appended.
func requireRecord(t testing.TB, want *Record, got replayed) {
	t.Helper()
	plain := func(r Record) Record {
		r.Body, r.Value, r.Buffered = nil, nil, false
		return r
	}
	if a, b := plain(*want), plain(got.Record); !reflect.DeepEqual(a, b) {
		require.Equal(t, a, b)
	}
	if !bytes.Equal(bytes.Join(want.Body, nil), got.body) {
		require.Fail(t, "wrong body", "record %s", want.LSN)
	}
}

// settled waits until the log goroutine has nothing left to do, so that what is on the disk does not depend on time.
func settled(t testing.TB, l *Local) {
	t.Helper()
	require.Eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.mu.err != nil || len(l.mu.pending) == 0 && !l.mu.unmarked && !l.mu.synced.less(l.mu.wanted)
	}, time.Minute, 10*time.Microsecond)
}

func TestRecordsComeBackInOrder(t *testing.T) {
	d := newCrashDisk()
	var appended []*Record
	l := openTest(t, d, Options{SegmentBytes: minSegmentBytes, Appended: func(recs []*Record) { appended = append(appended, recs...) }})
	ctx := context.Background()
	var want []*Record
	for id := uint64(0); id < 400; id++ {
		rec := testRecord(id, int(id*37%5000))
		lsn, err := l.Append(ctx, rec)
		require.NoError(t, err)
		require.Equal(t, newLSN(1, id+1), lsn)
		want = append(want, rec)
	}
	require.NoError(t, l.WaitDurable(ctx, l.AppendedLSN()))
	require.NoError(t, l.Close())
	require.Equal(t, want, appended)
	got, end, err := replayAll(d, 0)
	require.NoError(t, err)
	require.Len(t, got, len(want))
	for i := range want {
		requireRecord(t, want[i], got[i])
	}
	require.Equal(t, newLSN(1, 400), end.LSN)
	require.Zero(t, end.Dropped)
	require.Greater(t, len(end.segments), 20)

	got, _, err = replayAll(d, want[200].LSN)
	require.NoError(t, err)
	require.Len(t, got, 199)
	requireRecord(t, want[201], got[0])
}

func TestManyGoroutinesAppend(t *testing.T) {
	const goroutines, each = 16, 60
	d := newCrashDisk()
	var mu sync.Mutex
	var appended, durable LSN
	o := Options{SegmentBytes: 64 << 10}
	o.Appended = func(recs []*Record) {
		mu.Lock()
		defer mu.Unlock()
		for _, r := range recs {
			require.Greater(t, r.LSN, appended)
			appended = r.LSN
		}
	}
	o.Durable = func(lsn LSN) {
		mu.Lock()
		defer mu.Unlock()
		require.Greater(t, lsn, durable)
		require.LessOrEqual(t, lsn, appended, "Durable before Appended")
		durable = lsn
	}
	l := openTest(t, d, o)
	ctx := context.Background()
	var wg sync.WaitGroup
	want := make(map[LSN]*Record)
	for g := range goroutines {
		wg.Go(func() {
			for i := range each {
				recs := make([]*Record, 1+i%3)
				for k := range recs {
					recs[k] = testRecord(uint64(g)<<32|uint64(i)<<8|uint64(k), 100*i)
				}
				last, err := l.Append(ctx, recs...)
				require.NoError(t, err)
				if i%2 == 0 {
					require.NoError(t, l.WaitDurable(ctx, last))
					require.GreaterOrEqual(t, l.DurableLSN(), last)
				}
				mu.Lock()
				for k, r := range recs {
					require.Equal(t, last-LSN(len(recs)-1-k), r.LSN)
					want[r.LSN] = r
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	require.NoError(t, l.Close())
	got, _, err := replayAll(d, 0)
	require.NoError(t, err)
	require.Len(t, got, len(want))
	for i, r := range got {
		require.Equal(t, newLSN(1, uint64(i+1)), r.LSN)
		requireRecord(t, want[r.LSN], r)
	}
}
