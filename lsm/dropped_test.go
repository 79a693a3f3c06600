package lsm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
	"github.com/flightd/flightd/object"
)

// namedStore is a store whose files are gone when they were removed, for those who have them open, too: as in a bucket, where each
// read asks for an object by its name.
type namedStore struct{ object.Store }

// Open implements object.Store.
func (s namedStore) Open(ctx context.Context, name string) (object.Reader, error) {
	r, err := s.Store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return namedReader{r, s.Store, name}, nil
}

// namedReader is a reader of a namedStore.
type namedReader struct {
	object.Reader
	st   object.Store
	name string
}

// ReadAt implements io.ReaderAt.
func (r namedReader) ReadAt(p []byte, at int64) (int, error) {
	if _, err := r.st.Stat(context.Background(), r.name); err != nil {
		return 0, fmt.Errorf("read %s: %w", r.name, err)
	}
	return r.Reader.ReadAt(p, at)
}

// TestSnapshotsOutliveTheirTable reads a table by a snapshot that was taken before the table was dropped or replaced: its files stay until
// the snapshot is released, and go then. Those of a dropped table that was still read when the process ended the next one removes.
func TestSnapshotsOutliveTheirTable(t *testing.T) {
	for _, how := range []string{"drop", "replace", "crash"} {
		t.Run(how, func(t *testing.T) {
			ctx, n := context.Background(), TableName{Name: "a"}
			st := object.NewMem()
			db := openStore(t, namedStore{st})
			a := createTest(t, db, "a", writesSchema)
			putKeys(t, db, a, 1, 1, 2, 3)
			require.NoError(t, db.Optimize(ctx, n))
			putKeys(t, db, a, 2, 3, 4)
			require.NoError(t, db.Flush(ctx, n))
			putKeys(t, db, a, 3, 4, 5)
			want := tableLines(t, db, "a")
			snap, err := db.Snapshot(ctx)
			require.NoError(t, err)
			defer snap.Release()
			v, err := snap.Table(n)
			require.NoError(t, err)
			there := func() bool {
				infos, err := st.List(ctx, a.root)
				require.True(t, err == nil || errors.Is(err, object.ErrNotExist))
				return len(infos) > 0
			}
			if how == "replace" {
				stage := stageTest(t, db, "a", writesSchema)
				_, err = stage.Commit(ctx)
			} else {
				err = db.DropTable(ctx, n)
			}
			require.NoError(t, err)
			_, err = db.Vacuum(ctx, n)
			require.True(t, err == nil || errors.Is(err, ErrTableNotFound))
			db.collectAll()
			createTest(t, db, "b", writesSchema) // DDL removes what was dropped
			lines, err := scanRows(ctx, v, allColumns(v.Schema()))
			require.NoError(t, err)
			require.Equal(t, want, lines)
			if how == "crash" {
				openStore(t, namedStore{st})
				require.False(t, there())
				return
			}
			require.True(t, there())
			snap.Release()
			require.Eventually(t, func() bool { return !there() }, time.Minute, time.Millisecond)
			db.ddl.Lock()
			require.Empty(t, db.leaving)
			require.Empty(t, db.cat.Dropped)
			db.ddl.Unlock()
		})
	}
}

// TestATableThatIsNotStagedLeavesNothing makes the making of a table fail at each file that it writes, in both forms.
func TestATableThatIsNotStagedLeavesNothing(t *testing.T) {
	ctx := context.Background()
	for _, form := range []string{"folder", "objects"} {
		t.Run(form, func(t *testing.T) {
			o := Options{Dir: t.TempDir(), SegmentBytes: 1 << 20, wrap: faulty}
			if form == "objects" {
				o.Store, o.Takeover = object.NewMem(), true
			}
			db, err := Open(ctx, o)
			require.NoError(t, err)
			defer func() { require.NoError(t, db.Close()) }()
			s, err := rows.Schema(writesSchema)
			require.NoError(t, err)
			for fails := 1; ; fails++ {
				calls, root := 0, ""
				count := func(_, name string) error {
					before, _, in := strings.Cut(name, folderSuffix+"/")
					if !in {
						return nil
					}
					root = before + folderSuffix
					if calls++; calls == fails {
						return errFault
					}
					return nil
				}
				withFaults(db).inject(nil, count) // what is half done counts, too
				stage, err := db.StageTable(ctx, TableDef{Name: TableName{Name: "t"}, Schema: s}, false)
				withFaults(db).inject(nil, nil)
				if err == nil {
					stage.Abort()
					require.Greater(t, fails, 1)
				} else {
					require.ErrorIs(t, err, errFault)
				}
				infos, listed := db.st.List(ctx, root)
				require.True(t, listed == nil || errors.Is(listed, object.ErrNotExist), listed)
				require.Empty(t, infos, "call %d", fails)
				db.ddl.Lock()
				require.Empty(t, db.cat.Staged)
				db.ddl.Unlock()
				if err == nil {
					return
				}
			}
		})
	}
}
