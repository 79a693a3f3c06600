package query

import (
	"slices"
	"strings"
)

// statementKind says who runs a statement.
type statementKind uint8

const (
	kindSelect        statementKind = iota // DuckDB, over a snapshot
	kindCatalog                            // the shadow: what tables there are, and what they look like
	kindCreate                             // CREATE TABLE
	kindDrop                               // DROP TABLE
	kindCreateView                         // CREATE VIEW
	kindDropView                           // DROP VIEW
	kindInsert                             // INSERT
	kindUpdate                             // UPDATE
	kindDelete                             // DELETE
	kindMerge                              // MERGE INTO
	kindTruncate                           // TRUNCATE
	kindAlter                              // ALTER TABLE
	kindOptimize                           // OPTIMIZE name, CALL flightd_flush('name')
	kindCall                               // CALL of another function of ours
	kindVacuum                             // VACUUM [name]
	kindComment                            // COMMENT ON
	kindCreateIndex                        // CREATE INDEX
	kindDropIndex                          // DROP INDEX
	kindOptimizeIndex                      // ALTER INDEX name OPTIMIZE
	kindShowIndexes                        // SHOW INDEXES
)

// A parsed statement is its text with what the lexer found out about it.
type parsed struct {
	sql    string // one statement, up to its last token
	tokens []token
	kind   statementKind
	verb   int // the place of INSERT, UPDATE or DELETE, which is behind the clause of a WITH
}

// selectWords begin a query.
var selectWords = []string{"SELECT", "WITH", "VALUES", "FROM", "TABLE", "PIVOT", "UNPIVOT", "SUMMARIZE", "("}

// refused are statements that stay off, with the reason.
var refused = map[string]string{
	"ATTACH": "other databases cannot be attached", "DETACH": "databases cannot be detached",
	"USE":  "the catalog is flightd and the schema is main; name them in the session",
	"COPY": "the server's files are off for clients; stream through Flight instead", "EXPORT": "the server's files are off for clients",
	"IMPORT": "the server's files are off for clients", "INSTALL": "extensions are off", "LOAD": "extensions are off",
	"FORCE": "extensions are off", "SET": "settings belong to the server", "RESET": "settings belong to the server",
	"PRAGMA": "settings belong to the server; use DESCRIBE, SHOW TABLES or information_schema to look around",
	"CALL":   callNames, "CHECKPOINT": "use OPTIMIZE table",
	"PREPARE": "statements are prepared through Flight SQL", "EXECUTE": "statements are prepared through Flight SQL",
	"DEALLOCATE": "statements are prepared through Flight SQL",
}

