package main

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/flight"
	"github.com/flightd/flightd/lsm"
	"github.com/flightd/flightd/query"
)

// testServer runs a server on an empty folder until the test ends and returns its URL.
func testServer(t *testing.T) string {
	t.Helper()
	ctx := context.Background()
	db, err := lsm.Open(ctx, lsm.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	engine, err := query.Open(ctx, query.Options{DB: db, Temp: t.TempDir()})
	require.NoError(t, err)
	server, err := flight.NewServer(flight.Options{DB: db, Query: engine})
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		require.NoError(t, server.Shutdown(ctx))
		require.NoError(t, <-served)
		engine.Close()
		require.NoError(t, db.Close())
	})
	return "grpc://" + listener.Addr().String()
}

func TestSQLPrintsResultsInEachFormat(t *testing.T) {
	url := testServer(t)
	f := func(format, statement, want string) {
		t.Helper()
		code, stdout, stderr := call("sql", "--url", url, "--format", format, "-c", statement)
		require.Zero(t, code, stderr)
		require.Equal(t, want, stdout)
		require.Regexp(t, `^\d rows?, [0-9.]+ m?s\n$`, stderr)
	}
	const statement = `SELECT 7 AS n, 'a,"ü"' AS word, NULL AS nothing, '' AS "empty" UNION ALL SELECT 1234, E'x\ny', 'z', ' ' ORDER BY 1`
	f("table", statement, ""+
		"    n │ word  │ nothing │ empty\n"+
		"──────┼───────┼─────────┼───────\n"+
		"    7 │ a,\"ü\" │ NULL    │\n"+
		" 1234 │ x\\ny  │ z       │\n")
	f("csv", statement, "n,word,nothing,empty\n7,\"a,\"\"ü\"\"\",,\"\"\n1234,\"x\ny\",z,\" \"\n")
	f("json", statement, `{"n":7,"word":"a,\"ü\"","nothing":null,"empty":""}`+"\n"+`{"n":1234,"word":"x\ny","nothing":"z","empty":" "}`+"\n")
	f("table", "SELECT chr(27) || '[31m' AS c WHERE 1 = 1", " c\n──────────\n \\x1b[31m\n")
	f("table", "SELECT 1 AS one WHERE false", " one\n─────\n")
	f("table", "SELECT 'plan' AS explain_key, 'a' || chr(10) || ' b' || chr(27) AS explain_value", "plan:\na\n b\\x1b\n")
	const decimals = "SELECT 1.5::DECIMAL(10,2) AS a, 0.00001::DECIMAL(10,8) AS b, (-7)::DECIMAL(38,0) AS c"
	f("table", decimals, "    a │          b │  c\n──────┼────────────┼────\n 1.50 │ 0.00001000 │ -7\n")
	f("csv", decimals, "a,b,c\n1.50,0.00001000,-7\n")
	f("json", decimals, `{"a":"1.50","b":"0.00001000","c":"-7"}`+"\n")
	f("csv", "SELECT 1 AS one WHERE false", "one\n")
}

func TestSQLPrintsArrow(t *testing.T) {
	url := testServer(t)
	code, stdout, stderr := call("sql", "--url", url, "--format", "arrow", "-c", "SELECT i FROM range(5000) t(i)")
	require.Zero(t, code, stderr)
	r, err := ipc.NewReader(strings.NewReader(stdout))
	require.NoError(t, err)
	defer r.Release()
	rows := int64(0)
	for r.Next() {
		rows += r.RecordBatch().NumRows()
	}
	require.NoError(t, r.Err())
	require.EqualValues(t, 5000, rows)

	code, _, stderr = call("sql", "--url", url, "--format", "arrow", "-c", "SELECT 1; SELECT 2")
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, "prints one result only")
}

func TestSQLRunsScriptsUntilTheFirstError(t *testing.T) {
	url := testServer(t)
	code, stdout, stderr := callWith("CREATE TABLE t (id INTEGER PRIMARY KEY);\nINSERT INTO t VALUES (1), (2); -- two\nSELECT count(*) AS n FROM t",
		"sql", "--url", url, "--format", "csv")
	require.Zero(t, code, stderr)
	require.Equal(t, "n\n2\n", stdout)
	require.Contains(t, stderr, "done, 2 rows changed")

	code, stdout, stderr = call("sql", "--url", url, "--format", "csv", "-c", `\d`, "-c", "SELECT 1 AS a", "-c", `\d t`)
	require.Zero(t, code, stderr)
	require.Equal(t, "name\nt\na\n1\ncolumn_name,column_type,null,key,default,extra\nid,INTEGER,NO,PRI,,\n", stdout)

	code, stdout, stderr = call("sql", "--url", url, "--format", "csv", "-c", "SELECT 1 AS a", "-c", "SELECT * FROM nowhere; SELECT 2")
	require.Equal(t, exitFailed, code)
	require.Equal(t, "a\n1\n", stdout)
	require.Contains(t, stderr, "flightd: statement 2 of 3: ")
	require.Contains(t, stderr, "(NotFound)")
	require.NotContains(t, stderr, "rpc error")
}

func TestSQLSaysWhenNobodyAnswers(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	code, _, stderr := call("sql", "--url", address, "-c", "SELECT 1")
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, "no answer from "+address)
}
