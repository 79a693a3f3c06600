package lsm

import (
	"context"
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/flightd/flightd/lance"
)

// kept returns the columns in which the stage's rows keep what is stored: those that some batch did not have, be it that the
// table got them after it.
func (s *Stage) kept(now *tableSchema) (keep []int) {
	for i, f := range now.lance.Fields {
		if slices.Contains(s.keep, f.ID) || f.Key == 0 && !slices.Contains(s.sent, f.ID) {
			keep = append(keep, i)
		}
	}
	return keep
}

// settleKept makes whole rows of a stage's partial upserts: everything that it holds, in memory and on disk, is put
// again with what is stored in some columns. REQUIRES: table.writes is held for writing, until the stage is committed.
func (s *Stage) settleKept(ctx context.Context, keep []int) error {
	t := s.table
	now := t.now()
	puts, spilled := s.puts, s.spilled
	s.puts, s.spilled, s.bytes, s.rows = nil, nil, 0, 0
	defer func() {
		for _, p := range puts {
			p.drop(t)
		}
		for _, g := range spilled {
			t.discard(ctx, g.dir())
		}
	}()
	s.keep, s.sent = nil, nil
	k, err := t.newKeeper(ctx, keep)
	if err != nil {
		return err
	}
	defer k.release()
	for _, g := range spilled {
		if err := s.putSpilled(ctx, k, g); err != nil {
			return fmt.Errorf("table %q: read stage: %w", t.name, err)
		}
	}
	for _, p := range puts {
		cols, err := now.pickAll(p.schema, p.rec)
		if err != nil {
			return err
		}
		if err := s.putKept(ctx, k, cols, p.tombs, p.rec.NumRows()); err != nil {
			return err
		}
	}
	return nil
}

// putKept puts rows of the stage's table, whose columns it releases, with what is stored.
func (s *Stage) putKept(ctx context.Context, k *keeper, cols []arrow.Array, tombs *array.Boolean, rows int64) error {
	if tombs != nil {
		tombs.Retain()
		cols = append(cols, tombs)
	}
	defer func() {
		for _, c := range cols {
			c.Release()
		}
	}()
	part := array.NewRecordBatch(k.schema.withTombstones(tombs != nil), cols, rows)
	defer part.Release()
	rec, err := k.resolve(ctx, part)
	if err != nil {
		return err
	}
	defer rec.Release()
	return s.Put(ctx, Batch{Record: rec})
}

// pickAll returns all columns of rows that were written with the schema from. The caller releases them.
func (s *tableSchema) pickAll(from *tableSchema, rec arrow.RecordBatch) ([]arrow.Array, error) {
	var cols []arrow.Array
	for i := range s.lance.Fields {
		col, err := s.pick(from, rec, i)
		if err != nil {
			for _, c := range cols {
				c.Release()
			}
			return nil, err
		}
		cols = append(cols, col)
	}
	return cols, nil
}

// putSpilled puts the rows of a generation that the stage wrote, in the order in which they came: also those that later
// ones replaced are in its file.
func (s *Stage) putSpilled(ctx context.Context, k *keeper, m spilledGeneration) error {
	g, err := openGeneration(ctx, s.table.db.st, m.shard, m.Generation)
	if err != nil {
		return err
	}
	defer g.unref()
	reader := g.frag.files[0]
	column := slices.IndexFunc(reader.Schema().Fields, func(f lance.Field) bool { return f.Name == TombstoneColumn })
	for first := int64(0); first < g.frag.rows; first += copyRows {
		rows := make([]int64, min(copyRows, g.frag.rows-first))
		for i := range rows {
			rows[i] = first + int64(i)
		}
		rec, err := g.frag.take(ctx, k.schema, k.schema.all(), rows)
		if err != nil {
			return err
		}
		rec = relabelRecord(rec, k.schema.arrow)
		cols := slices.Clone(rec.Columns())
		for _, c := range cols {
			c.Retain()
		}
		rec.Release()
		flags, err := reader.Take(ctx, []int{column}, rows)
		if err != nil {
			return err
		}
		err = s.putKept(ctx, k, cols, flags.Column(0).(*array.Boolean), int64(len(rows)))
		flags.Release()
		if err != nil {
			return err
		}
	}
	return nil
}