// later are statements that the engine does not run yet.
var later = []string{"ANALYZE", "REINDEX",
	"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "REFRESH", "GRANT", "REVOKE"}

// refusedFunctions reach beyond the tables of the catalog: files, the settings and log of the instance, pointers, or
// SQL text that no lexer has seen. DuckDB itself refuses the file readers, too; here they get a reason.
var refusedFunctions = []string{
	"arrow_scan", "arrow_scan_dumb", "checkpoint", "force_checkpoint", "check_peg_parser", "enable_peg_parser", "disable_peg_parser",
	"enable_logging", "disable_logging", "write_log", "truncate_duckdb_logs", "duckdb_logs", "duckdb_log_contexts", "duckdb_logs_parsed",
	"enable_profiling", "disable_profiling", "duckdb_extensions", "duckdb_secrets", "which_secret", "duckdb_settings", "current_setting",
	"glob", "read_blob", "read_text", "read_csv", "read_csv_auto", "sniff_csv", "read_json", "read_json_auto", "read_json_objects",
	"read_json_objects_auto", "read_ndjson", "read_ndjson_auto", "read_ndjson_objects", "read_parquet", "parquet_scan", "parquet_metadata",
	"parquet_schema", "parquet_file_metadata", "parquet_full_metadata", "parquet_kv_metadata", "parquet_bloom_probe", "read_duckdb",
	"query", "json_execute_serialized_sql", "seq_scan", "dbgen", "dsdgen", "duckdb_prepared_statements", "duckdb_temporary_files",
	"duckdb_external_file_cache", "sql_auto_complete", scanFunction, searchFunction, batchFunction,
}

// refusedViews are DuckDB's views that tell about the instance and not about tables.
var refusedViews = []string{"pg_settings", "duckdb_logs", "pg_prepared_statements", "duckdb_settings", "duckdb_secrets"}

// parse splits off the one statement of the text and finds out its kind.
func parse(sql string) (*parsed, error) {
	tokens, err := lex(sql)
	if err != nil {
		return nil, err
	}
	p := &parsed{sql: sql, tokens: tokens}
	if i := slices.IndexFunc(tokens, func(t token) bool { return t.is(";") }); i >= 0 {
		rest := slices.IndexFunc(tokens[i:], func(t token) bool { return !t.is(";") })
		if rest >= 0 {
			return nil, &Error{Code: InvalidArgument, Message: "one statement at a time: there is text after the semicolon", Position: tokens[i+rest].start + 1}
		}
		p.tokens = tokens[:i]
	}
	if len(p.tokens) == 0 {
		return nil, errorf(InvalidArgument, "there is no statement in the text")
	}
	// A comment at the end would swallow what INSERT gets appended.
	p.sql = sql[:p.tokens[len(p.tokens)-1].end]
	if err := p.checkFunctions(); err != nil {
		return nil, err
	}
	return p, p.classify()
}

// checkFunctions refuses calls by name, wherever they stand, and views by name, where a table can stand.
func (p *parsed) checkFunctions() error {
	for i, t := range p.tokens {
		if t.ident() && i > 0 && slices.Contains([]string{"FROM", "JOIN", ",", "."}, p.word(i-1)) && slices.Contains(refusedViews, strings.ToLower(t.name)) {
			return &Error{Code: PermissionDenied, Position: t.start + 1,
				Message: "the view " + strings.ToLower(t.name) + " is off for clients: statements see tables, not the settings of the engine"}
		}
		if !t.ident() || i+1 >= len(p.tokens) || !p.tokens[i+1].is("(") {
			continue
		}
		if i > 0 && slices.Contains([]string{"TABLE", "INTO", "EXISTS"}, p.word(i-1)) { // a table of that name
			continue
		}
		if slices.Contains(refusedFunctions, strings.ToLower(t.name)) {
			return &Error{Code: PermissionDenied, Position: t.start + 1,
				Message: "the function " + strings.ToLower(t.name) + " is off for clients: statements see tables, not files, settings or the engine's inside"}
		}
	}
	return nil
}

// word returns the text of the token at i, "" beyond either end.
func (p *parsed) word(i int) string {
	if i < 0 || i >= len(p.tokens) || !(p.tokens[i].kind == word || p.tokens[i].kind == punctuation) {
		return ""
	}
	return p.tokens[i].text
}

// classify sets the kind, or answers what does not run.
func (p *parsed) classify() error {
	first := p.word(0)
	switch {
	case slices.Contains(selectWords, first):
		return p.classifySelect()
	case p.namesIndex():
		_, err := p.indexing()
		return err
	case first == "VACUUM":
		p.kind = kindVacuum
		return nil
	case first == "DESCRIBE", first == "DESC", first == "SHOW":
		p.kind = kindCatalog
		return nil
	case first == "EXPLAIN":
		return p.classifyExplain()
	case first == "CREATE":
		return p.classifyCreate()
	case first == "DROP":
		if p.kind = kindDrop; p.word(1) == "VIEW" {
			p.kind = kindDropView
			return nil
		}
		if p.word(1) != "TABLE" {
			return p.unimplemented("DROP " + p.word(1))
		}
		return nil
	case first == "INSERT", first == "UPDATE", first == "DELETE", first == "MERGE":
		return p.classifyChange()
	case first == "ALTER":
		p.kind = kindAlter
		_, err := p.altering()
		return err
	case first == "COMMENT":
		p.kind = kindComment
		_, err := p.commenting()
		return err
	case first == "TRUNCATE":
		p.kind = kindTruncate
		_, err := p.truncateTarget()
		return err
	case first == "OPTIMIZE":
		p.kind = kindOptimize
		return nil
	case first == "CALL" && strings.EqualFold(p.wordName(1), "flightd_flush"):
		p.kind = kindOptimize
		return nil
	case first == "CALL" && callSchemas[strings.ToLower(p.wordName(1))] != nil:
		p.kind = kindCall
		_, err := p.calling()
		return err
	case slices.Contains(later, first):
		return p.unimplemented(first)
	}
	if reason, ok := refused[first]; ok {
		return &Error{Code: PermissionDenied, Message: first + " is off for clients: " + reason, Position: p.tokens[0].start + 1}
	}
	return &Error{Code: InvalidArgument, Position: p.tokens[0].start + 1,
		Message: "Parser Error: syntax error at or near \"" + p.sql[p.tokens[0].start:p.tokens[0].end] + "\""}
}

// namesIndex says whether the statement is about indexes, and sets its kind if so: CREATE [OR REPLACE] [UNIQUE] INDEX,
// DROP INDEX, ALTER INDEX, SHOW INDEXES.
func (p *parsed) namesIndex() bool {
	i := 1
	switch p.word(0) {
	case "CREATE":
		p.kind = kindCreateIndex
		if p.word(i) == "OR" && p.word(i+1) == "REPLACE" {
			i += 2
		}
		if p.word(i) == "UNIQUE" {
			i++
		}
	case "DROP":
		p.kind = kindDropIndex
	case "ALTER":
		p.kind = kindOptimizeIndex
	case "SHOW":
		p.kind = kindShowIndexes
		return p.word(i) == "INDEXES"
	default:
		return false
	}
	return p.word(i) == "INDEX"
}

// wordName returns the name at i as written.
func (p *parsed) wordName(i int) string {
	if i >= len(p.tokens) {
		return ""
	}
	return p.tokens[i].name
}

// unimplemented is the answer to a statement that will run one day.
func (p *parsed) unimplemented(what string) error {
	return &Error{Code: Unimplemented, Message: strings.TrimSpace(what) + " is not implemented yet", Position: p.tokens[0].start + 1}
}

// catalogNames are the schemas and functions that tell about tables. Only the shadow knows the tables as tables.
var catalogNames = []string{"information_schema", "pg_catalog", "sqlite_master", "sqlite_schema", "duckdb_tables", "duckdb_columns",
	"duckdb_constraints", "duckdb_views", "duckdb_schemas", "duckdb_databases", "duckdb_indexes", "duckdb_dependencies", "duckdb_table_sample",
	"pragma_table_info", "pragma_show", "pragma_storage_info", "pg_tables", "pg_class", "pg_attribute", "pg_namespace"}

// classifySelect tells queries over tables from those over the catalog.
func (p *parsed) classifySelect() error {
	p.kind = kindSelect
	for _, t := range p.tokens {
		if t.ident() && slices.Contains(catalogNames, strings.ToLower(t.name)) || t.is("DESCRIBE") || t.is("SHOW") {
			p.kind = kindCatalog
		}
	}
	if p.word(0) != "WITH" {
		return nil
	}
	// WITH can stand before statements that change something; their first word comes behind its last parenthesis.
	verb := p.top(1, "INSERT", "UPDATE", "DELETE", "MERGE")
	if p.word(verb-1) != ")" {
		return nil
	}
	switch p.word(verb) {
	case "INSERT", "UPDATE", "DELETE", "MERGE":
		p.verb = verb
		return p.classifyChange()
	}
	return nil
}

// classifyChange sets the kind of INSERT, UPDATE and DELETE and checks their form.
func (p *parsed) classifyChange() (err error) {
	switch p.word(p.verb) {
	case "INSERT":
		p.kind = kindInsert
		_, err = p.insertion()
	case "UPDATE":
		p.kind = kindUpdate
		_, err = p.changing()
	case "MERGE":
		p.kind = kindMerge
		_, err = p.merging()
	default:
		p.kind = kindDelete
		_, err = p.changing()
	}
	return err
}

// classifyExplain looks at what is explained: EXPLAIN ANALYZE runs it.
func (p *parsed) classifyExplain() error {
	p.kind = kindSelect
	i := p.explainedAt()
	if !slices.Contains(selectWords, p.word(i)) {
		return p.unimplemented("EXPLAIN " + p.word(i))
	}
	return nil
}

// explainedAt returns the place of the first word of what an EXPLAIN is about.
func (p *parsed) explainedAt() int {
	i := 1
	if p.word(i) == "ANALYZE" {
		i++
	}
	if p.word(i) == "(" {
		for i++; i < len(p.tokens) && p.tokens[i].depth > 0; i++ {
		}
		i++
	}
	return i
}

// classifyCreate accepts tables.
func (p *parsed) classifyCreate() error {
	p.kind = kindCreate
	what := 1
	if p.word(1) == "OR" && p.word(2) == "REPLACE" {
		what = 3
	}
	if p.word(what) == "VIEW" {
		p.kind = kindCreateView
		return nil
	}
	if p.word(what) != "TABLE" {
		return p.unimplemented("CREATE " + p.word(what))
	}
	return nil
}
