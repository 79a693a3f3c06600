// Package python runs scripts for tests in one Python interpreter for each test binary, so that what they import, which takes
// longer than what most of them do, is loaded once. The environment's variable FLIGHTD_PYTHON names the interpreter; tests that
// need one are skipped without it.
//
// The interpreter is a process of its own that reads a job from its standard input, a JSON document on a line with the code,
// its name and its arguments, and answers with another: what the code printed, and the trace of what went wrong, or nothing.
// Each script has globals of its own, as if it were a program; modules and what they keep are shared. The process ends when
// its input does, which is when the test binary ends, however it does.
//
// # Errors
//
// A script that fails fails the test, with its trace. Nothing here is meant for anything but tests.
package python
