//go:build !linux

package wal

// Sync implements file.
func (f osFile) Sync() error { return f.File.Sync() }
