package policy

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// rowBytes is the size of a row in the model.
const rowBytes = 40

// limits are those that the model is held within.
var limits = Limits{Generations: 16, AllGenerations: 20, FragmentRows: 1 << 20, Fan: 8, SegmentFan: 4, Deleted: 1.0 / 3, DeletedBytes: 1 << 20, JobBytes: 1 << 30}

// model is a table to which plans are applied. Each fragment that a merge or a rewrite writes has a segment of its own.
type model struct {
	State
	next      uint64
	appended  int64 // rows
	deleted   int64 // rows
	rewritten int64 // rows that rewrites wrote
	merged    int64 // rows that merges wrote
	indexed   int64 // entries that jobs for segments wrote
	jobs      int
	// random chooses the job of a plan, nil the first.
	random *rand.Rand
}

// fragment adds a fragment to the base, and a segment over it.
func (m *model) fragment(rows int64, group string) {
	m.next++
	m.Fragments = append(m.Fragments, Fragment{ID: m.next, Rows: rows, Live: rows, Bytes: rows * rowBytes, Group: group})
	m.Segments = append(m.Segments, Segment{Index: "k", ID: fmt.Sprint(m.next), Rows: rows, Live: rows, Bytes: rows * 12})
}

// generation adds one to a shard.
func (m *model) generation(shard int, rows int64) {
	m.Generations = append(m.Generations, Generation{Shard: shard, Rows: rows, Live: rows, Bytes: rows * rowBytes})
	m.appended += rows
}

// write puts rows into fragments of at most the target.
func (m *model) write(rows, target int64, group string) {
	for ; rows > 0; rows -= target {
		m.fragment(min(rows, target), group)
	}
}

// apply does a job, and holds what every job must keep to.
func (m *model) apply(t *testing.T, j Job, l Limits) {
	t.Helper()
	m.jobs++
	switch j.Kind {
	case Merge:
		live := int64(0)
		require.NotEmpty(t, m.Generations)
		require.Len(t, m.Generations, j.Generations)
		for _, g := range m.Generations {
			live += g.Live
		}
		m.Generations = nil
		m.merged += live
		m.write(live, l.FragmentRows, "k")
	case Rewrite:
		m.applyRewrite(t, j, l)
	case Segments:
		sum, n := Segment{Index: j.Index, ID: fmt.Sprint("s", m.jobs)}, 0
		m.Segments = slices.DeleteFunc(m.Segments, func(s Segment) bool {
			in := s.Index == j.Index && slices.Contains(j.IDs, s.ID)
			if in {
				n++
				sum.Rows, sum.Bytes = sum.Rows+s.Live, sum.Bytes+s.Live*12
			}
			return in
		})
		require.Len(t, j.IDs, n)
		sum.Live = sum.Rows
		m.indexed += sum.Live
		m.Segments = append(m.Segments, sum)
	}
}

// applyRewrite does a rewrite.
func (m *model) applyRewrite(t *testing.T, j Job, l Limits) {
	t.Helper()
	require.NotEmpty(t, j.Fragments)
	var out []Fragment
	group, live, bytes := "", int64(0), int64(0)
	count, dead := 0, int64(0)
	for _, f := range m.Fragments {
		if !slices.Contains(j.Fragments, f.ID) {
			out = append(out, f)
			continue
		}
		require.False(t, f.Pinned, "fragment %d is pinned", f.ID)
		if count++; count == 1 {
			group = f.Group
		}
		require.Equal(t, group, f.Group)
		live, dead, bytes = live+f.Live, dead+f.Rows-f.Live, bytes+f.Bytes
		m.drop(f)
	}
	require.Len(t, j.Fragments, count, "each exists, and once")
	require.Equal(t, bytes, j.Read)
	require.InDelta(t, live*rowBytes, j.Written, float64(rowBytes*count))
	after := int((live + l.FragmentRows - 1) / l.FragmentRows)
	require.True(t, dead > 0 || after < count, "%d fragments become %d, nothing is deleted", count, after)
	m.Fragments = out
	m.rewritten += live
	m.write(live, l.FragmentRows, group)
}

