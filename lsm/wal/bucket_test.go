package wal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// bucketSchema is that of the batches in tests: by the schema id of the record, with one column more each time.
func bucketSchema(id uint32) *arrow.Schema {
	var fields []arrow.Field
	for i := range id {
		fields = append(fields, arrow.Field{Name: fmt.Sprint("c", i), Type: arrow.PrimitiveTypes.Int64})
	}
	return arrow.NewSchema(append(fields, arrow.Field{Name: "_tombstone", Type: arrow.FixedWidthTypes.Boolean}), nil)
}

// bucketRows makes the rows of a record: its numbers, which its Value lists.
func bucketRows(r *Record) (arrow.RecordBatch, error) {
	ids, ok := r.Value.([]int64)
	if !ok {
		return nil, errors.New("the record has no rows")
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, bucketSchema(r.Schema))
	defer b.Release()
	for _, id := range ids {
		for i := range r.Schema {
			b.Field(int(i)).(*array.Int64Builder).Append(id)
		}
		b.Field(int(r.Schema)).(*array.BooleanBuilder).Append(id%2 == 0)
	}
	return b.NewRecordBatch(), nil
}

// numbers reads back what bucketRows made.
func numbers(t *testing.T, r *Record) []int64 {
	t.Helper()
	require.Len(t, r.Body, 3)
	require.Equal(t, len(r.Body[1]), int(binary.LittleEndian.Uint32(r.Body[0])))
	var b strings.Builder
	w := ipc.NewWriter(&b, ipc.WithSchema(bucketSchema(r.Schema)))
	require.NoError(t, w.Close())
	stream := b.String()[:b.Len()-streamEnd] + "\xff\xff\xff\xff" + string(r.Body[0]) + string(r.Body[1]) + string(r.Body[2])
	reader, err := ipc.NewReader(strings.NewReader(stream))
	require.NoError(t, err)
	defer reader.Release()
	require.True(t, reader.Next(), reader.Err())
	rec := reader.RecordBatch()
	ids := slices.Clone(rec.Column(0).(*array.Int64).Int64Values())
	for i, id := range ids {
		require.Equal(t, id%2 == 0, rec.Column(int(r.Schema)).(*array.Boolean).Value(i))
	}
	return ids
}

// lengthPrefix is the prefix function of tests.
func lengthPrefix(meta []byte) []byte {
	return binary.LittleEndian.AppendUint32(nil, uint32(len(meta)))
}

// numbered returns a batch of a shard.
func numbered(shard uuid.UUID, schema uint32, ids ...int64) *Record {
	return &Record{Kind: Batch, Shard: shard, Incarnation: 3, Schema: schema, Rows: uint32(len(ids)), Value: ids}
}

func testStream(id uuid.UUID, epoch uint64) *Stream {
	return &Stream{ID: id, Dir: path.Join("t.lance/_mem_wal", id.String(), "wal"), Epoch: epoch}
}

