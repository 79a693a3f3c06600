package lint

import (
	"go/ast"
	"testing"
)

// TestSizesOfFilesAndFunctions only warns: a long table or a long switch may be the clearest form.
func TestSizesOfFilesAndFunctions(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.generated {
			continue
		}
		if n := f.fset.Position(f.ast.FileEnd).Line; n > fileLines {
			t.Logf("warning: %s has %d lines, the habit is %d", f.name, n, fileLines)
		}
		for _, decl := range f.ast.Decls {
			d, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := f.fset.Position(d.End()).Line - f.line(d) + 1; n > functionLines {
				t.Logf("warning: %s:%d: %s has %d lines, the habit is %d", f.name, f.line(d), d.Name.Name, n, functionLines)
			}
		}
	}
}
