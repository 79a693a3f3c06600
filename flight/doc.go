// Package flight is the wire: Arrow Flight and Flight SQL over gRPC, and gRPC's health service, on one listener.
//
// It turns calls into calls of lsm (rows into tables) and query (SQL), and their errors into gRPC codes. It stores
// nothing and knows no SQL.
//
// # Ingest
//
// A DoPut whose descriptor is the path [table] or [schema, table] streams rows into a table:
//
//	client                                   server
//	  | FlightData: descriptor, schema  ---->  |  finds the table, plans the casts
//	  | FlightData: batch 1             ---->  |  validates, puts into the log
//	  | FlightData: batch 2             ---->  |
//	  | <----  PutResult {"batches":2,"rows":200,"seq":1099511627778}
//	  | FlightData: batch 3             ---->  |
//	  | half close                      ---->  |
//	  | <----  PutResult {"batches":3,"rows":300,"seq":1099511627779}
//	  | <----  status OK
//
// INVARIANT: an ack (a PutResult's app_metadata, JSON) counts a prefix of the stream, and all of it is visible, and durable
// unless the table is buffered and the stream did not ask for more. Its numbers never fall. A stream that fails still gets the ack of what it stored before its status, which
// names the batch that failed, counted from 1; what was acknowledged stays.
//
// CommandStatementIngest, ADBC's adbc_ingest, is the other door. Its rows go into an lsm.Stage and take effect
// together when the client half-closes, with the table if the command makes one:
//
//	client                                   server
//	  | FlightData: descriptor, schema  ---->  |  finds or makes the table, begins a stage
//	  | FlightData: batch 1             ---->  |  validates, puts into the stage
//	  | FlightData: batch 2             ---->  |
//	  | half close                      ---->  |  commits: durable and visible
//	  | <----  PutResult DoPutUpdateResult {record_count: 200}
//	  | <----  status OK
//
// INVARIANT: a stream that ends in any other way than by its half close leaves nothing. A client that vanishes during
// the commit cannot know whether it took effect. Options that are not obeyed are refused at both doors.
//
// A stream with an idempotency key is applied under an lsm.Claim. With the option resume it is stored as it comes, and
// the first PutResult, sent before any batch is read, says what is there already; else plain DoPut is a stage, too, and is
// answered once (whole.go). What was applied before is drained, and the answer is the first one, flagged. A client that is
// silent for Options.TransactionIdle loses its stage or its claim: the reader's silence decides in one place whether a
// message still came in time.
//
// # Results
//
// A ticket holds its statement and reads the newest rows each time. A query that only filters and computes over one
// large table gets several tickets instead, the parts of one snapshot, which a lease keeps for five minutes, or longer
// when it is renewed. A reader that takes nothing is cut off after a time: its result holds a snapshot. When writers
// wait for the memory of snapshots, leases and stalled readers are given up at once, one a second, until they go on.
//
// INVARIANT: whatever ends a query before its time, be it CancelFlightInfo, the client or a limit, ends its call within
// a second, also while a message waits for a client that does not read.
//
// PollFlightInfo runs GetFlightInfo in the background, and keeps the rows of a query, so that its tickets are read
// without it (poll.go).
//
// A session is a bearer token, or without one a connection. Its prepared statements end with it; leases do not, because
// tickets are made to be read by others.
//
// # Trust
//
// No byte from a client is believed. FlightData is taken apart by our own codec, the flatbuffer in its header by
// fbTable, the schema by schemaWalk before arrow-go builds types from it, and record batches by decoder, which holds
// every buffer, offset and text against the body before anything reads through it: arrow-go's reader panics on
// hostile offsets, or reads beyond the buffer, and DuckDB's C code would follow.
//
// # Memory
//
// The body of a message is joined from gRPC's frames once, into memory outside the Go heap (internal/offheap), and
// from then on shared: the decoded arrays are slices of it, the log writes it as it came when the table takes the
// stream's columns as they are, and the last release of the batch frees it. Results are copied once into recycled
// blocks, because gRPC loses what is queued on a broken connection without a word.
//
// A message is in memory before the table's budget hears of it. Small ones lie in the stream's window; a stream of large ones
// takes room for the next before it reads on (room.go), so that many of them come in one after the other instead of filling
// the memory and then waiting for each other.
//
// # Goroutines
//
// gRPC runs a goroutine per call. An ingest has one more, which receives and stores, while the call's own sends acks
// and returns the status (see ingest). A result is sent by a goroutine of its own (see serveResult). One goroutine
// sweeps what is to end from the server's start to its end. A polled statement has one until its end. Every goroutine
// recovers: a panic is logged with its stack, and the client gets INTERNAL. Server.Shutdown awaits them all.
//
// Locks: Server.mu, listener.mu, preparedStatements.mu, prepared.mu, runningQueries.mu, returnedRows.mu, leases.mu, jobs.mu
// and acks.mu each guard the fields below them and are never held together; sessions.mu comes before session.mu.
//
// # Errors
//
// Functions return plain errors, wrapped with the act and the place. errors.go alone knows gRPC codes: corruption is
// DATA_LOSS whatever wraps it, what the client sent wrong is INVALID_ARGUMENT, and a server that ends is UNAVAILABLE.
package flight
