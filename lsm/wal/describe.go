package wal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"path/filepath"
	"strings"
)

// Describe writes what is in the log of a folder, for people: segments, groups, records and where it ends. body says
// what a record's body means, in lines; nil for nothing. It changes nothing. Damage is the last thing that it writes, and
// it is returned.
func Describe(w io.Writer, dir string, body func(*Record) string) error {
	return describe(w, folder(dir), 0, body)
}

// DescribeSegment is Describe of one segment of a log, by its path.
func DescribeSegment(w io.Writer, path string, body func(*Record) string) error {
	d, id, err := oneSegment(path)
	if err != nil {
		return err
	}
	return describe(w, d, id, body)
}

// ReplaySegment calls fn with each record of one segment of a log, by its path, as Replay does.
func ReplaySegment(path string, fn func(*Record) error) error {
	d, id, err := oneSegment(path)
	if err != nil {
		return err
	}
	var recs []Record
	_, err = walk(d, func(r *reader, g *group) error {
		if g.at.segment != id || g.typ != recordGroup {
			return nil
		}
		var err error
		if recs, err = g.decodeRecords(g.body, recs); err != nil {
			return r.corruptAt(g.at, err)
		}
		for i := range recs {
			if err := fn(&recs[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// oneSegment returns the log that a segment belongs to, and its id. Where its groups end only the whole log tells.
func oneSegment(path string) (disk, uint64, error) {
	id, ok := parseName(filepath.Base(path), segmentSuffix)
	if !ok {
		return nil, 0, fmt.Errorf("%s is not named like a segment of the log", path)
	}
	return folder(filepath.Dir(path)), id, nil
}

// describe describes a log, or, when only is not 0, one segment of it.
func describe(w io.Writer, d disk, only uint64, body func(*Record) string) error {
	out := bufio.NewWriter(w)
	var recs []Record
	segment := uint64(0)
	end, err := walk(d, func(r *reader, g *group) error {
		if only != 0 && g.at.segment != only {
			return nil
		}
		if g.at.segment != segment {
			segment = g.at.segment
			fmt.Fprintf(out, "%s: %d bytes\n", segmentName(segment), r.win.size)
		}
		describeGroup(out, &g.groupHeader)
		if g.typ != recordGroup {
			return nil
		}
		var err error
		if recs, err = g.decodeRecords(g.body, recs); err != nil {
			return r.corruptAt(g.at, err)
		}
		for i := range recs {
			describeRecord(out, &recs[i], body)
		}
		return nil
	})
	if err == nil {
		switch {
		case only == 0 || only == end.tail.segment:
			describeEnd(out, end)
		case only > end.tail.segment:
			fmt.Fprintf(out, "%s: the log ends before it, at %s\n", segmentName(only), end.tail)
		}
		return out.Flush()
	}
	fmt.Fprintf(out, "damage: %v\n", err)
	return errors.Join(err, out.Flush())
}

func describeGroup(w io.Writer, h *groupHeader) {
	fmt.Fprintf(w, "%10d  %-7s", h.at.offset, h.typ)
	switch h.typ {
	case recordGroup:
		fmt.Fprintf(w, " %s to %s: %s, %d bytes", h.lsn, h.last(), kindList(h.kinds), h.length)
	case epochMark:
		fmt.Fprintf(w, " %d after %s", h.lsn.Epoch(), h.prev)
	default:
		fmt.Fprintf(w, " after %s", h.prev)
	}
	fmt.Fprintf(w, "; synced to %s\n", h.synced)
}

func describeRecord(w io.Writer, r *Record, body func(*Record) string) {
	fmt.Fprintf(w, "            %s %s, shard %s, incarnation %d, schema %d, %d rows, %d bytes\n",
		r.LSN, r.Kind, r.Shard, r.Incarnation, r.Schema, r.Rows, r.bodyBytes())
	if body == nil {
		return
	}
	for line := range strings.Lines(body(r)) {
		fmt.Fprintf(w, "              %s", line)
	}
}

func describeEnd(w io.Writer, end State) {
	if len(end.segments) == 0 {
		fmt.Fprintln(w, "no log")
		return
	}
	fmt.Fprintf(w, "end: last record %s, %s at %d", end.LSN, segmentName(end.tail.segment), end.tail.offset)
	if end.Dropped > 0 {
		fmt.Fprintf(w, ", behind it a torn tail with %d groups", end.Dropped)
	}
	if end.prepared {
		fmt.Fprintf(w, ", %s is prepared", segmentName(end.tail.segment+1))
	}
	fmt.Fprintln(w)
}

// kindList names the kinds in a set.
func kindList(kinds uint32) string {
	var names []string
	for ; kinds != 0; kinds &= kinds - 1 {
		names = append(names, Kind(bits.TrailingZeros32(kinds)).String())
	}
	return strings.Join(names, ", ")
}
