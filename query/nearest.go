package query

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/agnivade/levenshtein"
)

// nearestName returns which of some names was probably meant by one that is none of them, "" when none is like it: at most half of the letters
// have to be changed.
func nearestName(name string, names []string) string {
	slices.Sort(names)
	best, least := "", utf8.RuneCountInString(name)/2+1
	for _, n := range names {
		if d := levenshtein.ComputeDistance(strings.ToLower(name), strings.ToLower(n)); d < least {
			best, least = n, d
		}
	}
	return best
}
