package query

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flightd/flightd/lsm"
)

// Options configures an Engine.
type Options struct {
	// DB is the engine whose tables are queried. Required.
	DB *lsm.DB
	// Threads is how many threads run queries, all together. Default: the number of CPUs.
	Threads int
	// Memory bounds what queries hold for sorts, joins and groups, in bytes, all together. Default: 512 MiB.
	Memory int64
	// Temp is a folder for what does not fit into Memory. Default: none, such queries fail.
	Temp string
	// TempBytes bounds what sorts, joins and groups have there together; a statement that needs more fails. Default: half
	// of what the disk has free when DuckDB is opened, so that a query never takes the room that flushes need.
	TempBytes int64
	// Held returns the memory of the process, in bytes, and HeldLimit is what it may come to: above it statements whose
	// memory DuckDB does not count in full are ended, see memory_guard.go. Default: none are.
	Held      func() int64
	HeldLimit int64
	// Timeout is how long a statement may take, a query until its result is read. Default: as long as it likes.
	Timeout time.Duration
	// Logger hears about instances of DuckDB that had to be replaced. Default: slog.Default().
	Logger *slog.Logger
}

// withDefaults fills in what is not set.
func (o Options) withDefaults() Options {
	if o.Threads <= 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	if o.Memory <= 0 {
		o.Memory = 512 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// shadowMemoryShare is the part of the memory that the shadow gets: it holds no rows but those of one INSERT.
const shadowMemoryShare = 8

// Engine runs SQL over the tables of one lsm.DB. It is safe for concurrent use.
type Engine struct {
	opts  Options
	store store
	guard *memoryGuard // nil without a limit

	// shadowMu lets one INSERT, CREATE, ALTER or refresh at a time use the shadow: two at once would meet in its catalog
	// and key indexes.
	shadowMu sync.Mutex

	// mu guards the catalogs. Statements hold it only while they look at them, a refresh while it changes them.
	mu     sync.Mutex
	closed bool
	query  *catalog // views over scans
	shadow *catalog // real, empty tables

	running sync.WaitGroup // statements and results that are not closed
	// activity and clients are what flightd_catalog tells about.
	activity activity
	// pasts are the older versions of tables that statements read.
	pasts   pasts
	clients atomic.Pointer[Clients]
}

// Session is what a client's statements share.
type Session struct {
	// Catalog and Schema are where names without them are looked up. Only flightd and main exist so far.
	Catalog, Schema string
	// ID is the number of the session in flightd_catalog, 0 for none.
	ID int64
}

// Open starts an engine. The caller keeps the DB and closes it after the engine.
func Open(ctx context.Context, o Options) (*Engine, error) {
	if o.DB == nil {
		return nil, errors.New("query: Options.DB is required")
	}
	return open(ctx, o.withDefaults(), lsmStore{o.DB})
}

// open is Open over any store.
func open(ctx context.Context, o Options, s store) (*Engine, error) {
	e := &Engine{opts: o, store: s, guard: newMemoryGuard(o.Held, o.HeldLimit)}
	l, err := e.acquire(ctx)
	if err != nil {
		_ = e.Close()
		return nil, err
	}
	l.release()
	return e, nil
}

// Close waits for the statements that run and frees everything. Cancel their contexts first to make it quick.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	e.mu.Unlock()
	e.running.Wait()
	e.guard.close()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range []*catalog{e.query, e.shadow} {
		if c != nil {
			c.in.release()
		}
	}
	e.query, e.shadow = nil, nil
	return nil
}

// NewSession returns a session in the default catalog and schema.
func (e *Engine) NewSession() *Session { return &Session{Catalog: catalogName, Schema: lsm.MainSchema} }

// A view is a catalog at one version, as a statement sees it.
type view struct {
	in     *instance
	tables map[string]tableInfo // by folded name; never changed
	byID   map[int64]tableInfo
	views  []viewInfo
	lost   []lostView
	past   func(id int64) (*past, bool)
}

// A lease is the two catalogs at one version, held while a statement uses them.
type lease struct {
	e             *Engine
	version       uint64
	query, shadow view
}

// release gives the instances back.
func (l *lease) release() {
	l.query.in.release()
	l.shadow.in.release()
	l.e.running.Done()
}

// acquire brings the catalogs up to date and returns a lease on them.
func (e *Engine) acquire(ctx context.Context) (*lease, error) {
	if err := ctx.Err(); err != nil {
		return nil, engineError(err)
	}
	if err := e.store.refresh(ctx); err != nil {
		return nil, engineError(err)
	}
	e.mu.Lock()
	fresh := e.closed || e.freshLocked()
	if !fresh {
		// A transaction in the shadow and a change of its catalog would be in each other's way.
		e.mu.Unlock()
		e.shadowMu.Lock()
		defer e.shadowMu.Unlock()
		e.mu.Lock()
	}
	defer e.mu.Unlock()
	if e.closed {
		return nil, errClosed
	}
	if !fresh {
		if err := e.refreshLocked(); err != nil {
			return nil, engineError(err)
		}
	}
	e.running.Add(1)
	return &lease{e: e, version: e.query.version, query: e.query.view(), shadow: e.shadow.viewWith(e.past)}, nil
}

// freshLocked says whether the catalogs are those of the store as it was a moment ago.
func (e *Engine) freshLocked() bool {
	version := e.store.catalogVersion()
	for _, c := range []*catalog{e.query, e.shadow} {
		if c == nil || c.frozen == nil || c.version != version || c.in.dead() != "" {
			return false
		}
	}
	return true
}

// stale says whether the shadow has another table by now than when the lease was given. REQUIRES: shadowMu is held, so
// that it stays.
func (l *lease) stale(t tableInfo) bool {
	l.e.mu.Lock()
	defer l.e.mu.Unlock()
	return l.e.shadow == nil || l.e.shadow.in == l.shadow.in && l.e.shadow.tables[fold(t.schema, t.name)].id != t.id
}

// viewWith is view with a way to older versions of tables.
func (c *catalog) viewWith(past func(id int64) (*past, bool)) view {
	v := c.view()
	v.past = past
	return v
}

// view copies what a statement needs to know of the catalog.
func (c *catalog) view() view {
	return view{in: c.in.acquire(), tables: c.frozen, byID: c.frozenByID, views: c.views, lost: c.lost}
}

// refreshLocked replaces dead instances and makes the catalogs those of the store.
func (e *Engine) refreshLocked() (err error) {
	if e.query, err = e.liveLocked(e.query, "query", e.opts.Memory); err != nil {
		return err
	}
	if e.shadow, err = e.liveLocked(e.shadow, "shadow", e.opts.Memory/shadowMemoryShare); err != nil {
		return err
	}
	for {
		version := e.store.catalogVersion()
		if e.query.version == version && e.shadow.version == version && e.query.frozen != nil && e.shadow.frozen != nil {
			return nil
		}
		tables, views := slices.Concat(systemInfos, e.store.tables()), e.store.views()
		if e.store.catalogVersion() != version {
			continue // a table came or went between the two calls
		}
		warn := func(act string, t tableInfo, err error) {
			e.opts.Logger.Warn("a table cannot be queried", "act", act, "table", t.qualified(), "err", err)
		}
		e.shadow.hideViews(warn)
		e.query.hideViews(warn)
		e.shadow.refresh(version, tables, e.shadow.addTable, e.shadow.dropTable, warn)
		e.shadow.showComments(warn)
		e.query.refresh(version, tables, e.query.addView, e.query.dropView, warn)
		e.shadow.showViews(views, warn)
		e.query.showViews(views, warn)
		return nil
	}
}

// liveLocked returns c if its instance works, else a new and empty catalog.
func (e *Engine) liveLocked(c *catalog, name string, memory int64) (*catalog, error) {
	threads := e.opts.Threads
	if name == "shadow" {
		threads = 1 // it only ever sees a handful of rows
	}
	if c != nil {
		reason := c.in.dead()
		if reason == "" {
			return c, nil
		}
		e.opts.Logger.Error("DuckDB stopped after an internal error; a new instance takes over", "instance", name, "err", reason)
		c.in.release()
	}
	temp, err := spillFolder(e.opts.Temp, name)
	if err != nil {
		return nil, err
	}
	in, err := openInstance(instanceOptions{threads: threads, memory: memory, temp: temp, tempBytes: e.opts.TempBytes})
	if err != nil {
		return nil, err
	}
	return &catalog{in: in, tables: map[string]tableInfo{}}, nil
}
