package lsm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/flightd/flightd/lsm/wal"
	"github.com/flightd/flightd/manifest"
)

// A stage that has spilled is committed by one record of the log, which names its generations; news of its idempotency
// key stand in the same group. What follows, the shard's manifest, can be done again:
//
//	generations are synced ──▶ record is durable ──▶ manifests name them ──▶ the log is trimmed
//	   a crash leaves orphans     a crash leaves what replay publishes     replay skips the record
//
// The manifests' ReplayAfter, which is at or above the record then, tells the last two apart, for each shard by itself.
// Readers get the generations of all shards at one moment, when all manifests name them.
//
// INVARIANT: nothing that came behind the record is flushed before readers have its generations, else ReplayAfter
// would hide them, and the chain would have newer ones before them.

// stageCommit is the body of a stage-commit record, as JSON.
type stageCommit struct {
	Generations []stagedGeneration `json:"generations"`

	table *Table // on the way to the log only
}

// stagedGeneration is a generation that has no number yet: its number is the next one when it is published.
type stagedGeneration struct {
	// Shard is the number of the shard in whose folder it lies.
	Shard    int    `json:"shard,omitempty"`
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
		if !fs.ValidPath(g.Path) || g.Path == "." || g.Rows < 0 || g.Shard < 0 || g.Shard >= MaxShards {
			return nil, fmt.Errorf("it names a generation %q of %d rows in shard %d", g.Path, g.Rows, g.Shard)
		}
	}
	return c, nil
}

// generations returns what the record names of a shard as manifests have it.
func (c *stageCommit) generations(shard int) []manifest.Generation {
	var list []manifest.Generation
	for _, g := range c.Generations {
		if g.Shard == shard {
			list = append(list, manifest.Generation{Path: g.Path, Rows: g.Rows, Bytes: g.Bytes, KeyBytes: g.KeyBytes})
		}
	}
	return list
}

// spilledGeneration is a generation that a stage wrote.
type spilledGeneration struct {
	manifest.Generation
	shard *shard
}

// dir returns its folder below the data folder.
func (g *spilledGeneration) dir() string { return path.Join(g.shard.dir(), g.Path) }

// adoption is a committed stage on its way into the shards' manifests. It belongs to who holds Table.adopting.
type adoption struct {
	lsn   LSN
	parts []adoptedPart // of the shards that get generations
	// on is the layer set that the parts are stacked on, with a reference, nil when they are on none.
	on *layerSet
	// done is closed when readers have it.
	done chan struct{}
}

// adoptedPart is what one shard gets.
type adoptedPart struct {
	shard *shard
	list  []manifest.Generation // with their numbers
	gens  []*generation
	// named is set when the manifest names them.
	named bool
	// layers are all generations of the chain and replaced is its mask of the base, on the set that the adoption is on.
	layers   []layerRef
	replaced *maskCell
}

// newAdoption returns an adoption of what list returns for each shard. The caller closes it.
func (t *Table) newAdoption(ctx context.Context, lsn LSN, list func(shard int) []manifest.Generation) (*adoption, error) {
	a := &adoption{lsn: lsn, done: make(chan struct{})}
	for i, s := range t.shards {
		p := adoptedPart{shard: s, list: list(i)}
		if len(p.list) == 0 {
			continue
		}
		next := s.manifest().CurrentGeneration
		for j := range p.list {
			p.list[j].Number = next + uint64(j)
			g, err := openGeneration(ctx, t.db.st, s, p.list[j])
			if err != nil {
				a.parts = append(a.parts, p)
				a.close()
				return nil, err
			}
			p.gens = append(p.gens, g)
		}
		a.parts = append(a.parts, p)
	}
	return a, nil
}

// close lets go of what the adoption holds open.
func (a *adoption) close() {
	for _, p := range a.parts {
		for _, g := range p.gens {
			g.unref()
		}
	}
	if a.on != nil {
		a.on.unref()
	}
}

// stack works out the layers that readers will have, unless it has and they still hold.
func (a *adoption) stack(ctx context.Context, t *Table) error {
	on := t.holdSet()
	if on == nil {
		return t.ended()
	}
	if a.on != nil && a.fits(on) {
		on.unref()
		return nil
	}
	if a.on != nil {
		a.on.unref()
	}
	a.on = on
	for i := range a.parts {
		p := &a.parts[i]
		var err error
		if p.layers, p.replaced, err = t.stack(ctx, on.base, on.chains[p.shard.index], p.gens); err != nil {
			a.on, on = nil, a.on
			on.unref()
			return err
		}
	}
	return nil
}

