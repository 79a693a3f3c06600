// Package objecttest has stores that misbehave, for the tests of those who must live with it.
//
// A Flaky is in front of another store and keeps nothing itself; it is safe for concurrent use. Calls whose effect comes
// later run in goroutines of their own, which Wait awaits. Its errors are ErrFlaky, beside those of the store behind it.
package objecttest
