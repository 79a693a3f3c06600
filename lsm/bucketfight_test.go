package lsm

import (
	"context"
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
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/lsm/wal"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
	"github.com/flightd/flightd/object/objecttest"
)

// fightSchema is that of the rows that are fought for.
var fightSchema = arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, tombstoneField}, nil)

// fightRows makes the rows of a record, whose Value lists them.
func fightRows(r *wal.Record) (arrow.RecordBatch, error) {
	b := array.NewRecordBuilder(memory.DefaultAllocator, fightSchema)
	defer b.Release()
	for _, id := range r.Value.([]int64) {
		b.Field(0).(*array.Int64Builder).Append(id)
		b.Field(1).(*array.BooleanBuilder).Append(false)
	}
	return b.NewRecordBatch(), nil
}

// foughtFor reads them back.
func foughtFor(t *testing.T, r *wal.Record) []int64 {
	d, err := newBatchDecoder(fightSchema)
	require.NoError(t, err)
	rec, err := d.decode(r.Body[1], copyOut(r.Body[2]))
	require.NoError(t, err)
	defer rec.Release()
	return slices.Clone(rec.Column(0).(*array.Int64).Int64Values())
}

// TestTwoWritersFightForAShard has two writers take one shard from each other 500 times, over a store of which the calls
// are late, lost, doubled and told wrong. Each writes, flushes and trims while it has the shard. No row that was durably
// acknowledged is lost, and none is there twice. (In ten shards one after the other, as object.Mem is slow with many
// objects.)
func TestTwoWritersFightForAShard(t *testing.T) {
	rounds := uint64(10)
	if testing.Short() {
		rounds = 1
	}
	for round := range rounds {
		fight(t, round, 50)
	}
}

func fight(t *testing.T, seed uint64, takeovers int) {
	mem := object.NewMem()
	id := uuid.New()
	var mu sync.Mutex
	acked := make(map[int64]bool)
	next := int64(0)
	taken := 0
	var fighters sync.WaitGroup
	for i := range uint64(2) {
		fighters.Go(func() {
			st := objecttest.NewFlaky(mem, 2*seed+i, 4, 200*time.Microsecond)
			defer st.Wait()
			random := rand.New(rand.NewPCG(seed, i))
			tries := 0
			for {
				mu.Lock()
				over := taken >= takeovers
				mu.Unlock()
				if over {
					return
				}
				// The other gets to do something; longer each time that it came to nothing.
				time.Sleep(time.Duration(random.Int64N(int64(time.Duration(1+tries) * 4 * time.Millisecond))))
				f := &fighter{t: t, st: st, id: id, random: random}
				if tries++; !f.take() {
					continue
				}
				tries = 0
				mu.Lock()
				taken++
				mu.Unlock()
				for range 1 + random.IntN(6) {
					mu.Lock()
					ids := []int64{next, next + 1}
					next += 2
					mu.Unlock()
					if !f.write(ids) {
						break
					}
					mu.Lock()
					acked[ids[0]], acked[ids[1]] = true, true
					mu.Unlock()
				}
				f.close()
			}
		})
	}
	fighters.Wait()
	f := &fighter{t: t, st: mem, id: id}
	require.True(t, f.take())
	defer f.close()
	found := make(map[int64]int)
	for _, id := range slices.Concat(f.flushed, f.live) {
		found[id]++
	}
	for id := range acked {
		require.Equal(t, 1, found[id], "row %d", id)
	}
	for id, n := range found {
		require.Equal(t, 1, n, "row %d", id)
	}
	require.Greater(t, len(acked), takeovers/2, "they did little but fight")
	t.Logf("%d rows of %d were acknowledged, %d of %d are flushed, epoch %d", len(acked), next, len(f.flushed), len(found), f.man.Epoch)
}

// fighter is a process that writes a shard for a while.
type fighter struct {
	t       *testing.T
	st      object.Store
	id      uuid.UUID
	random  *rand.Rand
	man     *manifest.Shard
	bucket  *wal.Bucket
	flushed []int64 // in objects that the manifest names
	live    []int64 // in the log
}

