package ivf

import "encoding/json"

// metaTrained is our own metadata of index.idx: the JSON of Trained. Other readers skip it.
const metaTrained = "flightd:trained"

// Trained is how rows lay when the model of an index was trained.
type Trained struct {
	// Rows is the number of rows that were indexed then.
	Rows int64 `json:"rows"`
	// Imbalance is that of their partitions.
	Imbalance float64 `json:"imbalance"`
}

// Imbalance is how many times more rows a search looks at than it would in partitions of one size: the number of partitions times the sum of
// the squares of their sizes over the square of their sum. It is 1 for partitions of one size, and their number when all rows are in one. An
// index without rows has 1.
func Imbalance(sizes []int64) float64 {
	var sum, squares float64
	for _, n := range sizes {
		sum += float64(n)
		squares += float64(n) * float64(n)
	}
	if sum == 0 {
		return 1
	}
	return float64(len(sizes)) * squares / (sum * sum)
}

const (
	// driftGrowth is how many times the rows of its training an index has before it may be trained again: fewer cannot have changed
	// much, and training costs as much as they do.
	driftGrowth = 1.5
	// driftFactor is how many times the imbalance of its training makes a search too slow.
	driftFactor = 2
	// unknownImbalance is taken for that of its training where nobody wrote it down; k-means leaves 1.2 to 2.
	unknownImbalance = 2
)

// Drifted is the policy: it says whether an index should be trained again, by the sizes of its partitions and how they were when it
// was trained, nil if that is not known. doc.go gives the reasons.
func Drifted(sizes []int64, t *Trained) bool {
	var rows int64
	for _, n := range sizes {
		rows += n
	}
	before := Trained{Rows: 0, Imbalance: unknownImbalance}
	if t != nil {
		before = *t
	}
	if float64(rows) < driftGrowth*float64(before.Rows) || rows < int64(len(sizes)) {
		return false
	}
	return Imbalance(sizes) > driftFactor*max(before.Imbalance, 1)
}

// trained is what an index that was just trained and filled has of its partitions.
func trained(lengths []uint32) *Trained {
	sizes, t := make([]int64, len(lengths)), &Trained{}
	for p, n := range lengths {
		sizes[p] = int64(n)
		t.Rows += int64(n)
	}
	t.Imbalance = Imbalance(sizes)
	return t
}

// Trained is how rows lay when the model was trained, nil if that is not known.
func (x *Index) Trained() *Trained {
	var t Trained
	if json.Unmarshal([]byte(x.index.Metadata()[metaTrained]), &t) != nil || t.Rows < 0 || !(t.Imbalance >= 1) {
		return nil
	}
	return &t
}

// Drifted says whether the index should be trained again.
func (x *Index) Drifted() bool { return Drifted(x.Sizes(), x.Trained()) }