// fits reports whether what was stacked fits a set, which may have other memtables.
func (a *adoption) fits(set *layerSet) bool {
	for _, p := range a.parts {
		if !sameGenerations(set.chains[p.shard.index], a.on.chains[p.shard.index]) {
			return false
		}
	}
	return set.base == a.on.base
}

// commitStage commits a stage that has spilled, and returns the LSN of its commit and a channel that is closed when
// readers have it. Once it is in the log no error is returned. REQUIRES: nobody else writes the table.
func (t *Table) commitStage(ctx context.Context, stage *Stage) (LSN, <-chan struct{}, error) {
	if err := t.flushAll(ctx); err != nil {
		return 0, nil, err
	}
	t.adopting.Lock()
	defer t.adopting.Unlock()
	// What takes long comes before the log: then readers have the stage as soon as it is durable.
	a, err := t.newAdoption(ctx, 0, func(shard int) []manifest.Generation { return stage.generations(shard) })
	if err != nil {
		return 0, nil, err
	}
	if err := a.stack(ctx, t); err != nil {
		a.close()
		return 0, nil, err
	}
	lsn, record, err := stage.logCommit(ctx)
	if err != nil {
		a.close()
		return 0, nil, err
	}
	a.lsn = record
	stage.spilled = nil // they belong to the shards now
	t.pending = a
	// A caller who went away must not leave the shards behind the log.
	if err := t.adopt(context.WithoutCancel(ctx)); err != nil {
		t.warn("publish a committed stage; will try again", err)
		poke(t.shards[0].work)
	}
	return lsn, a.done, nil
}

// generations returns what the stage has spilled into a shard.
func (s *Stage) generations(shard int) []manifest.Generation {
	var list []manifest.Generation
	for _, g := range s.spilled {
		if g.shard.index == shard {
			list = append(list, g.Generation)
		}
	}
	return list
}

// logCommit makes the commit of a spilled stage durable in the log. It returns the last LSN of its group, and that of
// the commit.
func (s *Stage) logCommit(ctx context.Context) (last, record LSN, err error) {
	t := s.table
	c := &stageCommit{table: t}
	for _, g := range s.spilled {
		c.Generations = append(c.Generations, stagedGeneration{Shard: g.shard.index, Path: g.Path, Rows: g.Rows, Bytes: g.Bytes, KeyBytes: g.KeyBytes})
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

// publishPending publishes the stage that is pending, if one is. Flushes wait for it.
func (t *Table) publishPending(ctx context.Context) error {
	t.adopting.Lock()
	defer t.adopting.Unlock()
	if t.pending == nil {
		return nil
	}
	return t.adopt(ctx)
}

// adopt publishes the stage that is pending. All memtables are newer. REQUIRES: t.adopting is held.
func (t *Table) adopt(ctx context.Context) error {
	a := t.pending
	for i := range a.parts {
		p := &a.parts[i]
		if p.named {
			continue
		}
		err := p.shard.editFlushed(ctx, a.lsn, func(n *manifest.Shard) {
			// What has these numbers or higher ones is from a commit that failed and stands all the same.
			n.Generations = append(below(n.Generations, p.list[0].Number), p.list...)
			n.CurrentGeneration = p.list[0].Number + uint64(len(p.list))
		})
		if err != nil {
			return fmt.Errorf("publish stage %s: %w", a.lsn, err)
		}
		p.named = true
	}
	for {
		if err := a.stack(ctx, t); err != nil {
			return fmt.Errorf("publish stage %s: %w", a.lsn, err)
		}
		if t.tryAdopt(a) {
			break
		}
	}
	t.pending = nil
	t.staged.Store(0)
	close(a.done)
	a.close()
	t.db.poke()
	poke(t.compactor.work)
	return nil
}

// tryAdopt lets readers have a stage, unless a merge has changed what it is stacked on.
func (t *Table) tryAdopt(a *adoption) bool {
	t.swap.Lock()
	defer t.swap.Unlock()
	set := t.set.Load()
	if !a.fits(set) {
		return false
	}
	chains := slices.Clone(set.chains)
	for _, p := range a.parts {
		i := p.shard.index
		chains[i] = set.chains[i].grown(p.layers, 0, p.replaced, a.lsn)
		defer chains[i].unref()
	}
	t.publish(set.base, chains)
	return true
}
