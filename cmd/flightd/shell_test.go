package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/flight"
)

// typed is a terminal at which somebody types what is in Reader.
type typed struct {
	io.Reader
	io.Writer
}

// typeInto runs a shell on keys and returns its results and notes.
func typeInto(t *testing.T, h *history, keys string) (stdout, stderr string) {
	t.Helper()
	url := testServer(t)
	client, err := flight.Dial(strings.TrimPrefix(url, "grpc://"))
	require.NoError(t, err)
	defer func() { require.NoError(t, client.Close()) }()
	var out, notes strings.Builder
	s := &sqlSession{client: client, url: url, format: "csv", stdout: &out, stderr: &notes}
	raw := func() (func(), error) { return func() {}, nil }
	require.NoError(t, newShell(s, typed{strings.NewReader(keys), io.Discard}, h, raw).run(context.Background()))
	return out.String(), notes.String()
}

func TestTheShellRunsStatementsOverSeveralLines(t *testing.T) {
	h := &history{}
	// The third is in two lines; the key that follows it brings it back, in one.
	stdout, stderr := typeInto(t, h, "SELECT 1\r AS a;\rSELECT 2 AS b; SELECT nonsense; SELECT 3;\rSELECT ';\r' AS c;\r\x1b[A\r\\q\rSELECT 4;\r")
	require.Equal(t, "a\n1\nb\n2\nc\n\";\n\"\nc\n\"; \"\n", stdout)
	require.Contains(t, stderr, "error: ")
	require.Contains(t, stderr, "nonsense")
	require.Equal(t, []string{"SELECT 1 AS a;", "SELECT 2 AS b;", "SELECT nonsense;", "SELECT 3;", "SELECT '; ' AS c;"}, h.entries)
}

func TestTheShellHasCommands(t *testing.T) {
	stdout, stderr := typeInto(t, &history{}, "CREATE TABLE words (id INTEGER PRIMARY KEY);\r\\d\r\\d words;\r\\x\r\\?\rexit\r")
	require.True(t, strings.HasPrefix(stdout, "name\nwords\ncolumn_name,"), stdout)
	require.Contains(t, stdout, "\nid,INTEGER,NO,PRI,")
	require.Contains(t, stderr, `unknown command \x`)
	require.Contains(t, stderr, "describes one")
}

func TestCtrlCDropsWhatWasTyped(t *testing.T) {
	h := &history{}
	url := testServer(t)
	client, err := flight.Dial(strings.TrimPrefix(url, "grpc://"))
	require.NoError(t, err)
	defer func() { require.NoError(t, client.Close()) }()
	var out strings.Builder
	s := &sqlSession{client: client, url: url, format: "csv", stdout: &out, stderr: io.Discard}
	// Keys come in the pieces in which a person types them.
	keys := io.MultiReader(strings.NewReader("SELECT 1\r"), strings.NewReader(", 2"), strings.NewReader("\x03"), strings.NewReader("SELECT 5 AS x;\r"), strings.NewReader("\x04"))
	raw := func() (func(), error) { return func() {}, nil }
	require.NoError(t, newShell(s, typed{keys, io.Discard}, h, raw).run(context.Background()))
	require.Equal(t, "x\n5\n", out.String())
}

func TestHistoryIsKept(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	h := openHistory()
	h.remember("SELECT 1\n  AS a")
	h.remember("SELECT 'two  spaces'")
	h.remember("SELECT 'two  spaces'")
	h.remember("SELECT 1 -- a comment\n, 2")
	for range historyEntries {
		h.remember("SELECT 1")
		h.remember("SELECT 2")
	}
	again := openHistory()
	require.Equal(t, historyEntries, again.Len())
	require.Equal(t, "SELECT 2;", again.At(0))
	require.Equal(t, "SELECT 1;", again.At(1))
	require.Equal(t, []string{"SELECT 1 AS a;", "SELECT 'two  spaces';"}, h.entries[:2])
	info, err := os.Stat(filepath.Join(os.Getenv("HOME"), ".flightd_history"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}
