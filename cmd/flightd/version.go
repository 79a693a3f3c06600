package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/flightd/flightd/query"
)

// version is set by the linker (see the Makefile); a plain `go build` falls back to what Go recorded.
var version = ""

// lanceWritten and lanceRead are the versions of the Lance file format.
const (
	lanceWritten = "2.0"
	lanceRead    = "2.0"
)

// programVersion names this build.
func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

func (p process) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the versions of flightd, DuckDB and the Lance format",
		Example: "  flightd version",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(p.stdout, "flightd %s\nDuckDB %s\nLance file format: writes %s, reads %s\n%s %s/%s\n",
				programVersion(), query.DuckDBVersion(), lanceWritten, lanceRead, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
