// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"regexp"
	"testing"
	"time"
)

// costly are templates that ask for much: of a width, or of nested loops.
var costly = regexp.MustCompile(`[0-9]{4}|range.*range|template`)

// FuzzFormat has whatever comes be a template for the rows of ps: it is refused as one, or
// says something of each container.
func FuzzFormat(f *testing.F) {
	for _, s := range []string{
		"{{.ID}}", "table {{.Names}}\\t{{.Status}}", "json", "{{json .Labels}}", "{{range .Names}}x{{end}}", "{{.Nosuch}}", "{{", "{{join (split .Names \",\") \"/\"}}",
		"{{truncate .ID 4}}", "{{title .State | upper}}", "{{template \"x\"}}", "{{define \"x\"}}{{end}}", "{{index .Names 99}}", "{{printf \"%d\" .ID}}",
	} {
		f.Add(s)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.Fuzz(func(t *testing.T, format string) {
		if costly.MatchString(format) {
			return // it is the user's own machine that counts for him
		}
		var rows []psRow
		for _, c := range testContainers(now) {
			rows = append(rows, newPsRow(c, now, true))
		}
		text, err := formatRows(format, psTable, psHeader(), rows)
		if err == nil && len(text) < len(rows) {
			t.Fatalf("%q says %q of %d containers", format, text, len(rows))
		}
	})
}
