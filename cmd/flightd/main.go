package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes of the process.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitSignal = 128 // plus the number of the signal
)

// usageError marks an error that the caller can only mend by calling differently.
type usageError struct{ err error }

// Error implements error.
func (e *usageError) Error() string { return e.err.Error() }

// Unwrap gives the cause.
func (e *usageError) Unwrap() error { return e.err }

// process is what a command gets from the operating system. Tests pass their own.
type process struct {
	args   []string
	env    []string
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
}

func main() {
	p := process{args: os.Args[1:], env: os.Environ(), stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	os.Exit(p.run())
}

// run executes the command line and returns the exit code.
func (p process) run() int {
	root := p.rootCommand()
	root.SetArgs(p.args)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	cmd, err := root.ExecuteC()
	if err == nil {
		return exitOK
	}
	// Several things may be wrong at once: one line for each.
	fmt.Fprintf(p.stderr, "flightd: %s\n", strings.ReplaceAll(err.Error(), "\n", "\n         "))
	var usage *usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(p.stderr, "see: %s --help\n", cmd.CommandPath())
		return exitUsage
	}
	return exitFailed
}

// rootCommand builds the tree of commands.
func (p process) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "flightd",
		Short: "A streaming table server: Arrow Flight in, SQL out, Lance at rest",
		Long: "flightd takes streams of Arrow batches, makes them durable and answers SQL over them at once.\n" +
			"Tables lie on disk as Lance datasets that other tools open in place.",
		Example:       "  flightd demo\n  flightd serve --data ./flightd-data",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &usageError{fmt.Errorf("unknown command %q", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return cmd.Help()
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(p.serveCommand(), p.demoCommand(), p.sqlCommand(), p.ingestCommand(), p.checkCommand(), p.inspectCommand(), p.versionCommand())
	return root
}

// noArgs refuses positional arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &usageError{fmt.Errorf("%s takes no arguments, got %q", cmd.CommandPath(), args)}
	}
	return nil
}
