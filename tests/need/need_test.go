// SPDX-License-Identifier: Apache-2.0

package need

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestVerdict(t *testing.T) {
	t.Setenv("SBX_TEST_IMAGES", "") // the one word that can be taken away
	skipped := filepath.Join(t.TempDir(), "skipped")
	t.Setenv("SBX_TEST_SKIPPED", skipped)
	for _, tt := range []struct {
		name, require string
		words         []string
		fails, skips  bool
	}{
		{name: "nothing needed"},
		{name: "absent and not required", words: []string{Images}, skips: true},
		{name: "absent and required", require: "tun,images", words: []string{Images}, fails: true},
		{name: "no such word", words: []string{"imagse"}, fails: true},
		{name: "no such word required", require: "imagse", fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("SBX_TEST_REQUIRE", tt.require)
			reason, failure := Verdict(tt.name, tt.words...)
			if (failure != nil) != tt.fails || (reason != "") != tt.skips {
				t.Errorf("got failure %v, reason %q; want failure %v, skip %v", failure, reason, tt.fails, tt.skips)
			}
		})
	}
	data, err := os.ReadFile(skipped)
	if err != nil || !strings.HasPrefix(string(data), "absent and not required needs images: ") || strings.Count(string(data), "\n") != 1 {
		t.Errorf("recorded %q, %v; want the one skip", data, err)
	}
}

// TestWords shows what this machine has, for `go test -v`.
func TestWords(t *testing.T) {
	for _, w := range Words() {
		if err := Missing(w); err != nil {
			t.Logf("%s: no: %v", w, err)
		} else {
			t.Logf("%s: yes", w)
		}
	}
}
