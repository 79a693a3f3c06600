//go:build !purego

package vector

// accelerated is true: NEON is part of every machine for which Go compiles.
const accelerated = true
