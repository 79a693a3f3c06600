// Command flightd is a streaming table server: Arrow batches in over Flight, SQL out over Flight SQL, Lance
// datasets at rest.
//
//	flightd serve     runs the server
//	flightd demo      shows the main job on a temporary folder
//	flightd sql       runs SQL on a server
//	flightd ingest    streams files into a table
//	flightd check     verifies a data folder that no server has open
//	flightd inspect   describes what is on disk
//	flightd version   says what this binary is made of
//
// Results go to stdout, logs and errors to stderr. Exit codes: 0 done, 1 it did not work, 2 the command line or
// the configuration is wrong, 128+n ended at once by a second signal n.
//
// # Configuration
//
// Every setting of serve has one name, used as a flag (--log-level), as an environment variable
// (FLIGHTD_LOG_LEVEL) and as a key of the YAML file that --config names (log-level). A flag beats the
// environment, the environment beats the file. Each source is checked by itself before they are merged, so that
// a misspelt key or a bad value is refused with the place where it stands. No package below this one reads the
// environment or a flag.
//
// # The way of a process
//
//	parse → bind HTTP (alive, not ready) → open lsm (lock, replay) → open query → bind Flight → ready line
//	first signal → not ready → Flight drains for --grace → HTTP, query, lsm close → exit 0
//	second signal → exit at once; replay brings back what was acknowledged
//
// Flight binds last, so that a client which comes too early is refused (UNAVAILABLE) and not kept waiting.
//
// INVARIANT: stdout of serve carries the ready line and nothing else; programs wait for it.
//
// # Goroutines
//
// serve starts three: the HTTP server, the Flight server and the one that waits for signals. The first two
// are awaited before the process ends; the last one lives as long as the process, as a second signal must work
// whatever the rest is doing.
package main
