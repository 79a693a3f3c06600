package lance

import (
	"encoding/hex"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/python"
	"github.com/flightd/flightd/object"
)

// TestFormsOfPylance reads what pylance stores in other forms than its type's.
func TestFormsOfPylance(t *testing.T) {
	python.Need(t)
	dir := t.TempDir()
	python.RunFile(t, filepath.Join(fixtures, "forms.py"), dir)
	files, err := filepath.Glob(filepath.Join(dir, "*.lance"))
	require.NoError(t, err)
	require.Greater(t, len(files), 30)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".lance")
		t.Run(name, func(t *testing.T) {
			schema, batches := arrowFile(t, filepath.Join(dir, name+".arrow"))
			r := openFile(t, object.NewLocal(dir), name+".lance")
			requireColumns(t, r, schema, joined(t, schema, batches), newGenerator(1, 0))
			switch kind, _, _ := strings.Cut(name, "-"); kind {
			case "blobs", "none", "records":
				require.ErrorIs(t, r.Schema().Writable(), ErrUnsupported)
			default:
				require.NoError(t, r.Schema().Writable())
			}
		})
	}
}

// TestJSONThatIsDamaged: no bytes panic, and what is nested too deep is refused.
func TestJSONThatIsDamaged(t *testing.T) {
	whole, err := hex.DecodeString("400000021000000110000001100000015000001b61627680000002200000025000000d500140000001100000010000000078")
	require.NoError(t, err)
	text, err := appendJSON(nil, whole, 0)
	require.NoError(t, err)
	require.Equal(t, `{"a":"v","b":[1,{"x":null}]}`, string(text))
	for i := range whole {
		_, err := appendJSON(nil, whole[:i], 0)
		require.Error(t, err)
		for bit := range 8 {
			b := []byte(string(whole))
			b[i] ^= 1 << bit
			if text, err := appendJSON(nil, b, 0); err == nil {
				require.NotEmpty(t, text)
			}
		}
	}
	deep := []byte("\x80\x00\x00\x00")
	for range 1 << 11 {
		n := len(deep)
		deep = append([]byte{0x80, 0, 0, 1, 0x50, byte(n >> 16), byte(n >> 8), byte(n)}, deep...)
	}
	_, err = appendJSON(nil, deep, 0)
	require.True(t, errors.Is(err, ErrUnsupported))
}
