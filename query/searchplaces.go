package query

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unsafe"

	bind "github.com/duckdb/duckdb-go-bindings"

	"github.com/flightd/flightd/lsm"
)

// placeColumn is the last column of the scan, which only queries of ours read: the row's place in the snapshot.
const placeColumn = "flightd_place"

// columnRefs finds the columns in a condition that was written by planText. Texts in quotes are passed over.
var columnRefs = regexp.MustCompile(`'(?:[^']|'')*'|"(?:[^"]|"")*"|\bc[0-9]+\b`)

// placesWhere returns the places of the rows of a table that fulfil a condition over c0, c1, …
func (r *Result) placesWhere(table int64, where string, f *scanFilter) (*lsm.Places, error) {
	t, ok := r.lease.table(table)
	if !ok {
		return nil, errTableChanged
	}
	list := []string{quoteIdent(placeColumn)}
	var seen []string
	for _, c := range columnRefs.FindAllString(where, -1) {
		var n int
		if _, err := fmt.Sscanf(c, "c%d", &n); err != nil || slices.Contains(seen, c) || n >= t.arrow.NumFields() {
			continue
		}
		seen = append(seen, c)
		list = append(list, quoteIdent(t.arrow.Field(n).Name)+" AS "+c)
	}
	sql := fmt.Sprintf("SELECT %s FROM (SELECT %s FROM %s(%d)) WHERE %s", placeColumn, strings.Join(list, ", "), scanFunction, table, where)
	back := r.exec.beginInner(&hints{binds: []int64{table}}, map[int]*scanFilter{0: f})
	defer back()
	places := lsm.NewPlaces()
	err := r.in.eachNumber(r.conn, sql, func(chunk []uint64) error {
		places.Add(chunk)
		return r.ctx.Err()
	})
	if err != nil {
		return nil, r.causeOr(err)
	}
	return places, nil
}

// beginInner makes room for a query of ours on the connection of a statement that is bound, and returns what undoes that.
func (x *execution) beginInner(h *hints, filters map[int]*scanFilter) (back func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	binds, fresh, oldHints, oldFilters, searches := x.binds, x.newBinding, x.hints, x.filters, x.searches
	x.binds, x.newBinding, x.hints, x.filters, x.searches = nil, true, h, filters, nil
	return func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.binds, x.newBinding, x.hints, x.filters, x.searches = binds, fresh, oldHints, oldFilters, searches
	}
}

// eachNumber calls fn with the values of the one column of a query of ours, a UBIGINT, a chunk at a time.
func (in *instance) eachNumber(conn bind.Connection, sql string, fn func([]uint64) error) error {
	ps, free, err := in.prepareOne(conn, sql)
	if err != nil {
		return err
	}
	defer free()
	var res bind.Result
	defer bind.DestroyResult(&res)
	if bind.ExecutePreparedStreaming(ps, &res) == bind.StateError {
		return in.check(bind.ResultError(&res), sql)
	}
	for {
		chunk := bind.FetchChunk(res)
		if chunk.Ptr == nil {
			if message := bind.ResultError(&res); message != "" {
				return in.check(message, sql)
			}
			return nil
		}
		n := int(bind.DataChunkGetSize(chunk))
		err := fn(unsafe.Slice((*uint64)(bind.VectorGetData(bind.DataChunkGetVector(chunk, 0))), n))
		bind.DestroyDataChunk(&chunk)
		if err != nil {
			return err
		}
	}
}
