package ivf

import (
	"context"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
	"github.com/flightd/flightd/vector"
)

func TestOpenIndexesShareEqualModels(t *testing.T) {
	const dim = 8
	rows := clustered(26, 600, dim, 5)
	models, st := &Models{}, object.NewMem()
	var all []*vector.IVF
	for i, o := range []TrainOptions{{}, {Bits: 4}, {SubVectors: 4}, {Metric: vector.Dot}, {Metric: vector.Cosine}, {Kind: Flat}, {Kind: Flat, Metric: vector.Cosine}, {Partitions: 6}} {
		if o.Partitions == 0 {
			o.Partitions = 5
		}
		model := train(t, rows, dim, o)
		a, b := string(rune('a'+i)), string(rune('A'+i))
		build(t, st, a, model, rows, BuildOptions{})
		build(t, st, b, model, rows[:100*dim], BuildOptions{})
		x, y := open(t, st, a, Options{Models: models}), open(t, st, b, Options{Models: models})
		require.Same(t, x.Model(), y.Model())
		require.True(t, SameModel(model, x.Model()))
		require.NotContains(t, all, x.Model(), "a model of other options")
		require.NotSame(t, x.Model(), open(t, st, a, Options{}).Model(), "without Models nothing is shared")
		all = append(all, x.Model())
	}
	require.Len(t, models.held, len(all))
}

func TestModelsGoWithTheirIndexes(t *testing.T) {
	const dim = 8
	rows := clustered(27, 300, dim, 5)
	models, st := &Models{}, object.NewMem()
	use := func(name string, seed uint64) {
		build(t, st, name, train(t, rows, dim, TrainOptions{Partitions: 3, Seed: seed}), rows, BuildOptions{})
		x, err := Open(context.Background(), st, name, Options{Models: models})
		require.NoError(t, err)
		require.NoError(t, x.Close())
	}
	for i := range 5 {
		use(string(rune('a'+i)), uint64(i))
		runtime.GC()
		runtime.GC()
	}
	require.LessOrEqual(t, len(models.held), 2, "those that are gone are forgotten as others come")
}
