// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseUlimit(t *testing.T) {
	for in, want := range map[string]Ulimit{
		"nofile=1024":      {"nofile", 1024, 1024},
		"nofile=1024:2048": {"nofile", 1024, 2048},
		"core=0":           {"core", 0, 0},
		"memlock=-1:-1":    {"memlock", -1, -1},
		"stack=5:-1":       {"stack", 5, -1},
	} {
		if got, err := ParseUlimit(in); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "nofile", "nofile=", "nofile=x", "nofile=2:1", "nofile=-1:5", "nofile=-2", "bogus=1", "nofile=1:2:3", "locks=4"} {
		if got, err := ParseUlimit(in); err == nil {
			t.Errorf("%q: %v, want an error", in, got)
		}
	}
}

func TestCPUSets(t *testing.T) {
	var usable unix.CPUSet
	for n := range 8 {
		usable.Set(n)
	}
	for in, want := range map[string]string{"0": "0", "0-3": "0-3", "7,0-1,3": "0-1,3,7"} {
		if set, err := parseCPUSet(in, usable); err != nil || formatCPUSet(set) != want {
			t.Errorf("%s: %s, %v, want %s", in, formatCPUSet(set), err, want)
		}
	}
	for _, in := range []string{"", "x", "3-1", "-1", "8", "0-8", "0,", "1-2-3", "999999999999"} {
		if set, err := parseCPUSet(in, usable); err == nil {
			t.Errorf("%q: %s, want an error", in, formatCPUSet(set))
		}
	}
}

func TestLimitsCheck(t *testing.T) {
	for _, l := range []Limits{
		{Memory: 1}, {Memory: -1}, {MemorySwap: 1 << 30}, {Memory: 1 << 30, MemorySwap: 1 << 29}, {Memory: 1 << 30, MemoryReservation: 2 << 30},
		{NanoCPUs: 1e15}, {CPUSet: "9999"}, {CPUPeriod: 999}, {CPUPeriod: 1_000_001}, {CPUPeriod: -1}, {CPUQuota: 999},
		{NanoCPUs: 1e9, CPUQuota: 1000}, {NanoCPUs: 1e9, CPUPeriod: 1000}, {OOMScoreAdj: 1001}, {OOMScoreAdj: -1001}, {Ulimits: []Ulimit{{"bogus", 1, 1}}},
	} {
		if _, err := l.Check(); err == nil {
			t.Errorf("%+v: want an error", l)
		}
	}
	ok := Limits{Memory: 64 << 20, MemorySwap: -1, NanoCPUs: 5e8, Pids: -1, OOMScoreAdj: 500}
	if notices, err := ok.Check(); err != nil || len(notices) > 0 {
		t.Errorf("%v, %v", notices, err)
	}
	if (&Limits{}).PidsLimit() != defaultPids || (&Limits{Pids: -1}).PidsLimit() != 0 || (&Limits{Pids: 7}).PidsLimit() != 7 {
		t.Error("the limit of processes")
	}
	for shares, want := range map[int64]int{0: 0, 1024: 0, 4096: 0, 820: 1, 512: 3, 2: 19} {
		if got := (&Limits{CPUShares: shares}).niceness(); got != want {
			t.Errorf("%d shares: niceness %d, want %d", shares, got, want)
		}
	}
	for _, tt := range []struct {
		l    Limits
		want int64
	}{
		{Limits{}, 0}, {Limits{NanoCPUs: 5e8}, 5e8}, {Limits{CPUPeriod: 50_000}, 0}, {Limits{CPUQuota: -1}, 0}, {Limits{CPUQuota: 50_000}, 5e8},
		{Limits{CPUQuota: 75_000, CPUPeriod: 50_000}, 15e8}, {Limits{CPUQuota: 1000, CPUPeriod: 1_000_000}, 1e6}, {Limits{CPUQuota: 1 << 62, CPUPeriod: 1000}, maxCPUs * 1e9},
	} {
		if got := tt.l.processors(); got != tt.want {
			t.Errorf("%+v: %d billionths of processors, want %d", tt.l, got, tt.want)
		}
	}
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil || own.Max > 1<<40 {
		return
	}
	cut := Limits{Ulimits: []Ulimit{{"nofile", 10, int64(own.Max) + 1}}}
	if notices, err := cut.Check(); err != nil || len(notices) != 1 || cut.Ulimits[0].Hard != int64(own.Max) {
		t.Errorf("%v, %v, %v", notices, err, cut.Ulimits)
	}
}

func TestMemoryUse(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"1/statm": "9 9 0 0 0 0 0", "1/status": "VmSwap:\t    900 kB\n", // the monitor
		"2/statm": "100 10 4 1 0 1 0", "2/status": "Name:\tx\nVmSwap:\t    8 kB\n",
		"37/statm": "100 1 1 1 0 1 0", "37/status": "Name:\tVmSwap: 7\n", // has none
		"40/statm": "", "self/statm": "9 9 0", "uptime/statm": "9 9 0",
	} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	page := int64(os.Getpagesize())
	names, err := processNames(dir)
	if err != nil {
		t.Fatal(err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == "1" })
	if held, swapped := memoryUse(dir, names, true); held != 6*page || swapped != 8<<10 {
		t.Errorf("%d bytes and %d swapped, want %d and %d", held, swapped, 6*page, 8<<10)
	}
	if _, swapped := memoryUse(dir, names, false); swapped != 0 {
		t.Errorf("%d swapped that nobody asked for", swapped)
	}
}

func TestEnforcement(t *testing.T) {
	l := Limits{Memory: 64 << 20, MemorySwap: -1, MemoryReservation: 1, NanoCPUs: 1, CPUQuota: 1, CPUShares: 1, CPUSet: "0"}
	if got := l.Enforcement(nil); len(got) != len(LimitsSupported()) {
		t.Errorf("with all limits set: %v", got)
	}
	if got := (&Limits{Pids: -1}).Enforcement(nil); len(got) != 0 {
		t.Errorf("with none: %v", got)
	}
}
