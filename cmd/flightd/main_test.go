package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// call runs a command line in this process.
func call(args ...string) (code int, stdout, stderr string) {
	return callWith("", args...)
}

// callWith is call with a text on stdin.
func callWith(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, errs strings.Builder
	code = process{args: args, stdin: strings.NewReader(stdin), stdout: &out, stderr: &errs}.run()
	return code, out.String(), errs.String()
}

func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	for _, command := range [][]string{{}, {"serve"}, {"demo"}, {"sql"}, {"ingest"}, {"check"}, {"inspect"}, {"version"}} {
		code, stdout, stderr := call(append(command, "--help")...)
		require.Zero(t, code, stderr)
		require.Contains(t, stdout, "Examples:\n  ")
	}
}

func TestWrongCommandLinesExitWithTwo(t *testing.T) {
	for _, args := range [][]string{{"srve"}, {"serve", "--dta", "x"}, {"serve", "extra"}, {"version", "--x"}, {"serve", "--grace", "x"}, {"check"}, {"inspect", "x", "y", "z"},
		{"sql", "x"}, {"sql", "--url", "http://x:1"}, {"sql", "--url", "grpc://x"}, {"sql", "--format", "xml"},
		{"ingest", "--table", "t"}, {"ingest", "x.csv"}} {
		code, stdout, stderr := call(args...)
		require.Equal(t, exitUsage, code, args)
		require.Empty(t, stdout)
		require.Contains(t, stderr, "--help")
	}
}

func TestVersionNamesTheParts(t *testing.T) {
	code, stdout, _ := call("version")
	require.Zero(t, code)
	require.Regexp(t, `(?m)^flightd \S+\nDuckDB v1\.\d+\.\d+\nLance file format: writes 2\.0, reads 2\.0\n`, stdout)
}

func TestServeFlagsAreThoseOfTheContract(t *testing.T) {
	cmd := process{}.serveCommand()
	for _, name := range []string{"data", "listen", "http", "durability", "wal-interval", "memory", "temp", "retain", "compaction-rate", "idempotency-window", "transaction-idle", "grace", "session-idle", "read-idle", "query-timeout", "config", "insecure", "log-format", "log-level"} {
		require.NotNil(t, cmd.Flags().Lookup(name), name)
	}
	require.Len(t, settings, 18)
}
