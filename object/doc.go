// Package object stores bytes under names: it is all that flightd knows about disks and buckets.
//
// A name is a slash-separated path below the root of its store, as io/fs has it: no leading slash, no "..", no
// empty element. The root itself is ".", and only folders may be called that.
//
// # Durability
//
// What a caller was told is what survives a power cut, and nothing else does:
//
//	PutIfAbsent, Put     the object and every folder above it, when they return nil
//	Writer.Close         the bytes, but not yet the folder entry that leads to them
//	SyncDirs             the entries of the folder that holds a name, and of all folders above it
//	Delete, DeleteAll    nothing until a SyncDirs; a deleted object may come back after a crash
//
// So a commit writes its files, closes them, syncs their folders once, and then puts its manifest.
// INVARIANT: a name that PutIfAbsent created is never seen half written, neither by a reader beside it nor after a
// crash. Local writes a temporary file, syncs it and links it to its name; a rename would overwrite a rival.
//
// Temporary files begin with tempPrefix, List does not show them, and Local.Sweep removes what a crash left of them.
//
// # Concurrency
//
// Stores and Readers are safe for concurrent use. A Writer belongs to one goroutine.
// The package starts no goroutines. Mem has one lock and calls nothing under it.
//
// # Errors
//
// ErrNotExist and ErrExists say what their names say and come wrapped with the act and the name. CorruptError is the
// one error for bytes that cannot be what was written; packages above use it for their formats.
package object
