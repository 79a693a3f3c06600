package lsm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/flightd/flightd/ivf"
	"github.com/flightd/flightd/lsm/wal"
	"github.com/flightd/flightd/object"
)

// LSN is a position in the log: log epoch << 40 | n. No LSN is ever given twice.
type LSN = wal.LSN

// DB is the tables of one data folder. It is safe for concurrent use.
type DB struct {
	opt    Options
	logger *slog.Logger
	home   home
	st     object.Store
	log    wal.Log
	budget *budget
	space  *space
	// pace is that of compaction for which nobody waits, and turns has room for the tables that are at it.
	pace  *pace
	turns chan struct{}
	// minReclaim is the constant; tests have smaller tables.
	minReclaim int64
	marks      *watermarks
	ledger     *ledger

	// ddl makes CREATE and DROP one at a time; it comes after Table.writes and before everything else.
	ddl sync.Mutex
	cat *catalog // guarded by ddl
	// stale is true while the checkpoint on disk lacks something of cat; the log has it. Guarded by ddl.
	stale bool
	// leaving are tables that were dropped, by incarnation, whose folders stay while somebody reads them. Guarded by ddl.
	leaving map[uint64]*Table

	// moment is the short lock of rule "one statement, one moment": every publication of a layer set and of the
	// list of tables, and the taking of all snapshots of a statement, happen under it. No I/O happens under it.
	moment sync.Mutex
	tables map[string]*Table // by folded name, guarded by moment
	// unserved are datasets of other programs that are no tables, by the folded name of what would be. Guarded by moment.
	unserved map[string]*UnservedError
	// aside has the incarnations of tables of the catalog that cannot be served, with the first record that the log has of each, 0
	// for none: the log is needed from there on. Guarded by moment once the DB is open.
	aside   map[uint64]LSN
	closed  bool          // guarded by moment
	version atomic.Uint64 // rises with every change of tables and views
	views   atomic.Pointer[[]ViewDef]

	// trim wakes the trimmer, garbage the collector; done waits for both.
	trim    chan struct{}
	garbage chan struct{}
	stop    context.Context
	end     context.CancelFunc
	// overtaken ends, with the reason, when another process has the data: what waits for work that this one cannot do any more
	// must not.
	overtaken context.Context
	overtake  context.CancelCauseFunc
	done      sync.WaitGroup

	// atomicEnd is the end of the last records that become visible together. It belongs to who writes the log.
	atomicEnd LSN
	// passing are the shards to which batches of a group go. They belong to who writes the log.
	passing []*shard

	// holdIndexes keeps indexes that may follow from doing so; tests set it.
	holdIndexes atomic.Bool

	// models are those of open indexes over vectors.
	models ivf.Models

	counters counters
	stalls   stalls
}

// Open opens a data folder, and makes it when it is absent: it takes the folder's lock, reads the catalog, opens
// every table and replays the log. It returns when everything that was ever acknowledged is visible.
func Open(ctx context.Context, o Options) (*DB, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	db := &DB{opt: o, logger: o.Logger, marks: newWatermarks(),
		tables: make(map[string]*Table), unserved: make(map[string]*UnservedError), aside: make(map[uint64]LSN), leaving: make(map[uint64]*Table), trim: make(chan struct{}, 1), garbage: make(chan struct{}, 1),
		pace: newPace(max(o.CompactionRate, 0)), turns: make(chan struct{}, backgroundJobs)}
	var err error
	if o.Store != nil {
		db.home, err = newObjectHome(db)
	} else {
		db.home, err = newLocalHome(ctx, db)
	}
	if err != nil {
		return nil, err
	}
	if o.wrap != nil {
		db.st = o.wrap(db.st)
	}
	db.ledger = newLedger(&db.opt)
	db.minReclaim = minReclaim
	db.space.stalls = &db.stalls.disk
	db.space.debt, db.space.relieve, db.space.begin = db.diskDebt, db.makeRoom, db.begin
	db.space.need()
	db.budget = newBudget(o.Memory, db.relieve, &db.stalls.memory)
	db.stop, db.end = context.WithCancel(context.Background())
	db.overtaken, db.overtake = context.WithCancelCause(context.Background())
	if err := db.open(ctx); err != nil {
		return nil, errors.Join(err, db.shutdown())
	}
	return db, nil
}

