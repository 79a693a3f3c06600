package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// goFile is one Go file of the project.
type goFile struct {
	name string // slash-separated, from the root of the repository
	test bool
	// generated files follow their generator's style.
	generated bool
	// foreign files belong to a module of their own, whose dependencies are not flightd's.
	foreign bool
	fset    *token.FileSet
	ast     *ast.File
}

// pkg is the folder of the file.
func (f goFile) pkg() string { return path.Dir(f.name) }

// line is the line of a node.
func (f goFile) line(n ast.Node) int { return f.fset.Position(n.Pos()).Line }

// root returns the top of the repository.
func root(t *testing.T) string {
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(dir, "go.mod"))
	return dir
}

// tracked lists the files that git knows or would take, so that build results and caches are left out.
func tracked(t *testing.T) []string {
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("not in a git checkout: %v", err)
	}
	var names []string
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		if info, err := os.Stat(filepath.Join(root(t), name)); err == nil && info.Mode().IsRegular() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// goFiles parses all Go files of the project, whatever their build tags.
func goFiles(t *testing.T) []goFile {
	var files []goFile
	names := tracked(t)
	for _, name := range names {
		if path.Ext(name) != ".go" {
			continue
		}
		fset := token.NewFileSet()
		tree, err := parser.ParseFile(fset, filepath.Join(root(t), name), nil, parser.ParseComments|parser.SkipObjectResolution)
		require.NoError(t, err)
		files = append(files, goFile{
			name:      name,
			test:      strings.HasSuffix(name, "_test.go"),
			foreign:   ofOtherModule(name, names),
			generated: ast.IsGenerated(tree),
			fset:      fset,
			ast:       tree,
		})
	}
	require.NotEmpty(t, files)
	return files
}

// ofOtherModule reports whether a file lies below a go.mod that is not the root's.
func ofOtherModule(name string, names []string) bool {
	return slices.ContainsFunc(names, func(other string) bool {
		return path.Base(other) == "go.mod" && other != "go.mod" && under(name, path.Dir(other))
	})
}

// under reports whether an import path is prefix or lies below it.
func under(importPath, prefix string) bool {
	return importPath == prefix || strings.HasPrefix(importPath, prefix+"/")
}
