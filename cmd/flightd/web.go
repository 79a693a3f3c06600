package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// webServer serves /metrics, /healthz and /readyz. It is up before the data folder is opened, so that a long
// replay looks alive and not ready.
type webServer struct {
	listener net.Listener
	http     *http.Server
	done     chan error
}

// newWebServer binds address and starts to serve. A failure later on ends the endpoint, not the server.
func newWebServer(s *server, address string) (*webServer, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	w := &webServer{
		listener: listener,
		done:     make(chan error, 1),
		http: &http.Server{
			Handler:           webHandler(s),
			ReadHeaderTimeout: 10 * time.Second,
			ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		},
	}
	go func() { w.done <- w.http.Serve(listener) }()
	return w, nil
}

// address is where the server listens.
func (w *webServer) address() string { return w.listener.Addr().String() }

// close stops the server. A request that is still running gets a second; none of them is worth more.
func (w *webServer) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := w.http.Shutdown(ctx); err != nil {
		w.http.Close()
	}
	if err := <-w.done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// webHandler routes the three paths.
func webHandler(s *server) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collector{s},
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, "alive")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := s.notReady(); why != "" {
			answer(w, http.StatusServiceUnavailable, why)
			return
		}
		answer(w, http.StatusOK, "ready")
	})
	return mux
}

// answer writes one line of text.
func answer(w http.ResponseWriter, code int, line string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	// A client that went away needs no answer.
	_, _ = io.WriteString(w, line+"\n")
}

// notReady says why the server cannot serve, or nothing when it can.
func (s *server) notReady() string {
	switch s.phase.Load() {
	case phaseStarting:
		return "starting: the log is being replayed"
	case phaseDraining:
		return "draining: the server was asked to stop"
	}
	if err := s.db.Err(); err != nil { // also when another process has taken the data over
		return "failed: " + err.Error()
	}
	return ""
}
