// Command lancefile is flightd's side of bench/files.py: it reads and writes Lance files as it is told, a JSON object a
// line on stdin, and answers each with one on stdout, errors included. It is one goroutine, and what it measures is one
// request: the times are its own, taken around the work.
package main
