// Package validation runs the conformance suite of ADBC, which every ADBC driver is held to, against a real flightd: the
// Flight SQL driver of arrow-adbc on one side, the binary on the other. What the suite finds is flightd's, because the
// driver passes it against other servers.
//
// It is a module of its own, so that flightd's does not depend on arrow-adbc. `make test-e2e` runs it; FLIGHTD_TEST_BINARY
// names another binary than build/flightd.
package validation
