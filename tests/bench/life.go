// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
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
)

// Goals of a container's life.
const (
	execNsenter   = 1.8 // times
	execPodman    = 20.0
	listed        = 100 // containers
	listTime      = 10 * time.Millisecond
	monitorMemory = 10 * mebibyte
	outputPodman  = 2.0
	outputBytes   = 1 << 30
	executions    = 40 // before a monitor's memory is looked at again
)

// lifeRows measure containers that run in the background.
func (b *bench) lifeRows(ctx context.Context) []row {
	if b.images == "" {
		return []row{{name: "containers in the background", unknown: errors.New("SBX_TEST_IMAGES is not set")}}
	}
	rows := []row{b.execRow(ctx), b.execPodmanRow(ctx), b.listRow(ctx)}
	rows = append(rows, b.monitorRows(ctx)...)
	return append(rows, b.outputRows(ctx)...)
}

// said runs sbx and returns its output.
func (b *bench) said(ctx context.Context, args ...string) (string, error) {
	c := b.sbxCommand("", args...)
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Env = append(os.Environ(), c.env...)
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("sbx %s: %w", args[0], err)
	}
	return strings.TrimSpace(string(out)), err
}

// background starts a container that sleeps, and returns its ID and the pid of its program.
func (b *bench) background(ctx context.Context) (id string, pid int, err error) {
	if id, err = b.said(ctx, "run", "-d", "--network", "none", b.image, "sleep", "100000"); err != nil {
		return "", 0, err
	}
	text, err := b.said(ctx, "inspect", "--format", "{{.State.Pid}}", id)
	if err == nil {
		pid, err = strconv.Atoi(text)
	}
	return id, pid, err
}

func (b *bench) execRow(ctx context.Context) row {
	r := row{name: "exec, times nsenter", goal: fmt.Sprintf("<= %.1f", execNsenter)}
	id, pid, err := b.background(ctx)
	if err != nil {
		r.unknown = err
		return r
	}
	defer b.said(ctx, "rm", "-f", id)
	theirs := command{args: []string{"nsenter", "-t", strconv.Itoa(pid), "-U", "--preserve-credentials", "-m", "-i", "-u", "-p", "-n", "-C", "true"}}
	a, o, err := pairs(ctx, b.sbxCommand("", "exec", id, "true"), theirs, b.rounds)
	if err != nil {
		r.unknown = err
		return r
	}
	return r.compare(median(times(a)), median(times(o)), execNsenter)
}

func (b *bench) execPodmanRow(ctx context.Context) row {
	r := row{name: "exec, times faster than podman", goal: fmt.Sprintf(">= %.0f", execPodman)}
	if b.why != nil {
		r.unknown = b.why
		return r
	}
	id, _, err := b.background(ctx)
	if err == nil {
		defer b.said(ctx, "rm", "-f", id)
		_, err = b.podmanDetached("life", "sleep", "100000").run(ctx)
	}
	if err == nil {
		defer b.podmanOther("rm", "-f", "-t", "0", "life").run(ctx)
		var a, o []sample
		if a, o, err = pairs(ctx, b.sbxCommand("", "exec", id, "true"), b.podmanOther("exec", "life", "true"), 10); err == nil {
			return r.faster(a, o, execPodman)
		}
	}
	r.unknown = err
	return r
}

func (b *bench) listRow(ctx context.Context) row {
	r := row{name: fmt.Sprintf("ps of %d containers", listed), goal: "< " + milliseconds(listTime)}
	var ids []string
	for range listed {
		id, err := b.said(ctx, "create", "--network", "none", b.image, "true")
		if err != nil {
			r.unknown = err
			return r
		}
		ids = append(ids, id)
	}
	defer b.said(ctx, append([]string{"rm"}, ids...)...)
	list := b.sbxCommand("", "ps", "-a")
	a, _, err := pairs(ctx, list, list, b.rounds/2)
	if err != nil {
		r.unknown = err
		return r
	}
	took := median(times(a))
	r.sbx, r.missed = milliseconds(took), took >= listTime
	return r
}

