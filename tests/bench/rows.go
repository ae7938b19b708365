// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

const mebibyte = 1 << 20

// Goals, from the issues.
const (
	startSingle  = 1.5 // times bwrap
	startMapped  = 2.0 // the same, with two set-user-ID programs
	fasterPodman = 15.0
	importTar    = 1.5 // times tar -xf
	importMemory = 64*mebibyte + 2*gzipWindow
	gzipWindow   = 32 << 10
	versionLater = 1500 * time.Microsecond // than an empty Go program
	binarySize   = 12 * mebibyte
	filterGetpid = 100 * time.Nanosecond // more than without a filter
)

// bench is what the rows share.
type bench struct {
	sbx    string // the binary
	images string // real distributions, or ""
	dir    string // for everything that is written
	only   string // "registry", "emulation", "bases", or everything
	rounds int
	image  string   // what is run: a tarball
	root   string   // the same, unpacked
	podman []string // how podman runs it here; nil when it does not
	why    error    // why it does not
	net    netOptions
}

// row is a line of the table.
type row struct {
	name    string
	sbx     string
	other   string
	ratio   string
	goal    string
	missed  bool
	unknown error // it could not be measured
}

// start compares a warm start with bubblewrap's on one rung.
func (b *bench) start(ctx context.Context, rung string, goal float64) row {
	r := row{name: "start, " + rung + ", times bwrap", goal: fmt.Sprintf("<= %.1f", goal)}
	ours := b.sbxCommand(rung, "run", "--rm", "--network", "none", b.image, "true")
	theirs := command{args: []string{"bwrap", "--unshare-all", "--bind", b.root, "/", "--proc", "/proc", "--dev", "/dev", "true"}}
	a, o, err := pairs(ctx, ours, theirs, b.rounds)
	if err != nil {
		r.unknown = err
		return r
	}
	return r.compare(median(times(a)), median(times(o)), goal)
}

func (r row) compare(ours, theirs time.Duration, goal float64) row {
	ratio := float64(ours) / float64(theirs)
	r.sbx, r.other, r.ratio = milliseconds(ours), milliseconds(theirs), fmt.Sprintf("%.2f", ratio)
	r.missed = ratio > goal
	return r
}

// podmanStart compares a start with podman's.
func (b *bench) podmanStart(ctx context.Context) row {
	r := row{name: "start, times faster than podman", goal: fmt.Sprintf(">= %.0f", fasterPodman)}
	if b.why != nil {
		r.unknown = b.why
		return r
	}
	a, o, err := pairs(ctx, b.sbxCommand("", "run", "--rm", "--network", "none", b.image, "true"), b.podmanCommand("true"), 10)
	if err != nil {
		r.unknown = err
		return r
	}
	ours, theirs := median(times(a)), median(times(o))
	ratio := float64(theirs) / float64(ours)
	r.sbx, r.other, r.ratio = milliseconds(ours), milliseconds(theirs), fmt.Sprintf("%.1f", ratio)
	r.missed = ratio < fasterPodman
	return r
}

// unpack compares the import of Debian's tarball with tar's, and looks at what
// memory it takes.
func (b *bench) unpack(ctx context.Context, rung string) []row {
	speed := row{name: "import, " + rung + ", times tar -xf", goal: fmt.Sprintf("<= %.1f", importTar)}
	memory := row{name: "import, " + rung + ", peak memory", goal: fmt.Sprintf("< %.2f MiB", float64(importMemory)/mebibyte)}
	tarball := filepath.Join(b.images, "debian-bookworm-slim-amd64-rootfs.tar.gz")
	if b.images == "" {
		speed.unknown = errors.New("SBX_TEST_IMAGES is not set")
		memory.unknown = speed.unknown
		return []row{speed, memory}
	}
	theirs := command{args: []string{"tar", "-xf", tarball, "-C", "{}"}, fresh: b.fresh()}
	ours := b.inFreshHome(rung, "pull", "-q", tarball)
	a, o, err := pairs(ctx, ours, theirs, 5)
	if err != nil {
		speed.unknown, memory.unknown = err, err
		return []row{speed, memory}
	}
	speed = speed.compare(median(times(a)), median(times(o)), importTar)
	peak := median(peaks(a))
	memory.sbx, memory.other = fmt.Sprintf("%.1f MiB", float64(peak)/mebibyte), fmt.Sprintf("%.1f MiB", float64(median(peaks(o)))/mebibyte)
	memory.missed = peak >= importMemory
	return []row{speed, memory}
}

// version compares the start of sbx itself with that of an empty program.
func (b *bench) version(ctx context.Context) row {
	r := row{name: "sbx version, later than an empty program", goal: "< " + milliseconds(versionLater)}
	empty, err := b.emptyProgram(ctx)
	if err != nil {
		r.unknown = err
		return r
	}
	a, o, err := pairs(ctx, b.sbxCommand("", "version"), command{args: []string{empty}}, 4*b.rounds)
	if err != nil {
		r.unknown = err
		return r
	}
	later := median(differences(a, o))
	r.sbx, r.other, r.ratio = milliseconds(median(times(a))), milliseconds(median(times(o))), milliseconds(later)
	r.missed = later >= versionLater
	return r
}

func (b *bench) emptyProgram(ctx context.Context) (string, error) {
	source, program := filepath.Join(b.dir, "empty.go"), filepath.Join(b.dir, "empty")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return program, nil
}

// filter compares a getpid behind the default filter with one without any.
func (b *bench) filter(ctx context.Context) row {
	r := row{name: "filter, getpid, later than without", goal: "<= " + filterGetpid.String()}
	took := map[string][]time.Duration{}
	for range emulationRounds {
		for _, option := range []string{"seccomp=builtin", "seccomp=unconfined"} {
			d, err := b.callTime(ctx, "getpid", 1_000_000, "--root-emulation", "none", "--security-opt", option)
			if err != nil {
				r.unknown = err
				return r
			}
			took[option] = append(took[option], d)
		}
	}
	// The least of each: whatever else the machine does only adds to it.
	with, without := slices.Min(took["seccomp=builtin"]), slices.Min(took["seccomp=unconfined"])
	r.sbx, r.other, r.ratio = with.String(), without.String(), (with - without).String()
	r.missed = with-without > filterGetpid
	return r
}

func (b *bench) size() row {
	r := row{name: "binary", goal: fmt.Sprintf("< %d MiB", binarySize/mebibyte)}
	fi, err := os.Stat(b.sbx)
	if err != nil {
		r.unknown = err
		return r
	}
	r.sbx = fmt.Sprintf("%.2f MiB", float64(fi.Size())/mebibyte)
	r.missed = fi.Size() >= binarySize
	return r
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}
