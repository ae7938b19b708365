// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// ledgerRows is how many rows each part of the ledger has, by its letter: what went wrong
// elsewhere, and at Z what is parsed.
var ledgerRows = map[string]int{"U": 22, "S": 10, "R": 8, "F": 14, "X": 9, "C": 6, "B": 11, "N": 10, "M": 9, "Z": 25}

// maxWithoutTest is how many rows may say why they have no test.
const maxWithoutTest = 10

// TestLedger holds every row of docs/ledger.md to tests that are there.
func TestLedger(t *testing.T) {
	data, err := os.ReadFile("../docs/ledger.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range ledgerFaults(string(data), testsByName(t)) {
		t.Error(fault)
	}
}

// TestLedgerSees has the check find what it is there for.
func TestLedgerSees(t *testing.T) {
	data, err := os.ReadFile("../docs/ledger.md")
	if err != nil {
		t.Fatal(err)
	}
	all := testsByName(t)
	for what, text := range map[string]string{
		"a row that is gone":          regexp.MustCompile(`(?m)^\| F09 .*\n`).ReplaceAllString(string(data), ""),
		"a test that is not there":    strings.Replace(string(data), "`overlay.TestU03Root`", "`overlay.TestNosuch`", 1),
		"a script that is not":        strings.Replace(string(data), "`script/run_descriptors`", "`script/run_nosuch`", 1),
		"an input that is not fuzzed": strings.Replace(string(data), "`cli.FuzzFormat`", "`cli.TestTemplates`", 1),
		"a row without a test":        regexp.MustCompile("(?m)^(\\| F08 .*\\| )`.*` \\|$").ReplaceAllString(string(data), "$1 |"),
		"too many without any test":   regexp.MustCompile("(?m)^(\\| U.. .*\\| )`.*` \\|$").ReplaceAllString(string(data), "$1none: no time |"),
	} {
		if len(ledgerFaults(text, all)) == 0 {
			t.Errorf("%s is not seen", what)
		}
	}
}

func ledgerFaults(text string, tests map[string]bool) []string {
	var faults []string
	seen, without := map[string]bool{}, 0
	for _, row := range regexp.MustCompile(`(?m)^\| ([A-Z]\d\d) \| (.*) \| ?(.*?) ?\|$`).FindAllStringSubmatch(text, -1) {
		id, cell := row[1], row[3]
		seen[id] = true
		names := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1)
		if reason, ok := strings.CutPrefix(cell, "none: "); ok && reason != "" {
			without++
			continue
		}
		if len(names) == 0 {
			faults = append(faults, id+" has no test")
		}
		if id[0] == 'Z' && !strings.Contains(cell, ".Fuzz") {
			faults = append(faults, id+" has no fuzz target")
		}
		for _, name := range names {
			if !tests[name[1]] {
				faults = append(faults, fmt.Sprintf("%s names %s, which is not there", id, name[1]))
			}
		}
	}
	if without > maxWithoutTest {
		faults = append(faults, fmt.Sprintf("%d rows have no test; %d may", without, maxWithoutTest))
	}
	for part, n := range ledgerRows {
		for i := 1; i <= n; i++ {
			if id := fmt.Sprintf("%s%02d", part, i); !seen[id] {
				faults = append(faults, id+" has no row")
			}
		}
	}
	return faults
}

// testsByName are all tests, as the ledger names them.
func testsByName(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(\w+ \*testing\.[TF]\)`)
	for path, source := range sources(t) {
		if !strings.HasSuffix(path, "_test.go") {
			continue
		}
		for _, f := range function.FindAllSubmatch(source, -1) {
			all[strings.ReplaceAll(filepath.Dir(path), "/", ".")+"."+string(f[1])] = true
		}
	}
	for _, dir := range []string{"script", "script/alone"} {
		files, err := filepath.Glob(dir + "/*.txtar")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			all[strings.TrimSuffix(f, ".txtar")] = true
		}
	}
	return all
}
