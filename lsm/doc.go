// Package lsm is the engine: tables whose rows come in as Arrow batches, are visible when they are acknowledged and durable
// unless their table is a buffered one, and end in Lance datasets.
//
// # The way of a batch
//
//	Put ──▶ log (wal) ──▶ memtable ──▶ generation ──▶ base
//	        one for all    batches as     a Lance        the table's own
//	        tables         they came      dataset        Lance dataset
//
// Put hands a batch to the log, which gives it an LSN; a Stream does so without waiting, so that the log writes many at once. Who writes the log, its goroutine or the caller of a Put that is alone, passes each written group to the shards'
// appliers, which put the batches into the active memtable and its key index, while the log is being synced. A
// batch is visible, and DB.Wait returns, when it and all before it are in their memtables, and durable unless they are
// buffered (durability.go). What outlives the log's tail, a flush, a trim, a rewrite, waits until it is durable in any
// case. A memtable that is full is frozen; the shard's flusher writes it as a generation, publishes it in the shard's manifest, and the log is trimmed.
// The table's compactor merges the generations of all shards into the base in one commit to the table's manifest, which
// says of each shard up to which generation it has them; it does so when there are too many, or for Optimize. Flushes go on
// meanwhile. When there are far too many (compactor.go) writers of the table wait, unless the merge failed.
//
// In a table whose IndexMode is Async the batch does not wait for the indexes: the applier puts it into them when no other
// batch waits. What they do not have yet, the tail, is searched row by row: a look-up begins there, a scan looks the tail's
// keys up to find what they replace, and a search by a column has all of it. A memtable that is frozen has no tail.
//
// A table with a key may have several shards; the hash of the key's first column spreads the rows (bucket.go). A batch with
// rows of several is cut before it is logged, in parallel for all its senders, and logged as one record: its parts, copies
// with memory of their own, go to their shards together, so it is visible when all of them have it. A shard that has
// flushed its part skips the record at replay, by its manifest's ReplayAfter, while the others take theirs. A key is looked
// up in its shard alone.
//
// A Stage is batches of one table that take effect together. Small ones stay in memory and go to the log as one group,
// whose records readers get at once; larger ones are written as generations that no manifest names, which one record of
// the log commits and the next version of the shard's manifest, behind everything that came before, names
// (stage_commit.go). A stage can make its table, too: the log's DDL record is then what brings it, and its folder moves
// to its place.
//
// A Rewrite is how a statement changes rows that have no key. It brings everything into the base, where rows have
// addresses, and deletes and adds in one commit of the base. Streams wait only until what they wrote is merged; what
// they write then, and what other programs commit, stands beside it, unless it took rows from the same fragments: then
// the statement runs again.
//
// # Idempotency keys
//
// A request with a key is applied under a Claim, one stream at a time. What it came to is logged in the group that
// applies it, be that a batch, the batches of a stage, the commit of a spilled one or the DDL of a new table, so the two
// cannot part. The ledger (idempotency.go, with the bytes) has what the log says of all keys; every segment of the log
// begins with a checkpoint of it.
//
//	client            server                          log
//	  | key K  ---->  Claim: one stream at a time
//	  |               Answer: applied before? ─yes─▶  the answer, flagged; the stream is drained
//	  |               stage, or batches as they come
//	  |               Commit, or Put under the claim  [batches or commit, news of K]   one group
//
// # On disk
//
//	DATA/NAME.lance/                       the table: a Lance dataset (package manifest)
//	DATA/NAME.lance/_mem_wal/SHARD/        the shard's manifests (package manifest)
//	DATA/NAME.lance/_mem_wal/SHARD/X_gen_N/  generation N: a Lance dataset of one fragment
//	DATA/NAME.lance/_mem_wal/SHARD/X_gen_N/_pk_index/  BTREE from key to row (package btree)
//	DATA/NAME.lance/_mem_wal/SHARD/X_gen_N/_indices/   BTREEs over other columns, as in any Lance dataset
//	DATA/NAME.lance/_indices/              BTREEs over the key and other columns
//	DATA/NAME.lance/_mem_wal/SHARD/X_gen_N/key_filter.bin  filter of its keys (package keyfilter)
//	DATA/NAME.lance/_mem_wal/OTHER/        what is left of another writer's shard: manifests, and sentinels in wal/
//	DATA/_flightd/wal/                     the log (package wal)
//	DATA/_flightd/catalog.json             checkpoint of the catalog
//	DATA/_flightd/stage/N.lance/           the table with incarnation N while a stage makes it
//	DATA/_flightd/reserve                  room for flushes, merges and deletes on a full disk (space.go)
//	DATA/_flightd/LOCK, format, tmp/       owner, layout of the folder, scratch files
//
// Letters, digits, '-', '_' and '.' of a table's name stand for themselves in its folder's name (the first may be
// no '.', nor "_" when the name would be that of flightd's own folder); other bytes are %XX. A folder NAME.lance that the
// catalog does not know is another program's: Open makes a table of the dataset in it (foreign_table.go). catalog.json is
// {"catalog": C, "crc32c": N}: C is the catalog as of the LSN of its last DDL record, N the CRC32C of C's text.
// Views are in it, too, as texts, and comments, those on a table's columns by field id. DDL is logged before it takes effect, in order with batches, and then written to the checkpoint; a record's table
// incarnation and schema id say what it was written against, so that replay brings nothing back after a DROP. Log
// bodies of batches are described in codec.go.
//
// # In a store of objects
//
// With Options.Store the data lie in a store that several processes may reach, such as a bucket. Everything above is the
// same but for what a home does (home.go): localHome is the folder as above, objectHome the store.
//
//	_flightd/format                        another text: neither form opens the other's data
//	_flightd/catalog/N.json                version N of the catalog: checkpoints of its owner and claims of others
//	_flightd/log/P.arrow                   entry P of the catalog's stream of the log: DDL and checkpoints of the keys
//	_flightd/lease/E.json                  sign of life of the process with epoch E
//	TABLE/_mem_wal/SHARD/wal/P.arrow       entry P of the shard's stream (package wal, the bucket form)
//
// An owner has an epoch, which no other ever had. A claim is the next version of the catalog, put if its number is free,
// with an epoch above that of the version before. LSNs, the shards' manifests and the entries of the log have the epoch of
// their owner, so all claims of a process are ordered like those of the catalog, and opening a shard again raises nothing.
// Behind each claim comes a sentinel in the stream, and a look whether the claim is still the newest; only then the stream
// is read.
//
//	INVARIANT: an owner that was overtaken cannot make anything durable. Its next entry meets the sentinel, its next
//	checkpoint the claim, its next version of a shard's manifest the claim of the shard: ErrFenced, for good. Commits to a
//	table's base have no epoch. One that comes late is taken up as another program's is, and a statement that consists of
//	one is not acknowledged unless its process is the owner behind it.
//
// What an overtaken owner removes must not be its successor's. It removes by name what it made itself; what it finds by
// listing it removes only when its claim is the newest after the listing (home.owned): what was there before no successor
// had made. Names that a manifest or the catalog would put next are never free for it: claims of shards stay for good, other
// versions for an hour (home.grace). And no folder of a table is used twice: the first table of a name has NAME.lance, others
// NAME~X.lance, X being of the shard's identity. A stage that makes a table makes it where it stays, and the catalog names
// the folder before it is there (catalog.Staged), so that the next owner removes it unless the log has the table.
// The folder of a table that was dropped or replaced stays while a snapshot reads it (DB.leaving), as its files are read by their names.
//
// A lease tells a second process that the first one lives. It watches the object, for as long as that says, and compares no
// clocks; if nothing changes it claims. Nothing depends on that but good manners. The same goroutine looks whether the claim
// is still the newest, so that an owner that writes nothing learns that it was overtaken, too.
//
// Records of several shards cannot be stored together, so a table has one. A group has batches of one schema: a stage over
// an ALTER TABLE spills. There is no disk to be full, and no reserve.
// Shards of other writers are left alone, since the note that one is taken over is a record of the catalog.
//
// # Shards of other writers
//
// A MemWAL writer of Lance's, or another program's, that wrote to a table while no flightd ran has a shard of its own in
// the table's folder, with generations and, in wal/, log entries in Lance's form. Open takes it over, before anybody is
// served (takeover.go has the steps, and why a crash between any two of them loses no row and doubles none): the shard is
// sealed under the next epoch, its rows are put into the table, the newest last, and what held them is removed. When that
// cannot be done whole, because a file is damaged or missing or has a column that the table never had, nothing of it is
// done: the table is read without those rows, is not written, and says why.
//
// # Schemas
//
// A table has a list of schemas, the last of which counts. ALTER TABLE appends one, by a DDL record of the log; no row
// is rewritten. A schema has a number, which log records of batches carry, and gives each column the field id that
// files know it by. Rows are read under the schema of the snapshot, whatever they were written with: columns are
// matched by field id, one that was dropped is skipped, and one that is younger than the rows has its fill in them,
// which is the value that the column was added with, or null. What the rows of a file are too old for, the schema of
// their dataset says, not the file: in a column that the dataset has and a fragment lacks, rows are null, as in Lance.
// The base gets the columns of the current schema by a commit of its own (align.go), before anything is merged into it.
//
// # Layers, and who hides whom
//
// The rows of a table lie in layers: the base, and in front of it for each shard a chain of generations, frozen memtables
// and the active memtable, each newer than those before. In a table with a key only the newest row of a key counts, and
// none when that is a tombstone. Which rows of a layer newer layers have replaced is not found by probing them when they
// are read, but kept as a mask (mask.go) for each layer: a flush adds the new generation's keys to the masks of all older
// layers, in bulk; what is in memtables only is added by the first query that needs it, and kept. So a scan costs the rows
// it returns plus the keys that arrived since the last one, however many layers there are.
//
// Of the base there is a mask for each chain, as shards flush at LSNs of their own. A key is in one shard only, so the
// masks have no row in common, and their union is what the base has lost. A merge that brings a new base works out its
// masks from the generations that it left out, those that were flushed while it ran included, before readers see it.
//
// INVARIANT: below the merge only predicates on the key may drop rows or skip files: a row that another predicate
// hides still shadows the older rows of its key.
//
// A memtable's row numbers are those of the generation that it becomes, so its mask goes over as it is.
//
// # Other programs
//
// Other programs commit to the base as we do. Whoever is about to take a snapshot looks first (refresh.go), and puts their
// version in the place of the one that readers have, beside the compactor: Table.basing makes that one at a time (rebase.go).
// The masks of fragments that have the same rows as before stay; the keys of generations are looked for in the others. A
// merge whose commit lost to theirs keeps the fragments that it wrote, and works out anew what they replace (merge.go).
// Columns that they changed become a schema of the table (reconcile.go), told from an ALTER TABLE that the base does not
// have yet by what the base had before; schema and base change at one moment. What cannot be taken up leaves the table
// read-only, or unserved when it is met by Open, as a table is whose files are damaged: then the log is kept from its first record on.
//
// A version in which another program put another content in the place of the base's, below rows that are not merged, divides the
// table until OPTIMIZE (divided.go) or Discard (discard.go): it is read, and neither written nor merged. So does another key (rekey.go),
// which is taken up when nothing is in front of the base, by a schema that begins anew.
//
// # Scans of some keys
//
// A scan that is given a KeySet reads what indexes find: the key index of a memtable, the BTREEs of generations and
// base. Points are settled by the newest layer that has them, from the newest on, and need no masks; a memtable's index
// may be ahead of the snapshot, and then its rows are searched backwards from the snapshot's last. Ranges are taken from
// each layer in the order of the keys and the masks are applied; a memtable's rows are put in order by the second range
// that needs it, but for the last few (memorder.go), and tell by themselves which of a key is the newest. Fragments of the
// base that no index covers are read by their key columns, and all of a layer where a range has a good part of it.
// The set is a hint: rows that are not in it may come, too, but no row twice.
//
// # Indexes over other columns
//
// CREATE INDEX is a definition in the catalog (index.go), by field id, and files that follow it. Memtables that are begun
// from then on keep the index while they are written, if TableDef.Maintain lets them (memcolumn.go); every generation
// that is written from then on has it, made from the memtable, in its own manifest (columnindex.go); and every merge
// adds a segment to the base over the fragments that it appends (columnmerge.go), by a merge of what the generations
// have. Rows that are older than the index are sorted, in memory and beyond sortBytes in scratch files (columnsort.go),
// when a merge takes them in, or by CREATE INDEX, which does that for the whole base beside everybody else and has the
// writer of the base commit the result (cover.go).
//
// BITMAPs and LABEL_LISTs (package bitmap) are used, too, when another program made them in the base; nothing here writes them.
//
// A scan that is given a set of values (ScanOptions.Where) takes what each layer has: the index where there is one, the
// column where there is none. So answers are complete whatever is covered, and an index that cannot be opened, or that
// another program has taken away or extended, changes nothing but the time. Of a segment of the base only the fragments
// count that its bitmap names and that the version has: what was rewritten since is looked at by the column. The masks
// come after, as the INVARIANT above wants it. A layer of which an index finds a good part is read as a whole.
//
// # Searches among vectors
//
// A search (search.go) looks at the pieces of a view: the fragments of the base, the generations, and what the snapshot has of
// each memtable. The masks that a scan would apply come first, so that a row that was replaced or deleted takes nobody's place among
// the k nearest. Searched exactly (searchexact.go), the rows are cut into tasks that several goroutines take one after the
// other; each compares its rows with all queries, a block of them at a time, so that many queries are one pass over memory,
// and keeps the k nearest of each.
//
// What an index over the vectors has (searchindex.go) is found by that: each memtable, generation and segment of the base is probed in its
// nearest partitions, masks first, the partitions are doubled until there are k rows or none are left, and the distances of the best candidates are
// computed from the rows. What no index has, the tail of a memtable included, is compared as above. So a distance does not depend on
// what found the row. With few rows to look among, indexes are not asked.
//
// A row is known by its Place: the number of its piece << 32 | its number there (place.go). Only vectors are read to find rows;
// other columns are taken by place, of the rows that were found. Which of several rows at one distance are among the k
// nearest, and their order, their keys decide, so that the answer does not depend on where rows lie.
//
// # Indexes over vectors
//
// An IVF_PQ or IVF_FLAT (package ivf) is defined like the others. Its rows lie by a model, centroids and code words, that is made of a sample of
// the table's rows: by CREATE INDEX (vectorcover.go), or, while there are too few rows for it, by the first merge or OPTIMIZE
// that finds enough (vectormerge.go; a merge that nobody waits for wants autoTrainRows). Until then searches compare all rows. The model
// is the base's: that of the newest segment that the base has of the index. Memtables that are begun from then on put each row in by it
// (memvector.go), their generations have what these hold (vectorflush.go), and a merge adds one segment with the partitions and codes of
// the generations. No row is encoded twice, unless the model was another by then.
//
// INVARIANT: partitions and codes mean something with their model only. A model is known by a hash of what it consists of (modelID), which
// memtables keep and the manifests of generations and base have with each segment, as the hint "flightd.model" in Lance's details. What
// has another model than the base is searched by its own, and encoded anew by the merge that takes it in.
//
// When the partitions have become uneven, or too few for the rows (base.drifted), OPTIMIZE and ALTER INDEX train the index anew
// and build one segment in the place of all. Indexes over vectors that another program made are kept like our own, by its model.
// Rows whose vector is null, not finite, or zero under cosine are in no index, and no search finds them; Check knows that.
//
// # Compaction
//
// The compactor of a table asks package policy what is due, does the first job, and asks again (compaction.go). A merge
// (merge.go) brings all generations into the base and deletes what they replace. A rewrite (compact_fragments.go) puts
// fragments in the place of others with the same rows, at other addresses, with segments of the BTREEs, and of the indexes over vectors, that
// cover them: those entries of the old segments, in their order, that lead to these rows. What generations replace is looked up
// in the new base before readers get it, as after any commit that changes fragments. A fragment is left alone while a
// statement or an index build stands on it, and for good when an index covers it that is of another kind.
//
// Jobs that nobody waits for run in turns with other tables (DB.turns) and at a pace (pace.go); orders and writers that
// wait lift it, and so does a merge that would take longer than its generations took to come (policy.Behind). Jobs hold the
// generations and the base that they read, never memtables (holdStored): flushes give their memory back meanwhile.
//
// # Snapshots
//
// A layerSet is the base and the chains of a table; it never changes and its references are counted. A snapshot is the
// layer sets of all tables and the visible LSN, taken under one short lock (DB.moment), under which every new set is published,
// too: a statement sees one moment. Memtables grow while a snapshot reads them; it reads the prefix at or below its
// LSN.
//
// Table.At is a view of an older version of the base, with nothing in front of it (past.go). It keeps the version and its files
// from being collected until it is closed.
//
// # Goroutines
//
// The log's own (package wal), in a store of objects that of the lease (home_lease.go), the trimmer, the collector (collection.go) and the keeper of the reserve (space.go) of the DB, and for each
// table the compactor (the only writer of the base), and for each of its shards the applier (the only writer of memtables)
// and the flusher (the only writer of generations, but for those of stages). A shard's manifest is written under a lock, by
// the flusher, the compactor and who publishes a stage. DB.Close ends and awaits all of them.
//
// A search starts as many goroutines as there are cores and awaits them. Open replays the log over goroutines of its own (replay.go), which end with it: one reads, some decode, one fills the
// memtables. What is then frozen is flushed behind Open, unless memory was short.
//
// # Lock order
//
// Table.turn, Table.writes, DB.ddl, Table.adopting, Table.basing, shard.manMu, Table.swap, maskCell.mu, DB.moment, memtable.mu,
// keyOrder.mu, keyOrder.settle, and last, with nothing below them, shard.queueMu, Table.leftMu, Table.stallMu,
// watermarks.mu, budget.mu, pace.mu, ledger.mu, objectHome.mu, Table.pastMu and Table.heldMu. No I/O happens under DB.moment and what follows it, nor under Table.swap, where appliers wait.
// Table.place is held while a few files are removed, and has nothing but Table.leftMu and Table.heldMu below it.
//
// # Errors
//
// The sentinels of errors.go, *ColumnError and *KeyError for what a client sent, *object.CorruptError for bad bytes
// on disk. ErrFenced says that another process has the data; the DB then writes and reads no more, and the way out is to
// turn to that process. A failed write or sync of the log poisons the DB (ErrPoisoned): it serves reads and refuses writes until
// it is opened again. A full disk is ErrDiskFull, and no poison: it is
// noticed before the log is written. A failed flush is tried again for ever, as the log still has the rows.
package lsm
