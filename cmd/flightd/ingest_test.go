package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
)

// ingestFiles writes n rows as a file of each kind, keys from 0 on, and returns the files by their ending.
func ingestFiles(t *testing.T, n int) map[string]string {
	t.Helper()
	var text, lines, objects strings.Builder
	lines.WriteString("id,word,score\n")
	for i := range n {
		fmt.Fprintf(&text, "%d w%d %d.5\n", i, i, i)
		fmt.Fprintf(&lines, "%d,w%d,%d.5\n", i, i, i)
		fmt.Fprintf(&objects, "{\"id\": %d, \"word\": \"w%d\", \"score\": %d.5}\n", i, i, i)
	}
	schema, err := rows.Schema("id int64, word utf8, score double")
	require.NoError(t, err)
	rec, err := rows.Parse(schema, strings.TrimSpace(text.String()))
	require.NoError(t, err)
	defer rec.Release()

	var stream, file, columns bytes.Buffer
	w := ipc.NewWriter(&stream, ipc.WithSchema(schema))
	require.NoError(t, w.Write(rec))
	require.NoError(t, w.Close())
	f, err := ipc.NewFileWriter(&file, ipc.WithSchema(schema))
	require.NoError(t, err)
	require.NoError(t, f.Write(rec))
	require.NoError(t, f.Close())
	table := array.NewTableFromRecords(schema, []arrow.RecordBatch{rec})
	defer table.Release()
	require.NoError(t, pqarrow.WriteTable(table, &columns, 1000, parquet.NewWriterProperties(), pqarrow.DefaultWriterProps()))

	files := map[string]string{}
	for ext, content := range map[string]string{".arrows": stream.String(), ".arrow": file.String(), ".parquet": columns.String(),
		".csv": "\ufeff" + lines.String(), ".tsv": strings.ReplaceAll(lines.String(), ",", "\t"), ".jsonl": objects.String(), ".ndjson": objects.String()} {
		files[ext] = filepath.Join(t.TempDir(), "data"+ext)
		require.NoError(t, os.WriteFile(files[ext], []byte(content), 0o644))
	}
	return files
}

func TestIngestReadsEveryKindOfFile(t *testing.T) {
	const n = 20_000 // several batches
	url := testServer(t)
	for ext, file := range ingestFiles(t, n) {
		name := strings.TrimPrefix(ext, ".")
		for range 2 { // the second time the table exists, and its key replaces rows
			code, stdout, stderr := call("ingest", file, "--url", url, "--table", name, "--create", "--key", "ID")
			require.Zero(t, code, stderr)
			require.Regexp(t, `^20,000 rows from 1 file stored in "`+name+`" in .*, [0-9,]+ rows/s\n$`, stdout)
			require.Empty(t, stderr)
		}
		code, stdout, stderr := call("sql", "--url", url, "--format", "csv", "-c",
			`SELECT count(*) AS n, sum(id) AS ids, max(word) AS word, sum(score) AS score FROM "`+name+`"`)
		require.Zero(t, code, stderr)
		require.Equal(t, "n,ids,word,score\n20000,199990000,w9999,200000000\n", strings.ReplaceAll(stdout, "2e+08", "200000000"))
	}
}

func TestIngestTakesSeveralFilesAndStdin(t *testing.T) {
	url := testServer(t)
	files := ingestFiles(t, 10)
	code, stdout, stderr := call("ingest", files[".csv"], files[".parquet"], "--url", url, "--table", "plain", "--create")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, `20 rows from 2 files stored in "plain"`)
	stream, err := os.ReadFile(files[".arrows"])
	require.NoError(t, err)
	code, stdout, stderr = callWith(string(stream), "ingest", "-", "--url", url, "--table", "plain")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "10 rows from 1 file")
	code, stdout, _ = call("sql", "--url", url, "--format", "csv", "-c", "SELECT count(*) AS n FROM plain")
	require.Zero(t, code)
	require.Equal(t, "n\n30\n", stdout)
}

