// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"sbx/tests/need"
)

func main() {
	if played, err := play(); played {
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
			os.Exit(1)
		}
		return
	}
	b := &bench{}
	flag.StringVar(&b.sbx, "sbx", "bin/sbx", "the `binary` to measure")
	flag.StringVar(&b.images, "images", "", "a `folder` with real distributions")
	flag.StringVar(&b.only, "only", "", "measure the rows of `registry`, emulation, life, bases, build or published only")
	flag.IntVar(&b.rounds, "rounds", 60, "how many pairs of starts")
	b.net.flags()
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	missed, err := b.run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if missed {
		os.Exit(1)
	}
}

func (b *bench) run(ctx context.Context) (missed bool, err error) {
	if b.net.only {
		return show(b.network(ctx)), ctx.Err()
	}
	if b.sbx, err = filepath.Abs(b.sbx); err != nil {
		return false, err
	}
	if b.dir, err = os.MkdirTemp("/var/tmp", "sbx-bench-"); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, b.clear()) }()
	if err := b.prepare(ctx); err != nil {
		return false, err
	}
	switch b.only {
	case "registry":
		return show(b.registryRows(ctx)), ctx.Err()
	case "bases":
		return show(b.baseRows(ctx)), ctx.Err()
	case "emulation":
		return show(b.emulation(ctx)), ctx.Err()
	case "life":
		return show(b.lifeRows(ctx)), ctx.Err()
	case "build":
		return show(b.buildRows(ctx)), ctx.Err()
	case "published":
		return show(append(b.publishedRows(ctx), b.networkStart(ctx))), ctx.Err()
	}
	rows := []row{b.start(ctx, "single", startSingle)}
	mapped := need.Missing(need.Subids) == nil
	if mapped {
		rows = append(rows, b.start(ctx, "mapped", startMapped))
	}
	rows = append(rows, b.podmanStart(ctx), b.networkStart(ctx))
	rows = append(rows, b.unpack(ctx, "single")...)
	if mapped {
		rows = append(rows, b.unpack(ctx, "mapped")...)
	}
	rows = append(rows, b.lifeRows(ctx)...)
	rows = append(rows, b.emulation(ctx)...)
	rows = append(rows, b.registryRows(ctx)...)
	rows = append(rows, b.buildRows(ctx)...)
	rows = append(rows, b.baseRows(ctx)...)
	rows = append(rows, b.filter(ctx), b.version(ctx), b.size())
	rows = append(rows, b.network(ctx)...)
	rows = append(rows, b.publishedRows(ctx)...)
	return show(rows), ctx.Err()
}

// prepare makes the image that is run, as a tarball and unpacked: Alpine's where
// there is one, else the probe.
func (b *bench) prepare(ctx context.Context) error {
	b.root = filepath.Join(b.dir, "root")
	if err := os.Mkdir(b.root, 0o755); err != nil {
		return err
	}
	if b.images != "" {
		b.image = filepath.Join(b.images, need.Alpine)
		return b.prepared(ctx, "tar", "-xf", b.image, "-C", b.root)
	}
	bin := filepath.Join(b.root, "bin")
	for _, d := range []string{bin, filepath.Join(b.root, "proc"), filepath.Join(b.root, "dev")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(bin, "true"), "./tests/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, out)
	}
	b.image = filepath.Join(b.dir, "root.tar.gz")
	return b.prepared(ctx, "tar", "-czf", b.image, "-C", b.root, ".")
}

func (b *bench) prepared(ctx context.Context, program string, args ...string) error {
	if out, err := exec.CommandContext(ctx, program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, out)
	}
	b.findPodman(ctx)
	return nil
}

// sbxCommand is sbx with a store of the rung's own.
func (b *bench) sbxCommand(rung string, args ...string) command {
	return command{args: append([]string{b.sbx}, args...), env: []string{"SBX_RUNG=" + rung, "SBX_HOME=" + filepath.Join(b.dir, "home")}}
}

// fresh is where the directories are that runs have for themselves.
func (b *bench) fresh() string { return filepath.Join(b.dir, "fresh") }

// inFreshHome is sbx with a new store each time.
func (b *bench) inFreshHome(rung string, args ...string) command {
	c := b.sbxCommand(rung, args...)
	c.env, c.fresh = append(c.env, "SBX_HOME={}/home"), b.fresh()
	return c
}

// reset removes a store.
func (b *bench) reset(ctx context.Context, home string) error {
	c := command{args: []string{b.sbx, "system", "reset", "-f"}, env: []string{"SBX_HOME=" + home}}
	if _, err := c.run(ctx); err != nil {
		return err
	}
	return b.remove(home)
}

// remove removes a tree in which directories may be shut.
func (b *bench) remove(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	if out, err := exec.Command("chmod", "-R", "u+rwX", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("chmod: %w: %s", err, out)
	}
	return os.RemoveAll(dir)
}

// clear leaves nothing, interrupted or not.
func (b *bench) clear() error {
	ctx := context.Background()
	homes, _ := filepath.Glob(filepath.Join(b.fresh(), "*", "home"))
	for _, home := range append(homes, filepath.Join(b.dir, "home"), filepath.Join(b.dir, "pull")) {
		if _, err := os.Stat(home); err == nil {
			_ = b.reset(ctx, home)
		}
	}
	b.endPodman(ctx)
	return b.remove(b.dir)
}

// show prints the table and reports whether a goal was missed.
func show(rows []row) (missed bool) {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "\tsbx\tother\tratio\tgoal\t")
	for _, r := range rows {
		verdict := "ok"
		switch {
		case r.unknown != nil:
			verdict = "not measured: " + strings.ReplaceAll(r.unknown.Error(), "\n", " ")
		case r.missed:
			verdict, missed = "MISSED", true
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.name, r.sbx, r.other, r.ratio, r.goal, verdict)
	}
	w.Flush()
	return missed
}
