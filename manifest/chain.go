package manifest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/flightd/flightd/object"
)

// chain is a folder of versions, numbered from 1 without gaps.
type chain struct {
	st    object.Store
	dir   string
	hint  string
	name  func(n uint64) string
	parse func(file string) (uint64, error)
	o     Options
}

func tableChain(st object.Store, root string, o Options) *chain {
	return &chain{st: st, dir: path.Join(root, "_versions"), hint: "latest_version_hint.json", name: versionFile, parse: parseVersionFile, o: o}
}

func shardChain(st object.Store, dir string, o Options) *chain {
	return &chain{st: st, dir: path.Join(dir, "manifest"), hint: "version_hint.json", name: shardFile, parse: parseShardFile, o: o}
}

// versionFile names a version of a table: the digits fall as the number rises, so listings begin with the newest.
func versionFile(n uint64) string { return fmt.Sprintf("%020d.manifest", math.MaxUint64-n) }

// parseVersionFile returns 0 for a file that is not a version.
func parseVersionFile(file string) (uint64, error) {
	digits, ok := strings.CutSuffix(file, ".manifest")
	if !ok || strings.HasPrefix(digits, "d") {
		return 0, nil
	}
	u, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || len(digits) != 20 {
		return 0, fmt.Errorf("%q follows the first naming scheme of versions; rename them with Lance's migrate_manifest_paths_v2", file)
	}
	return math.MaxUint64 - u, nil
}

// shardFile names a version of a shard by its reversed bits, so that successive names share no prefix.
func shardFile(n uint64) string { return fmt.Sprintf("%064b.binpb", bits.Reverse64(n)) }

// parseShardFile returns 0 for a file that is not a version.
func parseShardFile(file string) (uint64, error) {
	digits, ok := strings.CutSuffix(file, ".binpb")
	if !ok || len(digits) != 64 {
		return 0, nil
	}
	u, err := strconv.ParseUint(digits, 2, 64)
	if err != nil {
		return 0, nil
	}
	return bits.Reverse64(u), nil
}

func (c *chain) path(n uint64) string { return path.Join(c.dir, c.name(n)) }

// newest returns the highest version, 0 when there is none.
func (c *chain) newest(ctx context.Context) (uint64, error) {
	if n := c.readHint(ctx); n > 0 {
		switch ok, err := c.exists(ctx, n); {
		case err != nil:
			return 0, err
		case ok:
			return c.forward(ctx, n)
		}
	}
	files, err := c.st.List(ctx, c.dir)
	if err != nil {
		return 0, fmt.Errorf("find the newest version: %w", err)
	}
	var last uint64
	for _, f := range files {
		n, err := c.parse(f.Name)
		if err != nil {
			return 0, fmt.Errorf("find the newest version in %s: %w", c.dir, err)
		}
		last = max(last, n)
	}
	if last == 0 {
		return 0, nil
	}
	return c.forward(ctx, last)
}

// forward returns the highest version at or above from.
// REQUIRES: from exists.
//
// The versions that follow are asked for in parallel steps of a few, not one by one, because in a bucket each answer
// takes a round trip; most of the time the first step finds nothing.
func (c *chain) forward(ctx context.Context, from uint64) (uint64, error) {
	step := c.o.scanBatch()
	found := make([]bool, step)
	errs := make([]error, step)
	for from < math.MaxUint64-uint64(step) {
		var wg sync.WaitGroup
		for i := range found {
			wg.Go(func() { found[i], errs[i] = c.exists(ctx, from+1+uint64(i)) })
		}
		wg.Wait()
		for i := range found {
			if errs[i] != nil {
				return 0, errs[i]
			}
			if !found[i] {
				return from + uint64(i), nil
			}
		}
		from += uint64(step)
	}
	return from, nil
}

func (c *chain) exists(ctx context.Context, n uint64) (bool, error) {
	_, err := c.st.Stat(ctx, c.path(n))
	if errors.Is(err, object.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for version %d: %w", n, err)
	}
	return true, nil
}

// put publishes version n, or returns object.ErrExists. The hint follows; nothing depends on it, so a failure to
// write it is only told to Warn. A slower rival may set it back: readers look forward from wherever it points.
func (c *chain) put(ctx context.Context, n uint64, data []byte) error {
	if err := c.st.PutIfAbsent(ctx, c.path(n), data); err != nil {
		return err
	}
	if err := c.point(ctx, n); err != nil {
		c.o.warn("version hint not written; the newest version is found more slowly", err)
	}
	return nil
}

// holds tells whether version n is made of the given bytes, which no other writer makes: then it was this one who put
// them there, by a call of which the answer was lost.
func (c *chain) holds(ctx context.Context, n uint64, data []byte) bool {
	b, err := c.st.Get(ctx, c.path(n))
	return err == nil && bytes.Equal(b, data)
}

// point writes the hint.
func (c *chain) point(ctx context.Context, n uint64) error {
	return c.st.Put(ctx, path.Join(c.dir, c.hint), fmt.Appendf(nil, `{"version":%d}`, n))
}

// readHint returns 0 when the hint is missing or unusable.
func (c *chain) readHint(ctx context.Context) uint64 {
	b, err := c.st.Get(ctx, path.Join(c.dir, c.hint))
	if err != nil {
		return 0
	}
	var hint struct {
		Version uint64 `json:"version"`
	}
	if json.Unmarshal(b, &hint) != nil || hint.Version >= math.MaxUint64>>1 {
		return 0
	}
	return hint.Version
}
