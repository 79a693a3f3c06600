// Package lance reads and writes Lance 2.0 files.
package lance
