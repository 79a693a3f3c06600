package lsm

import (
	"context"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// statCounter notes of which versions of a table somebody asks whether they are there.
type statCounter struct {
	object.Store
	mu       sync.Mutex
	versions map[string]bool
}

// Stat implements object.Store.
func (s *statCounter) Stat(ctx context.Context, name string) (object.Info, error) {
	if strings.HasSuffix(path.Dir(name), "/_versions") {
		s.mu.Lock()
		s.versions[name] = true
		s.mu.Unlock()
	}
	return s.Store.Stat(ctx, name)
}

// TestManifestScanBatch looks for the newest version of a table: that which the hint names, and so many behind it.
func TestManifestScanBatch(t *testing.T) {
	f := func(batch, want int) {
		t.Helper()
		var st *statCounter
		db, err := Open(context.Background(), Options{Dir: t.TempDir(), ManifestScanBatch: batch, manual: true, wrap: func(local object.Store) object.Store {
			st = &statCounter{Store: local, versions: map[string]bool{}}
			return st
		}})
		require.NoError(t, err)
		defer func() { require.NoError(t, db.Close()) }()
		createTest(t, db, "t", writesSchema)
		st.mu.Lock() // the compactor may have asked, too
		clear(st.versions)
		st.mu.Unlock()
		require.NoError(t, db.Optimize(context.Background(), TableName{Name: "t"}))
		st.mu.Lock()
		require.Len(t, st.versions, want)
		st.mu.Unlock()
	}
	f(0, 1+2)
	f(1, 1+1)
	f(9, 1+9)
	for _, batch := range []int{-1, 65} {
		_, err := Open(context.Background(), Options{Dir: t.TempDir(), ManifestScanBatch: batch})
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, "ManifestScanBatch")
	}
}
