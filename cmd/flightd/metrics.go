package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/flightd/flightd/internal/offheap"
	"github.com/flightd/flightd/lsm"
	"github.com/flightd/flightd/query"
)

// collector gives the server's and the engine's numbers to Prometheus.
type collector struct {
	server *server
}

// Describe implements prometheus.Collector. It describes nothing, which makes the collector an unchecked one:
// what there is to report is listed in Collect only.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	build := prometheus.NewDesc("flightd_build_info", "What this binary is made of; always 1.", nil,
		prometheus.Labels{"version": programVersion(), "duckdb": query.DuckDBVersion()})
	out <- prometheus.MustNewConstMetric(build, prometheus.GaugeValue, 1)
	ready := int64(0)
	if c.server.notReady() == "" {
		ready = 1
	}
	gauge(out, "flightd_ready", "1 when the server can serve, as /readyz says.", ready)
	gauge(out, "flightd_memory_budget_bytes", "What --memory came to.", c.server.config.memory)
	gauge(out, "flightd_memory_held_bytes", "Memory of the process that no file backs: what --memory bounds.", heldMemory())
	gauge(out, "flightd_buffer_bytes", "Memory outside the Go heap: batches, key indexes, and messages that come in.", offheap.Default.InUse())
	gauge(out, "flightd_buffer_free_bytes", "Large blocks of it that wait for their next use.", offheap.Default.Cached())
	if c.server.phase.Load() != phaseStarting {
		collectEngine(out, c.server.db.Metrics())
		collectStats(out, c.server.db.Stats())
		gauge(out, "flightd_queries", "Statements that run or whose result is being read.", c.server.engine.Running())
		gauge(out, "flightd_sessions", "Open sessions.", int64(len(c.server.flight.Sessions())))
		gauge(out, "flightd_streams", "Streams of rows into tables that run.", int64(len(c.server.flight.Streams())))
	}
}

// collectEngine reports what the engine counts.
func collectEngine(out chan<- prometheus.Metric, m lsm.Metrics) {
	gauge(out, "flightd_tables", "Tables.", m.Tables)
	counter(out, "flightd_batches_total", "Batches accepted since the start.", m.Batches)
	counter(out, "flightd_rows_total", "Rows accepted since the start, deletes included.", m.Rows)
	counter(out, "flightd_bytes_total", "Bytes of the batches accepted since the start.", m.Bytes)
	gauge(out, "flightd_memtable_bytes", "Memory of memtables and their indexes.", m.MemtableBytes)
	gauge(out, "flightd_memtable_limit_bytes", "What memtables may take before writers wait.", m.MemoryLimit)
	gauge(out, "flightd_frozen_memtables", "Memtables that wait for their flush.", m.FrozenMemtables)
	gauge(out, "flightd_generations", "Flushed memtables in front of the base tables.", m.Generations)
	gauge(out, "flightd_idempotency_keys", "Idempotency keys that are remembered.", m.IdempotencyKeys)
	counter(out, "flightd_flushes_total", "Memtables flushed since the start.", m.Flushes)
	counter(out, "flightd_flush_errors_total", "Flushes that failed and are tried again.", m.FlushErrors)
	counter(out, "flightd_flushed_bytes_total", "Bytes of memtables written as generations since the start.", m.FlushedBytes)
	counter(out, "flightd_compaction_jobs_total", "Jobs of compaction since the start: merges, and rewrites of fragments and index segments.", m.CompactionJobs)
	counter(out, "flightd_compaction_read_bytes_total", "Bytes that compaction has read since the start, about.", m.CompactionRead)
	counter(out, "flightd_compaction_written_bytes_total", "Bytes that compaction has written since the start, about.", m.CompactionWritten)
	counter(out, "flightd_compactions_total", "Merges into a base table since the start.", m.Compactions)
	counter(out, "flightd_collected_versions_total", "Old versions of tables removed since the start.", m.CollectedVersions)
	counter(out, "flightd_collected_files_total", "Files removed since the start because nothing needed them.", m.CollectedFiles)
	counter(out, "flightd_collected_bytes_total", "Bytes of the files removed since the start.", m.CollectedBytes)
	gauge(out, "flightd_disk_free_bytes", "Room on the disk of the data folder.", m.DiskFree)
	counter(out, "flightd_disk_refused_total", "Writes refused since the start because the disk was full.", m.DiskRefused)
	// Positions themselves are 64-bit numbers that a float cannot hold; what matters is how far they are apart.
	gauge(out, "flightd_log_unsynced_records", "Records that are written and not yet synced.", int64(m.Appended-m.Durable))
	gauge(out, "flightd_log_invisible_records", "Records that are written and not yet seen by queries.", int64(m.Appended-m.Visible))
}

// collectStats reports what the system tables memory and stalls tell, too.
func collectStats(out chan<- prometheus.Metric, s lsm.Stats) {
	gauge(out, "flightd_memtable_kept_bytes", "Memory of flushed memtables that old snapshots alone hold.", s.Memory.Kept)
	for _, x := range s.Stalls {
		cause := prometheus.Labels{"cause": string(x.Cause)}
		labelled := func(name, help string, kind prometheus.ValueType, v float64) {
			out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, nil, cause), kind, v)
		}
		labelled("flightd_stalls_total", "Times a writer had to wait, by cause.", prometheus.CounterValue, float64(x.Count))
		labelled("flightd_stall_seconds_total", "Time that writers have waited, together, by cause.", prometheus.CounterValue, x.Waited.Seconds())
		labelled("flightd_stalled_writers", "Writers that wait now, by cause.", prometheus.GaugeValue, float64(x.Waiting))
	}
}

// gauge reports a value that goes up and down.
func gauge(out chan<- prometheus.Metric, name, help string, v int64) {
	out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, nil, nil), prometheus.GaugeValue, float64(v))
}

// counter reports a value that only rises.
func counter(out chan<- prometheus.Metric, name, help string, v int64) {
	out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, nil, nil), prometheus.CounterValue, float64(v))
}
