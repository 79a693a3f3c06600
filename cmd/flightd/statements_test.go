package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStatementsEndAtSemicolons(t *testing.T) {
	f := func(text string, rest string, want ...string) {
		t.Helper()
		got, left := splitStatements(text)
		require.Equal(t, want, got, text)
		require.Equal(t, rest, left, text)
	}
	f("", "")
	f(" ;; \n;", "")
	f("SELECT 1", "SELECT 1")
	f("SELECT 1;", "", "SELECT 1")
	f("SELECT 1; SELECT 2;\n select 3 ", "select 3", "SELECT 1", "SELECT 2")
	f("SELECT ';' ; x", "x", "SELECT ';'")
	f("SELECT 'it''s; ' ;", "", "SELECT 'it''s; '")
	f(`SELECT 1 AS "a;b";`, "", `SELECT 1 AS "a;b"`)
	f("SELECT 1 -- no; end\n;", "", "SELECT 1 -- no; end")
	f("-- a comment; only\n", "")
	f("/* ; */ SELECT /* ; */ 2;", "", "/* ; */ SELECT /* ; */ 2")
	f("SELECT $$a;b$$, $x$;$$;$x$;", "", "SELECT $$a;b$$, $x$;$$;$x$")
	f("SELECT $1, a$b; SELECT 2", "SELECT 2", "SELECT $1, a$b")
	f("SELECT 'open; ", "SELECT 'open;")
	f("SELECT 1;\xff", "\xff", "SELECT 1")
}
