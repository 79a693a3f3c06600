package query

import bind "github.com/duckdb/duckdb-go-bindings"

// DuckDBVersion returns the version of the DuckDB that is linked into the program, such as "v1.5.4".
func DuckDBVersion() string { return bind.LibraryVersion() }
