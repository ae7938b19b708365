// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbx/tests/need"
	"sbx/userns"
)

// crowded is a store of 100 images, one of which has six layers and a config like those of
// real images.
func crowded(t testing.TB) *Store {
	s := newStore(t, userns.SingleRung())
	var layers [][]byte
	for i := range 6 {
		layers = append(layers, tarOf(t, file{name: fmt.Sprint(i), data: "x"}))
	}
	for i := range 99 {
		if _, err := s.Pull(context.Background(), fmt.Sprintf("docker.io/library/other:%d", i), source(t, layers[i%6]), PullOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Pull(context.Background(), alpine, source(t, layers...), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	return s
}

// warmRun is what every run of an image that is there asks of the store.
func warmRun(dir string, r userns.Rung) ([]string, error) {
	s, err := Open(dir, r)
	if err != nil {
		return nil, err
	}
	img, err := s.Image(alpine)
	if err != nil {
		return nil, err
	}
	return s.LayerDirs(context.Background(), img)
}

// BenchmarkWarmRun is in a process that has done it before; see BenchmarkWarmRunCold.
func BenchmarkWarmRun(b *testing.B) {
	s := crowded(b)
	for b.Loop() {
		if _, err := warmRun(s.dir, s.rung); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkImages100(b *testing.B) {
	s := crowded(b)
	for b.Loop() {
		if _, err := s.Images(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWarmRunCold is what Open, Image and LayerDirs cost a process that has done
// nothing else: the first use of every package is the only one that a command makes. The
// goal is a median below 300 us.
func BenchmarkWarmRunCold(b *testing.B) {
	s := crowded(b)
	const times = 200
	for b.Loop() {
		var wall, cpu []float64
		for range times {
			out, err := errand{Op: "warm", Dir: s.dir, Rung: s.rung}.command(b).Output()
			if err != nil {
				b.Fatal(err)
			}
			var w, c float64
			if _, err := fmt.Sscanf(string(out), "%g %g", &w, &c); err != nil {
				b.Fatalf("%q: %v", out, err)
			}
			wall, cpu = append(wall, w/1e3), append(cpu, c/1e3)
		}
		slices.Sort(wall)
		slices.Sort(cpu)
		b.ReportMetric(wall[times/2], "us-median")
		b.ReportMetric(wall[0], "us-best")
		b.ReportMetric(cpu[times/2], "cpu-us-median")
	}
}

// warmRunHere is the other process of BenchmarkWarmRunCold.
func warmRunHere(t *testing.T, e errand) {
	start, cpu := time.Now(), processorTime()
	if _, err := warmRun(e.Dir, e.Rung); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("%d %d\n", time.Since(start), processorTime()-cpu)
}

func processorTime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano())
}

// BenchmarkImportAgainstTar imports a tarball and unpacks it with tar, in turns: an import is to
// take at most 1.5 times as long (issue 2). It reports the peak of memory, too.
func BenchmarkImportAgainstTar(b *testing.B) {
	need.Need(b, need.Images)
	dir := os.Getenv("SBX_TEST_IMAGES")
	path := dir + "/debian-bookworm-slim-amd64-rootfs.tar.gz"
	for _, r := range rungs(b) {
		b.Run(r.Name, func(b *testing.B) {
			for b.Loop() {
				compareWithTar(b, r, path)
			}
		})
	}
}

func compareWithTar(b *testing.B, r userns.Rung, path string) {
	const pairs = 11
	var ratios, ours, theirs []float64
	var peak float64
	for range pairs {
		s := newStore(b, r)
		out, err := errand{Op: "tarball", Dir: s.dir, Rung: r, Log: path}.command(b).Output()
		if err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		var took, memory float64
		if _, err := fmt.Sscanf(string(out), "%g %g", &took, &memory); err != nil {
			b.Fatalf("%q: %v", out, err)
		}
		if err := s.RemoveTree(b.Context(), s.dir); err != nil {
			b.Fatal(err)
		}
		to := b.TempDir()
		start := time.Now()
		if out, err := exec.Command("tar", "-C", to, "-xf", path).CombinedOutput(); err != nil && os.Getuid() == 0 {
			b.Fatalf("%v\n%s", err, out)
		}
		tar := float64(time.Since(start))
		if err := os.RemoveAll(to); err != nil {
			b.Fatal(err)
		}
		ours, theirs, ratios = append(ours, took/1e6), append(theirs, tar/1e6), append(ratios, took/tar)
		peak = max(peak, memory)
	}
	slices.Sort(ratios)
	slices.Sort(ours)
	slices.Sort(theirs)
	b.ReportMetric(ours[pairs/2], "import-ms")
	b.ReportMetric(theirs[pairs/2], "tar-ms")
	b.ReportMetric(ratios[pairs/2], "ratio")
	b.ReportMetric(peak/1024, "peak-MiB")
}

// importTarball is the other process of BenchmarkImportAgainstTar.
func importTarball(t *testing.T, e errand) {
	s, err := Open(e.Dir, e.Rung)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(e.Log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	start := time.Now()
	if _, err := s.Import(t.Context(), "debian", Rootfs{Reader: f}, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	var hwm int64
	if _, err := fmt.Sscan(rest, &hwm); err != nil {
		t.Fatal(err)
	}
	var roles unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &roles); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("%d %d\n", took, max(hwm, roles.Maxrss))
}
