// Package testdata holds the sample that `flightd demo` streams, embedded into the binary so that the demo needs
// no file beside it.
//
// readings.arrow is an Arrow IPC file of 38,400 readings of invented weather stations:
//
//	id int64 (the key, 1 …) · station utf8 · taken timestamp[us] · celsius float64 · humidity float32 · note utf8
//
// make_readings.py beside it makes it again.
package testdata
