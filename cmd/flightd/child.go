package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// child is a `flightd serve` of this very binary in a process of its own: only a process can be killed with -9.
type child struct {
	cmd *exec.Cmd
	log string // path of its stderr
	// grpc and web are the two URLs of the ready line.
	grpc, web string
	// took is the time from the start to the ready line, replay included.
	took time.Duration
}

// childPatience is how long a child may take to become ready. The demo's log is small: more means that it hangs.
const childPatience = 30 * time.Second

// startChild starts a server on root/data and waits until it is ready. Its log is appended to root/serve.log.
func startChild(ctx context.Context, root string, env []string) (*child, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this binary: %w", err)
	}
	c := &child{log: filepath.Join(root, "serve.log")}
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own handle
	c.cmd = exec.Command(program, "serve", "--data", filepath.Join(root, "data"), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
	c.cmd.Stderr = log
	c.cmd.Env = slices.DeleteFunc(slices.Clone(env), func(v string) bool { return strings.HasPrefix(v, envPrefix) })
	// A group of its own: Ctrl-C in the terminal is for the demo, which then stops the child in order.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s serve: %w", program, err)
	}
	line := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(stdout).ReadString('\n')
		line <- text
	}()
	ctx, cancel := context.WithTimeout(ctx, childPatience)
	defer cancel()
	select {
	case text := <-line:
		c.took = time.Since(begin)
		if n, _ := fmt.Sscanf(text, "flightd ready %s %s", &c.grpc, &c.web); n == 2 {
			return c, nil
		}
	case <-ctx.Done():
	}
	c.kill()
	return nil, fmt.Errorf("the server did not become ready: %w", c.lastWords(ctx.Err()))
}

// address is HOST:PORT of the child's Flight service.
func (c *child) address() string { return strings.TrimPrefix(c.grpc, "grpc://") }

// kill ends the child as kill -9 does and waits until it is gone.
func (c *child) kill() {
	// Neither can fail in a way that matters: the child is gone afterwards.
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

// stop asks the child to end, as SIGTERM does, and waits for it.
func (c *child) stop() error {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	timer := time.AfterFunc(childPatience, func() { _ = c.cmd.Process.Kill() })
	defer timer.Stop()
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("stop the server: %w", c.lastWords(err))
	}
	return nil
}

// lastWords adds the end of the child's log to err.
func (c *child) lastWords(err error) error {
	text, readErr := os.ReadFile(c.log)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if readErr != nil || len(text) == 0 {
		return err
	}
	if err == nil {
		err = errors.New("it ended")
	}
	return fmt.Errorf("%w; its log %s ends with:\n%s", err, c.log, strings.Join(lines[max(0, len(lines)-10):], "\n"))
}