// drop takes the entries of a fragment out of the segment that has them: a segment without live entries goes.
func (m *model) drop(f Fragment) {
	left := f.Live
	for i := range m.Segments {
		n := min(left, m.Segments[i].Live)
		m.Segments[i].Live -= n
		left -= n
	}
	m.Segments = slices.DeleteFunc(m.Segments, func(s Segment) bool { return s.Live == 0 })
}

// remove deletes up to n rows of a fragment.
func (m *model) remove(i int, n int64) {
	f := &m.Fragments[i]
	n = min(n, f.Live)
	f.Live -= n
	m.deleted += n
}

// settle carries out one job of each plan, the most urgent one or any, until nothing is planned.
func (m *model) settle(t *testing.T, l Limits) {
	t.Helper()
	for first := m.jobs; ; {
		jobs := Plan(m.State, l)
		if len(jobs) == 0 {
			return
		}
		i := 0
		if m.random != nil {
			i = m.random.IntN(len(jobs))
		}
		m.apply(t, jobs[i], l)
		require.Less(t, m.jobs-first, 100_000, "it does not end")
	}
}

// rest holds what is promised of a table for which nothing is planned.
func (m *model) rest(t *testing.T, l Limits) {
	t.Helper()
	groups := map[string][]Fragment{}
	dead := int64(0)
	for _, f := range m.Fragments {
		if !f.Pinned {
			groups[f.Group] = append(groups[f.Group], f)
			dead += f.Bytes - share(f.Bytes, f.Live, f.Rows)
		}
	}
	classes := math.Ceil(math.Log(float64(l.FragmentRows)) / math.Log(float64(l.Fan)))
	for name, list := range groups {
		rows := int64(0)
		for _, f := range list {
			rows += f.Live
			if dead >= l.DeletedBytes && f.Rows > 0 {
				require.True(t, f.Live == f.Rows || float64(f.Rows-f.Live) < l.Deleted*float64(f.Rows), "%+v", f)
			}
		}
		require.LessOrEqual(t, float64(len(list)), 2*float64(rows)/float64(l.FragmentRows)+float64(l.Fan)*classes, "group %q", name)
	}
	require.Less(t, len(m.Generations), l.AllGenerations)
	shards := map[int]int{}
	for _, g := range m.Generations {
		shards[g.Shard]++
		require.Less(t, shards[g.Shard], l.Generations)
	}
	entries := int64(1)
	for _, s := range m.Segments {
		entries += s.Live
		require.LessOrEqual(t, s.Rows, 2*s.Live)
	}
	require.LessOrEqual(t, float64(len(m.Segments)), float64(l.SegmentFan)*math.Ceil(1+math.Log(float64(entries))/math.Log(float64(l.SegmentFan))))
}

// TestEndsAndKeepsItsPromises does random things to random tables: plans always end, in a state that is as promised.
func TestEndsAndKeepsItsPromises(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 7))
		l := limits
		l.FragmentRows = int64(1) << (4 + random.IntN(17))
		l.Fan, l.SegmentFan = 2+random.IntN(9), 2+random.IntN(5)
		l.Generations, l.AllGenerations = 2+random.IntN(20), 2+random.IntN(40)
		l.Deleted = 0.05 + 0.9*random.Float64()
		l.DeletedBytes = int64(1) << random.IntN(20)
		m := &model{State: State{Room: math.MaxInt64 / 4}, random: random}
		size := func() int64 { return 1 + int64(math.Exp(random.Float64()*math.Log(4*float64(l.FragmentRows)))) }
		for range 100 {
			switch random.IntN(5) {
			case 0:
				m.generation(random.IntN(3), size())
				if n := len(m.Generations); random.IntN(3) == 0 {
					m.Generations[random.IntN(n)].Live /= 2
				}
			case 1:
				for range random.IntN(40) {
					m.fragment(size(), []string{"k", "", "other"}[random.IntN(3)])
				}
			case 2:
				if n := len(m.Fragments); n > 0 {
					m.remove(random.IntN(n), size())
				}
			case 3:
				if n := len(m.Fragments); n > 0 {
					m.Fragments[random.IntN(n)].Pinned = random.IntN(2) == 0
				}
			case 4:
				m.settle(t, l)
				m.rest(t, l)
			}
		}
		m.settle(t, l)
		m.rest(t, l)
		require.Empty(t, Plan(m.State, l), "seed %d", seed)
	}
}

