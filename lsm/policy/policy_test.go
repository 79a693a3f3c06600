package policy

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// describe returns a plan as a line.
func describe(jobs []Job) string {
	var parts []string
	for _, j := range jobs {
		switch j.Kind {
		case Merge:
			parts = append(parts, fmt.Sprintf("merge %d", j.Generations))
		case Rewrite:
			parts = append(parts, fmt.Sprintf("rewrite %v", j.Fragments))
		case Segments:
			parts = append(parts, fmt.Sprintf("segments %s %v", j.Index, j.IDs))
		}
	}
	return strings.Join(parts, "; ")
}

// TestPlan says what is planned for what, of fragments as id:live/rows, with a group, ! when they are pinned,
// or r when generations replaced three quarters.
func TestPlan(t *testing.T) {
	l := Limits{Generations: 3, AllGenerations: 4, FragmentRows: 1000, Fan: 3, SegmentFan: 3, Deleted: 0.5, DeletedBytes: 100, JobBytes: 100_000}
	for name, c := range map[string]struct {
		generations [][3]int64 // shard, rows, live
		fragments   string
		segments    [][2]int64 // rows, live
		room        int64
		want        string
	}{
		"nothing":                         {},
		"two generations":                 {generations: [][3]int64{{0, 10, 10}, {0, 10, 10}}},
		"three generations":               {generations: [][3]int64{{0, 10, 10}, {0, 10, 10}, {0, 10, 10}}, want: "merge 3"},
		"of four shards":                  {generations: [][3]int64{{0, 9, 9}, {1, 9, 9}, {2, 9, 9}, {3, 9, 9}}, want: "merge 4"},
		"generations of different shards": {generations: [][3]int64{{0, 10, 10}, {1, 10, 10}, {2, 10, 10}}},
		"generations mostly replaced":     {generations: [][3]int64{{0, 100, 0}, {0, 100, 100}}, want: "merge 2"},
		"few bytes replaced":              {generations: [][3]int64{{0, 9, 0}, {0, 9, 9}}},
		"a merge needs no room":           {generations: [][3]int64{{0, 10, 10}, {0, 10, 10}, {0, 10, 10}}, room: -1, want: "merge 3"},
		"a base mostly replaced":          {generations: [][3]int64{{0, 100, 100}}, fragments: "1:400/1000", want: "merge 1; rewrite [1]"},
		"a base mostly replaced by it":    {generations: [][3]int64{{0, 100, 100}}, fragments: "1:1000/1000r", want: "merge 1"},
		"half deleted":                    {fragments: "1:500/1000", want: "rewrite [1]"},
		"less deleted":                    {fragments: "1:501/1000"},
		"too little deleted":              {fragments: "1:1/10"},
		"emptiest for little room":        {fragments: "1:500/1000 2:100/1000 3:300/1000", room: 4000, want: "rewrite [2 3]"},
		"no room":                         {fragments: "1:500/1000", room: 4999},
		"pinned":                          {fragments: "1:500/1000! 2:1/1! 3:1/1! 4:1/1!"},
		"no rows left":                    {fragments: "1:0/1000", want: "rewrite [1]"},
		"three small ones":                {fragments: "1:1/1 2:999/999 3:2/2 4:1/1", want: "rewrite [1 3 4]"},
		"two small ones":                  {fragments: "1:1/1 2:2/2"},
		"of different sizes":              {fragments: "1:1/1 2:3/3 3:9/9 4:27/27"},
		"of the next class, too":          {fragments: "1:3/3 2:3/3 3:1/1 4:1/1 5:1/1 6:27/27", want: "rewrite [1 2 3 4 5]"},
		"and the one after":               {fragments: "1:3/3 2:3/3 3:1/1 4:1/1 5:1/1 6:9/9 7:9/9", want: "rewrite [1 2 3 4 5 6 7]"},
		"two classes apart":               {fragments: "1:1/1 2:1/1 3:1/1 4:81/81 5:81/81 6:81/81", want: "rewrite [1 2 3]; rewrite [4 5 6]"},
		"groups apart":                    {fragments: "1:1/1 2:1/1a 3:1/1 4:1/1a 5:1/1 6:1/1a", want: "rewrite [1 3 5]; rewrite [2 4 6]"},
		"half of the target is enough":    {fragments: "1:500/500 2:500/500 3:500/500"},
		"less is not":                     {fragments: "1:499/499 2:499/499 3:499/499", want: "rewrite [1 2 3]"},
		"in parts": {fragments: "1:4500/9000 2:4500/9000 3:4500/9000", room: 1e9,
			want: "rewrite [1]; rewrite [2]; rewrite [3]"},
		"three segments":           {segments: [][2]int64{{10, 10}, {10, 10}, {10, 10}}, want: "segments x [0 1 2]"},
		"segments of their sizes":  {segments: [][2]int64{{1000, 1000}, {100, 100}, {10, 10}}},
		"a segment mostly of gone": {segments: [][2]int64{{1000, 499}}, want: "segments x [0]"},
		"a segment half of gone":   {segments: [][2]int64{{1000, 500}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := State{Room: 1 << 40}
			if c.room != 0 {
				s.Room = c.room
			}
			for _, g := range c.generations {
				s.Generations = append(s.Generations, Generation{Shard: int(g[0]), Rows: g[1], Live: g[2], Bytes: g[1] * 10})
			}
			for _, text := range strings.Fields(c.fragments) {
				var f Fragment
				_, err := fmt.Sscanf(strings.TrimRight(text, "ar!"), "%d:%d/%d", &f.ID, &f.Live, &f.Rows)
				require.NoError(t, err)
				f.Bytes, f.Pinned = f.Rows*10, strings.HasSuffix(text, "!")
				if strings.HasSuffix(text, "r") {
					f.Replaced = f.Live * 3 / 4
				}
				if strings.HasSuffix(text, "a") {
					f.Group = "a"
				}
				s.Fragments = append(s.Fragments, f)
			}
			for i, x := range c.segments {
				s.Segments = append(s.Segments, Segment{Index: "x", ID: fmt.Sprint(i), Rows: x[0], Live: x[1], Bytes: x[0] * 10})
			}
			require.Equal(t, c.want, describe(Plan(s, l)))
		})
	}
}

// TestSegmentsOfTheSameRowsBecomeOne leaves those alone that have rows of their own.
func TestSegmentsOfTheSameRowsBecomeOne(t *testing.T) {
	s := State{Room: 1 << 40}
	for i, overlaps := range []bool{true, false, true} {
		s.Segments = append(s.Segments, Segment{Index: "x", ID: fmt.Sprint(i), Rows: 10, Live: 10, Bytes: 100, Overlaps: overlaps})
	}
	require.Equal(t, "segments x [0 2]", describe(Plan(s, limits)))
}

// TestPlanOfHugeTables does not overflow.
func TestPlanOfHugeTables(t *testing.T) {
	f := Fragment{ID: 1, Rows: math.MaxInt64 / 4, Live: 1, Bytes: math.MaxInt64 / 4}
	jobs := Plan(State{Fragments: []Fragment{f}, Room: math.MaxInt64}, limits)
	require.Equal(t, "rewrite [1]", describe(jobs))
}
