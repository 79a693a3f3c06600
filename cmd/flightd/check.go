package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/flightd/flightd/lsm"
)

func (p process) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check PATH",
		Short: "Verify a data folder that no server has open",
		Long: "check reads the catalog, the log, and of every table the newest manifests and all files that they name,\n" +
			"and compares them with their checksums and with each other. It changes nothing.\n\n" +
			"Each fault is a line with the file and the offset. The exit code is 1 when there is one. A folder that a\n" +
			"server has open is refused: stop the server, or check a copy or a snapshot of the folder.",
		Example: "  flightd check /var/lib/flightd",
		Args:    pathArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := untilSignal(cmd.Context(), p.stderr)
			defer stop()
			return p.check(ctx, args[0])
		},
	}
}

// pathArgs wants one path and up to most arguments together.
func pathArgs(most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 || len(args) > most {
			return &usageError{fmt.Errorf("want: %s, got %q", cmd.UseLine(), args)}
		}
		return nil
	}
}

// check verifies a folder, prints each fault as it is found, and then what was read.
func (p process) check(ctx context.Context, dir string) error {
	if info, err := os.Stat(dir); err != nil {
		return fmt.Errorf("check: %w", err)
	} else if !info.IsDir() {
		return fmt.Errorf("check: %s is a file; name the data folder, or look at the file with flightd inspect", dir)
	}
	begin := time.Now()
	sum, err := lsm.Check(ctx, dir, func(f lsm.Fault) {
		where := filepath.Join(dir, filepath.FromSlash(f.File))
		if f.Offset >= 0 {
			where += fmt.Sprintf(": offset %d", f.Offset)
		}
		_, _ = fmt.Fprintf(p.stdout, "fault: %s: %v\n", where, f.Err) // the exit code says it, too
	})
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("check: %w before the end, after %s", context.Cause(ctx), counted(int64(sum.Faults), "fault"))
	case err != nil:
		return fmt.Errorf("check: %w", err)
	}
	if err := p.printChecked(sum, time.Since(begin)); err != nil {
		return err
	}
	if sum.Faults > 0 {
		return fmt.Errorf("%s in %s; keep a copy of the folder before you mend anything, and see docs/operating.md", counted(int64(sum.Faults), "fault"), dir)
	}
	return nil
}

// printChecked says what was read.
func (p process) printChecked(sum lsm.Checked, took time.Duration) error {
	result := "no faults"
	if sum.Faults > 0 {
		result = counted(int64(sum.Faults), "fault")
	}
	_, err := fmt.Fprintf(p.stdout, "%s: %s, %s, %s, %s not merged yet\nrows: %s in data files of %s, %s in the log (%s)\n",
		counted(int64(sum.Tables), "table"), counted(int64(sum.Fragments), "fragment"), counted(int64(sum.DeletionFiles), "deletion file"),
		countedAs(int64(sum.Indexes), "index", "indexes"), counted(int64(sum.Generations), "generation"),
		thousands(sum.Rows), byteSize(sum.Bytes), thousands(sum.LogRows), counted(sum.LogRecords, "record"))
	if err == nil && sum.Strangers > 0 {
		_, err = fmt.Fprintf(p.stdout, "of other MemWAL writers: %s, with %s that the next start takes in\n",
			counted(int64(sum.Strangers), "shard"), countedAs(int64(sum.StrangerEntries), "log entry", "log entries"))
	}
	if err == nil && sum.Unfinished > 0 {
		_, err = fmt.Fprintf(p.stdout, "%s was being created when the server ended; the next start finishes that\n", counted(int64(sum.Unfinished), "table"))
	}
	if err == nil && sum.Unnamed > 0 {
		_, err = fmt.Fprintf(p.stdout, "named by no version: %s of %s; the server removes them when they are older than --retain\n",
			counted(int64(sum.Unnamed), "file"), byteSize(sum.UnnamedBytes))
	}
	for _, text := range sum.Unread {
		if err == nil {
			_, err = fmt.Fprintf(p.stdout, "not checked: %s\n", text)
		}
	}
	if err == nil && sum.Unsummed > 0 {
		_, err = fmt.Fprintf(p.stdout, "without checksums, as other programs wrote them: %s\n", counted(int64(sum.Unsummed), "file"))
	}
	if err == nil && sum.OtherIndexes > 0 {
		_, err = fmt.Fprintf(p.stdout, "of kinds that only other programs read, not verified: %s\n", countedAs(int64(sum.OtherIndexes), "index", "indexes"))
	}
	if err == nil {
		_, err = fmt.Fprintf(p.stdout, "%s, checked in %s\n", result, seconds(took))
	}
	return err
}

// counted returns a number and its noun.
func counted(n int64, noun string) string { return countedAs(n, noun, noun+"s") }

// countedAs is counted for nouns with a plural of their own.
func countedAs(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return thousands(n) + " " + many
}

// byteSize prints a number of bytes as people read it.
func byteSize(n int64) string {
	value, unit := float64(n), 0
	for ; value >= 1000 && unit < 4; unit++ {
		value /= 1000
	}
	if unit == 0 {
		return counted(n, "byte")
	}
	return fmt.Sprintf("%.1f %s", value, [...]string{"", "kB", "MB", "GB", "TB"}[unit])
}
