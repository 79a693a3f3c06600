// Package query runs SQL over snapshots of the engine.
package query
