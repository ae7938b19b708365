// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// command is a program to be measured. before and after stand outside of the
// measured time.
//
// Where fresh is a directory, each run gets one of its own below it, and {} stands for
// that in args, env and first. They stay until everything has been measured: ext4 keeps
// off inodes that were freed in the last minutes, and a removal just before a run would
// be what that run measures.
type command struct {
	args          []string
	env           []string
	fresh         string
	first         []string // what is run in a fresh directory before
	before, after func() error
}

// sample is one run of a command.
type sample struct {
	took time.Duration
	peak int64 // bytes, of the largest of its processes
}

func (c command) run(ctx context.Context) (sample, error) {
	if c.fresh != "" {
		if err := c.enterFresh(ctx); err != nil {
			return sample{}, err
		}
	}
	if c.before != nil {
		if err := c.before(); err != nil {
			return sample{}, err
		}
	}
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Env = append(os.Environ(), c.env...)
	var said bytes.Buffer
	cmd.Stderr = &said
	begin := time.Now()
	err := cmd.Run()
	s := sample{took: time.Since(begin)}
	if err != nil {
		lines := strings.Split(strings.TrimSpace(said.String()), "\n")
		return s, fmt.Errorf("%s: %w: %s", c.args[0], err, lines[len(lines)-1])
	}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		s.peak = usage.Maxrss << 10
	}
	if c.after != nil {
		err = c.after()
	}
	return s, err
}

// enterFresh gives this copy of c a directory.
func (c *command) enterFresh(ctx context.Context) error {
	if err := os.MkdirAll(c.fresh, 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(c.fresh, "")
	if err != nil {
		return err
	}
	in := func(words []string) []string {
		words = slices.Clone(words)
		for i, w := range words {
			words[i] = strings.ReplaceAll(w, "{}", dir)
		}
		return words
	}
	c.args, c.env, c.fresh = in(c.args), in(c.env), ""
	if len(c.first) == 0 {
		return nil
	}
	_, err = command{args: in(c.first), env: c.env}.run(ctx)
	return err
}

// pairs runs two commands in turn, a b b a, after one run of each that does not
// count.
func pairs(ctx context.Context, a, b command, rounds int) (as, bs []sample, err error) {
	both := []command{a, b}
	for round := range rounds + 1 {
		var got [2]sample
		for i := range both {
			k := (i + round) % 2
			if got[k], err = both[k].run(ctx); err != nil {
				return nil, nil, err
			}
		}
		if round > 0 {
			as, bs = append(as, got[0]), append(bs, got[1])
		}
	}
	return as, bs, nil
}

func median[T int64 | float64 | time.Duration](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func times(samples []sample) []time.Duration {
	var list []time.Duration
	for _, s := range samples {
		list = append(list, s.took)
	}
	return list
}

func peaks(samples []sample) []int64 {
	var list []int64
	for _, s := range samples {
		list = append(list, s.peak)
	}
	return list
}

// differences are those of each pair.
func differences(a, b []sample) []time.Duration {
	var list []time.Duration
	for i := range a {
		list = append(list, a[i].took-b[i].took)
	}
	return list
}