func (f *fighter) dir() string { return path.Join("t.lance/_mem_wal", f.id.String()) }

// take claims the shard and replays it, and tells whether it succeeded.
func (f *fighter) take() bool {
	ctx := context.Background()
	var err error
	if f.man, err = manifest.ClaimShard(ctx, f.st, f.dir(), f.id, true, manifest.Options{}); err != nil {
		return false
	}
	s := &wal.Stream{ID: f.id, Dir: path.Join(f.dir(), "wal"), Epoch: f.man.Epoch, After: f.man.Entry}
	if s.Fence(ctx, f.st) != nil {
		return false
	}
	if newest, err := manifest.LoadShard(ctx, f.st, f.dir(), manifest.Options{}); err != nil || newest.Epoch != f.man.Epoch {
		return false
	}
	f.flushed, f.live = nil, nil
	for _, g := range f.man.Generations {
		b, err := f.st.Get(ctx, path.Join(f.dir(), g.Path))
		if err != nil {
			require.ErrorIs(f.t, err, objecttest.ErrFlaky)
			return false
		}
		for _, text := range strings.Fields(string(b)) {
			var id int64
			_, err := fmt.Sscan(text, &id)
			require.NoError(f.t, err)
			f.flushed = append(f.flushed, id)
		}
	}
	err = wal.ReplayStreams(ctx, f.st, []*wal.Stream{s}, func(meta []byte) []byte { return meta[:0] }, func(r *wal.Record) error {
		if uint64(r.LSN) > f.man.ReplayAfter {
			f.live = append(f.live, foughtFor(f.t, r)...)
		}
		return nil
	})
	if err != nil {
		// The other may have claimed, flushed and trimmed while we were reading.
		if newest, again := manifest.LoadShard(ctx, f.st, f.dir(), manifest.Options{}); again == nil && newest.Epoch == f.man.Epoch {
			require.ErrorIs(f.t, err, objecttest.ErrFlaky)
		}
		return false
	}
	f.bucket, err = wal.OpenBucket(wal.BucketOptions{Store: f.st, Rows: fightRows, Epoch: f.man.Epoch, Retries: 3, RetryDelay: time.Microsecond})
	require.NoError(f.t, err)
	f.bucket.Attach(s)
	return true
}

// write logs a batch and now and then flushes and trims. It tells whether the batch is durable.
func (f *fighter) write(ids []int64) bool {
	ctx := context.Background()
	lsn, err := f.bucket.Append(ctx, &wal.Record{Kind: wal.Batch, Shard: f.id, Incarnation: 1, Schema: 1, Rows: uint32(len(ids)), Value: ids})
	if err != nil || f.bucket.WaitDurable(ctx, lsn) != nil {
		return false
	}
	f.live = append(f.live, ids...)
	if f.random.IntN(4) == 0 {
		f.flush(lsn)
	}
	return true
}

func (f *fighter) flush(upTo LSN) {
	ctx := context.Background()
	all := slices.Concat(f.flushed, f.live) // a merge, too, so that few objects are there to be read
	g := manifest.Generation{Number: f.man.CurrentGeneration, Path: uuid.NewString() + "_gen", Rows: int64(len(all))}
	if f.st.PutIfAbsent(ctx, path.Join(f.dir(), g.Path), []byte(strings.Trim(fmt.Sprint(all), "[]"))) != nil {
		return
	}
	entry, err := f.bucket.Position(f.id, upTo)
	if err != nil {
		return
	}
	man, err := f.man.Commit(ctx, f.st, f.dir(), func(n *manifest.Shard) {
		n.Generations = []manifest.Generation{g}
		n.CurrentGeneration = g.Number + 1
		n.ReplayAfter, n.Entry = uint64(upTo), entry
	})
	if err != nil {
		return
	}
	f.man, f.flushed, f.live = man, all, nil
	f.bucket.Release(f.id, man.Entry, man.CurrentGeneration)
	_ = f.bucket.Trim(upTo) // what stays is removed by the next
}

func (f *fighter) close() {
	if f.bucket != nil {
		_ = f.bucket.Close() // a poison is no surprise here
		f.bucket = nil
	}
}
