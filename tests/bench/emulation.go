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
	"strconv"
	"strings"
	"time"

	"sbx/tests/need"
)

// What root emulation may cost: times the same without it, and for single calls.
const (
	emulatedInstall = 1.25
	emulatedImports = 1.2
	emulatedCopy    = 1.6
	emulatedTar     = 1.7
	emulatedFind    = 4.0
	emulatedGeteuid = 4 * time.Microsecond
	emulatedLstat   = 6 * time.Microsecond
)

const emulationRounds = 7

// packages are reinstalled from files that are there already.
const packages = "libcap2-bin acl attr netbase openssl"

// emulation compares work in a container with root emulation to the same without.
func (b *bench) emulation(ctx context.Context) []row {
	slim := filepath.Join(b.images, need.Debian)
	base := func(context.Context) (string, error) { return slim, nil }
	rows := []row{
		b.emulated(ctx, "apt-get install --reinstall", b.installed, emulatedInstall,
			"apt-get -o APT::Sandbox::User=root install -y -qq --reinstall -o APT::Keep-Downloaded-Packages=true "+packages+" > /dev/null 2>&1"),
		b.emulated(ctx, "python imports", b.python, emulatedImports, "for i in 1 2 3 4 5 6 7 8; do python3 -c 'import flask, asyncio'; done"),
		b.emulated(ctx, "cp -a", base, emulatedCopy, "mkdir /root/c; cp -a /usr/share /usr/lib/x86_64-linux-gnu /etc /root/c; rm -rf /root/c"),
		b.emulated(ctx, "tar c /", base, emulatedTar, "tar c --one-file-system / | cat > /dev/null"),
		b.emulated(ctx, "find / -ls", base, emulatedFind, "find / -xdev -ls > /dev/null"),
	}
	return append(rows, b.emulatedCall(ctx, "geteuid", emulatedGeteuid), b.emulatedCall(ctx, "lstat", emulatedLstat))
}

// emulated runs a script of bash's with and without emulation, in turns. The time
// is the script's own.
func (b *bench) emulated(ctx context.Context, what string, image func(context.Context) (string, error), goal float64, script string) row {
	r := row{name: "emulation, " + what + ", times none", goal: fmt.Sprintf("<= %.2f", goal)}
	if b.images == "" {
		r.unknown = errors.New("SBX_TEST_IMAGES is not set")
		return r
	}
	name, err := image(ctx)
	if err != nil {
		r.unknown = err
		return r
	}
	script = "from=$EPOCHREALTIME\n" + script + "\nto=$EPOCHREALTIME\necho $((${to/./} - ${from/./}))"
	modes := [2]string{"notify", "none"}
	var took [2][]time.Duration
	for round := range emulationRounds + 1 {
		for i := range modes {
			k := (i + round) % 2
			out, err := b.output(ctx, "run", "--rm", "-q", "--network", "none", "--root-emulation", modes[k], name, "bash", "-c", script)
			if err != nil {
				r.unknown = err
				return r
			}
			us, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
			if err != nil {
				r.unknown = err
				return r
			}
			if round > 0 {
				took[k] = append(took[k], time.Duration(us)*time.Microsecond)
			}
		}
	}
	return r.compare(median(took[0]), median(took[1]), goal)
}

// emulatedCall measures a system call that the supervisor answers, and the same
// that the kernel does.
func (b *bench) emulatedCall(ctx context.Context, name string, goal time.Duration) row {
	r := row{name: "emulation, " + name, goal: "< " + goal.String()}
	took := map[string][]time.Duration{}
	for round := range emulationRounds + 1 {
		for _, mode := range []string{"notify", "none"} {
			d, err := b.callTime(ctx, name, 20_000, "--root-emulation", mode)
			if err != nil {
				r.unknown = err
				return r
			}
			if round > 0 {
				took[mode] = append(took[mode], d)
			}
		}
	}
	ours, theirs := median(took["notify"]), median(took["none"])
	r.sbx, r.other, r.ratio = ours.String(), theirs.String(), fmt.Sprintf("%.1f", float64(ours)/float64(theirs))
	r.missed = ours >= goal
	return r
}

// callTime is how long one of count system calls takes in a container with these flags.
func (b *bench) callTime(ctx context.Context, name string, count int, flags ...string) (time.Duration, error) {
	dir := filepath.Join(b.dir, "probe")
	program := filepath.Join(dir, "probe")
	if _, err := os.Stat(program); err != nil {
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./tests/probe")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("go build: %w: %s", err, out)
		}
	}
	args := slices.Concat([]string{"run", "--rm", "-q", "--network", "none", "-v", dir + ":/probe:ro"}, flags, []string{b.image, "/probe/probe", "time", name, strconv.Itoa(count)})
	out, err := b.output(ctx, args...)
	if err != nil {
		return 0, err
	}
	return time.ParseDuration(strings.TrimSpace(out))
}

// output is what sbx prints on the rung that emulates.
func (b *bench) output(ctx context.Context, args ...string) (string, error) {
	c := b.sbxCommand("single", args...)
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Env = append(os.Environ(), c.env...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("sbx %s: %w: %s", args[0], err, exit.Stderr)
	}
	return string(out), err
}

// python is an image of slim Debian with Python and Flask.
func (b *bench) python(ctx context.Context) (string, error) {
	dir := filepath.Join(b.dir, "python")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	text := "FROM scratch\n"
	for _, name := range []string{need.Debian, "debian-bookworm-python3.11-layer.tar.gz"} {
		data, err := os.ReadFile(filepath.Join(b.images, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o644)
		}
		if err != nil {
			return "", err
		}
		text += "ADD " + name + " /\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644); err != nil {
		return "", err
	}
	_, err := b.output(ctx, "build", "-q", "-t", "python", dir)
	return "python", err
}

// installed is an image of slim Debian with packages, and their files.
func (b *bench) installed(ctx context.Context) (string, error) {
	if err := need.Missing(need.Mirror); err != nil {
		return "", err
	}
	script := "export DEBIAN_FRONTEND=noninteractive; rm -f /etc/apt/apt.conf.d/docker-clean; apt-get update -qq && apt-get install -y -qq --no-install-recommends " +
		packages + " && apt-get install -y -qq -d --reinstall " + packages
	if _, err := b.output(ctx, "run", "-q", "--name", "installed", "--network", "host", filepath.Join(b.images, need.Debian), "bash", "-c", script); err != nil {
		return "", err
	}
	_, err := b.output(ctx, "commit", "installed", "installed")
	return "installed", err
}
