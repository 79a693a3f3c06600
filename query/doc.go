// Package query runs SQL over snapshots of the storage engine. It is the only package that knows DuckDB.
//
// # Two instances
//
// An [Engine] keeps two in-memory DuckDB instances whose catalogs follow the engine's tables:
//
//	query   one view per table, over the table function flightd_scan(id)    runs SELECT
//	shadow  one real table per table, always empty                          runs CREATE TABLE and INSERT VALUES in
//	                                                                        a transaction that is rolled back, answers
//	                                                                        SHOW, DESCRIBE and information_schema,
//	                                                                        binds plans
//
// Views of clients are in both, and made anew after each change of the catalog: DuckDB remembers the columns that a
// view had. A statement first brings both catalogs up to the engine's catalog version (a table that was replaced has another
// incarnation and gets a new scan id), then takes its snapshot; if DDL came between the two, it starts again. An
// internal error makes DuckDB refuse all further work in its instance, so such an instance is replaced by a new one,
// and closed when its last statement ends.
//
// # The way of a morsel
//
//	lsm.Scan.Next  ->  one call from C into Go per morsel  ->  fd_morsel (C, reference counted)
//	                                                             |  per chunk of at most 2,048 rows and per column:
//	                                                             v  an ArrowArray that points into the morsel
//	                                                           DuckDB vector, sliced to the live rows
//
// Nothing is copied: DuckDB's vectors point into the Arrow buffers, which therefore lie outside the Go heap. Each
// column of each chunk is converted on its own and holds its own reference to the morsel, because DuckDB ties what it
// converts to the first column of a chunk, and vectors live for different times. The threads of a scan share its
// morsels; projection is pushed down, filters are DuckDB's. The function's first column is a dummy that DuckDB reads
// when it needs no column, as for count(*).
//
// INVARIANT: the live rows of a morsel ascend and lie in its batch, and its columns have the table's types. Both are
// checked before C sees the morsel.
//
// # Filters on the key and on indexes
//
// Before a query is prepared, DuckDB is asked on the same connection for its optimised plan (json_serialize_plan), in
// which the conditions that it moved to a scan stand right above it. hint_plan.go reads them, hint_keys.go makes sums
// of boxes over the columns of the key of them, and over one column that has an index, with the parameters' values, and
// hint_fill.go points and ranges for lsm. They are hints: DuckDB applies its filters itself, and what we cannot read is a condition that any row may
// fulfil.
//
// A scan is found in the plan by the number of its bind, which the bind puts into the name of the first column: a plan
// has these names, and a bound scan its number. INVARIANT: a text has the same binds in the same order each time; if
// the prepared statement ever has others than the plan, its hints are not used. A parameter is part of a condition by
// its name, never by a value that it had when the plan was made, so hints are kept by text (hintCache) for one version
// of the catalog. DuckDB has no plan for a parameter inside an expression; then it gets the text with the values in
// it (hint_params.go), and the hints are kept for no other values. Not kept are those of a plan with functions such as now(); these share their transaction with
// the statement, so that both mean the same moment.
//
// # System tables
//
// The schema flightd_catalog (system.go) is in both catalogs as tables are, and so is everything that finds columns and
// types. What is in a snapshot of the engine a scan reads there; a system table it reads from batches that the
// snapshot of the statement makes of all of them at their first use.
//
// # Older versions
//
// A table behind which AT (VERSION => ...) stands is replaced in the text by a scan with a number of its own (travel.go), anew
// each time that the statement is prepared or runs; what looks for columns or conditions of tables finds the version's by it.
//
// # Indexes
//
// Statements about indexes never reach DuckDB: their grammar is ours (index.go). SHOW INDEXES is a query over
// flightd_catalog.
//
// # Types
//
// [sqlTypeOf] gives each Arrow type an SQL type that holds its bits, and one that SQL has not, such as decimal256, a BLOB
// of its bytes, which is then opaque: a query may hand it on, and an expression over it is refused (opaque.go). UUID and
// JSON are Arrow's extension types, which travel and are stored as metadata of their fields. A column of dictionaries has
// plain values everywhere but in the results that clients get (dictionary.go). On the way out, DuckDB's plan, bound but not
// optimised, tells which columns of a result come unchanged from which column of a table (a BOUND_REF is a place in
// the columns of the operator below); these get the table's Arrow type back. If a plan has an operator that we do not
// know, its columns keep DuckDB's types: the values are the same. A value that does not fit the type of its origin is
// an error, never rounded.
//
// # Statements that change rows
//
// INSERT with nothing but values runs in the shadow, as above. The others are prepared there, which finds their errors
// and the types of their parameters, and then become a query over a snapshot, written from pieces of their text: the
// lexer cuts the statement at its own keywords outside of parentheses, and what lies between stays DuckDB's.
//
//	DELETE FROM t USING o WHERE c    SELECT DISTINCT ON (key) key FROM t, o WHERE (c)
//	UPDATE t SET a = x WHERE c       SELECT t.id, CAST((x) AS ...), t.b FROM t WHERE (c)
//	INSERT INTO t (a) query          SELECT CAST(1st AS ...), defaults FROM (query)
//	MERGE INTO t USING s ON c ...    SELECT rows as they will be, key, clause FROM s JOIN t ON c UNION ALL ... (merge.go)
//	... ON CONFLICT DO NOTHING       SELECT DISTINCT ON (key) ... FROM (these rows) WHERE NOT EXISTS (the key in t)
//	... ON CONFLICT DO UPDATE        SELECT CASE WHEN t.id IS NULL THEN excluded.a ELSE x END FROM (these rows) LEFT JOIN t
//
// The query runs inside lsm.Table.Modify: its snapshot has everything written before, and nobody else writes the table
// until its rows are committed as one stage. ? becomes $1, $2, ... by its place in the statement, because the pieces
// change theirs. CREATE TABLE AS fills a stage that makes its table.
//
// A table without a key stands in such a query as (SELECT _rowid, ... FROM flightd_scan(id)) AS t: the function's last
// column, which views leave out, is where in the base a row lies. The query runs inside lsm.Table.Rewrite, which
// deletes by it.
//
// The list of RETURNING is computed for each batch of changed rows, before they are committed, by a query over
// flightd_scan(0), the batch that the running statement brings itself. Its result waits in a spool (Rows): a few
// KiB of memory, and a file without a name for what is more.
//
// # What is off
//
// File and network access, extensions and settings are turned off and locked in DuckDB. In front of it stands an
// allow-list by first word (classify.go), a list of functions that are refused by name, and, behind the parser,
// DuckDB's own idea of the statement's kind. The lexer only knows what hides text and counts parentheses; grammar is
// DuckDB's.
//
// # Goroutines and locks
//
// A [Result] has one goroutine, which interrupts DuckDB when the context ends and is awaited by Close. DuckDB's worker
// threads call flightdScanNext concurrently. Lock order: Engine.shadowMu, Result.mu, Engine.mu, pasts.mu, instance.mu,
// bridge.mu, execution.mu. Engine.mu is held while the catalogs change, which asks DuckDB only for DDL of ours, and
// Result.mu while DuckDB runs the query: it is what tells the interrupting goroutine that somebody is at work.
//
// Close of a result interrupts, destroys the result, the statement and the connection, and releases the snapshot, in
// this order: the end of the connection waits for the workers of an abandoned stream. Connections are not pooled,
// opening one costs microseconds.
//
// # Memory
//
// DuckDB's own limit does not see strings of vectors and the states of some aggregates. Functions of ours stand in front
// of its allocator and of C++'s (alloc.c, put there by the linker) and refuse pieces of 1 MiB and more when the process
// would hold more than Options.HeldLimit; a goroutine of the engine (memory_guard.go) ends the youngest statement that
// got past it in smaller ones.
//
// # Errors
//
// All calls fail with *[Error]: a code, a message with the place in the text, and the cause. An error of a scan passes
// through DuckDB as it was. Panics in callbacks become errors of the statement.
package query
