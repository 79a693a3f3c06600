package lint

import (
	"go/ast"
	"path"
	"regexp"
	"strings"
	"testing"
)

// docRunes is the least length of a package comment that says something.
const docRunes = 120

func TestEveryPackageHasADocFile(t *testing.T) {
	docs := make(map[string]string)
	seen := make(map[string]bool)
	for _, f := range goFiles(t) {
		seen[f.pkg()] = true
		if f.ast.Doc == nil || f.test || f.generated {
			continue
		}
		if path.Base(f.name) != "doc.go" {
			t.Errorf("%s: the package comment belongs in doc.go", f.name)
			continue
		}
		docs[f.pkg()] = f.ast.Doc.Text()
		want := "Package " + f.ast.Name.Name + " "
		if f.ast.Name.Name == "main" {
			want = "Command " + path.Base(f.pkg()) + " "
		}
		if !strings.HasPrefix(f.ast.Doc.Text(), want) {
			t.Errorf("%s: the package comment begins with %q", f.name, want)
		}
	}
	for pkg := range seen {
		if len(docs[pkg]) < docRunes {
			t.Errorf("%s: no doc.go with a package comment that says purpose, format, invariants, goroutines and errors", pkg)
		}
	}
}

func TestExportedNamesAreDocumented(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.test || f.generated {
			continue
		}
		for _, decl := range f.ast.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && exportedReceiver(d) && d.Doc == nil {
					t.Errorf("%s:%d: %s has no comment", f.name, f.line(d), d.Name.Name)
				}
			case *ast.GenDecl:
				undocumented(t, f, d)
			}
		}
	}
}

// exportedReceiver reports whether a function is one, or a method of an exported type.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.IndexListExpr:
			typ = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

// undocumented reports exported types, constants and variables without a comment of their own or of their group.
func undocumented(t *testing.T, f goFile, d *ast.GenDecl) {
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() && s.Doc == nil && d.Doc == nil {
				t.Errorf("%s:%d: type %s has no comment", f.name, f.line(s), s.Name.Name)
			}
		case *ast.ValueSpec:
			for _, name := range s.Names {
				if name.IsExported() && s.Doc == nil && s.Comment == nil && d.Doc == nil {
					t.Errorf("%s:%d: %s has no comment", f.name, f.line(s), name.Name)
				}
			}
		}
	}
}

// unfinished matches a marker of work that was put off, as a word of its own at the head of a comment's line.
var unfinished = regexp.MustCompile(`(?m)^\s*(TODO|FIXME|XXX|HACK)\b`)

func TestNothingIsPutOff(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.generated {
			continue
		}
		for _, group := range f.ast.Comments {
			if unfinished.MatchString(group.Text()) {
				t.Errorf("%s:%d: finish it, or leave it out", f.name, f.line(group))
			}
		}
	}
}