func TestIngestSaysWhatIsWrongAndWhatIsStored(t *testing.T) {
	url := testServer(t)
	code, _, stderr := call("sql", "--url", url, "-c", "CREATE TABLE t (id BIGINT PRIMARY KEY, day DATE)")
	require.Zero(t, code, stderr)
	f := func(ext, content, table string, want ...string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "data"+ext)
		require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
		code, stdout, stderr := call("ingest", file, "--url", url, "--table", table)
		require.Equal(t, exitFailed, code)
		require.Empty(t, stdout)
		for _, text := range want {
			require.Contains(t, stderr, text)
		}
	}
	f(".csv", "id\n1\n", "nowhere", `table "nowhere" does not exist; --create makes it`)
	f(".csv", "id,dai\n1,2\n", "t", `the table has no column "dai"; it has id, day`)
	f(".csv", "id,day\n1,2026-01-01\n2,soon\n", "t", `line 3, column "day": "soon" is no date32`)
	f(".csv", "id,day\n1\n", "t", "wrong number of fields")
	f(".csv", "", "t", "the file is empty")
	f(".csv", strings.Repeat("id,day\n", 1)+strings.Repeat("1,2026-01-01\n", batchRows)+",2026-01-01\n", "t",
		"a key may not be null", "stored are the first 8,192 rows")
	f(".parquet", "PAR1 no parquet PAR1", "t", "open ")
	f(".arrow", "ARROW1\x00\x00 nothing", "t", "open ")
	f(".xml", "<a/>", "t", "want .parquet, .arrow")
	code, _, stderr = call("ingest", "x.csv", "--table", "t", "--key", "id")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "--create")
}

func TestIngestUnderAKeyIsStoredOnce(t *testing.T) {
	url := testServer(t)
	files := ingestFiles(t, 20_000)
	two := []string{"ingest", files[".csv"], files[".parquet"], "--url", url, "--table", "t", "--create", "--idempotency-key", "k"}
	count := func(want string) {
		t.Helper()
		code, stdout, stderr := call("sql", "--url", url, "--format", "csv", "-c", "SELECT count(*) AS n, count(DISTINCT id) AS d FROM t")
		require.Zero(t, code, stderr)
		require.Equal(t, "n,d\n"+want+"\n", stdout)
	}
	for _, before := range []string{`stored in "t" in`, `stored in "t" (40,000 were stored before) in`} {
		code, stdout, stderr := call(two...)
		require.Zero(t, code, stderr)
		require.Contains(t, stdout, "40,000 rows from 2 files "+before)
		count("40000,20000")
	}

	// A line in the middle that cannot be read ends the first run; the second goes on behind what that stored.
	good, err := os.ReadFile(files[".jsonl"])
	require.NoError(t, err)
	lines := strings.SplitAfter(string(good), "\n")
	bad := strings.Join(lines[:15_000], "") + "{\"id\": \"no number\"}\n" + strings.Join(lines[15_001:], "")
	for _, resume := range []bool{true, false} {
		args := []string{"ingest", files[".jsonl"], "--url", url, "--table", "t", "--idempotency-key", fmt.Sprint("file", resume)}
		if resume {
			args = append(args, "--resume")
		}
		require.NoError(t, os.WriteFile(files[".jsonl"], []byte(bad), 0o644))
		code, _, stderr := call(args...)
		require.Equal(t, exitFailed, code)
		require.Contains(t, stderr, `line 15001, column "id": "no number" is no int64`)
		require.NoError(t, os.WriteFile(files[".jsonl"], good, 0o644))
		var stdout string
		require.Eventually(t, func() bool { // the server may not know yet that the first run is gone
			code, stdout, stderr = call(args...)
			return !strings.Contains(stderr, "another stream")
		}, time.Minute, time.Millisecond)
		require.Zero(t, code, stderr)
		require.Contains(t, stdout, "20,000 rows from 1 file stored")
		code, stdout, stderr = call(args...)
		require.Zero(t, code, stderr)
		require.Contains(t, stdout, "(20,000 were stored before)")
	}
	count("80000,20000")
	code, _, stderr := call("ingest", files[".csv"], "--url", url, "--table", "t", "--resume")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "--idempotency-key")
}

