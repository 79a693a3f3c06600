package python

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestScriptsAreApart runs scripts in one process, each with its own globals and arguments.
func TestScriptsAreApart(t *testing.T) {
	require.Equal(t, "2 a b\n", string(Run(t, "import sys\nx = 2\nprint(x, *sys.argv[1:])", "a", "b")))
	require.Equal(t, "False True\n", string(Run(t, "import os, sys\nprint('x' in globals(), 'sys' in sys.modules)\nsys.exit(0)")))
	name := filepath.Join(t.TempDir(), "f.py")
	require.NoError(t, os.WriteFile(name, []byte("if __name__ == '__main__':\n    print(__file__)"), 0o600))
	require.Equal(t, name+"\n", string(RunFile(t, name)))
	require.Equal(t, Run(t, "import os; print(os.getpid())"), Run(t, "import os; print(os.getpid())"))
}

// TestAScriptThatFails says why, and the next one runs, be it in another process.
func TestAScriptThatFails(t *testing.T) {
	Need(t)
	for code, want := range map[string]string{"1/0": "ZeroDivisionError", "import sys; sys.exit(3)": "exit: 3", "import os; os._exit(1)": "the interpreter died"} {
		_, err := try(job{Name: "-c", Code: code, Args: []string{}})
		require.ErrorContains(t, err, want)
		require.Equal(t, "3\n", string(Run(t, "print(3)")))
	}
}
