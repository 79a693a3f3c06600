package lint

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestNoTraceOfOneMachine(t *testing.T) {
	for _, name := range tracked(t) {
		text, err := os.ReadFile(filepath.Join(root(t), name))
		require.NoError(t, err)
		if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
			continue
		}
		for i, line := range bytes.Split(text, []byte("\n")) {
			for _, trace := range traces {
				if hit := trace.pattern.Find(line); hit != nil {
					t.Errorf("%s:%d: %q is %s", name, i+1, hit, trace.reason)
				}
			}
		}
	}
}
