package policy

// Behind reports whether a merge is too slow for those who write meanwhile, and may not be held to a pace: it takes in some
// generations and has done so much of all that it has to do, while some fresh ones came. At the rate of both, there would be
// more than half as many fresh ones at its end as it takes in.
//
// A merge that only just kept up would leave twice as many generations in front of the base as one of them needs, each of
// which a flush looks its keys up in.
func Behind(done, all int64, merged, fresh int) bool {
	return 2*float64(fresh)*float64(all) > float64(merged)*float64(done)
}