// open does the part of Open that a failure undoes with shutdown.
func (db *DB) open(ctx context.Context) error {
	cat, err := db.home.claim(ctx)
	if err != nil {
		return err
	}
	if err := clearTemp(db.opt.Temp); err != nil {
		return err
	}
	db.cat = cat
	if err := db.recover(ctx); err != nil {
		// Who takes over while this process reads may remove what it reads.
		if lost := db.home.owned(ctx); errors.Is(lost, ErrFenced) && !errors.Is(err, ErrFenced) {
			return fmt.Errorf("%w (%w)", lost, err)
		}
		return err
	}
	db.done.Add(3)
	go db.spaceLoop()
	go db.trimLoop()
	go db.collectLoop()
	db.poke()
	return nil
}

// clearTemp empties the folder of scratch files.
func clearTemp(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clear temporary folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make temporary folder: %w", err)
	}
	return nil
}

// Close stops all work and closes the log after a last sync. Memtables stay in the log and come back with the next
// Open. Snapshots may outlive it.
func (db *DB) Close() error {
	db.moment.Lock()
	if db.closed {
		db.moment.Unlock()
		return nil
	}
	db.closed = true
	db.moment.Unlock()
	db.ddl.Lock() // what runs finishes
	defer db.ddl.Unlock()
	return db.shutdown()
}

// lockDDL takes db.ddl, which the caller unlocks. A DB that was closed meanwhile refuses it: its shards have no layers any
// more, and its folder may be another process's.
func (db *DB) lockDDL() error {
	db.ddl.Lock()
	db.moment.Lock()
	closed := db.closed
	db.moment.Unlock()
	if closed {
		db.ddl.Unlock()
		return ErrClosed
	}
	return nil
}

