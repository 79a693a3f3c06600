package lsm

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
)

// logGroup is a group in a segment of the log; see package wal for the bytes.
type logGroup struct {
	segment string // the file
	id      uint64
	from    int
	to      int
	last    LSN // of its records, 0 for a mark
	epoch   bool
	// synced is up to where the log was safe when the group was written.
	syncedID uint64
	syncedAt int
}

// Where groups begin, and the parts of their headers that count here.
const (
	logFirstGroup  = 4096
	logHeaderBytes = 64
	logSector      = 512
)

// logGroups returns the groups of all segments of a log, in order. What does not look like a group of its segment ends it.
func logGroups(files map[string][]byte) (groups []logGroup) {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if path.Dir(name) != walFolder || !strings.HasSuffix(name, ".wal") {
			continue
		}
		b := files[name]
		if len(b) < logFirstGroup {
			continue
		}
		id := binary.LittleEndian.Uint64(b[8:])
		for at := logFirstGroup; at+logHeaderBytes <= len(b); {
			h := b[at:]
			length := int(binary.LittleEndian.Uint32(h[20:]))
			if binary.LittleEndian.Uint64(h[8:]) != id || int(binary.LittleEndian.Uint32(h[16:])) != at || length < logHeaderBytes || at+length > len(b) {
				break
			}
			g := logGroup{segment: name, id: id, from: at, to: at + length, epoch: h[56] == 4,
				syncedID: binary.LittleEndian.Uint64(h[40:]), syncedAt: int(binary.LittleEndian.Uint32(h[48:]))}
			if n := binary.LittleEndian.Uint32(h[52:]); n > 0 {
				g.last = LSN(binary.LittleEndian.Uint64(h[24:])) + LSN(n) - 1
			}
			groups = append(groups, g)
			at += length
		}
	}
	return groups
}

// unsafeGroups returns the groups that a power cut may take: those behind the last of which the log says, or whoever
// writes to it was told, that it is synced.
func unsafeGroups(groups []logGroup, durable LSN) []logGroup {
	first := 0
	for i, g := range groups {
		if g.last > 0 && g.last <= durable || g.epoch { // an Open that has returned has synced its mark
			first = max(first, i+1)
		}
		for j, other := range groups {
			if other.id < g.syncedID || other.id == g.syncedID && other.to <= g.syncedAt || other.id+1 < g.id {
				first = max(first, j+1)
			}
		}
	}
	return groups[first:]
}

// tearLog takes from a log what a power cut may: of what is not synced, any sectors, the rest of a torn one, or bits.
func tearLog(files map[string][]byte, durable LSN, r *rand.Rand) {
	loose := unsafeGroups(logGroups(files), durable)
	if len(loose) == 0 {
		return
	}
	how := r.IntN(5)
	cut := loose[r.IntN(len(loose))]
	at := cut.from + r.IntN(cut.to-cut.from)
	for i, g := range loose {
		b := slices.Clone(files[g.segment])
		behind := g.id > cut.id || g.id == cut.id && g.from >= cut.from
		switch {
		case how == 0: // nothing of it came to the disk
			lose(b[g.from:g.to], r)
		case how == 1: // any sectors
			for from := g.from; from < g.to; {
				to := min(from/logSector*logSector+logSector, g.to)
				if r.IntN(2) == 0 {
					lose(b[from:to], r)
				}
				from = to
			}
		case how == 2 && g.from == cut.from && g.id == cut.id: // the rest of one, and all behind it
			lose(b[at:g.to], r)
		case how == 2 && behind:
			lose(b[g.from:g.to], r)
		case how == 3 && i == len(loose)-1: // its tail is other than it was written
			b[g.from+r.IntN(g.to-g.from)] ^= 1 << r.IntN(8)
		}
		files[g.segment] = b
	}
}

// lose makes bytes those that were on the disk before, zeros or what a segment held in an earlier life.
func lose(b []byte, r *rand.Rand) {
	if r.IntN(2) == 0 {
		clear(b)
		return
	}
	for i := range b {
		b[i] = byte(r.Uint32())
	}
}
