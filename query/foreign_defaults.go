package query

import "github.com/flightd/flightd/lsm"

// defaultsBefore returns the defaults of columns that a table had before another program changed its columns: its dataset does not
// know them.
func defaultsBefore(t *lsm.Table) map[string]string {
	sql, names := t.SQLBefore()
	if sql == "" {
		return nil
	}
	all := defaultsIn(sql)
	out := make(map[string]string)
	for name, before := range names {
		if x, ok := all[before]; ok {
			out[name] = x
		}
	}
	return out
}

// defaultsIn returns the defaults of the columns of a CREATE TABLE statement in DuckDB's own words, which has them as DEFAULT(x).
func defaultsIn(sql string) map[string]string {
	tokens, err := lex(sql)
	if err != nil {
		return nil
	}
	p := &parsed{sql: sql, tokens: tokens}
	out := make(map[string]string)
	start := 0 // of the list
	for start < len(tokens) && !tokens[start].is("(") {
		start++
	}
	column := ""
	for i := start + 1; i < len(tokens); i++ {
		switch {
		case tokens[i-1].is("(") && i-1 == start, tokens[i-1].is(",") && tokens[i].depth == tokens[start].depth+1:
			column = tokens[i].name
		case tokens[i].is("DEFAULT") && i+1 < len(tokens) && tokens[i+1].is("("):
			if end := p.closing(i + 1); end < len(tokens) && end > i+2 {
				out[column] = sql[tokens[i+2].start:tokens[end-1].end]
				i = end
			}
		}
	}
	return out
}
