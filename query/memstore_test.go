package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/lsm"
)

// memStore is a store of batches in memory. Tests decide where its morsels end and which rows live.
type memStore struct {
	mu       sync.Mutex
	version  uint64
	list     []*memTable
	open     atomic.Int64                // scans and snapshots that are not closed
	kept     atomic.Pointer[[]tableInfo] // what the last statement kept of its snapshot
	scanned  [][]int                     // the columns of each scan
	failNext error                       // what the next morsel fails with
	block    chan struct{}
	handed   atomic.Int64 // calls of next

	waiting   atomic.Int64 // scans that wait for block
	panicNext bool         // whether the next morsel panics
}

// memTable is a table of a memStore.
type memTable struct {
	info    tableInfo
	morsels []memMorsel
}

// memMorsel is a batch and its live rows.
type memMorsel struct {
	rec  arrow.RecordBatch
	live []uint32
}

func (s *memStore) refresh(context.Context) error { return nil }

func (s *memStore) catalogVersion() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version
}

func (s *memStore) tables() []tableInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []tableInfo
	for _, t := range s.list {
		out = append(out, t.info)
	}
	return out
}

// add makes a table; the store keeps the batches until the test ends.
func (s *memStore) add(t testing.TB, name string, schema *arrow.Schema, key []string, morsels ...memMorsel) *memTable {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	mt := &memTable{info: tableInfo{schema: lsm.MainSchema, name: name, arrow: schema, key: key, incarnation: s.version}, morsels: morsels}
	s.list = append(s.list, mt)
	t.Cleanup(func() {
		for _, m := range mt.morsels {
			m.rec.Release()
		}
	})
	return mt
}

func (s *memStore) find(schema, name string) (int, *memTable) {
	for i, t := range s.list {
		if strings.EqualFold(t.info.name, name) && strings.EqualFold(t.info.schema, schema) {
			return i, t
		}
	}
	return -1, nil
}

func (s *memStore) snapshot(context.Context) (snapshot, error) {
	s.open.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	sn := &memSnapshot{s: s, version: s.version}
	for _, t := range s.list {
		sn.tables = append(sn.tables, *t)
	}
	return sn, nil
}

func (s *memStore) create(_ context.Context, t tableInfo) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, old := s.find(t.schema, t.name); old != nil {
		return fmt.Errorf("table %q: %w", t.name, lsm.ErrTableExists)
	}
	s.version++
	t.incarnation = s.version
	s.list = append(s.list, &memTable{info: t})
	return nil
}

func (s *memStore) drop(_ context.Context, schema, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, old := s.find(schema, name)
	if old == nil {
		return fmt.Errorf("table %q: %w", name, lsm.ErrTableNotFound)
	}
	s.version++
	s.list = append(s.list[:i:i], s.list[i+1:]...)
	return nil
}

func (s *memStore) insert(_ context.Context, schema, name string, rec arrow.RecordBatch) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, t := s.find(schema, name)
	if t == nil {
		return 0, lsm.ErrTableNotFound
	}
	t.morsels = append(t.morsels, memMorsel{rec: offHeap(rec)})
	return rec.NumRows(), nil
}

func (s *memStore) optimize(_ context.Context, schema, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, t := s.find(schema, name); t == nil {
		return fmt.Errorf("table %q: %w", name, lsm.ErrTableNotFound)
	}
	return nil
}

// alter, modify and stageTable are for the storage engine alone.
func (s *memStore) histories(context.Context) ([]tableHistory, error) { return nil, nil }

func (s *memStore) past(context.Context, tableInfo, lsm.AsOf) (openedPast, error) {
	return openedPast{}, errors.New("tables in memory have no versions")
}

func (s *memStore) declareKey(context.Context, tableRef, []string) error { return nil }

func (s *memStore) discard(context.Context, string, string) (int64, error) { return 0, nil }

func (s *memStore) tag(context.Context, string, string, string, uint64) (uint64, error) {
	return 0, nil
}

func (s *memStore) untag(context.Context, string, string, string) (uint64, error) { return 0, nil }

func (s *memStore) vacuum(context.Context, string, string) (freed, error) { return freed{}, nil }

func (s *memStore) modify(context.Context, tableInfo, bool, func(context.Context, snapshot, writer) error) error {
	return errors.New("tables in memory cannot be modified")
}

func (s *memStore) alter(context.Context, tableInfo, []alteredColumn, tableInfo) error {
	return errors.New("tables in memory cannot be altered")
}

func (s *memStore) stageTable(context.Context, tableInfo, bool, func(func(arrow.RecordBatch) error) error) error {
	return errors.New("tables in memory cannot be staged")
}

func (s *memStore) createIndex(context.Context, tableRef, lsm.IndexDef, lsm.CreateIndexOptions) error {
	return errors.New("tables in memory have no indexes")
}

func (s *memStore) dropIndex(context.Context, tableRef, string) error {
	return errors.New("tables in memory have no indexes")
}

func (s *memStore) optimizeIndex(context.Context, tableRef, string, bool, func(done, total int64)) error {
	return errors.New("tables in memory have no indexes")
}

