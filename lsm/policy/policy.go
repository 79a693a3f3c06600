package policy

import (
	"cmp"
	"slices"
)

// Generation is one generation of a shard.
type Generation struct {
	// Shard is the place of the shard in its table.
	Shard int
	// Rows has the rows, Live those that are neither tombstones nor replaced.
	Rows, Live int64
	// Bytes is the size on disk.
	Bytes int64
}

// Fragment is one fragment of the base.
type Fragment struct {
	ID uint64
	// Rows has the rows in the files, Live those that are not deleted, and Replaced those of them that a merge deletes.
	Rows, Live, Replaced int64
	// Bytes is the size on disk.
	Bytes int64
	// Group tells which fragments may become one: those that the same indexes cover.
	Group string
	// Pinned is set when the fragment must stay: an index has its rows that cannot follow them, or a statement is about to
	// change it.
	Pinned bool
}

// Segment is one segment of an index.
type Segment struct {
	// Index is the name of the index, ID tells the segment from others.
	Index, ID string
	// Rows has the entries, Live those of rows that are there.
	Rows, Live int64
	// Overlaps is set when another segment of the index has rows of it, too.
	Overlaps bool
	// Bytes is the size on disk.
	Bytes int64
}

// State is a table as far as compaction is concerned. Generations are in their order, oldest first, and so are the
// fragments.
type State struct {
	Generations []Generation
	Fragments   []Fragment
	Segments    []Segment
	// Room is what compaction may write before it gives anything back, in bytes.
	Room int64
}

// Limits are what compaction keeps a table within.
type Limits struct {
	// Generations is how many generations of a shard, and AllGenerations how many of all shards, are merged.
	Generations, AllGenerations int
	// FragmentRows is how many rows a fragment is to have.
	FragmentRows int64
	// Fan is how many small fragments of a class are put together, SegmentFan how many index segments. Both are at least 2.
	Fan, SegmentFan int
	// Deleted is the part of a fragment that may be deleted, more than 0 and at most 1.
	Deleted float64
	// DeletedBytes is what may be deleted in the whole base without more ado: small tables gain nothing from less.
	DeletedBytes int64
	// JobBytes is what one rewrite should read at most. A single fragment may have more.
	JobBytes int64
}

// Kind is what a job does.
type Kind uint8

// The kinds of jobs.
const (
	Merge Kind = iota + 1
	Rewrite
	Segments
)

// String implements fmt.Stringer.
func (k Kind) String() string {
	return [...]string{"none", "merge", "rewrite", "segments"}[k]
}

// Job is one step of a plan: one commit of the table.
type Job struct {
	Kind Kind
	// Generations is how many a merge brings into the base: all.
	Generations int
	// Fragments are the ids of those that a rewrite writes anew, in the order of their rows.
	Fragments []uint64
	// Index and IDs are the segments that become one.
	Index string
	IDs   []string
	// Read and Written are about the bytes that the job moves.
	Read, Written int64
}

// Plan returns what should be done, the most urgent first. One job is done, any of them, and then the rest is planned anew:
// its segments may have gone with fragments that were written anew.
func Plan(s State, l Limits) []Job {
	p := planner{l: l, room: s.Room}
	p.merge(s)
	p.deletions(s.Fragments)
	p.small(s.Fragments)
	p.segments(s.Segments)
	return p.jobs
}

// planner collects jobs.
type planner struct {
	l    Limits
	room int64
	jobs []Job
	// taken are fragments that have a job.
	taken map[uint64]bool
}

// add plans a job, if there is room for it.
func (p *planner) add(j Job) bool {
	if j.Written > p.room {
		return false
	}
	p.room -= j.Written
	p.jobs = append(p.jobs, j)
	for _, id := range j.Fragments {
		if p.taken == nil {
			p.taken = make(map[uint64]bool)
		}
		p.taken[id] = true
	}
	return true
}

// share returns the part of some bytes that belongs to some of the rows.
func share(bytes, rows, all int64) int64 {
	if all <= 0 {
		return 0
	}
	return int64(float64(bytes) * (float64(rows) / float64(all)))
}

// merge plans a merge of all generations. It is planned without regard to room: it gives room back, and writers had to
// leave what it needs.
func (p *planner) merge(s State) {
	var live, dead int64 // bytes in the whole table
	for _, f := range s.Fragments {
		n := share(f.Bytes, f.Live-f.Replaced, f.Rows)
		live, dead = live+n, dead+f.Bytes-n
	}
	j := Job{Kind: Merge, Generations: len(s.Generations)}
	longest := 0
	shards := make(map[int]int)
	for _, g := range s.Generations {
		n := share(g.Bytes, g.Live, g.Rows)
		live, dead = live+n, dead+g.Bytes-n
		j.Read += g.Bytes
		j.Written += n
		shards[g.Shard]++
		longest = max(longest, shards[g.Shard])
	}
	wasteful := j.Generations > 0 && dead >= live && dead >= max(p.l.DeletedBytes, 1)
	if longest >= p.l.Generations || j.Generations >= p.l.AllGenerations || wasteful {
		p.room = max(p.room, j.Written)
		p.add(j)
	}
}

