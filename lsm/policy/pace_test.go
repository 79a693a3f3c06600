package policy

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAMergeIsBehindWhenTooManyGenerationsCome(t *testing.T) {
	f := func(done, all int64, merged, fresh int, want bool) {
		t.Helper()
		require.Equal(t, want, Behind(done, all, merged, fresh))
	}
	f(0, 1000, 16, 0, false) // nobody writes
	f(0, 1000, 16, 1, true)
	f(125, 1000, 16, 1, false)
	f(124, 1000, 16, 1, true)
	f(500, 1000, 16, 4, false)
	f(500, 1000, 16, 5, true)
	f(1000, 1000, 16, 8, false)
	f(1000, 1000, 16, 9, true)
	f(1<<40, 1<<41, 1<<20, 1<<20, true)
	f(0, 0, 1, 3, false) // nothing to move
}

// TestAMergeThatIsNotBehindEndsInTime plays merges that move as much as they may between two flushes, and only then when
// they are not behind: no more than half as many generations come in their time, and those of one step.
func TestAMergeThatIsNotBehindEndsInTime(t *testing.T) {
	const all, merged = 1 << 20, 16
	for _, step := range []int64{all / 100, all / 20, all / 3} {
		fresh := 0
		for done := int64(0); done < all; fresh++ {
			for done < all && Behind(done, all, merged, fresh) { // unpaced
				done += step
			}
			done += all / 1000 // the pace: next to nothing
		}
		require.LessOrEqual(t, fresh, merged/2+1)
	}
}