// openBucket opens a log with streams that it fences and replays before.
func openBucket(t *testing.T, st object.Store, o BucketOptions, streams ...*Stream) (*Bucket, []*Record) {
	t.Helper()
	o.Store, o.Rows = st, bucketRows
	b, err := OpenBucket(o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	for _, s := range streams {
		require.NoError(t, s.Fence(t.Context(), st))
	}
	var recs []*Record
	require.NoError(t, ReplayStreams(t.Context(), st, streams, lengthPrefix, func(r *Record) error {
		c := *r
		recs = append(recs, &c)
		return nil
	}))
	for _, s := range streams {
		b.Attach(s)
	}
	return b, recs
}

func TestABucketGivesBackWhatWasAppendedInOrder(t *testing.T) {
	st := object.NewMem()
	shards := []uuid.UUID{uuid.New(), uuid.New(), uuid.Nil}
	random := rand.New(rand.NewPCG(1, 1))
	var want []string
	describe := func(r *Record, ids []int64) string {
		return fmt.Sprint(r.LSN, r.Kind, r.Shard, r.Incarnation, r.Schema, r.Rows, ids)
	}
	for epoch := uint64(1); epoch < 6; epoch++ {
		var streams []*Stream
		for _, id := range shards {
			streams = append(streams, testStream(id, epoch))
		}
		var durable []LSN
		b, recs := openBucket(t, st, BucketOptions{Epoch: epoch, EntryBytes: 2000, Durable: func(l LSN) { durable = append(durable, l) }}, streams...)
		var got []string
		for _, r := range recs {
			var ids []int64
			if r.Kind == Batch {
				ids = numbers(t, r)
			} else {
				require.Equal(t, fmt.Sprint("body ", r.Incarnation), string(r.Body[0]))
			}
			got = append(got, describe(r, ids))
		}
		require.Equal(t, want, got)
		for i := range 60 {
			shard := shards[random.IntN(len(shards))]
			var recs []*Record
			if shard == uuid.Nil {
				recs = append(recs, &Record{Kind: DDL, Incarnation: uint64(i), Body: [][]byte{[]byte("body "), []byte(fmt.Sprint(i))}})
			} else {
				schema := uint32(1 + i/20)
				recs = append(recs, numbered(shard, schema, int64(i), int64(i+1)), numbered(shard, schema, random.Int64()))
				if i%3 == 0 {
					recs = append(recs, &Record{Kind: Idempotency, Shard: shard, Incarnation: 7, Body: [][]byte{[]byte("body 7")}})
				}
			}
			last, err := b.Append(t.Context(), recs...)
			require.NoError(t, err)
			require.Equal(t, recs[len(recs)-1].LSN, last)
			for _, r := range recs {
				ids, _ := r.Value.([]int64)
				want = append(want, describe(r, ids))
			}
			if random.IntN(5) == 0 {
				require.NoError(t, b.WaitDurable(t.Context(), last))
				require.GreaterOrEqual(t, b.DurableLSN(), last)
			}
		}
		require.NoError(t, b.Close())
		require.Equal(t, b.AppendedLSN(), b.DurableLSN())
		require.True(t, slices.IsSorted(durable))
		_, err := b.Append(t.Context(), numbered(shards[0], 1, 1))
		require.ErrorIs(t, err, ErrClosed)
	}
}

func TestRecordsOfSeveralShardsAreRefused(t *testing.T) {
	a, b := testStream(uuid.New(), 1), testStream(uuid.New(), 1)
	l, _ := openBucket(t, object.NewMem(), BucketOptions{Epoch: 1}, a, b, testStream(uuid.Nil, 1))
	_, err := l.Append(t.Context(), numbered(a.ID, 1, 1), numbered(b.ID, 1, 2))
	require.ErrorIs(t, err, ErrSeveralShards)
	_, err = l.Append(t.Context(), &Record{Kind: DDL, Body: [][]byte{{1}}}, &Record{Kind: Idempotency, Shard: b.ID})
	require.NoError(t, err, "what comes with DDL is the catalog's")
	_, err = l.Append(t.Context(), numbered(a.ID, 1, 1), numbered(a.ID, 2, 2))
	require.ErrorIs(t, err, ErrSeveralSchemas)
	_, err = l.Append(t.Context(), numbered(uuid.New(), 1, 1))
	require.ErrorContains(t, err, "no stream")
	_, err = l.Append(t.Context(), &Record{Kind: Batch, Shard: a.ID, Schema: 1})
	require.ErrorContains(t, err, "no rows")
	last, err := l.Append(t.Context(), numbered(a.ID, 1, 1))
	require.NoError(t, err)
	require.EqualValues(t, 3, last.N(), "what failed took no LSN")
}

// TestEveryFlippedByteOfAnEntryIsFound flips each byte of an entry with batches and one without.
func TestEveryFlippedByteOfAnEntryIsFound(t *testing.T) {
	e := newEntry(testStream(uuid.New(), 1))
	for i, r := range []*Record{numbered(uuid.New(), 2, 1, 2, 3), {Kind: Idempotency, Body: [][]byte{[]byte("keys")}}} {
		r.LSN = newLSN(1, uint64(i+1))
		var rows arrow.RecordBatch
		if r.Kind == Batch {
			rows, _ = bucketRows(r)
			defer rows.Release()
		}
		require.NoError(t, e.add(r, rows, false))
	}
	data, err := e.seal(4, 5)
	require.NoError(t, err)
	sentinel, err := sealSentinel(9)
	require.NoError(t, err)
	for _, data := range [][]byte{data, sentinel} {
		whole, err := decodeEntry("x", data, lengthPrefix)
		require.NoError(t, err)
		require.True(t, whole.own)
		for i := range data {
			for bit := range 8 {
				bad := slices.Clone(data)
				bad[i] ^= 1 << bit
				_, err := decodeEntry("x", bad, lengthPrefix) // nor is it another program's when its mark is damaged
				var corrupt *object.CorruptError
				require.ErrorAs(t, err, &corrupt, "byte %d", i)
				_, err = decodeLanceEntry(bad)
				require.Error(t, err, "byte %d", i)
			}
		}
		for i := range data {
			got, err := decodeEntry("x", data[:i], lengthPrefix)
			require.True(t, err != nil || !got.own, "cut at %d", i)
		}
	}
}

// refusing is a store that takes no objects below a folder.
type refusing struct {
	object.Store
	dir string
}

// PutIfAbsent implements object.Store.
func (r *refusing) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	if path.Dir(name) == r.dir {
		return errors.New("injected: the store does not take it")
	}
	return r.Store.PutIfAbsent(ctx, name, data)
}

