package lsm

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/flightd/flightd/manifest"
)

// unnamed counts what lies in a table's folder and is named by no version that is there, nor by the shard: the collector
// removes it when it is old enough. It is no fault. What cannot be read of older versions is not counted at all.
func (c *checker) unnamed(ctx context.Context, t *Table, shards []*manifest.Shard) {
	named := make(map[string]bool)
	need := func(name string) { named[name] = true }
	chain, err := manifest.TableHistory(c.st, t.root, manifest.Options{}).List(ctx)
	if err != nil {
		return
	}
	for _, x := range chain {
		v, err := manifest.Load(ctx, c.st, t.root, x.Number)
		if err != nil {
			return
		}
		v.Needs(need)
	}
	detached, err := manifest.Detached(ctx, c.st, t.root)
	if err != nil {
		return
	}
	for _, v := range detached {
		v.Needs(need)
	}
	for _, folder := range collected {
		infos, err := c.st.List(ctx, path.Join(t.root, folder))
		if err != nil {
			return
		}
		for _, x := range infos {
			if f, ok := collectable(folder, x); ok && !named[f.owner] {
				c.countUnnamed(ctx, f, path.Join(t.root, f.name))
			}
		}
	}
	for i, s := range shards {
		if s == nil { // what its manifest names is unknown
			continue
		}
		dir := t.shards[i].dir()
		infos, err := c.st.List(ctx, dir)
		if err != nil {
			return
		}
		for _, x := range infos {
			listed := slices.ContainsFunc(s.Generations, func(g manifest.Generation) bool { return g.Path == x.Name })
			if x.Dir && strings.Contains(x.Name, "_gen_") && !listed {
				c.countUnnamed(ctx, storedFile{dir: true}, path.Join(dir, x.Name))
			}
		}
	}
}

// countUnnamed counts a file, or a folder as one.
func (c *checker) countUnnamed(ctx context.Context, f storedFile, name string) {
	if f.dir && weigh(ctx, c.st, &f, name) != nil {
		return
	}
	c.sum.Unnamed++
	c.sum.UnnamedBytes += f.bytes
}
