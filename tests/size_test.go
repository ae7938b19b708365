// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"debug/buildinfo"
	"debug/elf"
	"os"
	"testing"
)

// maxBinary is the budget of the stripped binary with everything: registries,
// building, the network engine and root emulation.
const maxBinary = 16 << 20

func TestBinarySize(t *testing.T) {
	fi, err := os.Stat(sbxBinary)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.2f MiB of %d", float64(fi.Size())/(1<<20), maxBinary>>20)
	if fi.Size() >= maxBinary {
		t.Errorf("the binary has %d bytes, the budget is %d", fi.Size(), maxBinary)
	}
}

// TestBinaryIsStatic looks for what would load anything beside the binary.
func TestBinaryIsStatic(t *testing.T) {
	f, err := elf.Open(sbxBinary)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the binary has a segment %v", p.Type)
		}
	}
	if f.Section(".symtab") != nil || f.Section(".debug_info") != nil {
		t.Error("the binary is not stripped")
	}
	info, err := buildinfo.ReadFile(sbxBinary)
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if settings["CGO_ENABLED"] != "0" || settings["-trimpath"] != "true" {
		t.Errorf("built with CGO_ENABLED=%s -trimpath=%s", settings["CGO_ENABLED"], settings["-trimpath"])
	}
}
