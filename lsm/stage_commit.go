package lsm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/flightd/flightd/lsm/wal"
	"github.com/flightd/flightd/manifest"
)

// A stage that has spilled is committed by one record of the log, which names its generations; news of its idempotency
// key stand in the same group. What follows, the shard's manifest, can be done again:
//
//	generations are synced ──▶ record is durable ──▶ manifest names them ──▶ the log is trimmed
//	   a crash leaves orphans     a crash leaves what replay publishes     replay skips the record
//
// The manifest's ReplayAfter, which is at or above the record then, tells the last two apart.
//
// INVARIANT: nothing that came behind the record is flushed before the manifest names its generations, else ReplayAfter
// would hide them.

// stageCommit is the body of a stage-commit record, as JSON.
type stageCommit struct {
	Generations []stagedGeneration `json:"generations"`

	shard *shard // on the way to the log only
}

// stagedGeneration is a generation that has no number yet: its number is the next one when it is published.
type stagedGeneration struct {
	Path     string `json:"path"`
	Rows     int64  `json:"rows"`
	Bytes    int64  `json:"bytes,omitempty"`
	KeyBytes int64  `json:"key_bytes,omitempty"`
}

// decodeStageCommit reads the body of a record.
func decodeStageCommit(body []byte) (*stageCommit, error) {
	c := &stageCommit{}
	if err := json.Unmarshal(body, c); err != nil {
		return nil, err
	}
	for _, g := range c.Generations {
		if !fs.ValidPath(g.Path) || g.Path == "." || g.Rows < 0 {
			return nil, fmt.Errorf("it names a generation %q of %d rows", g.Path, g.Rows)
		}
	}
	return c, nil
}

// generations returns what the record names as manifests have it.
func (c *stageCommit) generations() []manifest.Generation {
	list := make([]manifest.Generation, len(c.Generations))
	for i, g := range c.Generations {
		list[i] = manifest.Generation{Path: g.Path, Rows: g.Rows, Bytes: g.Bytes, KeyBytes: g.KeyBytes}
	}
	return list
}

// adoption is a committed stage on its way into the shard's manifest.
type adoption struct {
	lsn  LSN
	list []manifest.Generation
	// done is closed when readers have it.
	done chan struct{}
}

func newAdoption(lsn LSN, list []manifest.Generation) *adoption {
	return &adoption{lsn: lsn, list: list, done: make(chan struct{})}
}

// commitStage commits a stage that has spilled, and returns the LSN of its commit and a channel that is closed when
// readers have it. Once it is in the log no error is returned. REQUIRES: it is called by the flusher, and nobody writes
// the table.
func (s *shard) commitStage(ctx context.Context, stage *Stage) (LSN, <-chan struct{}, error) {
	if err := s.flushAll(ctx); err != nil {
		return 0, nil, err
	}
	// What takes long comes before the log: then readers have the stage as soon as it is durable.
	layers, release, err := s.onTop(ctx, stage.spilled)
	if err != nil {
		return 0, nil, err
	}
	defer release()
	lsn, record, err := stage.logCommit(ctx)
	if err != nil {
		return 0, nil, err
	}
	a := newAdoption(record, stage.spilled)
	stage.spilled = nil // they belong to the shard now
	s.pending = a
	// A caller who went away must not leave the shard behind the log.
	if err := s.adopt(context.WithoutCancel(ctx), layers); err != nil {
		s.warn("publish a committed stage; will try again", err)
	}
	return lsn, a.done, nil
}

// logCommit makes the commit of a spilled stage durable in the log. It returns the last LSN of its group, and that of
// the commit.
func (s *Stage) logCommit(ctx context.Context) (last, record LSN, err error) {
	t := s.table
	c := &stageCommit{shard: t.shard}
	for _, g := range s.spilled {
		c.Generations = append(c.Generations, stagedGeneration{Path: g.Path, Rows: g.Rows, Bytes: g.Bytes, KeyBytes: g.KeyBytes})
	}
	body, err := json.Marshal(c)
	if err != nil {
		return 0, 0, err
	}
	r := &wal.Record{Kind: wal.StageCommit, Shard: t.entry.Shard, Incarnation: t.entry.Incarnation, Body: [][]byte{body}, Value: c}
	last, err = t.db.log.Append(ctx, append([]*wal.Record{r}, s.news()...)...)
	if err == nil {
		err = t.db.log.WaitDurable(context.WithoutCancel(ctx), last)
	}
	if errors.Is(err, wal.ErrPoisoned) || err != nil && last > 0 {
		s.spilled = nil // the record may be in the log: the next Open decides
	}
	if err != nil {
		return 0, 0, logError(err)
	}
	t.noteLast(last)
	return last, r.LSN, nil
}

// settle publishes the stage that is pending, if one is. REQUIRES: it is called by the flusher, or by Open before that
// runs.
func (s *shard) settle(ctx context.Context) error {
	if s.pending == nil {
		return nil
	}
	layers, release, err := s.onTop(ctx, s.pending.list)
	if err != nil {
		return fmt.Errorf("publish stage %s: %w", s.pending.lsn, err)
	}
	defer release()
	return s.adopt(ctx, layers)
}

// onTop gives generations the next numbers and stacks them on all that is flushed.
func (s *shard) onTop(ctx context.Context, list []manifest.Generation) (layers []layerRef, done func(), err error) {
	for i := range list {
		list[i].Number = s.man.CurrentGeneration + uint64(i)
	}
	flushed := s.set.Load()
	return s.stack(ctx, append([]layerRef{flushed.layers[0]}, flushed.generations()...), list)
}

// adopt publishes the stage that is pending, given the layers up to it, which onTop made. All memtables are newer.
func (s *shard) adopt(ctx context.Context, layers []layerRef) error {
	a, first := s.pending, s.man.CurrentGeneration
	man, err := s.man.Commit(ctx, s.db.st, s.dir, func(n *manifest.Shard) {
		// What has these numbers or higher ones is from a commit that failed and stands all the same.
		n.Generations = append(below(n.Generations, first), a.list...)
		n.CurrentGeneration = first + uint64(len(a.list))
		n.ReplayAfter, n.LastSeen = uint64(a.lsn), uint64(a.lsn)
	})
	if err != nil {
		return fmt.Errorf("publish stage %s: %w", a.lsn, err)
	}
	s.man, s.pending = man, nil
	s.swap.Lock()
	for _, l := range s.set.Load().layers {
		if _, ok := l.layer.(*memtable); ok {
			layers = append(layers, l)
		}
	}
	s.publish(layers)
	s.swap.Unlock()
	s.staged.Store(0)
	close(a.done)
	s.db.poke()
	return nil
}
