package lsm

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/flightd/flightd/lsm/wal"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// recover opens the tables of the catalog and replays the log: DDL that the checkpoint does not have, and batches
// that no generation has. Then the log is open and every shard runs.
func (db *DB) recover(ctx context.Context) error {
	start := time.Now()
	// The catalog first, as of the end of the log: folders are those of the last tables of their names.
	if err := db.replayDDL(ctx); err != nil {
		return fmt.Errorf("replay log: %w", err)
	}
	db.cat.abandon(0)
	if err := db.removeDropped(ctx); err != nil {
		return err
	}
	db.showViews()
	for _, e := range db.cat.Tables {
		t, err := newTable(db, e)
		if err != nil {
			return err
		}
		if err := db.openTable(ctx, t); foreignFault(err) {
			db.setAside(t, 0, err)
		} else if err != nil {
			return fmt.Errorf("open table %q: %w", t.name, err)
		}
	}
	r := &replay{db: db, ctx: ctx, tables: make(map[uint64]*Table)}
	for _, t := range db.list() {
		r.tables[t.entry.Incarnation] = t
	}
	if err := r.run(); err != nil {
		return fmt.Errorf("replay log: %w", err)
	}
	db.ledger.keep(func(incarnation uint64) bool { return r.tables[incarnation] != nil || db.isAside(incarnation) })
	for _, t := range db.list() {
		// Not before: the log may commit stages whose generations no manifest names yet.
		for _, s := range t.shards {
			if err := s.removeOrphans(ctx); err != nil {
				return err
			}
		}
	}
	if err := db.removeUnborn(ctx); err != nil {
		return err
	}
	log, err := db.home.openLog(db.highestLSN())
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	db.log = log
	if err := db.home.owned(ctx); err != nil {
		return err
	}
	for _, t := range db.list() {
		if err := db.catchUp(ctx, t); err != nil {
			return fmt.Errorf("open table %q: %w", t.name, err)
		}
	}
	for _, t := range db.list() {
		if err := t.recall(ctx); err != nil {
			return fmt.Errorf("open table %q: %w", t.name, err)
		}
	}
	for _, t := range db.list() {
		t.start()
	}
	for _, t := range db.Tables() {
		if err := db.takeOver(ctx, t); err != nil {
			return fmt.Errorf("table %q: %w", t.name, err)
		}
	}
	if err := db.takeIn(ctx); err != nil {
		return err
	}
	db.logger.Info("data folder is open", "dir", db.opt.Dir, "tables", len(db.tables), "replayed_batches", r.batches, "replayed_rows", r.rows, "took", time.Since(start).Round(time.Millisecond))
	return nil
}

// highestLSN returns the highest LSN that any file outside the log mentions.
func (db *DB) highestLSN() LSN {
	high := db.cat.LSN
	for _, t := range db.list() {
		for _, s := range t.shards {
			high = max(high, s.replayAfter())
		}
	}
	return high
}

// appended is called with each group that was written to the log, one after the other.
func (db *DB) appended(recs []*wal.Record) {
	c := &db.counters
	batches, rows, bytes := int64(0), int64(0), int64(0)
	for _, r := range recs {
		switch x := r.Value.(type) {
		case *keyEntry:
			x.Seq = r.LSN
			db.ledger.put(*x)
		case *stageCommit: // before it is durable, so that the trimmer cannot miss it
			x.table.staged.Store(uint64(r.LSN))
		case *put:
			batches, rows, bytes = batches+1, rows+int64(r.Rows), bytes+x.bytes
			db.appendedPut(r.LSN, x)
		}
	}
	db.passOn()
	c.batches.Add(batches)
	c.rows.Add(rows)
	c.bytes.Add(bytes)
	db.marks.written(recs)
}

// appendedPut gathers a batch, or its parts, for their shards, to which those of a group are passed together.
func (db *DB) appendedPut(lsn LSN, p *put) {
	if p.atomic > 1 && lsn > db.atomicEnd { // the first of them; the others follow in the same group
		db.atomicEnd = lsn + LSN(p.atomic) - 1
		db.marks.together(lsn, db.atomicEnd)
	}
	if p.parts == nil {
		db.gather(lsn, p)
		return
	}
	for _, x := range p.leaveParts() {
		db.gather(lsn, x)
	}
	p.leave() // the appliers have the parts
}

// gather keeps a batch for its shard.
func (db *DB) gather(lsn LSN, p *put) {
	s := p.shard
	if len(s.passing) == 0 {
		db.passing = append(db.passing, s)
	}
	s.passing = append(s.passing, queued{lsn, p})
}