// TestJobsOfAPlanHaveNothingInCommon holds it for random states.
func TestJobsOfAPlanHaveNothingInCommon(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 8))
		m := &model{State: State{Room: int64(random.IntN(1 << 28))}}
		for range random.IntN(100) {
			rows := int64(math.Exp(random.Float64() * 14))
			m.fragment(rows, []string{"k", ""}[random.IntN(2)])
			m.remove(len(m.Fragments)-1, int64(random.IntN(int(rows)+1)))
			m.generation(random.IntN(4), rows)
		}
		fragments, segments := map[uint64]bool{}, map[string]bool{}
		written := int64(0)
		for _, j := range Plan(m.State, limits) {
			for _, id := range j.Fragments {
				require.False(t, fragments[id])
				fragments[id] = true
			}
			for _, id := range j.IDs {
				require.False(t, segments[id])
				segments[id] = true
			}
			if j.Kind != Merge {
				written += j.Written
			}
		}
		require.LessOrEqual(t, written, m.Room)
	}
}

// TestSmallAppendsForEver commits single rows, each as a generation of its own, and holds how much is there at any time
// and how often a row is written.
func TestSmallAppendsForEver(t *testing.T) {
	const commits = 10_000
	m := &model{State: State{Room: math.MaxInt64 / 4}}
	most, mostSegments := 0, 0
	for range commits {
		m.generation(0, 1)
		m.settle(t, limits)
		m.rest(t, limits)
		most, mostSegments = max(most, len(m.Fragments)), max(mostSegments, len(m.Segments))
	}
	require.Less(t, most, 8*5, "classes of a fragment that has up to 10,000 rows, seven of each")
	require.Less(t, mostSegments, 4*7)
	require.Less(t, len(m.Generations), limits.Generations)
	require.Equal(t, m.appended-int64(len(m.Generations)), m.merged)
	amplification := float64(m.rewritten) / commits
	require.LessOrEqual(t, amplification, math.Log(commits)/math.Log(8)+1)
	require.LessOrEqual(t, float64(m.indexed)/commits, math.Log(commits)/math.Log(4)+1)
	require.Less(t, m.jobs, commits/5, "most commits cost no job")
	t.Logf("%d rows in commits of one: at most %d fragments and %d segments, %.2f rows rewritten and %.2f entries written anew for each, %d jobs",
		commits, most, mostSegments, amplification, float64(m.indexed)/commits, m.jobs)
}

// TestForeignAppendsForEver is the same for fragments of a single row that another program commits.
func TestForeignAppendsForEver(t *testing.T) {
	const commits = 10_000
	m := &model{State: State{Room: math.MaxInt64 / 4}}
	for range commits {
		m.fragment(1, "")
		m.settle(t, limits)
		m.rest(t, limits)
		require.Less(t, len(m.Fragments), 8*5)
	}
	require.LessOrEqual(t, float64(m.rewritten)/commits, math.Log(commits)/math.Log(8)+1)
}

// TestChurn replaces random rows of a base for ever: what it takes stays within 1/(1-d) of what lives, and each
// replaced row costs (1-d)/d rows.
func TestChurn(t *testing.T) {
	l := limits
	l.FragmentRows, l.DeletedBytes = 1<<12, 1
	random := rand.New(rand.NewPCG(5, 6))
	m := &model{State: State{Room: math.MaxInt64 / 4}}
	m.write(1<<20, l.FragmentRows, "k")
	for round := range 400 {
		rows := int64(0)
		for range 64 {
			i := random.IntN(len(m.Fragments))
			before := m.deleted
			m.remove(i, 64)
			rows += m.deleted - before
		}
		m.generation(0, rows)
		m.settle(t, l)
		m.rest(t, l)
		var bytes, live int64
		for _, f := range m.Fragments {
			bytes, live = bytes+f.Bytes, live+f.Live*rowBytes
		}
		require.LessOrEqual(t, float64(bytes), float64(live)/(1-l.Deleted)*1.01, "round %d", round)
	}
	small := math.Log(float64(l.FragmentRows)/2)/math.Log(float64(l.Fan)) + 1
	require.LessOrEqual(t, float64(m.rewritten), float64(m.deleted)*(1-l.Deleted)/l.Deleted+float64(m.merged)*small)
}
