package manifest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/object"
)

const shardDir = "t.lance/_mem_wal/shard"

func flushGeneration(s *Shard) {
	s.Generations = append(s.Generations, Generation{
		Number: s.CurrentGeneration, Path: fmt.Sprintf("%08x_gen_%d", rand.Uint32(), s.CurrentGeneration), Rows: 10,
	})
	s.CurrentGeneration++
	s.ReplayAfter += 5
}

func TestClaimsRaiseTheEpochAndFenceWritersBefore(t *testing.T) {
	ctx, st, id := context.Background(), object.NewMem(), uuid.New()
	_, err := LoadShard(ctx, st, shardDir, Options{})
	require.ErrorIs(t, err, object.ErrNotExist)

	first, err := ClaimShard(ctx, st, shardDir, id, true, Options{})
	require.NoError(t, err)
	require.EqualValues(t, 1, first.Epoch)
	require.EqualValues(t, 1, first.CurrentGeneration)
	first, err = first.Commit(ctx, st, shardDir, flushGeneration)
	require.NoError(t, err)

	second, err := ClaimShard(ctx, st, shardDir, id, true, Options{})
	require.NoError(t, err)
	require.EqualValues(t, 2, second.Epoch)
	require.Equal(t, first.Generations, second.Generations)
	_, err = first.Commit(ctx, st, shardDir, flushGeneration)
	require.ErrorIs(t, err, ErrFenced)
	second, err = second.Commit(ctx, st, shardDir, flushGeneration)
	require.NoError(t, err)

	got, err := LoadShard(ctx, st, shardDir, Options{})
	require.NoError(t, err)
	require.Equal(t, second.Generations, got.Generations)
	require.EqualValues(t, 4, got.Version)
	require.EqualValues(t, 10, got.ReplayAfter)
	require.True(t, got.Sealed)
}

func TestSealedShardsAreForThoseWhoKnow(t *testing.T) {
	ctx, st, id := context.Background(), object.NewMem(), uuid.New()
	_, err := ClaimShard(ctx, st, shardDir, id, true, Options{})
	require.NoError(t, err)
	_, err = ClaimShard(ctx, st, shardDir, id, false, Options{})
	require.ErrorIs(t, err, ErrSealed)
	_, err = ClaimShard(ctx, st, shardDir, uuid.New(), true, Options{})
	require.ErrorContains(t, err, "belongs to shard")
}

// TestAClaimWithAnEpochOfItsOwnIsMadeOnce claims as a process does that was given its epoch.
func TestAClaimWithAnEpochOfItsOwnIsMadeOnce(t *testing.T) {
	ctx, st, id := context.Background(), object.NewMem(), uuid.New()
	five, err := ClaimShard(ctx, st, shardDir, id, true, Options{Epoch: 5})
	require.NoError(t, err)
	require.EqualValues(t, 5, five.Epoch)
	flushed, err := five.Commit(ctx, st, shardDir, flushGeneration)
	require.NoError(t, err)
	again, err := ClaimShard(ctx, st, shardDir, id, true, Options{Epoch: 5})
	require.NoError(t, err)
	require.Equal(t, flushed.Version, again.Version, "nothing was published")
	require.Equal(t, flushed.Generations, again.Generations)
	_, err = ClaimShard(ctx, st, shardDir, id, true, Options{Epoch: 4})
	require.ErrorIs(t, err, ErrFenced)
	_, err = ClaimShard(ctx, st, shardDir, uuid.New(), true, Options{Epoch: 5})
	require.ErrorContains(t, err, "belongs to shard")
	_, err = ClaimShard(ctx, st, shardDir, id, true, Options{Epoch: 9})
	require.NoError(t, err)
	_, err = again.Commit(ctx, st, shardDir, flushGeneration)
	require.ErrorIs(t, err, ErrFenced)
}

func TestShardCommitRefusesGenerationsOutOfOrder(t *testing.T) {
	ctx, st := context.Background(), object.NewMem()
	s, err := ClaimShard(ctx, st, shardDir, uuid.New(), true, Options{})
	require.NoError(t, err)
	for _, edit := range []func(*Shard){
		func(s *Shard) { s.Generations = []Generation{{Number: 1, Path: "a"}} },
		func(s *Shard) {
			s.CurrentGeneration = 5
			s.Generations = []Generation{{Number: 2, Path: "a"}, {Number: 2, Path: "b"}}
		},
		func(s *Shard) { s.CurrentGeneration = 5; s.Generations = []Generation{{Number: 1, Path: "../a"}} },
		func(s *Shard) { s.CurrentGeneration = 0 },
	} {
		_, err := s.Commit(ctx, st, shardDir, edit)
		require.Error(t, err)
	}
	got, err := LoadShard(ctx, st, shardDir, Options{})
	require.NoError(t, err)
	require.EqualValues(t, 1, got.Version, "nothing was published")
}

