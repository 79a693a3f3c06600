package ivf

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/flightd/flightd/object"
	"github.com/flightd/flightd/spill"
	"github.com/flightd/flightd/vector"
)

// BuildOptions tune a Builder. The zero value is the default.
type BuildOptions struct {
	WriterOptions
	// Workers is at most how many goroutines assign and encode; default 1. The index does not depend on it.
	Workers int
	// Scratch takes what does not fit into the memory of the build: the rows until they are in the order of their partitions, and what is
	// known of pages. It is a local store for temporary files (object.NewScratch), also when the index goes to a bucket. Nil keeps
	// all rows in memory, which suits small indexes only.
	Scratch object.Store
	// ScratchBytes bounds what the build has in Scratch; 0 is half of what its disk has free when the build begins.
	ScratchBytes int64
	// Shuffle says how much of the rows is in memory at a time.
	Shuffle ShuffleOptions
	// newShuffle makes the shuffler that tests want.
	newShuffle func(partitions, width int) (shuffler, error)
}

// Builder makes an index of a model from rows that come in any order, and from other indexes of the same model. It must be ended by Finish or
// Abort. It belongs to one goroutine.
type Builder struct {
	model   *vector.IVF
	o       BuildOptions
	w       *Writer
	shuffle shuffler
	sources []source
	rows    int64
	left    int64
	sizes   []uint32 // of what the shuffle has of each partition
	// parts and codes are those of the batch at hand.
	parts []int32
	codes []byte
}

// source is an index that is taken over.
type source struct {
	x   *Index
	ids func(id uint64) (uint64, bool)
}

// NewBuilder begins an index in a folder of its own.
func NewBuilder(ctx context.Context, st object.Store, dir string, model *vector.IVF, o BuildOptions) (*Builder, error) {
	if o.Scratch != nil && o.newShuffle == nil {
		o.spillPages = spill.NewFolder(o.Scratch, o.quota())
		o.newShuffle = func(partitions, width int) (shuffler, error) {
			return newGroupShuffle(ctx, o.spillPages, partitions, width, o.Shuffle)
		}
	}
	if o.newShuffle == nil {
		o.newShuffle = func(partitions, width int) (shuffler, error) { return newMemoryShuffle(partitions, width), nil }
	}
	w, err := Create(ctx, st, dir, model, o.WriterOptions)
	if err != nil {
		return nil, err
	}
	s, err := o.newShuffle(model.Partitions(), w.width)
	if err != nil {
		w.Abort()
		return nil, fmt.Errorf("create index %s: %w", dir, err)
	}
	return &Builder{model: model, o: o, w: w, shuffle: s, sizes: make([]uint32, model.Partitions())}, nil
}

// quota returns what bounds the scratch files, nil if nothing does: the disk does not tell what it has.
func (o BuildOptions) quota() *spill.Quota {
	if o.ScratchBytes > 0 {
		return spill.NewQuota(o.ScratchBytes)
	}
	disk, ok := o.Scratch.(interface{ Free() (int64, error) })
	if !ok {
		return nil
	}
	free, err := disk.Free()
	if err != nil {
		return nil
	}
	return spill.NewQuota(free / 2)
}

// workRows is how many rows a goroutine takes at least: fewer cost more to hand out than to code.
const workRows = 512

// Add assigns and encodes rows, as they are in the column, and keeps them for Finish. Rows that no index takes are left out.
func (b *Builder) Add(ctx context.Context, ids []uint64, rows []float32) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n, dim := len(ids), b.model.Dim()
	if len(rows) != n*dim {
		return fmt.Errorf("add to index %s: %d elements for %d rows of %d", b.w.dir, len(rows), n, dim)
	}
	b.parts = slices.Grow(b.parts[:0], n)[:n]
	b.codes = slices.Grow(b.codes[:0], n*b.w.width)[:n*b.w.width]
	share := max((n+max(b.o.Workers, 1)-1)/max(b.o.Workers, 1), workRows)
	var wg sync.WaitGroup
	for at := 0; at < n; at += share {
		end := min(at+share, n)
		wg.Go(func() {
			b.encode(rows[at*dim:end*dim], b.parts[at:end], b.codes[at*b.w.width:end*b.w.width])
		})
	}
	wg.Wait()
	return b.AddCodes(b.parts, ids, b.codes)
}

// encode writes what the index stores of rows.
func (b *Builder) encode(rows []float32, parts []int32, codes []byte) {
	if b.model.PQ() != nil {
		b.model.AssignEncode(rows, parts, codes)
		return
	}
	b.model.Assign(rows, parts)
	scaled := rows
	if b.model.Metric() == vector.Cosine {
		scaled = make([]float32, len(rows))
		b.model.Prepare(scaled, rows)
	}
	out := codes[:0]
	for _, x := range scaled {
		out = b.w.elem.append(out, x)
	}
}