// passOn gives the batches that were gathered to their shards.
func (db *DB) passOn() {
	for _, s := range db.passing { // of a batch in several shards none may seem to be all
		db.marks.dispatch(s, s.passing[0].lsn, s.passing[len(s.passing)-1].lsn)
	}
	for _, s := range db.passing {
		s.enqueue(s.passing)
		clear(s.passing)
		s.passing = s.passing[:0]
	}
	clear(db.passing)
	db.passing = db.passing[:0]
}

// poisoned is called when the log failed: nothing more will become visible.
func (db *DB) poisoned(err error) {
	err = logError(err)
	if errors.Is(err, ErrFenced) {
		db.logger.Error("another process has taken the data over: nothing is written or read here any more", "error", err)
		db.overtake(err)
	} else {
		db.logger.Error("the log failed; writes are refused until a restart", "error", err)
		err = fmt.Errorf("%w: %w", ErrPoisoned, err)
	}
	db.marks.fail(err)
	if f := db.opt.Events.Poison; f != nil {
		f(err)
	}
}

// replay applies the records of the log.
type replay struct {
	db     *DB
	ctx    context.Context
	tables map[uint64]*Table // by incarnation
	line   *replayLine
	// batches and rows belong to the line's applier until the line is closed.
	batches int64
	rows    int64
}

// decoderKey names the schema of a batch.
type decoderKey struct {
	incarnation uint64
	schema      uint32
	tombstones  bool
}

// run applies the whole log.
func (r *replay) run() error {
	r.line = newReplayLine(r.newDecoders, r.apply)
	end, err := r.db.home.replay(r.ctx, r.record)
	if lineErr := r.line.close(); err == nil {
		err = lineErr
	}
	if err == nil {
		r.db.marks.sync(end)
	}
	return err
}

// record applies one record, or hands it to the line.
func (r *replay) record(rec *wal.Record) error {
	switch rec.Kind {
	case wal.DDL:
		return nil // replayDDL has applied it
	case wal.Batch:
		return r.batch(rec)
	case wal.StageCommit:
		return r.stageCommit(rec)
	case wal.Idempotency:
		if err := r.db.ledger.replay(slices.Concat(rec.Body...), rec.LSN); err != nil {
			return fmt.Errorf("record %s: %w", rec.LSN, err)
		}
		return nil
	}
	return fmt.Errorf("record %s is a %s, which this flightd does not know; use the flightd that wrote it", rec.LSN, rec.Kind)
}

// replayDDL applies the DDL of the log that the checkpoint does not have.
func (db *DB) replayDDL(ctx context.Context) error {
	changed := false
	err := db.home.replayDDL(ctx, db.cat, func(rec *wal.Record) error {
		if rec.Kind != wal.DDL || rec.LSN <= db.cat.LSN {
			return nil
		}
		var d ddl
		if err := json.Unmarshal(slices.Concat(rec.Body...), &d); err != nil {
			return fmt.Errorf("record %s: %w", rec.LSN, err)
		}
		db.cat.apply(rec.LSN, d)
		changed = true
		return nil
	})
	if err == nil && changed {
		db.checkpoint(ctx)
	}
	return err
}

// batch hands a batch to the line, unless its table is gone or a generation has it.
func (r *replay) batch(rec *wal.Record) error {
	t := r.tables[rec.Incarnation]
	if t == nil {
		r.db.noteAside(rec)
		return nil
	}
	if rec.LSN <= t.entry.Discarded {
		return nil
	}
	if !slices.ContainsFunc(t.shards, func(s *shard) bool { return s.replayAfter() < rec.LSN }) {
		return nil
	}
	b, err := newReplayBatch(t, rec)
	if err != nil {
		return fmt.Errorf("record %s of table %q: %w", rec.LSN, t.name, err)
	}
	return r.line.add(b)
}

// isAside reports whether the table with an incarnation was set aside. REQUIRES: nobody else runs.
func (db *DB) isAside(incarnation uint64) bool {
	_, ok := db.aside[incarnation]
	return ok
}

// noteAside notes the first record of a table that was set aside.
func (db *DB) noteAside(rec *wal.Record) {
	if first, ok := db.aside[rec.Incarnation]; ok && first == 0 {
		db.aside[rec.Incarnation] = rec.LSN
	}
}