func TestOneWriterCommitsFromManyGoroutines(t *testing.T) {
	ctx, st := context.Background(), object.NewMem()
	s, err := ClaimShard(ctx, st, shardDir, uuid.New(), true, Options{ScanBatch: 5})
	require.NoError(t, err)
	const writers, commits = 8, 10
	errs := make([]error, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			cur := s
			for range commits {
				if cur, errs[w] = cur.Commit(ctx, st, shardDir, flushGeneration); errs[w] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	last, err := LoadShard(ctx, st, shardDir, Options{})
	require.NoError(t, err)
	require.EqualValues(t, 1+writers*commits, last.Version)
	require.Len(t, last.Generations, writers*commits, "no edit was lost")
	require.EqualValues(t, 5*writers*commits, last.ReplayAfter)
}

func TestRacingClaimsGiveEachEpochToOne(t *testing.T) {
	ctx, st, id := context.Background(), object.NewMem(), uuid.New()
	const claimers = 16
	got := make([]*Shard, claimers)
	errs := make([]error, claimers)
	var wg sync.WaitGroup
	for i := range claimers {
		wg.Go(func() { got[i], errs[i] = ClaimShard(ctx, st, shardDir, id, true, Options{}) })
	}
	wg.Wait()
	epochs := make(map[uint64]bool)
	for i := range claimers {
		if errs[i] != nil {
			require.ErrorIs(t, errs[i], ErrFenced)
			continue
		}
		require.False(t, epochs[got[i].Epoch], "epoch %d was given twice", got[i].Epoch)
		epochs[got[i].Epoch] = true
	}
	last, err := LoadShard(ctx, st, shardDir, Options{})
	require.NoError(t, err)
	require.EqualValues(t, len(epochs), last.Epoch)
	require.EqualValues(t, len(epochs), last.Version)
	for i := range claimers {
		if errs[i] == nil && got[i].Epoch < last.Epoch {
			_, err := got[i].Commit(ctx, st, shardDir, flushGeneration)
			require.ErrorIs(t, err, ErrFenced)
		}
	}
}

func TestEveryFlippedBitOfAShardManifestIsFound(t *testing.T) {
	s := &Shard{ID: uuid.New(), Version: 3, Epoch: 2, CurrentGeneration: 7, Sealed: true, Generations: []Generation{{Number: 6, Path: "x_gen_6", Rows: 5}}}
	b, err := s.encode()
	require.NoError(t, err)
	for i := range b[:len(b)-checksumBytes] {
		bad := bytes.Clone(b)
		bad[i] ^= 1 << (i % 8)
		_, err := decodeShard("shard", bad)
		var corrupt *object.CorruptError
		require.ErrorAs(t, err, &corrupt, "byte %d", i)
	}
}

func TestWhatAShardManifestSaysBeyondUsSurvives(t *testing.T) {
	p := &lancepb.ShardManifest{
		Version: 1, WriterEpoch: 1, CurrentGeneration: 1, ShardId: uuidProto(uuid.New()), ShardSpecId: 4,
		ShardFieldEntries: []*lancepb.ShardFieldEntry{{FieldId: "bucket", Value: []byte{1, 0, 0, 0}}},
	}
	b, err := proto.Marshal(p)
	require.NoError(t, err)
	s, err := decodeShard("shard", b)
	require.NoError(t, err, "other writers have no checksum")
	b, err = s.encode()
	require.NoError(t, err)
	s, err = decodeShard("shard", b)
	require.NoError(t, err)
	s.raw.ProtoReflect().SetUnknown(foreignFields(s.raw.ProtoReflect().GetUnknown()))
	require.True(t, proto.Equal(p, s.raw))
}

func TestAShardManifestHasTheEntryForOthersAndTheLSNForUs(t *testing.T) {
	ctx, st := context.Background(), object.NewMem()
	s, err := ClaimShard(ctx, st, shardDir, uuid.New(), true, Options{})
	require.NoError(t, err)
	for _, at := range []struct{ entry, lsn uint64 }{{3, 1<<40 + 7}, {9, 1<<40 + 40}} {
		s, err = s.Commit(ctx, st, shardDir, func(n *Shard) { n.Entry, n.ReplayAfter = at.entry, at.lsn })
		require.NoError(t, err)
		got, err := LoadShard(ctx, st, shardDir, Options{})
		require.NoError(t, err)
		require.Equal(t, at.entry, got.Entry)
		require.Equal(t, at.lsn, got.ReplayAfter)
		require.Equal(t, at.entry, got.raw.GetReplayAfterWalEntryPosition(), "what Lance reads")
	}
}

// lossy is a store of which the answer to some calls is lost: they had their effect, and the caller, or a library that
// tries again for it, is told that the name is taken.
type lossy struct {
	object.Store
	lose func(name string) bool
}

func (l *lossy) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	err := l.Store.PutIfAbsent(ctx, name, data)
	if err == nil && l.lose(name) {
		return fmt.Errorf("second try: %w", object.ErrExists)
	}
	return err
}

// TestAWriterKnowsItsOwnVersionWhenTheAnswerWasLost has every claim and every commit told that its number is taken: by
// itself.
func TestAWriterKnowsItsOwnVersionWhenTheAnswerWasLost(t *testing.T) {
	ctx := context.Background()
	st := &lossy{Store: object.NewMem(), lose: func(string) bool { return true }}
	s, err := ClaimShard(ctx, st, shardDir, uuid.New(), true, Options{})
	require.NoError(t, err)
	require.EqualValues(t, 1, s.Epoch)
	s, err = s.Commit(ctx, st, shardDir, flushGeneration)
	require.NoError(t, err)
	require.EqualValues(t, 2, s.Version)
	other, err := ClaimShard(ctx, st, shardDir, s.ID, true, Options{})
	require.NoError(t, err)
	require.EqualValues(t, 2, other.Epoch)
	_, err = s.Commit(ctx, st, shardDir, flushGeneration)
	require.ErrorIs(t, err, ErrFenced, "what another wrote is not taken for one's own")
}
