package query

import (
	"strconv"
	"strings"

	"github.com/flightd/flightd/lsm"
)

// tableOptions are what a table has beside its columns, as WITH says it. The zero value is that of a table without
// options.
type tableOptions struct {
	durability lsm.Durability // empty for the server's
	indexMode  lsm.IndexMode  // empty for Sync
	// maintain names the indexes that memtables keep, nil for all.
	maintain []string
	shards   int // 0 for one
}

// tableOptionNames are the options of tables.
var tableOptionNames = []string{"durability", "index_mode", "maintain", "shards"}

// tableOptions reads the options of CREATE TABLE.
func (p *parsed) tableOptions(list []option) (t tableOptions, err error) {
	for _, o := range list {
		var v string
		switch o.name {
		case "durability":
			v, err = p.choice(o, string(lsm.Durable), string(lsm.Buffered))
			t.durability = lsm.Durability(v)
		case "index_mode":
			v, err = p.choice(o, string(lsm.Sync), string(lsm.Async))
			t.indexMode = lsm.IndexMode(v)
		case "maintain":
			t.maintain, err = p.nameList(o)
		case "shards":
			t.shards, err = p.shards(o)
		default:
			err = p.noOption(o, "table", tableOptionNames)
		}
		if err != nil {
			return t, err
		}
	}
	return t, nil
}

// shards reads a number of shards.
func (p *parsed) shards(o option) (int, error) {
	n, err := strconv.Atoi(o.value)
	if err != nil || n < 1 || n > lsm.MaxShards {
		return 0, p.optionError(o, "say a whole number from 1 to %d", lsm.MaxShards)
	}
	return n, nil
}

// nameList reads names between commas; 'all' is all that there will be, and an empty text none.
func (p *parsed) nameList(o option) ([]string, error) {
	if strings.EqualFold(strings.TrimSpace(o.value), "all") {
		return nil, nil
	}
	names := []string{}
	if strings.TrimSpace(o.value) == "" {
		return names, nil
	}
	for _, name := range strings.Split(o.value, ",") {
		if name = strings.TrimSpace(name); name == "" {
			return nil, p.optionError(o, "say the names of indexes with commas between them, '' for none or 'all'")
		}
		names = append(names, name)
	}
	return names, nil
}

// optionsOf returns the options of a table of the engine.
func optionsOf(d lsm.TableDef) tableOptions {
	return tableOptions{durability: d.Durability, indexMode: d.IndexMode, maintain: d.Maintain, shards: d.Shards}
}

// definition returns the table as the engine takes it.
func (t tableInfo) definition() lsm.TableDef {
	return lsm.TableDef{
		Name: lsm.TableName{Schema: t.schema, Name: t.name}, Schema: t.arrow, Key: t.key, SQL: t.sql, Comments: t.comments,
		Durability: t.durability, IndexMode: t.indexMode, Maintain: t.maintain, Shards: t.shards, Indexes: t.indexes,
	}
}
