package lance

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/python"
	"github.com/flightd/flightd/object"
)

// fixtures is the folder of files from pylance; write.py beside them tells how they were made.
const fixtures = "../testdata/lance"

// expected reads what is in a fixture.
func expected(t *testing.T, name string) (*arrow.Schema, []arrow.RecordBatch) {
	t.Helper()
	return arrowFile(t, filepath.Join(fixtures, name+".arrow"))
}

func TestFilesOfPylance(t *testing.T) {
	for _, name := range []string{"types", "pages", "dictionary", "nested"} {
		t.Run(name, func(t *testing.T) {
			schema, batches := expected(t, name)
			r := openFile(t, object.NewLocal(fixtures), name+".lance")
			require.False(t, r.HasChecksums())
			requireFile(t, r, schema, joined(t, schema, batches), newGenerator(1, 0))
		})
	}
	for _, name := range []string{"types22", "few21", "few22"} {
		t.Run(name, func(t *testing.T) {
			schema, batches := expected(t, name)
			requireColumns(t, openFile(t, object.NewLocal(fixtures), name+".lance"), schema, joined(t, schema, batches), newGenerator(1, 0))
		})
	}
	schema, _ := expected(t, "empty")
	r := openFile(t, object.NewLocal(fixtures), "empty.lance")
	require.True(t, schema.Equal(r.Schema().Arrow()))
	require.Zero(t, r.Rows())
	require.NoError(t, r.Verify(t.Context()))
}

func TestKeyOfPylance(t *testing.T) {
	r := openFile(t, object.NewLocal(fixtures), "pages.lance")
	require.Equal(t, 1, r.Schema().Fields[0].Key)
	require.Equal(t, map[string]string{"note": "of the schema"}, r.Metadata())
	require.False(t, r.Schema().Fields[0].Nullable)
}

// TestOthersReadOurFiles needs a Python with pylance and DuckDB: FLIGHTD_PYTHON names it.
func TestOthersReadOurFiles(t *testing.T) {
	python.Need(t)
	dir := t.TempDir()
	st := object.NewLocal(dir)
	for name, nulls := range map[string]float64{"valid": 0, "some": 0.2, "null": 1} {
		for size, pageBytes := range map[string]int64{"whole": 0, "cut": 200} {
			g := newGenerator(1, nulls)
			schema := allTypes()
			batches := []arrow.RecordBatch{g.batch(schema, 70), g.batch(schema, 0), g.batch(schema, 133)}
			writeFile(t, st, name+size+".lance", schema, WriterOptions{PageBytes: pageBytes}, batches...)
			writeExpected(t, filepath.Join(dir, name+size+".arrow"), schema, batches)
		}
	}
	writeFile(t, st, "empty.lance", allTypes(), WriterOptions{})
	writeExpected(t, filepath.Join(dir, "empty.arrow"), allTypes(), nil)
	python.RunFile(t, filepath.Join(fixtures, "check.py"), dir)
}

func writeExpected(t *testing.T, name string, schema *arrow.Schema, batches []arrow.RecordBatch) {
	t.Helper()
	f, err := os.Create(name)
	require.NoError(t, err)
	w, err := ipc.NewFileWriter(f, ipc.WithSchema(schema))
	require.NoError(t, err)
	for _, b := range batches {
		require.NoError(t, w.Write(b))
	}
	require.NoError(t, w.Close())
	require.NoError(t, f.Close())
}