// apply puts a decoded batch into its memtable. What is frozen is left to the flusher that starts behind the replay,
// unless memory is short.
func (r *replay) apply(b *replayBatch) error {
	t, p, lsn := b.table, b.put, b.rec.LSN
	r.batches++
	r.rows += p.rec.NumRows()
	r.db.budget.add(p.bytes)
	for _, x := range p.leaveParts() {
		if lsn <= x.shard.replayAfter() { // a generation of this shard has its part
			x.drop(t)
			continue
		}
		x.shard.add(lsn, x)
		m := x.shard.chain().active()
		x.shard.indexInto(m, m.unindexed(), true)
	}
	t.last.Store(uint64(lsn))
	return r.relieve(lsn)
}

// relieve flushes the shard that has the most in memory, and the next one, as long as memtables take more than half of
// the memory that they may.
func (r *replay) relieve(lsn LSN) error {
	for {
		if used, _ := r.db.budget.state(); used <= r.db.opt.Memory/2 {
			return nil
		}
		s := r.fullest()
		if s == nil {
			return nil
		}
		r.db.marks.sync(lsn) // the log was synced before the replay began
		s.freezeActive()
		if err := s.flushFrozen(r.ctx, lsn); err != nil {
			return err
		}
	}
}

// fullest returns the shard whose memtables take the most memory, nil when all are empty.
func (r *replay) fullest() (fullest *shard) {
	most := int64(0)
	for _, t := range r.tables {
		for _, s := range t.shards {
			bytes := s.chain().active().bytes.Load()
			for _, m := range s.chain().frozen() {
				bytes += m.bytes.Load()
			}
			if bytes > most {
				fullest, most = s, bytes
			}
		}
	}
	return fullest
}

// stageCommit publishes the generations of a stage, unless its table is gone or the shard's manifest names them.
func (r *replay) stageCommit(rec *wal.Record) error {
	t := r.tables[rec.Incarnation]
	if t == nil {
		r.db.noteAside(rec)
		return nil
	}
	if rec.LSN <= t.entry.Discarded {
		return nil
	}
	if err := r.line.drain(); err != nil {
		return err
	}
	r.db.marks.sync(rec.LSN)
	c, err := decodeStageCommit(slices.Concat(rec.Body...))
	if err != nil {
		return fmt.Errorf("record %s of table %q: %w", rec.LSN, t.name, err)
	}
	for i, s := range t.shards {
		if len(c.generations(i)) > 0 && s.replayAfter() < rec.LSN {
			if err := s.flushFrozen(r.ctx, rec.LSN); err != nil {
				return err
			}
		}
	}
	t.adopting.Lock()
	defer t.adopting.Unlock()
	a, err := t.newAdoption(r.ctx, rec.LSN, func(shard int) []manifest.Generation {
		if t.shards[shard].replayAfter() >= rec.LSN {
			return nil // its manifest has named them
		}
		return c.generations(shard)
	})
	if err != nil {
		return fmt.Errorf("record %s of table %q: %w", rec.LSN, t.name, err)
	}
	if len(a.parts) == 0 {
		return nil
	}
	for _, p := range a.parts {
		if first := p.shard.chain().active().rows.Load().firstLSN(); first > 0 {
			a.close()
			return fmt.Errorf("record %s of table %q commits a stage, and record %s before it is not flushed", rec.LSN, t.name, first)
		}
	}
	t.noteLast(rec.LSN)
	t.pending = a
	return t.adopt(r.ctx)
}

// newReplayBatch copies the batch of a record into memory of its own.
func newReplayBatch(t *Table, rec *wal.Record) (replayBatch, error) {
	prefix, meta, body := rec.Body[0], []byte(nil), []byte(nil)
	if len(rec.Body) == 3 { // the log knows the parts
		meta, body = rec.Body[1], rec.Body[2]
	} else {
		if len(prefix) < batchPrefixBytes {
			return replayBatch{}, errors.New("it is too short for a batch")
		}
		head := batchPrefixBytes + int64(binary.LittleEndian.Uint32(prefix[4:]))
		if head > int64(len(prefix)) {
			return replayBatch{}, errors.New("its header is longer than the record")
		}
		prefix, meta, body = prefix[:batchPrefixBytes], prefix[batchPrefixBytes:head], prefix[head:]
	}
	b := replayBatch{table: t, rec: *rec, prefix: bytes.Clone(prefix), meta: bytes.Clone(meta), body: copyOut(body)}
	b.rec.Body = nil
	return b, nil
}

