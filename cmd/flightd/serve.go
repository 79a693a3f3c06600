package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/flightd/flightd/flight"
	"github.com/flightd/flightd/lsm"
	"github.com/flightd/flightd/query"
)

func (p process) serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: "serve opens the data folder, replays its log and serves Flight SQL until SIGTERM or SIGINT.\n\n" +
			"When it can serve, it prints one line to stdout:\n\n" +
			"  flightd ready grpc://HOST:PORT http://HOST:PORT\n\n" +
			"Each flag is also an environment variable (--log-level is FLIGHTD_LOG_LEVEL) and a key of the\n" +
			"--config file (log-level: debug). A flag beats the environment, the environment beats the file.",
		Example: "  flightd serve --data /var/lib/flightd --memory 8GiB\n" +
			"  FLIGHTD_LOG_FORMAT=json flightd serve --config /etc/flightd.yaml --listen 127.0.0.1:0",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(cmd.Flags(), p.env)
			if err != nil {
				return err
			}
			ctx, stop := untilSignal(cmd.Context(), p.stderr)
			defer stop()
			return serve(ctx, c, p.stdout, newLogger(c, p.stderr))
		},
	}
	addFlags(cmd.Flags())
	return cmd
}

// newLogger makes the log that every package writes to.
func newLogger(c config, w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: c.logLevel}
	if c.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// untilSignal returns a context that ends at the first SIGTERM or SIGINT. The second one ends the process on the
// spot: an operator who asks twice does not want to wait, and replay makes it safe. The goroutine is not awaited
// when stop is not called, on purpose: it is what must work while everything else hangs.
func untilSignal(parent context.Context, stderr io.Writer) (ctx context.Context, stop func()) {
	if parent == nil {
		parent = context.Background()
	}
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		sig, ok := <-signals
		if !ok {
			return
		}
		cancel(fmt.Errorf("received signal %q", sig))
		sig, ok = <-signals
		if !ok {
			return
		}
		fmt.Fprintf(stderr, "flightd: received a second signal %q, ending at once\n", sig)
		code := exitSignal
		if n, ok := sig.(syscall.Signal); ok {
			code += int(n)
		}
		os.Exit(code)
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		cancel(nil)
	}
}

// shares divides the memory budget. What is left over is for messages on the wire and the Go heap.
const (
	engineShare = 0.40 // memtables with their indexes, key indexes, blocks
	queryShare  = 0.40 // DuckDB: hash tables, sorts
	// receiveShare is of what is left over: large messages on their way in.
	receiveShare = 0.15
	// memoryMargin is how much the process may hold above its budget.
	memoryMargin = 256 * mib
	// guardSlack is how far below that statements are refused memory: what is held is known some milliseconds late.
	guardSlack = 32 * mib
)

// serve runs the server until ctx ends, then drains it.
func serve(ctx context.Context, c config, stdout io.Writer, log *slog.Logger) (err error) {
	log.Info("starting", "version", programVersion(), "data", c.data, "memory_bytes", c.memory)
	defer keepHeap(c.memory).close()
	s := &server{config: c, log: log, stdout: stdout}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.open(ctx); err != nil {
		if ctx.Err() != nil {
			log.Info("stopped before it was ready", "why", context.Cause(ctx))
			return nil
		}
		return err
	}
	return s.serve(ctx)
}

// server holds what one run of serve has open. Its methods are called by one goroutine; phase alone is shared
// with the HTTP handlers.
type server struct {
	config config
	log    *slog.Logger
	stdout io.Writer

	web    *webServer
	db     *lsm.DB
	engine *query.Engine
	flight *flight.Server

	// phase is one of the constants below. db, engine and flight are set before it leaves phaseStarting, so that whoever
	// saw it leave may read them.
	phase atomic.Int32
}

// Phases of a server, for readiness.
const (
	phaseStarting int32 = iota
	phaseReady
	phaseDraining
)

