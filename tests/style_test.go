// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Ceilings (DESIGN of the tree): what is longer no one reads.
const (
	maxFileLines     = 700
	maxFunctionLines = 120
)

const license = "// SPDX-License-Identifier: Apache-2.0\n"

// sources are the project's Go files, by their path from its root.
func sources(t *testing.T) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != ".." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "noproto") {
			return fs.SkipDir
		}
		if d.Type().IsRegular() && strings.HasSuffix(name, ".go") {
			all[strings.TrimPrefix(path, "../")], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestFiles(t *testing.T) {
	nothing := regexp.MustCompile(`(^|/)(util|utils|common|helper|helpers|misc|types|constants)(\.go|_test\.go|/)`)
	packages := map[string]bool{}
	all := sources(t)
	for path, data := range all {
		packages[filepath.Dir(path)] = true
		if !bytes.HasPrefix(data, []byte(license)) {
			t.Errorf("%s: the first line is not %q", path, strings.TrimSpace(license))
		}
		if n := bytes.Count(data, []byte("\n")); n > maxFileLines {
			t.Errorf("%s has %d lines, the ceiling is %d", path, n, maxFileLines)
		}
		if nothing.MatchString(path) {
			t.Errorf("%s: the name says nothing; a function lives with its noun", path)
		}
	}
	for dir := range packages {
		if _, ok := all[filepath.Join(dir, "doc.go")]; !ok && dir != "." {
			t.Errorf("package %s has no doc.go", dir)
		}
	}
}

// TestSource holds every function to its ceiling and every skip to package need:
// a test that skips itself without a word is how a suite goes blind.
func TestSource(t *testing.T) {
	for path, data := range sources(t) {
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, data, 0)
		if err != nil {
			t.Error(err)
			continue
		}
		inTest := strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "tests/")
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if lines := set.Position(n.End()).Line - set.Position(n.Pos()).Line + 1; lines > maxFunctionLines && !inTest {
					t.Errorf("%s: %s has %d lines, the ceiling is %d", path, n.Name.Name, lines, maxFunctionLines)
				}
			case *ast.SelectorExpr:
				if slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, n.Sel.Name) && !mayskip(path) {
					t.Errorf("%s: %s has no word: use need.Need", set.Position(n.Pos()), n.Sel.Name)
				}
			case *ast.CallExpr:
				if s, ok := n.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Sleep" && !inTest {
					t.Errorf("%s: wait for a message, a descriptor or a process, not for time", set.Position(n.Pos()))
				}
			}
			return true
		})
	}
}

// mayskip are the two places where a missing word becomes a skip.
func mayskip(path string) bool {
	return path == "tests/need/need.go" || path == "tests/script_test.go"
}