// newDecoders returns what decodes batches in one goroutine, and what it calls at its end.
func (r *replay) newDecoders() (decode func(*replayBatch), done func()) {
	decoders := make(map[decoderKey]*batchDecoder)
	decode = func(b *replayBatch) {
		if b.put, b.err = b.decode(decoders); b.err != nil {
			b.err = fmt.Errorf("record %s of table %q: %w", b.rec.LSN, b.table.name, b.err)
		}
	}
	return decode, func() {
		for _, d := range decoders {
			d.close()
		}
	}
}

// decode returns the batch as it was put.
func (b *replayBatch) decode(decoders map[decoderKey]*batchDecoder) (*put, error) {
	t := b.table
	p := &put{tombstones: binary.LittleEndian.Uint32(b.prefix)&batchFlagTombstones != 0}
	if p.schema = t.schemaWithID(b.rec.Schema); p.schema == nil {
		return nil, fmt.Errorf("schema %d: %w", b.rec.Schema, errNoSchema)
	}
	key := decoderKey{t.entry.Incarnation, b.rec.Schema, p.tombstones}
	d := decoders[key]
	if d == nil {
		var err error
		if d, err = newBatchDecoder(p.schema.withTombstones(p.tombstones)); err != nil {
			return nil, err
		}
		decoders[key] = d
	}
	rec, err := d.decode(b.meta, b.body)
	if err != nil {
		return nil, err
	}
	defer rec.Release()
	p.bytes = (&Batch{Record: rec, Meta: b.meta, Body: b.body.Bytes()}).bytes()
	p.rec, p.tombs = splitTombstones(rec, p.schema)
	if err := p.spread(t); err != nil {
		return nil, err
	}
	return p, nil
}

// openTable opens a table's dataset and shards, and makes what is missing of them, so that it can be called again
// after a crash in its middle. Then readers see the table; it does not run yet.
func (db *DB) openTable(ctx context.Context, t *Table) error {
	if err := db.moveIn(ctx, t); err != nil {
		return err
	}
	v, err := manifest.Latest(ctx, db.st, t.root, t.manifestOptions())
	if errors.Is(err, object.ErrNotExist) {
		v, err = t.createDataset(ctx)
	}
	if err != nil {
		return err
	}
	if t.missed, err = t.missedChange(ctx, v); err != nil {
		return err
	}
	if err := t.claimShards(ctx); err != nil {
		return err
	}
	if err := t.finishDiscard(ctx); err != nil {
		return err
	}
	// A crash between the commit of a merge and the trimming of the shards' manifests left generations in them that
	// the base has already.
	r := &rebase{table: t}
	if r.done, err = t.compacted(ctx, v); err != nil {
		return err
	}
	if err := r.trim(ctx); err != nil {
		return err
	}
	if err := t.openLayers(ctx, v); err != nil {
		return err
	}
	db.moment.Lock()
	db.tables[t.name.fold()] = t
	delete(db.unserved, t.name.fold())
	db.version.Add(1)
	db.moment.Unlock()
	return nil
}

// claimShards makes the process the writer of the table's shards.
func (t *Table) claimShards(ctx context.Context) error {
	for _, s := range t.shards {
		man, err := t.db.home.claimShard(ctx, s)
		if err != nil {
			return err
		}
		s.man = man
	}
	return nil
}

// compacted returns for each shard the last generation that is in the base, or was.
func (t *Table) compacted(ctx context.Context, v *manifest.Version) ([]uint64, error) {
	ids := make([]uuid.UUID, len(t.shards))
	for i, s := range t.shards {
		if _, told := v.Compacted[s.id]; told || len(s.manifest().Generations) > 0 {
			ids[i] = s.id // of others it does not matter
		}
	}
	return t.lastMerged(ctx, v, ids)
}

// lastMerged returns for each of some shards, uuid.Nil for none, the last generation that is in a version of the base, or
// was in one before: another program that overwrites a table drops what Lance keeps of that, and a generation whose rows
// were merged and overwritten must not come back. The versions before know it. (None goes that a merge may be standing on,
// see collection.)
func (t *Table) lastMerged(ctx context.Context, v *manifest.Version, ids []uuid.UUID) ([]uint64, error) {
	out := make([]uint64, len(ids))
	open := make(map[int]bool) // shards of which no version has told
	for i, id := range ids {
		if done, ok := v.Compacted[id]; ok {
			out[i] = done
		} else if id != uuid.Nil {
			open[i] = true
		}
	}
	if len(open) == 0 {
		return out, nil
	}
	for old, err := range t.olderVersions(ctx, v) {
		if err != nil {
			return nil, fmt.Errorf("find out which generations were merged: %w", err)
		}
		for i := range open {
			if done, ok := old.Compacted[ids[i]]; ok {
				out[i] = done
				delete(open, i)
			}
		}
		if len(open) == 0 {
			break
		}
	}
	return out, nil
}

