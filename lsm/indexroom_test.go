package lsm

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// fullIndexes is a folder in which there is no room for indexes while full is not 0.
type fullIndexes struct {
	*object.Local
	full atomic.Uintptr
}

// Create implements object.Store.
func (s *fullIndexes) Create(ctx context.Context, name string) (object.Writer, error) {
	w, err := s.Local.Create(ctx, name)
	if no := s.full.Load(); err == nil && no != 0 && strings.Contains(name, "/_indices/") {
		return fullIndex{w, syscall.Errno(no)}, nil
	}
	return w, err
}

// fullIndex is a writer that finds no room.
type fullIndex struct {
	object.Writer
	no syscall.Errno
}

// Write implements io.Writer.
func (w fullIndex) Write([]byte) (int, error) { return 0, w.no }

// TestAnIndexForWhichThereIsNoRoom makes and extends indexes on a full disk and over a quota: both say so by the same error, leave nothing
// behind, and can be done when there is room again.
func TestAnIndexForWhichThereIsNoRoom(t *testing.T) {
	ctx, n := context.Background(), TableName{Name: "t"}
	for _, no := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		for _, def := range []IndexDef{
			{Name: "i", Kind: IVFFlatIndex, Columns: []string{"v"}, Options: map[string]string{optionPartitions: "2"}},
			{Name: "i", Kind: IVFPQIndex, Columns: []string{"v"}, Options: map[string]string{optionPartitions: "2", optionBits: "4", optionSubVectors: "2"}},
		} {
			t.Run(fmt.Sprint(no, " ", def.Kind), func(t *testing.T) {
				var st *fullIndexes
				v := newIVFTable(t, 1, true, 8, arrow.PrimitiveTypes.Float32)
				require.NoError(t, v.db.Close())
				var err error
				v.db, err = Open(ctx, Options{Dir: v.dir, manual: true, wrap: func(inner object.Store) object.Store {
					st = &fullIndexes{Local: inner.(*object.Local)}
					return st
				}})
				require.NoError(t, err)
				v.put(200)
				require.NoError(t, v.db.Optimize(ctx, n))
				table := mustTable(t, v.db, "t")
				folders := func() int {
					infos, err := st.List(ctx, table.root+"/_indices")
					require.NoError(t, err)
					return len(infos)
				}
				before := folders()
				st.full.Store(uintptr(no))
				require.ErrorIs(t, v.db.CreateIndex(ctx, n, def, CreateIndexOptions{}), ErrDiskFull)
				require.Equal(t, before, folders())
				require.Empty(t, table.Indexes())
				st.full.Store(0)
				require.NoError(t, v.db.CreateIndex(ctx, n, def, CreateIndexOptions{}))
				v.put(100)
				require.NoError(t, v.db.Flush(ctx, n))
				before = folders()
				st.full.Store(uintptr(no))
				require.ErrorIs(t, v.db.Optimize(ctx, n), ErrDiskFull)
				require.Equal(t, before, folders())
				st.full.Store(0)
				require.NoError(t, v.db.Optimize(ctx, n))
				require.Zero(t, v.info("i").Uncovered)
				require.NoError(t, v.db.Close())
				requireSound(t, v.dir)
			})
		}
	}
}