func TestJSONLines(t *testing.T) {
	url := testServer(t)
	ingest := func(content string, args ...string) (int, string, string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "data.jsonl")
		require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
		return call(append([]string{"ingest", file, "--url", url}, args...)...)
	}
	rows := func(sql string) string {
		t.Helper()
		code, stdout, stderr := call("sql", "--url", url, "--format", "json", "-c", sql)
		require.Zero(t, code, stderr)
		return strings.TrimSpace(stdout)
	}
	code, _, stderr := ingest(`{"id": 9007199254740993, "on": "2026-02-28", "at": "2026-02-28T12:00:00Z", "ok": true, "x": 1}`+"\n\n"+
		`{"tags": ["a", null], "at": null, "o": {"b": 1.5, "c": {"d": "1"}}, "x": 2.5, "mixed": 7, "text": ""}`+"\r\n"+
		`{"id": 2, "tags": [], "o": {}, "mixed": "7", "mixed": true, "text": "(null)"}`, "--table", "made", "--create")
	require.Zero(t, code, stderr)
	require.Equal(t, `{"id":9007199254740993,"t":"{DATE,TIMESTAMP WITH TIME ZONE,BOOLEAN,DOUBLE,VARCHAR[],STRUCT(b DOUBLE, c STRUCT(d VARCHAR)),VARCHAR,VARCHAR}"}`,
		strings.ReplaceAll(rows(`SELECT id, '{' || concat_ws(',', typeof("on"), typeof("at"), typeof(ok), typeof(x), typeof(tags), typeof(o), typeof(mixed), typeof(text)) || '}' AS t
		 FROM made WHERE id > 2`), `\"`, ``))
	require.Equal(t, `{"n":1,"tags":["a",null],"b":1.5,"d":"1","x":2.5,"mixed":"7","text":""}`,
		rows(`SELECT count(*) OVER () AS n, tags, o.b AS b, o.c.d AS d, x, mixed, text FROM made WHERE x = 2.5`))
	require.Equal(t, `{"tags":[],"mixed":"true","text":"(null)","empty":true}`, rows(`SELECT tags, mixed, text, o.b IS NULL AS empty FROM made WHERE id = 2`))

	code, _, stderr = call("sql", "--url", url, "-c", "CREATE TABLE t (id BIGINT PRIMARY KEY, v FLOAT[3], d DECIMAL(9,2), s VARCHAR)")
	require.Zero(t, code, stderr)
	code, _, stderr = ingest(`{"ID": 1, "v": [1, 2.5, -3], "d": 12.34, "s": 5}`+"\n"+`{"id": 2, "d": "1.5", "_tombstone": false}`, "--table", "t")
	require.Zero(t, code, stderr)
	require.Equal(t, `{"id":1,"v":[1,2.5,-3],"d":"12.34","s":"5"}`+"\n"+`{"id":2,"v":null,"d":"1.50","s":null}`, rows("SELECT * FROM t ORDER BY id"))
	f := func(content string, want string) {
		t.Helper()
		code, _, stderr := ingest(content, "--table", "t")
		require.Equal(t, exitFailed, code)
		require.Contains(t, stderr, want)
	}
	f("", "the file has no rows")
	f(`[1]`, "line 1: it is JSON, but no object")
	f(`{"id": 1} {"id": 2}`, "each row has a line of its own")
	f(`{"id": 1`, "line 1: it is no JSON")
	f(`{"id": 1, "colour": 2}`, `the table has no column "colour"`)
	f("{\"id\": 1}\n{\"id\": \"x\"}", `line 2, column "id": "x" is no int64`)
	f(`{"id": 1, "v": [1, 2]}`, `column "v": a list of 2 is no`)
	f(`{"id": 1, "v": {"x": 1}}`, "an object is no")
	f(`{"id": [1]}`, "a list is no int64")
	f(strings.Repeat(`{"id":`, 100), "nest deeper")
	f(strings.Repeat("{\"id\": 1}\n", sampleRows)+`{"id": 1, "s": ""}`, `line 10001, column "s": it is a new one`)
	code, _, stderr = ingest("{\"a\": 1}\n{\"a\": [1]}", "--table", "new", "--create")
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, `column "a": it holds lists or objects, and other values`)
}

func TestTypesOfTextAreGuessed(t *testing.T) {
	f := func(want string, values ...string) {
		t.Helper()
		var sample [][]string
		for _, v := range values {
			sample = append(sample, []string{v})
		}
		require.Equal(t, want, guessType(sample, 0).String(), values)
	}
	f("utf8")
	f("utf8", "", "")
	f("bool", "true", "", "FALSE")
	f("int64", "1", "-7", "0")
	f("float64", "1", "2.5", "1e9")
	f("utf8", "1", "x")
	f("utf8", "01069", "80331")
	f("utf8", "9223372036854775808x")
	f("float64", "9223372036854775808")
	f("date32", "2026-02-28", "1969-01-01")
	f("timestamp[us]", "2026-02-28 12:00:00", "2026-02-28T12:00:00.5")
	f("timestamp[us, tz=UTC]", "2026-02-28T12:00:00Z", "2026-02-28T12:00:00+02:00")
	f("utf8", "2026-02-28", "tomorrow")
}
