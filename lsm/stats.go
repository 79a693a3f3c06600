package lsm

import ()

// Stats is the state of the engine, table by table, as of one call of DB.Stats.
type Stats struct {
	// Tables are in the order of their names.
	Tables []TableStats
	// Memory is what memtables and their indexes take.
	Memory MemoryStats
	// Stalls tell how writers had to wait since Open, one for each cause.
	Stalls []StallStats
}

// TableStats is one table in numbers. It was taken without reading anything: what costs I/O is not in it.
type TableStats struct {
	// Definition is what the table was made of; Durability and IndexMode are what it comes to.
	Definition TableDef
	Durability Durability
	IndexMode  IndexMode
	// Incarnation tells the table from others that had its name.
	Incarnation uint64
	// Indexes are those of the table but that of its key.
	Indexes []IndexInfo
	// Rows is an upper bound: rows that newer ones replace are counted as far as that is known.
	Rows int64
	// BaseVersion is the version of the Lance dataset that the table's base is, with its fragments, rows that are not
	// deleted, and bytes on disk as far as its writers said.
	BaseVersion         uint64
	BaseFragments       int
	BaseRows, BaseBytes int64
	// Shards are in their order.
	Shards []ShardStats
}

// ShardStats is one shard in numbers.
type ShardStats struct {
	// ID is the name of the shard's folder.
	ID string
	// Memtables are the active one and those that wait for their flush; FrozenMemtables are only the latter.
	Memtables, FrozenMemtables int
	// MemtableRows counts replaced rows and tombstones, too; MemtableBytes has the indexes.
	MemtableRows, MemtableBytes int64
	// Generations are the flushed memtables in front of the base, oldest first.
	Generations []GenerationStats
}

// GenerationStats is one generation in numbers.
type GenerationStats struct {
	Number uint64
	// Folder is below the data folder.
	Folder string
	// Rows counts all rows, LiveRows those that are neither tombstones nor deleted, Bytes is about what
	// it takes on disk.
	Rows, LiveRows, Bytes int64
}

// MemoryStats is the memory of memtables in bytes.
type MemoryStats struct {
	// Used is held out of Limit, and Kept is what of it is held by old snapshots alone.
	Used, Kept, Limit int64
}

// Stats returns the state of the engine. The layers of all tables are as of one moment, the one in which snapshots are
// taken.
func (db *DB) Stats() Stats {
	tables := db.Tables()
	indexes := make([][]IndexInfo, len(tables))
	for i, t := range tables {
		indexes[i] = t.Indexes()
	}
	var s Stats
	s.Memory, s.Stalls = db.budget.stats(), db.stalls.stats()
	db.moment.Lock()
	defer db.moment.Unlock()
	for i, t := range tables {
		if set := t.set.Load(); set != nil {
			stats := t.stats(set)
			stats.Indexes = indexes[i]
			s.Tables = append(s.Tables, stats)
		}
	}
	return s
}

// stats returns the table's numbers. REQUIRES: db.moment is held.
func (t *Table) stats(set *layerSet) TableStats {
	d, _ := t.Definition()
	b := set.base
	s := TableStats{Definition: d, Durability: t.Durability(), IndexMode: t.IndexMode(), Incarnation: t.entry.Incarnation, BaseFragments: len(b.frags), BaseRows: b.rows}
	v := View{table: t, schema: t.now(), lsn: t.db.marks.visible(), set: set}
	s.Rows = v.Rows()
	if b.version != nil {
		s.BaseVersion = b.version.Number
		for i := range b.version.Fragments {
			for _, f := range b.version.Fragments[i].Files {
				s.BaseBytes += f.Bytes
			}
		}
	}
	for i, c := range set.chains {
		s.Shards = append(s.Shards, c.stats(t.shards[i]))
	}
	return s
}

// stats returns the numbers of a shard whose chain this is.
func (c *chain) stats(s *shard) ShardStats {
	out := ShardStats{ID: s.id.String(), FrozenMemtables: len(c.frozen())}
	for _, m := range c.memtables() {
		out.Memtables++
		out.MemtableRows += m.rows.Load().rowCount()
		out.MemtableBytes += m.bytes.Load()
	}
	for _, l := range c.generations() {
		g := l.layer.(*generation)
		out.Generations = append(out.Generations, GenerationStats{Number: g.number, Folder: g.dir, Rows: g.frag.rows, LiveRows: g.frag.live, Bytes: g.bytes})
	}
	return out
}
