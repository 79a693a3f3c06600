package query

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	bind "github.com/duckdb/duckdb-go-bindings"
	"golang.org/x/sys/unix"

	"github.com/flightd/flightd/lsm"
)

// catalogName is the name under which clients see the database.
const catalogName = "flightd"

// instanceOptions are the limits of one DuckDB instance.
type instanceOptions struct {
	threads int
	memory  int64  // bytes
	temp    string // folder for spilled sorts and joins; empty turns spilling off
	// tempBytes bounds what lies there; 0 is half of what is free.
	tempBytes int64
}

// An instance is one in-memory DuckDB with its bridge. Statements hold a reference while they run, so that an
// instance that DuckDB declared dead can be replaced while others still read from it.
type instance struct {
	db     bind.Database
	admin  bind.Connection
	bridge *bridge
	hints  hintCache

	mu     sync.Mutex
	refs   int
	failed string // what made DuckDB refuse to work on, with its stack
}

// openInstance starts DuckDB with everything that reaches out of the process turned off, and locks the settings.
func openInstance(o instanceOptions) (*instance, error) {
	in := &instance{refs: 1}
	var config bind.Config
	if bind.CreateConfig(&config) == bind.StateError {
		return nil, errors.New("create DuckDB's configuration")
	}
	defer bind.DestroyConfig(&config)
	for _, s := range o.settings() {
		if bind.SetConfig(config, s[0], s[1]) == bind.StateError {
			return nil, fmt.Errorf("set DuckDB's %s to %q", s[0], s[1])
		}
	}
	var message string
	if bind.OpenExt(":memory:", &in.db, config, &message) == bind.StateError {
		return nil, fmt.Errorf("open DuckDB: %s", message)
	}
	if err := in.setUp(o); err != nil {
		in.shutDown()
		return nil, err
	}
	return in, nil
}

// settings are what DuckDB is opened with.
func (o instanceOptions) settings() [][2]string {
	s := [][2]string{
		{"threads", fmt.Sprint(o.threads)},
		{"memory_limit", fmt.Sprintf("%dKiB", max(o.memory>>10, 1<<14))},
		{"autoinstall_known_extensions", "false"},
		{"autoload_known_extensions", "false"},
		{"allow_community_extensions", "false"},
		{"allow_unsigned_extensions", "false"},
		{"temp_directory", o.temp},
	}
	if quota := o.quota(); quota > 0 {
		s = append(s, [2]string{"max_temp_directory_size", fmt.Sprintf("%dKiB", quota>>10)})
	}
	return s
}

// quota is what may lie in the folder for spilled sorts and joins, 0 when there is none or its disk does not tell: DuckDB
// would take nine tenths of what is free.
func (o instanceOptions) quota() int64 {
	if o.temp == "" || o.tempBytes > 0 {
		return o.tempBytes
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(o.temp, &disk); err != nil {
		return 0
	}
	return int64(disk.Bavail) * disk.Bsize / 2
}

// setUp prepares the catalog and closes the doors behind itself.
func (in *instance) setUp(o instanceOptions) error {
	var scans bind.Connection
	if bind.Connect(in.db, &scans) == bind.StateError {
		return errors.New("connect to DuckDB")
	}
	b, err := newBridge(scans, o.threads)
	if err != nil {
		bind.Disconnect(&scans)
		return err
	}
	in.bridge, b.in = b, in
	if in.admin, err = in.rawConnect(); err != nil {
		return err
	}
	// The catalog that DuckDB opens with is named after its file; ours has a name of its own.
	for _, sql := range []string{
		"ATTACH ':memory:' AS " + catalogName, "USE " + catalogName, "DETACH memory", createSearch, createBatch,
		"SET GLOBAL TimeZone = 'UTC'",
		// Without these threads what a large query has freed stays with the process until the next large query.
		"SET GLOBAL allocator_background_threads = true",
		// DuckDB plans deep expressions in cubic time, and cannot be interrupted meanwhile: 200 levels take half a
		// second, its default of 1,000 a minute.
		"SET GLOBAL max_expression_depth = 250",
		"SET GLOBAL enable_external_access = false", "SET GLOBAL lock_configuration = true",
	} {
		if err := in.exec(sql); err != nil {
			return fmt.Errorf("set up DuckDB: %s: %w", sql, err)
		}
	}
	return nil
}

// rawConnect opens a connection that has no catalog yet.
func (in *instance) rawConnect() (bind.Connection, error) {
	var conn bind.Connection
	if bind.Connect(in.db, &conn) == bind.StateError {
		return conn, errors.New("connect to DuckDB")
	}
	return conn, nil
}

// connect opens a connection for one statement. It costs microseconds, so connections are not pooled: closing them
// is what surely ends the workers of an abandoned result.
func (in *instance) connect() (bind.Connection, error) {
	conn, err := in.rawConnect()
	if err != nil {
		return conn, err
	}
	if err := in.execOn(conn, "USE "+catalogName); err != nil {
		bind.Disconnect(&conn)
		return conn, err
	}
	return conn, nil
}

// exec runs a statement of ours whose result nobody needs.
func (in *instance) exec(sql string) error { return in.execOn(in.admin, sql) }

// execOn is exec on another connection.
func (in *instance) execOn(conn bind.Connection, sql string) error {
	var res bind.Result
	defer bind.DestroyResult(&res)
	if bind.Query(conn, sql, &res) == bind.StateError {
		return in.check(bind.ResultError(&res), sql)
	}
	return nil
}

// check maps an error of DuckDB and notes when it ended the instance.
func (in *instance) check(message, sql string) *Error {
	if fatal(message) {
		in.mu.Lock()
		if in.failed == "" {
			in.failed = message
		}
		in.mu.Unlock()
	}
	return duckError(message, sql)
}

// dead returns why the instance must be replaced, "" while it works.
func (in *instance) dead() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.failed
}