// TestNoDDLIsThereWithoutTheRowsBefore stores a group with rows and DDL, of which the rows are refused.
func TestNoDDLIsThereWithoutTheRowsBefore(t *testing.T) {
	s, catalog := testStream(uuid.New(), 1), testStream(uuid.Nil, 1)
	st := &refusing{Store: object.NewMem()}
	b, _ := openBucket(t, st, BucketOptions{Epoch: 1, Interval: time.Hour, Retries: 1, RetryDelay: time.Microsecond}, s, catalog)
	st.dir = s.Dir
	rows := numbered(s.ID, 1, 1)
	rows.Buffered = true
	_, err := b.Append(t.Context(), rows)
	require.NoError(t, err)
	lsn, err := b.Append(t.Context(), &Record{Kind: DDL, Body: [][]byte{{1}}})
	require.NoError(t, err)
	require.ErrorIs(t, b.WaitDurable(t.Context(), lsn), ErrPoisoned)
	list, err := st.List(t.Context(), catalog.Dir)
	require.NoError(t, err)
	require.Len(t, list, 1, "the sentinel")
}

func TestAMissingEntryIsDamage(t *testing.T) {
	st := object.NewMem()
	s := testStream(uuid.New(), 1)
	b, _ := openBucket(t, st, BucketOptions{Epoch: 1}, s)
	for i := range 5 {
		lsn, err := b.Append(t.Context(), numbered(s.ID, 1, int64(i)))
		require.NoError(t, err)
		require.NoError(t, b.WaitDurable(t.Context(), lsn))
	}
	require.NoError(t, b.Close())
	require.NoError(t, st.Delete(t.Context(), s.entryPath(4)))
	again := testStream(s.ID, 2)
	require.NoError(t, again.Fence(t.Context(), st))
	var corrupt *object.CorruptError
	require.ErrorAs(t, ReplayStreams(t.Context(), st, []*Stream{again}, lengthPrefix, func(*Record) error { return nil }), &corrupt)
	require.Equal(t, s.entryPath(4), corrupt.Name)
}

func TestAWriterThatWasOvertakenAcknowledgesNothing(t *testing.T) {
	st := object.NewMem()
	id := uuid.New()
	var poisoned error
	old, _ := openBucket(t, st, BucketOptions{Epoch: 1, Poisoned: func(err error) { poisoned = err }}, testStream(id, 1))
	lsn, err := old.Append(t.Context(), numbered(id, 1, 1))
	require.NoError(t, err)
	require.NoError(t, old.WaitDurable(t.Context(), lsn))

	now := testStream(id, 2)
	b, recs := openBucket(t, st, BucketOptions{Epoch: 2}, now)
	require.Len(t, recs, 1)
	lsn, err = old.Append(t.Context(), numbered(id, 1, 2))
	require.NoError(t, err, "it does not know")
	err = old.WaitDurable(t.Context(), lsn)
	require.ErrorIs(t, err, ErrFenced)
	require.ErrorIs(t, err, ErrPoisoned)
	_, err = old.Append(t.Context(), numbered(id, 1, 3))
	require.ErrorIs(t, err, ErrFenced)
	require.ErrorIs(t, old.Close(), ErrFenced)
	require.ErrorIs(t, poisoned, ErrFenced)

	// A third one claims, and its sentinel comes late: behind that of the fourth.
	late := testStream(id, 3)
	require.NoError(t, testStream(id, 4).Fence(t.Context(), st))
	require.NoError(t, late.Fence(t.Context(), st))
	_, err = b.Append(t.Context(), numbered(id, 1, 4))
	require.NoError(t, err)
	require.ErrorIs(t, b.Close(), ErrFenced)
	five, recs := openBucket(t, st, BucketOptions{Epoch: 5}, testStream(id, 5))
	require.Len(t, recs, 1)
	// Stale sentinels in front of a writer are passed.
	require.NoError(t, late.Fence(t.Context(), st))
	lsn, err = five.Append(t.Context(), numbered(id, 1, 5))
	require.NoError(t, err)
	require.NoError(t, five.WaitDurable(t.Context(), lsn))
	require.NoError(t, five.Close())
}

