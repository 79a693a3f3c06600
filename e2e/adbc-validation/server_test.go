package validation

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience bounds the start and the stop of the server.
const patience = 60 * time.Second

// binary returns the flightd to test.
func binary(t *testing.T) string {
	path := os.Getenv("FLIGHTD_TEST_BINARY")
	if path == "" {
		path = filepath.Join("..", "..", "build", "flightd")
	}
	require.FileExists(t, path, "run make build first")
	return path
}

// serve runs a server on an empty folder until the test ends, and returns its address. It must then stop without a
// fault.
func serve(t *testing.T) string {
	ctx, cancel := context.WithCancel(context.Background())
	command := exec.CommandContext(ctx, binary(t), "serve", "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--http", "")
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = patience
	log := new(strings.Builder)
	command.Stderr = log
	stdout, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	ended := make(chan error, 1)
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled, "the server ended with a fault; its log:\n%s", log)
		require.Zero(t, command.ProcessState.ExitCode(), log)
	})
	ready := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(stdout).ReadString('\n')
		ready <- line
		_, _ = io.Copy(io.Discard, stdout)
		ended <- command.Wait()
	}()
	var address string
	select {
	case line := <-ready:
		_, err = fmt.Sscanf(line, "flightd ready grpc://%s", &address)
		require.NoError(t, err, "%q", line)
	case <-time.After(patience):
		t.Fatal("the server was not ready in time")
	}
	return address
}

// version returns the version that the binary says it has.
func version(t *testing.T) string {
	out, err := exec.Command(binary(t), "version").Output()
	require.NoError(t, err)
	fields := strings.Fields(string(out))
	require.Greater(t, len(fields), 1, "%s", out)
	return fields[1]
}
