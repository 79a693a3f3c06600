package lint

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// promises is the page that says which test holds what.
const promises = "docs/testing.md"

// TestPromisesHaveTheirTests looks for the tests that docs/testing.md names: `package.TestName` of a package, by its folder,
// and `test_file.test_name` of e2e, and for the scenarios, `package/testdata/file`. Each line of a table of promises names one.
func TestPromisesHaveTheirTests(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), promises))
	require.NoError(t, err)
	goTests := map[string]bool{}
	for _, f := range goFiles(t) {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && f.test {
				goTests[f.pkg()+"."+fn.Name.Name] = true
			}
		}
	}
	scenarios := regexp.MustCompile("`([a-z/]+/testdata/[a-z_/-]+)`")
	named := regexp.MustCompile("`([a-z0-9_/]+)\\.(Test\\w+|test_\\w+)`")
	count := 0
	for i, line := range strings.Split(string(text), "\n") {
		for _, m := range scenarios.FindAllStringSubmatch(line, -1) {
			require.FileExists(t, filepath.Join(root(t), m[1]), "%s:%d", promises, i+1)
		}
		for _, m := range named.FindAllStringSubmatch(line, -1) {
			count++
			if strings.HasPrefix(m[2], "Test") {
				if !goTests[m[1]+"."+m[2]] {
					t.Errorf("%s:%d: there is no test %s.%s", promises, i+1, m[1], m[2])
				}
				continue
			}
			python, err := os.ReadFile(filepath.Join(root(t), "e2e", m[1]+".py"))
			require.NoError(t, err, "%s:%d", promises, i+1)
			if !strings.Contains(string(python), "\ndef "+m[2]+"(") {
				t.Errorf("%s:%d: e2e/%s.py has no %s", promises, i+1, m[1], m[2])
			}
		}
	}
	require.Greater(t, count, 40, "%s names its tests in another way than this test reads", promises)
}