// open brings up everything but the Flight listener.
func (s *server) open(ctx context.Context) error {
	c := s.config
	if c.http != "" {
		web, err := newWebServer(s, c.http)
		if err != nil {
			return fmt.Errorf("listen for HTTP on %s: %w; choose another --http, or \"\" for none", c.http, err)
		}
		s.web = web
	}
	var err error
	s.db, err = lsm.Open(ctx, lsm.Options{
		Dir:               c.data,
		Memory:            int64(float64(c.memory) * engineShare),
		Temp:              c.temp,
		Retain:            c.retain,
		CompactionRate:    c.compact,
		Logger:            s.log,
		IdempotencyWindow: c.window,
		Durability:        c.durability,
		LogInterval:       c.logInterval,
	})
	if err != nil {
		return fmt.Errorf("open data folder %s: %w", c.data, err)
	}
	s.engine, err = query.Open(ctx, query.Options{
		DB:     s.db,
		Memory: int64(float64(c.memory) * queryShare),
		Temp:   c.temp,
		// Statements are ended before the promise of --memory is broken for long.
		Held:      heldMemory,
		HeldLimit: c.memory + memoryMargin - guardSlack,
		Timeout:   c.timeout,
		Logger:    s.log,
	})
	if err != nil {
		return fmt.Errorf("start the query engine: %w", err)
	}
	s.flight, err = flight.NewServer(flight.Options{
		DB:              s.db,
		Query:           s.engine,
		Logger:          s.log,
		Version:         programVersion(),
		TransactionIdle: c.idle,
		SessionIdle:     c.session,
		ReadIdle:        c.read,
		ReceiveBytes:    int64(float64(c.memory) * receiveShare),
	})
	if err != nil {
		return fmt.Errorf("start the Flight service: %w", err)
	}
	return nil
}

// serve listens, says so, and drains once ctx ends.
func (s *server) serve(ctx context.Context) error {
	listener, err := net.Listen("tcp", s.config.listen)
	if err != nil {
		return fmt.Errorf("listen for Flight on %s: %w; choose another --listen", s.config.listen, err)
	}
	served := make(chan error, 1)
	go func() { served <- s.flight.Serve(listener) }()

	s.phase.Store(phaseReady)
	line := "flightd ready grpc://" + listener.Addr().String()
	if s.web != nil {
		line += " http://" + s.web.address()
	}
	if _, err := io.WriteString(s.stdout, line+"\n"); err != nil {
		s.log.Warn("the ready line could not be written", "error", err)
	}
	s.log.Info("ready", "listen", listener.Addr().String())

	select {
	case err := <-served:
		// The listener broke. What still runs on open connections must end before the engine does.
		s.phase.Store(phaseDraining)
		expired, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.flight.Shutdown(expired) // it reports that it cut something off
		return fmt.Errorf("serve Flight on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	return s.drain(context.Cause(ctx), served)
}

// drain lets running work finish for the time of grace. Work that does not finish is cut off; that is not an
// error of the server, as its clients are told.
func (s *server) drain(why error, served <-chan error) error {
	s.phase.Store(phaseDraining)
	s.log.Info("draining", "why", why, "grace", s.config.grace)
	begin := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), s.config.grace)
	defer cancel()
	switch err := s.flight.Shutdown(ctx); {
	case errors.Is(err, context.DeadlineExceeded):
		s.log.Warn("the grace was over before all work was finished; the rest was cut off", "grace", s.config.grace)
	case err != nil:
		return fmt.Errorf("drain: %w", err)
	}
	if err := <-served; err != nil {
		return fmt.Errorf("serve Flight: %w", err)
	}
	s.log.Info("drained", "took", time.Since(begin))
	return nil
}

// close releases what open got. The web server goes first, as its handlers look at the engine; queries end before
// the engine that they read from.
func (s *server) close() error {
	var errs []error
	if s.web != nil {
		errs = append(errs, s.web.close())
	}
	if s.engine != nil {
		errs = append(errs, s.engine.Close())
	}
	if s.db != nil {
		if err := s.db.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close data folder %s: %w", s.config.data, err))
		}
	}
	return errors.Join(errs...)
}
