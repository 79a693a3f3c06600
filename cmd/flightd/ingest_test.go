package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
	var text, lines strings.Builder
	lines.WriteString("id,word,score\n")
	for i := range n {
		fmt.Fprintf(&text, "%d w%d %d.5\n", i, i, i)
		fmt.Fprintf(&lines, "%d,w%d,%d.5\n", i, i, i)
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
		".csv": "\ufeff" + lines.String(), ".tsv": strings.ReplaceAll(lines.String(), ",", "\t")} {
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