// acquire adds a reference.
func (in *instance) acquire() *instance {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.refs++
	return in
}

// release drops a reference; the last one closes DuckDB.
func (in *instance) release() {
	in.mu.Lock()
	in.refs--
	last := in.refs == 0
	in.mu.Unlock()
	if last {
		in.shutDown()
	}
}

// shutDown closes DuckDB. REQUIRES: no statement runs.
func (in *instance) shutDown() {
	if in.bridge != nil {
		bind.Disconnect(&in.bridge.conn)
	}
	bind.Disconnect(&in.admin)
	bind.Close(&in.db)
	if in.bridge != nil {
		in.bridge.free()
	}
}

// A catalog is what an instance shows: views over scans, or real and empty tables.
type catalog struct {
	in      *instance
	version uint64               // of the engine's catalog
	tables  map[string]tableInfo // by folded schema and name
	nextID  int64
	views   []viewInfo             // of clients, that are shown
	lost    []lostView             // of clients, that cannot be shown
	said    map[int64]lsm.Comments // by id of a table, that are shown

	// frozen and frozenByID are copies of tables for the statements; a refresh makes new ones.
	frozen     map[string]tableInfo
	frozenByID map[int64]tableInfo
}

// A tableInfo is a table as the catalogs know it.
type tableInfo struct {
	schema, name string
	arrow        *arrow.Schema
	key          []string
	sql          string // canonical DDL
	tableOptions
	// indexes are those of the table but that of its key; a table that is made with another's definition has them, too.
	indexes []lsm.IndexDef
	// foreign are the indexes that another program made.
	foreign     []lsm.IndexDef
	incarnation uint64
	version     uint32 // of its schema
	id          int64  // of the scan
	at          uint64 // the number of an older version, 0 for the table as it is
	// comments are those of a table that is there, nil of one that is being made.
	comments *lsm.Comments
}

// fold is the key under which names that differ in case only are one.
func fold(schema, name string) string {
	return strings.ToLower(schema) + "\x00" + strings.ToLower(name)
}

// ddl returns the table's DDL, also for a table that came as an Arrow schema.
func (t tableInfo) ddl() string {
	if t.sql != "" {
		return t.sql
	}
	return tableSQL(t.schema, t.name, t.arrow, t.key, nil)
}

// qualified returns the table's name as SQL text.
func (t tableInfo) qualified() string { return quoteIdent(t.schema) + "." + quoteIdent(t.name) }

// refresh makes the catalog equal to the engine's tables: add is called for new ones, drop for old ones. A table that
// was replaced has another incarnation, and one that was altered another version: it is both. A table that DuckDB refuses is missing until it changes, the
// others are there; warn hears of it.
func (c *catalog) refresh(version uint64, now []tableInfo, add func(*tableInfo) error, drop func(tableInfo) error, warn func(string, tableInfo, error)) {
	next := make(map[string]tableInfo, len(now))
	for _, t := range now {
		next[fold(t.schema, t.name)] = t
	}
	for _, k := range slices.Sorted(maps.Keys(c.tables)) {
		old := c.tables[k]
		if t, ok := next[k]; ok && t.incarnation == old.incarnation && t.version == old.version && t.arrow.Equal(old.arrow) {
			t.id = old.id // what else there is to it may be new
			c.tables[k] = t
			continue
		}
		delete(c.tables, k)
		if old.id == 0 {
			continue // it was never shown
		}
		if err := drop(old); err != nil {
			warn("forget", old, err)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(next)) {
		if _, ok := c.tables[k]; ok {
			continue
		}
		t := next[k]
		c.nextID++
		t.id = c.nextID
		if err := add(&t); err != nil {
			warn("show", t, err)
			t.id = 0
		}
		c.tables[k] = t
	}
	c.version, c.frozen, c.frozenByID = version, maps.Clone(c.tables), make(map[int64]tableInfo, len(c.tables))
	for _, t := range c.tables {
		c.frozenByID[t.id] = t
	}
}

// addView shows a table of the query instance: a view over its scan.
func (c *catalog) addView(t *tableInfo) error {
	c.in.bridge.showTable(*t)
	if err := c.in.exec("CREATE SCHEMA IF NOT EXISTS " + quoteIdent(t.schema)); err != nil {
		return err
	}
	names := make([]string, t.arrow.NumFields())
	for i, f := range t.arrow.Fields() {
		names[i] = quoteIdent(f.Name)
	}
	return c.in.exec(fmt.Sprintf("CREATE VIEW %s AS SELECT %s FROM %s(%d)", t.qualified(), strings.Join(names, ", "), scanFunction, t.id))
}

// dropView is the inverse of addView.
func (c *catalog) dropView(t tableInfo) error {
	defer c.in.bridge.hideTable(t)
	return c.in.exec("DROP VIEW " + t.qualified())
}

// addTable shows a table of the shadow: a real one, without rows.
func (c *catalog) addTable(t *tableInfo) error {
	if err := c.in.exec("CREATE SCHEMA IF NOT EXISTS " + quoteIdent(t.schema)); err != nil {
		return err
	}
	if err := c.in.exec(t.ddl()); err != nil {
		return err
	}
	c.in.bridge.showTable(*t)
	return nil
}

// dropTable is the inverse of addTable.
func (c *catalog) dropTable(t tableInfo) error {
	c.in.bridge.hideTable(t)
	return c.in.exec("DROP TABLE " + t.qualified())
}

// spillFolder creates the folder that DuckDB spills to.
func spillFolder(temp, name string) (string, error) {
	if temp == "" {
		return "", nil
	}
	dir := filepath.Join(temp, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("create the folder for spilled queries: %w", err)
	}
	return dir, nil
}