func (s *memStore) stats() lsm.Stats { return lsm.Stats{} }

func (s *memStore) unserved(schema, name string) error { return nil }

// views are for the storage engine alone.
func (s *memStore) views() []viewInfo { return nil }

func (s *memStore) createView(context.Context, viewInfo, bool) error {
	return errors.New("tables in memory have no views")
}

func (s *memStore) comment(context.Context, tableRef, string, *string) error {
	return errors.New("tables in memory have no comments")
}

func (s *memStore) dropView(context.Context, string, string) error {
	return errors.New("tables in memory have no views")
}

type memSnapshot struct {
	s       *memStore
	version uint64
	tables  []memTable
}

func (s *memSnapshot) catalogVersion() uint64 { return s.version }

func (s *memSnapshot) keep(tables []tableInfo) { s.s.kept.Store(&tables) }

func (s *memSnapshot) release() { s.s.open.Add(-1) }

func (s *memSnapshot) table(schema, name string) (tableSource, error) {
	for i, t := range s.tables {
		if t.info.schema == schema && t.info.name == name {
			return &memSource{s: s.s, t: &s.tables[i]}, nil
		}
	}
	return nil, lsm.ErrTableNotFound
}

type memSource struct {
	s *memStore
	t *memTable
}

func (s *memSource) rows() (n int64) {
	for _, m := range s.t.morsels {
		n += m.rec.NumRows()
	}
	return n
}

func (s *memSource) explain(context.Context, *scanFilter) (string, error) { return "from memory", nil }

func (s *memSource) reads(context.Context, *scanFilter) (int64, error) { return s.rows(), nil }

func (s *memSource) piece(part, parts int, _ *scanFilter) tableSource {
	t := *s.t
	t.morsels = nil
	for i, m := range s.t.morsels {
		if i%parts == part {
			t.morsels = append(t.morsels, m)
		}
	}
	return &memSource{s: s.s, t: &t}
}

func (s *memSource) scan(_ context.Context, columns []int, _ *scanFilter) (morselReader, error) {
	s.s.open.Add(1)
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	s.s.scanned = append(s.s.scanned, columns)
	return &memScan{s: s.s, t: s.t, columns: columns}, nil
}

type memScan struct {
	s       *memStore
	t       *memTable
	columns []int
	at      atomic.Int64
}

func (sc *memScan) next(ctx context.Context) (morsel, error) {
	sc.s.mu.Lock()
	err, block, panics := sc.s.failNext, sc.s.block, sc.s.panicNext
	sc.s.mu.Unlock()
	if panics {
		panic("broken store")
	}
	if err != nil {
		return morsel{}, err
	}
	if block != nil {
		sc.s.waiting.Add(1)
		select {
		case <-block:
		case <-ctx.Done():
			return morsel{}, ctx.Err()
		}
	}
	sc.s.handed.Add(1)
	i := int(sc.at.Add(1)) - 1
	if i >= len(sc.t.morsels) {
		return morsel{}, io.EOF
	}
	m := sc.t.morsels[i]
	fields, cols := []arrow.Field{}, []arrow.Array{}
	for _, c := range sc.columns {
		fields, cols = append(fields, m.rec.Schema().Field(c)), append(cols, m.rec.Column(c))
	}
	rec := array.NewRecordBatch(arrow.NewSchema(fields, nil), cols, m.rec.NumRows())
	return morsel{record: rec, live: m.live, release: rec.Release}, nil
}

func (sc *memScan) close() { sc.s.open.Add(-1) }

// newTestEngine opens an engine over the store and checks at the end that it gave everything back.
func newTestEngine(t testing.TB, s *memStore) *Engine {
	e, err := open(context.Background(), Options{Threads: 4, Memory: 1 << 30, Temp: t.TempDir()}.withDefaults(), s)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, e.Close())
		require.Zero(t, s.open.Load(), "scans and snapshots left open")
		require.Zero(t, morselsAlive(), "morsels left in C")
	})
	return e
}

// collectRows runs a query and returns its batches joined.
func collectRows(t testing.TB, e *Engine, sql string, params arrow.RecordBatch) arrow.RecordBatch {
	rec, err := tryRows(e, sql, params)
	require.NoError(t, err, sql)
	return rec
}

// tryRows is collectRows for queries that may fail.
func tryRows(e *Engine, sql string, params arrow.RecordBatch) (arrow.RecordBatch, error) {
	ctx := context.Background()
	st, err := e.Prepare(ctx, e.NewSession(), sql)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	r, err := st.Query(ctx, params)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var parts []arrow.RecordBatch
	defer func() { releaseAll(parts) }()
	for {
		rec, err := r.Next(ctx)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		parts = append(parts, rec)
	}
	return joinRows(parts, r.Schema())
}

// runUpdate runs a statement that changes something.
func runUpdate(e *Engine, sql string, params arrow.RecordBatch) (int64, error) {
	ctx := context.Background()
	st, err := e.Prepare(ctx, e.NewSession(), sql)
	if err != nil {
		return 0, err
	}
	defer st.Close()
	return st.Update(ctx, params)
}