// seizeForDDL returns a table that nobody else writes, and which stays in the catalog as it is, until unlock is called.
func (db *DB) seizeForDDL(ctx context.Context, n TableName) (t *Table, unlock func(), err error) {
	if t, err = db.Table(n); err != nil {
		return nil, nil, err
	}
	release, err := t.seize(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := db.lockDDL(); err != nil {
		release()
		return nil, nil, err
	}
	unlock = func() {
		db.ddl.Unlock()
		release()
	}
	if t.dropped {
		unlock()
		return nil, nil, fmt.Errorf("table %q: %w", n, ErrTableNotFound)
	}
	return t, unlock, nil
}

// begin notes work on the folder that Close waits for. The caller calls done at its end. A DB that is closed refuses it:
// the folder may be another process's.
func (db *DB) begin() (done func(), err error) {
	db.moment.Lock()
	defer db.moment.Unlock()
	if db.closed {
		return nil, ErrClosed
	}
	db.done.Add(1)
	return db.done.Done, nil
}

// shutdown releases everything that open took, whatever of it there is.
func (db *DB) shutdown() error {
	db.end()
	db.done.Wait()
	var err error
	if db.log != nil {
		err = logError(db.log.Close())
	}
	db.marks.fail(ErrClosed)
	for _, t := range db.list() {
		t.close()
	}
	return errors.Join(err, db.home.close())
}

// list returns all tables.
func (db *DB) list() []*Table {
	db.moment.Lock()
	defer db.moment.Unlock()
	out := make([]*Table, 0, len(db.tables))
	for _, t := range db.tables {
		out = append(out, t)
	}
	return out
}

// Tables returns all tables, sorted by schema and name.
func (db *DB) Tables() []*Table {
	out := db.list()
	slices.SortFunc(out, func(a, b *Table) int {
		return strings.Compare(a.name.Schema+"\x00"+a.name.Name, b.name.Schema+"\x00"+b.name.Name)
	})
	return out
}

// Table returns the table with a name, whatever its case, or ErrTableNotFound; that is a *UnservedError when another program
// made a dataset of the name that cannot be served.
func (db *DB) Table(n TableName) (*Table, error) {
	db.moment.Lock()
	defer db.moment.Unlock()
	if db.closed {
		return nil, ErrClosed
	}
	t := db.tables[n.fold()]
	if t == nil {
		if u := db.unserved[n.fold()]; u != nil {
			return nil, u
		}
		return nil, fmt.Errorf("table %q: %w; make it with CREATE TABLE", n, ErrTableNotFound)
	}
	return t, nil
}

// CatalogVersion rises with every CREATE and DROP.
func (db *DB) CatalogVersion() uint64 { return db.version.Load() }

// CreateTable makes a table. It is durable when CreateTable returns.
func (db *DB) CreateTable(ctx context.Context, d TableDef) error {
	defer db.poke()
	if err := db.lockDDL(); err != nil {
		return err
	}
	defer db.ddl.Unlock()
	if err := db.removeDropped(ctx); err != nil {
		return err
	}
	if db.hasView(d.Name) {
		return fmt.Errorf("table %q: %w: a view has the name", d.Name, ErrTableExists)
	}
	if _, err := db.Table(d.Name); err == nil {
		return fmt.Errorf("table %q: %w", d.Name, ErrTableExists)
	} else if !errors.Is(err, ErrTableNotFound) {
		return err
	}
	if err := db.space.admit(ctx, 0); err != nil {
		return fmt.Errorf("create table %q: %w", d.Name, err)
	}
	e, err := newTableEntry(d, db.cat.LastIncarnation+1)
	if err == nil {
		err = db.home.named(db.cat, &e)
	}
	if err != nil {
		return err
	}
	t, err := newTable(db, e)
	if err != nil {
		return err
	}
	if err := db.refuseFolder(ctx, d.Name, t.root); err != nil {
		return err
	}
	if err := db.logDDL(ctx, ddl{Create: &e}); err != nil {
		return fmt.Errorf("create table %q: %w", d.Name, err)
	}
	if err := db.openTable(ctx, t); err != nil {
		// Without this the table would be there after the next start, though the caller was told that it is not.
		undo := db.logDDL(ctx, ddl{Drop: e.Incarnation})
		db.home.leave(t)
		return errors.Join(fmt.Errorf("create table %q: %w", d.Name, err), undo)
	}
	t.start()
	return nil
}

// DropTable removes a table with all its rows. It is durable when DropTable returns.
func (db *DB) DropTable(ctx context.Context, n TableName) error {
	defer db.poke()
	t, unlock, err := db.seizeForDDL(ctx, n)
	var unserved *UnservedError
	if errors.As(err, &unserved) && unserved.incarnation > 0 {
		return db.dropAside(ctx, unserved)
	}
	if err != nil {
		return err
	}
	defer unlock()
	// What is on its way to the memtable arrives first, so that no record of the table follows its DROP.
	if err := db.Wait(ctx, LSN(t.last.Load())); err != nil {
		return err
	}
	if err := db.logDDL(ctx, ddl{Drop: t.entry.Incarnation}); err != nil {
		return fmt.Errorf("drop table %q: %w", n, err)
	}
	t.dropped = true
	t.leave()
	db.forget(t)
	t.close()
	db.home.leave(t)
	db.outlive(t)
	return db.removeDropped(context.WithoutCancel(ctx))
}

// logDDL makes a change of the catalog durable in the log and then in the checkpoint, and with it in the log what comes
// with it. REQUIRES: db.ddl is held.
func (db *DB) logDDL(ctx context.Context, d ddl, with ...*wal.Record) error {
	db.space.need()
	record, err := d.record()
	if err != nil {
		return err
	}
	lsn, err := db.log.Append(ctx, append([]*wal.Record{record}, with...)...)
	if err != nil {
		return logError(err)
	}
	// From here on the change may survive a crash, so the caller going away must not stop half way.
	ctx = context.WithoutCancel(ctx)
	if err := db.log.WaitDurable(ctx, lsn); err != nil {
		return logError(err)
	}
	db.cat.apply(lsn, d)
	db.checkpoint(ctx)
	if d.Drop > 0 {
		db.ledger.keep(func(incarnation uint64) bool { return incarnation != d.Drop })
	}
	return nil
}

// checkpoint writes the catalog. A failure changes nothing for now, as the log has the same; it keeps the log from
// being trimmed. REQUIRES: db.ddl is held, or nobody else runs.
func (db *DB) checkpoint(ctx context.Context) {
	err := db.home.store(ctx, db.cat)
	if db.stale = err != nil; db.stale {
		db.logger.Error("the log is not trimmed until the catalog can be written", "error", err)
	}
}

// outlive keeps the folder of a table that was dropped as long as snapshots read it, where files are read by their names. On a
// local disk what is open stays readable, and the folder's name may be that of the next table. REQUIRES: db.ddl is held, and
// nobody can take a snapshot of the table any more.
func (db *DB) outlive(t *Table) {
	if db.home.readsByName() {
		db.leaving[t.entry.Incarnation] = t
		t.outlived.Store(true)
	}
}

// removeDropped removes the folders of dropped tables that nobody reads and then forgets the tables. REQUIRES: db.ddl is held, or
// the DB is not open yet.
func (db *DB) removeDropped(ctx context.Context) error {
	var read []tableEntry
	for _, e := range db.cat.Dropped {
		if t := db.leaving[e.Incarnation]; t != nil && t.isRead() {
			read = append(read, e)
			continue
		}
		delete(db.leaving, e.Incarnation)
		// It is gone for good before the catalog forgets it: a power cut would bring back a folder that nobody knows.
		folder := e.folder()
		if err := errors.Join(db.st.DeleteAll(ctx, folder), db.st.SyncDirs(ctx, folder)); err != nil {
			return fmt.Errorf("remove folder of dropped table %q: %w", e.name(), err)
		}
	}
	if len(read) < len(db.cat.Dropped) {
		db.cat.Dropped = read
		db.checkpoint(ctx)
	}
	return nil
}

// removeVacated is removeDropped, if there is a table that was read until now. REQUIRES: db.ddl is held.
func (db *DB) removeVacated() {
	for _, t := range db.leaving {
		if t.isRead() {
			continue
		}
		if err := db.removeDropped(db.stop); err != nil && db.stop.Err() == nil {
			db.logger.Warn("remove dropped tables; the collector will try again", "error", err)
		}
		return
	}
}

// Visible returns the LSN up to which everything is visible, and durable unless it is buffered.
func (db *DB) Visible() LSN { return db.marks.visible() }

// Watch returns a channel that is closed when Visible may have risen, or never will again; Err tells which.
func (db *DB) Watch() <-chan struct{} {
	c, _ := db.marks.watch()
	return c
}

// Err returns the error that keeps the DB from making anything visible, nil while it works.
func (db *DB) Err() error {
	_, err := db.marks.watch()
	return err
}

// lost returns ErrFenced with the reason when another process has the data.
func (db *DB) lost() error { return context.Cause(db.overtaken) }

// blame gives an error about something that is missing its reason, if that is another process that has the data now: it
// removes what it finds unfinished.
func (db *DB) blame(ctx context.Context, err error) error {
	if !errors.Is(err, object.ErrNotExist) || errors.Is(err, ErrFenced) {
		return err
	}
	if lost := db.home.owned(context.WithoutCancel(ctx)); errors.Is(lost, ErrFenced) {
		return fmt.Errorf("%w (%w)", lost, err)
	}
	return err
}

// Wait blocks until an LSN is visible, and durable unless it is that of a buffered batch.
func (db *DB) Wait(ctx context.Context, lsn LSN) error {
	if due := db.marks.unsynced(lsn); due > 0 && db.log != nil {
		// A caller that is alone runs the sync itself there. The error, if there is one, is that of the marks, too.
		_ = db.log.WaitDurable(ctx, due)
	}
	return db.marks.wait(ctx, lsn)
}

// settled blocks until an LSN is visible and durable, whatever it is of.
func (db *DB) settled(ctx context.Context, lsn LSN) error {
	if err := db.marks.wait(ctx, lsn); err != nil {
		return err
	}
	if db.log == nil { // a replay flushes what it has read, and that was synced
		return nil
	}
	return logError(db.log.WaitDurable(ctx, lsn))
}

// relieve freezes the largest active memtable, so that flushing it gives memory back.
func (db *DB) relieve() {
	var largest *shard
	var most int64
	flushing := false
	db.moment.Lock()
	for _, t := range db.tables {
		set := t.set.Load()
		if set == nil {
			continue
		}
		for i, c := range set.chains {
			if n := c.active().bytes.Load(); n > most {
				largest, most = t.shards[i], n
			}
			flushing = flushing || len(c.layers) > 1 && len(c.frozen()) > 0
		}
	}
	db.moment.Unlock()
	if flushing { // it will give memory back
		return
	}
	if largest != nil {
		select {
		case largest.freezes <- nil:
		default: // one is asked for already
		}
	}
}

// poke wakes the trimmer.
func (db *DB) poke() {
	select {
	case db.trim <- struct{}{}:
	default:
	}
}

// trimLoop lets the log recycle what no memtable needs any more, whenever a flush was published, and removes dropped tables whose
// last snapshot was released.
func (db *DB) trimLoop() {
	defer db.done.Done()
	for {
		select {
		case <-db.stop.Done():
			return
		case <-db.trim:
		}
		// DDL under way may be in the log and not yet in the checkpoint. It wakes this loop when it is done.
		if !db.ddl.TryLock() {
			continue
		}
		if err := db.trimLog(); err != nil {
			db.logger.Error("trim log", "error", err)
		}
		db.removeVacated()
		db.ddl.Unlock()
	}
}

// trimLog lets the log recycle what it may, once the checkpoint has all DDL and says how far that goes. REQUIRES:
// db.ddl is held.
func (db *DB) trimLog() error {
	db.freezeOld()
	if err := db.noteAccepted(); err != nil {
		return err
	}
	upTo := db.trimmable()
	news, err := db.home.trimmed(db.cat, upTo)
	if err != nil {
		return err
	}
	if news || db.stale {
		db.checkpoint(db.stop)
	}
	if db.stale {
		return nil // checkpoint has said why
	}
	return logError(db.log.Trim(upTo))
}

// freezeOld has memtables flushed behind which more was written than all memtables together may hold: they are what
// keeps the log from being trimmed. Any flush wakes the trimmer.
func (db *DB) freezeOld() {
	written := db.counters.bytes.Load()
	db.moment.Lock()
	defer db.moment.Unlock()
	for _, t := range db.tables {
		set := t.set.Load()
		if set == nil {
			continue
		}
		for i, c := range set.chains {
			if m := c.active(); m.rows.Load().lastLSN() > 0 && written-m.born > db.opt.Memory {
				select {
				case t.shards[i].freezes <- nil:
				default: // one is asked for already
				}
			}
		}
	}
}

// trimmable returns the LSN up to which the log is not needed: everything at or below it is in generations or
// base tables. DDL needs no record once it is applied, as each writes the catalog's checkpoint.
func (db *DB) trimmable() LSN {
	// Visible first: a record that is visible now is in a memtable, so the loop below cannot miss it.
	// What is not durable may be gone after a power cut, and then the log ends below it.
	upTo := min(db.marks.visible(), db.log.DurableLSN())
	db.moment.Lock()
	for _, first := range db.aside {
		if first > 0 {
			upTo = min(upTo, first-1) // it may have rows that nothing else has
		}
	}
	db.moment.Unlock()
	for _, t := range db.list() {
		if first, ok := t.unflushed(); ok {
			upTo = min(upTo, first-1)
		}
	}
	return upTo
}