// AddCodes keeps rows that were coded with the same model: the partition of each, -1 for one to leave out, and its code, in rows.
func (b *Builder) AddCodes(parts []int32, ids []uint64, codes []byte) error {
	if err := b.shuffle.Add(parts, ids, codes); err != nil {
		return fmt.Errorf("add to index %s: %w", b.w.dir, err)
	}
	for _, p := range parts {
		if p >= 0 {
			b.rows++
			b.sizes[p]++
		} else {
			b.left++
		}
	}
	return nil
}

// AddIndex takes over another index of the same model. Its rows come in front of those of Add, in Finish, until when it must stay open; ids
// gives each row its id in the new index, or says that it is to be left out, each time the same; it is asked once or more. Nil keeps all as
// they are.
func (b *Builder) AddIndex(x *Index, ids func(id uint64) (uint64, bool)) error {
	if !x.Extensible() || !SameModel(x.model, b.model) || x.elem != b.w.elem {
		return fmt.Errorf("add index %s to index %s: they have different models", x.dir, b.w.dir)
	}
	if ids == nil {
		ids = func(id uint64) (uint64, bool) { return id, true }
	}
	b.sources = append(b.sources, source{x, ids})
	return nil
}

// SameModel reports whether two models give all rows the same partitions and codes.
func SameModel(a, b *vector.IVF) bool {
	if a == b {
		return true
	}
	if a.Metric() != b.Metric() || a.Dim() != b.Dim() || (a.PQ() == nil) != (b.PQ() == nil) || !slices.Equal(a.Centroids().Flat(), b.Centroids().Flat()) {
		return false
	}
	p, q := a.PQ(), b.PQ()
	return p == nil || p.Bits() == q.Bits() && p.SubVectors() == q.SubVectors() && slices.Equal(p.Codebook(), q.Codebook())
}

// Rows is how many rows were added, and how many of those no index takes.
func (b *Builder) Rows() (indexed, left int64) { return b.rows, b.left }

// Finish writes the index, makes it durable and lists its files. After an error only Abort may be called.
func (b *Builder) Finish(ctx context.Context) ([]File, error) {
	if err := b.shuffle.Finish(); err != nil {
		return nil, fmt.Errorf("finish index %s: %w", b.w.dir, err)
	}
	for p := range b.model.Partitions() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := b.finishPartition(ctx, p); err != nil {
			return nil, err
		}
	}
	if b.w.o.Trained == nil {
		b.w.o.Trained = trained(b.w.lengths)
		if len(b.sources) > 0 {
			// The model is as old as its first index.
			b.w.o.Trained = b.sources[0].x.Trained()
		}
	}
	files, err := b.w.Finish(ctx)
	return files, errors.Join(err, b.closeShuffle())
}

// finishPartition writes a partition.
func (b *Builder) finishPartition(ctx context.Context, p int) error {
	rows := int64(b.sizes[p])
	for _, s := range b.sources {
		rows += s.x.starts[p+1] - s.x.starts[p]
	}
	each := func(add func(ids []uint64, codes []byte) error) error {
		for _, s := range b.sources {
			if err := s.copy(ctx, p, add); err != nil {
				return err
			}
		}
		if err := b.shuffle.Partition(p, add); err != nil {
			return fmt.Errorf("finish index %s: partition %d: %w", b.w.dir, p, err)
		}
		return nil
	}
	if b.w.kind == PQ && rows*int64(b.w.width+8) > b.w.large {
		return b.w.addLarge(ctx, p, each)
	}
	return each(func(ids []uint64, codes []byte) error { return b.w.Add(ctx, p, ids, codes) })
}

// copy hands on what is kept of a partition.
func (s source) copy(ctx context.Context, p int, add func(ids []uint64, codes []byte) error) error {
	return s.x.scanPartition(ctx, p, func(ids []uint64, codes []byte) error {
		width, kept := s.x.width, 0
		for i, id := range ids {
			to, ok := s.ids(id)
			if !ok {
				continue
			}
			ids[kept] = to
			copy(codes[kept*width:(kept+1)*width], codes[i*width:(i+1)*width])
			kept++
		}
		if kept == 0 {
			return nil
		}
		return add(ids[:kept], codes[:kept*width])
	})
}

func (b *Builder) closeShuffle() error {
	s := b.shuffle
	if s == nil {
		return nil
	}
	b.shuffle = nil
	return s.Close()
}

// Abort removes what was written. After a Finish that succeeded it does nothing.
func (b *Builder) Abort() {
	// What the shuffler could not remove is swept when the process starts again.
	_ = b.closeShuffle()
	b.w.Abort()
}
