// Package lint holds the house rules as tests: what may import what, who owns the heavy dependencies, where
// unsafe is allowed, that packages and exported names are documented, and that no trace of one machine is in
// the repository. The rules themselves are the tables in rules_test.go; to change one is a design decision, and
// the commit says why.
//
// Sizes of files and functions only warn: `go test -v -run Sizes ./internal/lint` lists them.
package lint
