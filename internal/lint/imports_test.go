package lint

import (
	"go/ast"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// eachImport calls fn with every import of every Go file of flightd's own module.
func eachImport(t *testing.T, fn func(f goFile, spec *ast.ImportSpec, importPath string)) {
	for _, f := range goFiles(t) {
		if f.foreign {
			continue
		}
		for _, spec := range f.ast.Imports {
			importPath, err := strconv.Unquote(spec.Path.Value)
			if err == nil {
				fn(f, spec, importPath)
			}
		}
	}
}

func TestPackagesImportWhatTheTableAllows(t *testing.T) {
	for _, f := range goFiles(t) {
		pkg := f.pkg()
		if _, ok := imports[pkg]; !ok && !f.foreign && !slices.Contains(composers, pkg) && !under(pkg, "internal") && !under(pkg, "bench") && pkg != "testdata" {
			t.Errorf("%s: package %s is not in the import table; add it with its reason", f.name, pkg)
		}
	}
	eachImport(t, func(f goFile, spec *ast.ImportSpec, importPath string) {
		pkg, ours := strings.CutPrefix(importPath, module+"/")
		if !ours || slices.Contains(composers, f.pkg()) || under(f.pkg(), "bench") {
			return
		}
		if under(pkg, "internal") || pkg == f.pkg() || slices.Contains(imports[f.pkg()], pkg) {
			return
		}
		t.Errorf("%s:%d: %s may not import %s", f.name, f.line(spec), f.pkg(), pkg)
	})
}

func TestInternalPackagesImportNoOthers(t *testing.T) {
	eachImport(t, func(f goFile, spec *ast.ImportSpec, importPath string) {
		pkg, ours := strings.CutPrefix(importPath, module+"/")
		if ours && under(f.pkg(), "internal") && !under(pkg, "internal") {
			t.Errorf("%s:%d: everyone imports internal/*, so it may not import %s", f.name, f.line(spec), pkg)
		}
	})
}

func TestHeavyDependenciesHaveOwners(t *testing.T) {
	eachImport(t, func(f goFile, spec *ast.ImportSpec, importPath string) {
		if f.generated && importPath == "unsafe" {
			return // protobuf's generator packs its descriptors that way
		}
		for _, o := range owners {
			if under(importPath, o.prefix) && !slices.Contains(o.owners, f.pkg()) && !under(f.pkg(), "bench") {
				t.Errorf("%s:%d: %s is for %s only: %s", f.name, f.line(spec), importPath, strings.Join(o.owners, ", "), o.reason)
			}
		}
	})
}

func TestNobodyImportsWhatIsBanned(t *testing.T) {
	eachImport(t, func(f goFile, spec *ast.ImportSpec, importPath string) {
		if reason, ok := banned[importPath]; ok {
			t.Errorf("%s:%d: %s is banned: %s", f.name, f.line(spec), importPath, reason)
		}
	})
}

func TestNobodyCallsWhatIsBanned(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.generated {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			id, ok := sel.X.(*ast.Ident)
			if !ok {
				return true
			}
			for _, c := range calls {
				if id.Name != c.pkg || !c.name.MatchString(sel.Sel.Name) {
					continue
				}
				if c.pkg == "os" && (f.test || slices.Contains(envReaders, f.pkg())) {
					continue
				}
				t.Errorf("%s:%d: %s.%s: %s", f.name, f.line(sel), id.Name, sel.Sel.Name, c.reason)
			}
			return true
		})
	}
}