// olderVersions loads the versions of the base before one, the newest first. It ends with the first error; a version that
// another program removes meanwhile is passed over.
func (t *Table) olderVersions(ctx context.Context, v *manifest.Version) iter.Seq2[*manifest.Version, error] {
	return func(yield func(*manifest.Version, error) bool) {
		chain, err := manifest.TableHistory(t.db.st, t.root, t.manifestOptions()).List(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		for _, x := range slices.Backward(chain) {
			if x.Number >= v.Number {
				continue
			}
			old, err := manifest.Load(ctx, t.db.st, t.root, x.Number)
			if errors.Is(err, object.ErrNotExist) {
				continue
			}
			if !yield(old, err) || err != nil {
				return
			}
		}
	}
}

// createDataset makes the first version of a table, without rows.
func (t *Table) createDataset(ctx context.Context) (*manifest.Version, error) {
	now := t.now()
	o := manifest.CreateOptions{Version: now.files}
	if now.codec != nil {
		o.Shards, o.ShardedBy = len(t.shards), now.keyIDs()[0]
	}
	return manifest.Create(ctx, t.db.st, t.root, now.lance, o)
}

// forget takes a table off the list.
func (db *DB) forget(t *Table) {
	db.moment.Lock()
	delete(db.tables, t.name.fold())
	db.version.Add(1)
	db.moment.Unlock()
}

// checkSchema refuses a dataset whose columns are not those that the table has, or had: the base gets the columns of
// an ALTER TABLE when generations are merged into it.
func (t *Table) checkSchema(v *manifest.Version) error {
	var err error
	list := *t.schemas.Load()
	for i := len(list) - 1; i >= 0; i-- {
		fault := list[i].differs(v.Schema)
		if fault == "" {
			return nil
		}
		if err == nil {
			err = t.alien(v, fault)
		}
	}
	return err
}

// removeOrphans removes the folders of flushes that a crash cut off.
func (s *shard) removeOrphans(ctx context.Context) error {
	list, err := s.db.st.List(ctx, s.dir())
	if err != nil {
		return err
	}
	var orphans []string
	for _, x := range list {
		known := slices.ContainsFunc(s.manifest().Generations, func(g manifest.Generation) bool { return g.Path == x.Name })
		if x.Dir && strings.Contains(x.Name, "_gen_") && !known {
			orphans = append(orphans, path.Join(s.dir(), x.Name))
		}
	}
	if len(orphans) == 0 {
		return nil
	}
	if err := s.db.home.owned(ctx); err != nil { // else they may be a successor's
		return err
	}
	for _, dir := range orphans {
		if err := s.db.st.DeleteAll(ctx, dir); err != nil {
			return err
		}
	}
	return nil
}

// openLayers opens the layers of the table and works out which of their rows newer generations replaced.
func (t *Table) openLayers(ctx context.Context, v *manifest.Version) error {
	b, err := openBase(ctx, t.db.st, t, v, t.now(), nil)
	if err != nil {
		return err
	}
	defer b.unref()
	chains := make([]*chain, len(t.shards))
	for i, s := range t.shards {
		if chains[i], err = s.openChain(ctx, b); err != nil {
			return err
		}
		defer chains[i].unref()
	}
	t.publish(b, chains)
	return nil
}

// openChain opens the generations of the shard.
func (s *shard) openChain(ctx context.Context, b *base) (*chain, error) {
	t, man := s.table, s.manifest()
	var gens []*generation
	defer func() {
		for _, g := range gens {
			g.unref()
		}
	}()
	for _, m := range man.Generations {
		g, err := openGeneration(ctx, t.db.st, s, m)
		if err != nil {
			return nil, err
		}
		gens = append(gens, g)
	}
	flushed := LSN(man.ReplayAfter)
	empty := &chain{replaced: newMaskCell(&rowMask{upTo: flushed}), flushed: flushed}
	layers, replaced, err := t.stack(ctx, b, empty, gens)
	if err != nil {
		return nil, err
	}
	active := t.newMemtable(b)
	defer active.unref()
	return newChain(append(layers, layerRef{layer: active}), replaced, flushed), nil
}
