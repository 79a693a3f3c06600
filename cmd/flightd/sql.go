package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/spf13/cobra"

	"github.com/flightd/flightd/flight"
)

// defaultURL is where serve listens by default.
const defaultURL = "grpc://127.0.0.1:31337"

func (p process) sqlCommand() *cobra.Command {
	var url, format string
	var commands []string
	cmd := &cobra.Command{
		Use:   "sql",
		Short: "Run SQL on a server",
		Long: "sql runs statements, separated by semicolons, from -c or from stdin, and prints their results. It ends at\n" +
			"the first error, with exit code 1. On a terminal it is a shell with history, in ~/.flightd_history: \\d lists\n" +
			"tables, \\d TABLE describes one (also as -c '\\d'), \\q or Ctrl-D ends it.\n\n" +
			"Results go to stdout; how many rows there were and how long they took goes to stderr. The formats: table\n" +
			"for people; csv, where NULL is empty and \"\" is the empty string; json, an object a line; arrow, an IPC\n" +
			"stream, of one result only.",
		Example: "  flightd sql -c 'SELECT count(*) FROM readings'\n" +
			"  flightd sql --format csv -c 'FROM readings LIMIT 10' >readings.csv\n" +
			"  flightd sql --url grpc://10.0.0.5:31337 <schema.sql",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			address, err := parseURL(url)
			if err != nil {
				return err
			}
			if formats[format] == nil {
				return &usageError{fmt.Errorf("--format: want one of %s, got %q", strings.Join(slices.Sorted(maps.Keys(formats)), ", "), format)}
			}
			client, err := flight.Dial(address)
			if err != nil {
				return err
			}
			defer client.Close()
			s := &sqlSession{client: client, url: url, format: format, stdout: p.stdout, stderr: p.stderr}
			script := cmd.Flags().Changed("command")
			in, person := isTerminal(p.stdin)
			if out, ok := isTerminal(p.stderr); person && ok && !script {
				return s.interactive(cmd.Context(), in, out)
			}
			ctx, stop := untilSignal(cmd.Context(), p.stderr)
			defer stop()
			for i, command := range commands {
				if statement, ok := describeCommand(command); ok {
					commands[i] = statement
				}
			}
			text := strings.Join(commands, ";\n")
			if !script {
				b, err := io.ReadAll(p.stdin)
				if err != nil {
					return fmt.Errorf("read statements from stdin: %w", err)
				}
				text = string(b)
			}
			return s.script(ctx, text)
		},
	}
	cmd.Flags().StringVar(&url, "url", defaultURL, "the server")
	cmd.Flags().StringArrayVarP(&commands, "command", "c", nil, "statements to run")
	cmd.Flags().StringVar(&format, "format", "table", "how results are printed: table, csv, json or arrow")
	return cmd
}

// parseURL returns the address in a URL of a server. HOST:PORT alone will do.
func parseURL(url string) (string, error) {
	scheme, address, ok := strings.Cut(url, "://")
	if !ok {
		scheme, address = "grpc", url
	}
	address = strings.TrimSuffix(address, "/")
	switch scheme {
	case "grpc", "grpc+tcp":
	case "grpc+tls":
		return "", &usageError{fmt.Errorf("--url %s: there is no encryption yet; want grpc://HOST:PORT", url)}
	default:
		return "", &usageError{fmt.Errorf("--url %s: want grpc://HOST:PORT", url)}
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return "", &usageError{fmt.Errorf("--url %s: want grpc://HOST:PORT: %w", url, err)}
	}
	return address, nil
}

// sqlSession runs statements and prints their results.
type sqlSession struct {
	client *flight.Client
	url    string
	format string
	stdout io.Writer
	stderr io.Writer
	// results counts those that were printed.
	results int
}

// script runs the statements of a text until one fails.
func (s *sqlSession) script(ctx context.Context, text string) error {
	statements, rest := splitStatements(text)
	if rest != "" {
		statements = append(statements, rest)
	}
	for i, statement := range statements {
		err := s.run(ctx, statement)
		if err == nil {
			continue
		}
		if err = s.explain(ctx, err); len(statements) > 1 {
			err = fmt.Errorf("statement %d of %d: %w", i+1, len(statements), err)
		}
		return err
	}
	return nil
}

// explain adds to an error what the user can do about it.
func (s *sqlSession) explain(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case flight.Unreachable(err):
		return fmt.Errorf("no answer from %s: %w; is it running, and is --url right?", s.url, err)
	}
	return err
}

// run runs one statement and prints its result.
func (s *sqlSession) run(ctx context.Context, statement string) error {
	begin := time.Now()
	sink := &countingSink{writer: formats[s.format](s.stdout), session: s}
	changed, err := s.client.Run(ctx, statement, sink)
	if err == nil && sink.begun {
		err = sink.writer.End()
	}
	if err != nil {
		return err
	}
	took := seconds(time.Since(begin))
	if changed == flight.NoCount {
		s.note("%s, %s\n", counted(sink.rows, "row"), took)
	} else {
		s.note("done, %s changed, %s\n", counted(changed, "row"), took)
	}
	return nil
}

// note tells a person something that is no part of a result.
func (s *sqlSession) note(format string, args ...any) {
	_, _ = fmt.Fprintf(s.stderr, format, args...)
}

// countingSink counts the rows of a result on their way to its writer.
type countingSink struct {
	writer  resultWriter
	session *sqlSession
	begun   bool
	rows    int64
}

// Begin implements flight.Sink.
func (c *countingSink) Begin(schema *arrow.Schema) error {
	if c.session.results++; c.session.results > 1 && c.session.format == "arrow" {
		return errors.New("--format arrow prints one result only, and this is the second; run the statements one by one")
	}
	c.begun = true
	return c.writer.Begin(schema)
}

// Batch implements flight.Sink.
func (c *countingSink) Batch(b arrow.RecordBatch) error {
	c.rows += b.NumRows()
	return c.writer.Batch(b)
}
