package lance

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// fixtures is the folder of files from pylance; write.py beside them tells how they were made.
const fixtures = "../testdata/lance"

// expected reads what is in a fixture.
func expected(t *testing.T, name string) (*arrow.Schema, []arrow.RecordBatch) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(fixtures, name+".arrow"))
	require.NoError(t, err)
	r, err := ipc.NewFileReader(bytes.NewReader(b))
	require.NoError(t, err)
	var batches []arrow.RecordBatch
	for i := range r.NumRecords() {
		rec, err := r.RecordBatch(i)
		require.NoError(t, err)
		batches = append(batches, rec)
	}
	return r.Schema(), batches
}

func TestFilesOfPylance(t *testing.T) {
	for _, name := range []string{"types", "pages", "dictionary"} {
		t.Run(name, func(t *testing.T) {
			schema, batches := expected(t, name)
			r := openFile(t, object.NewLocal(fixtures), name+".lance")
			require.False(t, r.HasChecksums())
			requireFile(t, r, schema, joined(t, schema, batches), newGenerator(1, 0))
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