// TestAWriterThatSleptCollidesAfterItsSuccessorTrimmed has a successor flush and trim everything before the one that was
// overtaken wakes.
func TestAWriterThatSleptCollidesAfterItsSuccessorTrimmed(t *testing.T) {
	st := object.NewMem()
	id := uuid.New()
	old, _ := openBucket(t, st, BucketOptions{Epoch: 1}, testStream(id, 1))
	for epoch := uint64(2); epoch < 5; epoch++ {
		s := testStream(id, epoch)
		b, _ := openBucket(t, st, BucketOptions{Epoch: epoch}, s)
		for i := range 3 {
			lsn, err := b.Append(t.Context(), numbered(id, 1, int64(i)))
			require.NoError(t, err)
			require.NoError(t, b.WaitDurable(t.Context(), lsn))
		}
		position, err := b.Position(id, b.DurableLSN())
		require.NoError(t, err)
		b.Release(id, position, 2)
		require.NoError(t, b.Trim(b.DurableLSN()))
		require.NoError(t, b.Close())
	}
	list, err := st.List(t.Context(), testStream(id, 1).Dir)
	require.NoError(t, err)
	require.Len(t, list, 4, "four sentinels")
	lsn, err := old.Append(t.Context(), numbered(id, 1, 9))
	require.NoError(t, err)
	require.ErrorIs(t, old.WaitDurable(t.Context(), lsn), ErrFenced)
}

// TestKeysOutliveTheEntriesThatTheyCameIn has replays begin behind entries with news of keys, which are trimmed or not: a
// checkpoint was written before.
func TestKeysOutliveTheEntriesThatTheyCameIn(t *testing.T) {
	st := object.NewMem()
	id := uuid.New()
	var mu sync.Mutex
	known := 0
	o := BucketOptions{
		Appended: func(recs []*Record) {
			mu.Lock()
			defer mu.Unlock()
			for _, r := range recs {
				if r.Kind == Idempotency {
					known++
				}
			}
		},
		Checkpoint: func() *Record {
			mu.Lock()
			defer mu.Unlock()
			return &Record{Kind: Idempotency, Body: [][]byte{[]byte(fmt.Sprint("all ", known))}}
		},
	}
	for epoch := uint64(1); epoch < 12; epoch++ {
		s, catalog := testStream(id, epoch), testStream(uuid.Nil, epoch)
		s.After, catalog.After = lastReleased(t, st, id), lastReleased(t, st, uuid.Nil)
		o.Epoch = epoch
		b, recs := openBucket(t, st, o, s, catalog)
		got := 0
		for _, r := range recs {
			if text, ok := strings.CutPrefix(string(r.Body[0]), "all "); ok && r.Kind == Idempotency {
				_, err := fmt.Sscan(text, &got)
				require.NoError(t, err)
			} else if r.Kind == Idempotency {
				got++
			}
		}
		require.Equal(t, known, got, "epoch %d", epoch)
		for i := range 10 {
			lsn, err := b.Append(t.Context(), numbered(id, 1, int64(i)), &Record{Kind: Idempotency, Shard: id, Body: [][]byte{[]byte("one")}})
			require.NoError(t, err)
			require.NoError(t, b.WaitDurable(t.Context(), lsn))
			if i%4 == 3 {
				for _, x := range []uuid.UUID{id, uuid.Nil} {
					p, err := b.Position(x, lsn)
					require.NoError(t, err)
					release(t, st, x, p)
					b.Release(x, p, 1)
				}
				if epoch%2 == 0 {
					require.NoError(t, b.Trim(lsn))
				}
			}
		}
		require.NoError(t, b.Close())
	}
}

func release(t *testing.T, st object.Store, id uuid.UUID, position uint64) {
	t.Helper()
	require.NoError(t, st.Put(t.Context(), "released/"+id.String(), fmt.Append(nil, position)))
}

func lastReleased(t *testing.T, st object.Store, id uuid.UUID) (p uint64) {
	t.Helper()
	b, err := st.Get(t.Context(), "released/"+id.String())
	if err == nil {
		_, err = fmt.Sscan(string(b), &p)
		require.NoError(t, err)
	}
	return p
}
