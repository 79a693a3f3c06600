package lsm

import (
	"context"
	"path"
	"slices"

	"github.com/google/uuid"

	"github.com/flightd/flightd/btree"
	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/manifest"
)

// btreeIndexVersion is the version that Lance gives to a BTREE whose ids are row addresses.
const btreeIndexVersion = 0

// writeKeyIndex writes a segment of the base's key index over the fragments that a merge appends.
func (c *compactor) writeKeyIndex(ctx context.Context, m *merged, b *base, appended []uint64) (manifest.Index, error) {
	codec := m.schema.codec
	field := m.schema.lance.Fields[codec.cols[0]]
	x := manifest.Index{Name: c.table.keyIndexName(field), UUID: uuid.New(), Fields: []int32{field.ID}, Version: b.version.Number,
		Fragments: fragmentSet(appended), IndexVersion: btreeIndexVersion}
	if len(b.indexes) > 0 {
		x.Name = b.indexes[0].meta.Name
	}
	var err error
	if x.Details, err = lancepb.NewAny(&lancepb.BTreeIndexDetails{}); err != nil {
		return x, err
	}
	w, err := btree.Create(ctx, c.db.st, path.Join(c.table.root, x.Dir()), codec.typ, btree.WriterOptions{})
	if err != nil {
		return x, err
	}
	var keys []*btree.Index
	for _, l := range m.gens {
		keys = append(keys, l.layer.(*generation).keys)
	}
	err = btree.Merge(ctx, w, keys, func(gen int, id uint64) (uint64, bool) {
		place, ok := m.place(gen, uint32(id))
		if !ok {
			return 0, false
		}
		return address(place, appended), true
	})
	if err != nil {
		w.Abort()
		return x, err
	}
	files, err := w.Finish(ctx)
	for _, f := range files {
		x.Files = append(x.Files, manifest.IndexFile{Path: f.Path, Bytes: f.Bytes})
	}
	return x, err
}

// indexBatch is how many entries go to a BTREE writer at a time: one of its pages.
const indexBatch = 4096

// keyIndexName returns the name that the index of the key gets in the base: what CREATE INDEX called it, or Lance's own.
func (t *Table) keyIndexName(key lance.Field) string {
	for _, x := range t.indexList() {
		if slices.Equal(x.Fields, []int32{key.ID}) {
			return x.Name
		}
	}
	return key.Name + "_idx"
}
