// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// podmanEnv gives podman a run directory of its own: its helper process, which
// outlives the command, is then ours to end.
func (b *bench) podmanEnv() []string {
	return []string{"XDG_RUNTIME_DIR=" + filepath.Join(b.dir, "podman-run")}
}

func (b *bench) podmanBase() []string {
	return []string{"podman", "--root", filepath.Join(b.dir, "podman-root"), "--cgroup-manager", "cgroupfs"}
}

// findPodman finds how podman runs the image on this machine. Without systemd
// or delegated control groups it needs to be told to leave those alone.
func (b *bench) findPodman(ctx context.Context) {
	if b.why = os.Mkdir(filepath.Join(b.dir, "podman-run"), 0o700); b.why != nil {
		return
	}
	load := command{args: append(b.podmanBase(), "import", "-q", b.image, "bench"), env: b.podmanEnv()}
	if _, b.why = load.run(ctx); b.why != nil {
		return
	}
	for _, way := range [][]string{
		{"run"},
		{"--runtime", "crun", "run", "--cgroups=disabled"},
		{"--runtime", "runc", "run", "--cgroups=disabled"},
	} {
		b.podman = way
		if _, b.why = b.podmanCommand("true").run(ctx); b.why == nil {
			return
		}
	}
	b.podman = nil
}

func (b *bench) podmanCommand(program string) command {
	args := append(b.podmanBase(), b.podman...)
	return command{args: append(args, "--rm", "--network", "none", "bench", program), env: b.podmanEnv()}
}

// podmanDetached runs a program of the image in the background.
func (b *bench) podmanDetached(name string, program ...string) command {
	args := slices.Concat(b.podmanBase(), b.podman, []string{"-d", "--name", name, "--network", "none", "bench"}, program)
	return command{args: args, env: b.podmanEnv()}
}

// podmanOther is another of podman's commands, by the runtime that works here.
func (b *bench) podmanOther(args ...string) command {
	flags := b.podman[:slices.Index(b.podman, "run")]
	return command{args: slices.Concat(b.podmanBase(), flags, args), env: b.podmanEnv()}
}

// podmanFresh is podman with a new store each time, made ready before.
func (b *bench) podmanFresh(args ...string) command {
	base := []string{"podman", "--root", "{}/podman", "--cgroup-manager", "cgroupfs"}
	return command{args: slices.Concat(base, args), first: slices.Concat(base, []string{"images", "-q"}), env: b.podmanEnv(), fresh: b.fresh()}
}

// endPodman removes what podman keeps, which subordinate IDs may own.
func (b *bench) endPodman(ctx context.Context) {
	reset := command{args: append(b.podmanBase(), "unshare", "rm", "-rf", filepath.Join(b.dir, "podman-root"), b.fresh()), env: b.podmanEnv()}
	_, _ = reset.run(ctx)
	data, err := os.ReadFile(filepath.Join(b.dir, "podman-run", "libpod", "tmp", "pause.pid"))
	if err != nil {
		return
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && pid > 1 {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
}