// monitorRows look at the memory of a container's monitor: all of it, and what is
// not the binary's, which all of them share.
func (b *bench) monitorRows(ctx context.Context) []row {
	idle := row{name: "monitor, idle, resident (its own)", goal: fmt.Sprintf("<= %d MiB", monitorMemory/mebibyte)}
	busy := row{name: fmt.Sprintf("the same after %d exec", executions), goal: idle.goal}
	id, _, err := b.background(ctx)
	if err == nil {
		defer b.said(ctx, "rm", "-f", id)
		idling(ctx)
		err = idle.resident(id)
	}
	for range executions {
		if err == nil {
			_, err = b.said(ctx, "exec", id, "true")
		}
	}
	if err == nil {
		idling(ctx)
		err = busy.resident(id)
	}
	if err != nil {
		idle.unknown, busy.unknown = err, err
	}
	return []row{idle, busy}
}

// idling is long enough for a monitor to have given back what it no longer needs.
func idling(ctx context.Context) {
	timer := time.NewTimer(3 * time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (r *row) resident(id string) error {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	i := slices.IndexFunc(files, func(name string) bool {
		data, _ := os.ReadFile(name)
		return bytes.HasPrefix(data, []byte("sbx-monitor\x00"+id))
	})
	if i < 0 {
		return errors.New("the monitor is not found")
	}
	data, err := os.ReadFile(filepath.Join(filepath.Dir(files[i]), "status"))
	if err != nil {
		return err
	}
	kilobytes := func(name string) int {
		_, rest, _ := strings.Cut(string(data), name+":")
		var n int
		_, _ = fmt.Sscan(rest, &n)
		return n
	}
	all := kilobytes("VmRSS")
	r.sbx = fmt.Sprintf("%.1f MiB (%.1f)", float64(all)/1024, float64(kilobytes("RssAnon"))/1024)
	r.missed = all<<10 > monitorMemory
	return nil
}

// outputRows compare a program that writes much in the background, and the
// reading of that, with podman.
func (b *bench) outputRows(ctx context.Context) []row {
	write := row{name: "1 GiB of output under -d, times faster than podman", goal: fmt.Sprintf(">= %.0f", outputPodman)}
	read := row{name: "logs of that, times faster than podman", goal: write.goal}
	if b.why != nil {
		write.unknown, read.unknown = b.why, b.why
		return []row{write, read}
	}
	// What writes must be faster than what is measured: cat is, yes and head are not.
	const part = 16 * mebibyte
	program := []string{"sh", "-c", fmt.Sprintf("yes 0123456789abcdef0123456789abcde | head -c %d > /tmp/part; i=0; while [ $i -lt %d ]; do cat /tmp/part; i=$((i+1)); done", part, outputBytes/part)}
	ours := b.sbxCommand("", append([]string{"run", "--name", "life", "--network", "none", b.image}, program...)...)
	theirs := b.podmanDetached("life", program...)
	ours.args = slices.Insert(ours.args, 2, "-d")
	a, err := b.written(ctx, ours, b.sbxCommand("", "wait", "life"))
	if err == nil {
		defer b.said(ctx, "rm", "-f", "life")
		var o sample
		if o, err = b.written(ctx, theirs, b.podmanOther("wait", "life")); err == nil {
			defer b.podmanOther("rm", "-f", "-t", "0", "life").run(ctx)
			write = write.faster([]sample{a}, []sample{o}, outputPodman)
			var x, y []sample
			if x, y, err = pairs(ctx, b.sbxCommand("", "logs", "life"), b.podmanOther("logs", "life"), 1); err == nil {
				return []row{write, read.faster(x, y, outputPodman)}
			}
		}
	}
	if write.sbx == "" {
		write.unknown = err
	}
	read.unknown = err
	return []row{write, read}
}

// written is how long a container takes from its start to its end.
func (b *bench) written(ctx context.Context, start, wait command) (sample, error) {
	whole, err := start.run(ctx)
	if err != nil {
		return whole, err
	}
	rest, err := wait.run(ctx)
	whole.took += rest.took
	return whole, err
}