// deletions plans to write fragments anew of which too much is deleted, the emptiest first.
func (p *planner) deletions(all []Fragment) {
	dead := int64(0)
	var list []Fragment
	for _, f := range all {
		if f.Pinned || f.Rows <= 0 {
			continue
		}
		dead += f.Bytes - share(f.Bytes, f.Live, f.Rows)
		if gone := f.Rows - f.Live; gone > 0 && float64(gone) >= p.l.Deleted*float64(f.Rows) {
			list = append(list, f)
		}
	}
	if dead < p.l.DeletedBytes {
		return
	}
	slices.SortStableFunc(list, func(a, b Fragment) int {
		return cmp.Compare(float64(a.Live)/float64(a.Rows), float64(b.Live)/float64(b.Rows))
	})
	p.rewrites(list, 1)
}

// small plans to put small fragments together.
func (p *planner) small(all []Fragment) {
	groups := make(map[string][]Fragment)
	var names []string
	for _, f := range all {
		if f.Pinned || p.taken[f.ID] || 2*f.Live >= p.l.FragmentRows {
			continue
		}
		if groups[f.Group] == nil {
			names = append(names, f.Group)
		}
		groups[f.Group] = append(groups[f.Group], f)
	}
	for _, name := range names {
		list := groups[name]
		sizes := make([]int64, len(list))
		for i, f := range list {
			sizes[i] = f.Live
		}
		for _, set := range crowded(sizes, p.l.Fan) {
			part := make([]Fragment, len(set))
			for i, at := range set {
				part[i] = list[at]
			}
			p.rewrites(part, 2)
		}
	}
}

// rewrites plans to write fragments anew, as many together as one job should read and as belong together, but no fewer
// than least. Those for which there is no room are left out.
func (p *planner) rewrites(list []Fragment, least int) {
	for len(list) > 0 {
		group := list[0].Group
		j := Job{Kind: Rewrite}
		var later, part []Fragment
		for _, f := range list {
			written := share(f.Bytes, f.Live, f.Rows)
			switch {
			case f.Group != group || len(part) > 0 && j.Read+f.Bytes > p.l.JobBytes:
				later = append(later, f)
			case j.Written+written <= p.room:
				part = append(part, f)
				j.Read += f.Bytes
				j.Written += written
			}
		}
		if len(part) >= max(least, 1) {
			for _, f := range part {
				j.Fragments = append(j.Fragments, f.ID)
			}
			slices.Sort(j.Fragments)
			p.add(j)
		}
		list = later
	}
}

// segments plans what becomes of index segments.
func (p *planner) segments(all []Segment) {
	byIndex := make(map[string][]Segment)
	var names []string
	for _, s := range all {
		if byIndex[s.Index] == nil {
			names = append(names, s.Index)
		}
		byIndex[s.Index] = append(byIndex[s.Index], s)
	}
	for _, name := range names {
		list := byIndex[name]
		sizes := make([]int64, len(list))
		for i, s := range list {
			sizes[i] = s.Live
		}
		taken := make([]bool, len(list))
		if overlapping := overlaps(list); len(overlapping) > 0 {
			j := Job{Kind: Segments, Index: name}
			for _, s := range overlapping {
				j.take(s)
			}
			p.add(j)
			continue // what it leaves is planned for then
		}
		for _, set := range crowded(sizes, p.l.SegmentFan) {
			j := Job{Kind: Segments, Index: name}
			for _, at := range set {
				taken[at] = true
				j.take(list[at])
			}
			p.add(j)
		}
		for i, s := range list {
			if stale := s.Rows - s.Live; !taken[i] && stale > s.Live {
				j := Job{Kind: Segments, Index: name}
				j.take(s)
				p.add(j)
			}
		}
	}
}

// overlaps returns the segments that have rows which others have, too.
func overlaps(list []Segment) (out []Segment) {
	for _, s := range list {
		if s.Overlaps {
			out = append(out, s)
		}
	}
	return out
}

// take adds a segment to a job.
func (j *Job) take(s Segment) {
	j.IDs = append(j.IDs, s.ID)
	j.Read += s.Bytes
	j.Written += share(s.Bytes, s.Live, s.Rows)
}

// class returns the class of a size.
func class(size int64, fan int) int {
	c := 0
	for ; size >= int64(fan); size /= int64(fan) {
		c++
	}
	return c
}

// crowded returns, as places in sizes, the sets that should become one each: whole classes of which there are fan or
// more, together with those above that are crowded with the result. Each set is in ascending order.
func crowded(sizes []int64, fan int) [][]int {
	byClass := make(map[int][]int)
	top := 0
	for i, n := range sizes {
		c := class(n, fan)
		byClass[c] = append(byClass[c], i)
		top = max(top, c)
	}
	var out [][]int
	var set []int // what becomes one so far
	sum := int64(0)
	for c := 0; c <= top; c++ {
		n := len(byClass[c])
		if len(set) > 0 && class(sum, fan) == c {
			n++
		}
		if n < fan || len(byClass[c]) == 0 {
			continue
		}
		if len(set) > 0 && class(sum, fan) < c { // it does not reach up here
			out = append(out, set)
			set, sum = nil, 0
		}
		for _, i := range byClass[c] {
			set = append(set, i)
			sum += sizes[i]
		}
	}
	if len(set) > 1 {
		out = append(out, set)
	}
	for _, set := range out {
		slices.Sort(set)
	}
	return out
}
