package main

import (
	"io"
	"log/slog"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/flightd/flightd/flight"
	"github.com/flightd/flightd/lsm"
	"github.com/flightd/flightd/query"
)

// get asks a web server for a path.
func get(t *testing.T, w *webServer, path string) (int, string) {
	answer, err := http.Get("http://" + w.address() + path)
	require.NoError(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(text)
}

func TestReadinessFollowsThePhases(t *testing.T) {
	defer goleak.VerifyNone(t)
	defer http.DefaultClient.CloseIdleConnections()
	s := &server{log: slog.New(slog.DiscardHandler)}
	w, err := newWebServer(s, "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, w.close()) }()

	code, text := get(t, w, "/readyz")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Contains(t, text, "starting")
	code, text = get(t, w, "/metrics")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, text, "flightd_ready 0\n")
	require.NotContains(t, text, "flightd_tables", "the engine is not asked before it is open")

	s.db, err = lsm.Open(t.Context(), lsm.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.db.Close()) }()
	s.engine, err = query.Open(t.Context(), query.Options{DB: s.db, Temp: t.TempDir()})
	require.NoError(t, err)
	defer s.engine.Close()
	s.flight, err = flight.NewServer(flight.Options{DB: s.db, Query: s.engine})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.flight.Shutdown(t.Context())) }()
	s.phase.Store(phaseReady)
	code, text = get(t, w, "/readyz")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "ready\n", text)
	_, text = get(t, w, "/metrics")
	require.Contains(t, text, "flightd_ready 1\n")
	require.Contains(t, text, "flightd_tables 0\n")
	require.Contains(t, text, "flightd_memtable_limit_bytes")

	s.phase.Store(phaseDraining)
	code, text = get(t, w, "/readyz")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Contains(t, text, "draining")
	code, _ = get(t, w, "/healthz")
	require.Equal(t, http.StatusOK, code, "a process that drains is alive")
}
