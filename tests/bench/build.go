// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sbx/tests/need"
)

// Goals of builds, from the issues.
const (
	cachedBuild  = 20 * time.Millisecond
	cachedPodman = 10.0
	coldPodman   = 8.0
	copyFiles    = 1.5 // times cp -a and tar | gzip -1
	loadPodman   = 2.5

	copiedFiles = 20_000
	copiedBytes = 10_000 // each
)

// buildRows compare builds with podman's of the same Dockerfiles.
func (b *bench) buildRows(ctx context.Context) []row {
	if b.images == "" {
		return []row{{name: "build", unknown: errors.New("SBX_TEST_IMAGES is not set")}}
	}
	rows := b.cachedBuild(ctx)
	return append(rows, b.coldBuild(ctx), b.copyBuild(ctx))
}

// buildContext makes a directory with Alpine's tarball and a Dockerfile of lines above it.
func (b *bench) buildContext(name string, lines ...string) (string, error) {
	dir := filepath.Join(b.dir, "context-"+name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	if err := os.Link(filepath.Join(b.images, need.Alpine), filepath.Join(dir, "alpine.tar.gz")); err != nil {
		data, err := os.ReadFile(filepath.Join(b.images, need.Alpine))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "alpine.tar.gz"), data, 0o644)
		}
		if err != nil {
			return "", err
		}
	}
	text := "FROM scratch AS alpine\nADD alpine.tar.gz /\nFROM alpine\n" + strings.Join(lines, "\n") + "\n"
	return dir, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644)
}

func (b *bench) podmanBuild(dir string, more ...string) command {
	args := append([]string{"build", "-q", "--isolation", "chroot", "-t", "bench-build"}, more...)
	return b.podmanImage(append(args, dir)...)
}

func (b *bench) cachedBuild(ctx context.Context) []row {
	absolute := row{name: "cached build of six steps", goal: "<= " + milliseconds(cachedBuild)}
	speed := row{name: "cached build of six steps, times faster than podman", goal: fmt.Sprintf(">= %.0f", cachedPodman)}
	dir, err := b.buildContext("cached", "WORKDIR /srv", "COPY Dockerfile .", "RUN echo a > a", "RUN echo b > b", "RUN echo c > c", `CMD ["sh"]`)
	var a, o []sample
	if err == nil {
		a, o, err = pairs(ctx, b.sbxCommand("", "build", "-q", dir), b.podmanBuild(dir), 5)
	}
	if err != nil {
		absolute.unknown, speed.unknown = err, err
		return []row{absolute, speed}
	}
	took := median(times(a))
	absolute.sbx, absolute.missed = milliseconds(took), took > cachedBuild
	return []row{absolute, speed.faster(a, o, cachedPodman)}
}

// coldBuild builds without the cache; the base is there.
func (b *bench) coldBuild(ctx context.Context) row {
	r := row{name: "cold build of three RUN, times faster than podman", goal: fmt.Sprintf(">= %.0f", coldPodman)}
	dir, err := b.buildContext("cold", "RUN true", "RUN echo b > /b", "RUN true")
	if err == nil {
		// The base must not count: as an image of its own it is in both stores.
		err = os.WriteFile(filepath.Join(dir, "Base"), []byte("FROM scratch\nADD alpine.tar.gz /\n"), 0o644)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM localhost/bench-base\nRUN true\nRUN echo b > /b\nRUN true\n"), 0o644)
	}
	base := b.sbxCommand("", "build", "-q", "-t", "localhost/bench-base", "-f", filepath.Join(dir, "Base"), dir)
	theirs := b.podmanImage("build", "-q", "--isolation", "chroot", "-t", "localhost/bench-base", "-f", filepath.Join(dir, "Base"), dir)
	for _, c := range []command{base, theirs} {
		if err == nil {
			_, err = c.run(ctx)
		}
	}
	var a, o []sample
	if err == nil {
		a, o, err = pairs(ctx, b.sbxCommand("", "build", "-q", "--no-cache", dir), b.podmanBuild(dir, "--no-cache"), 3)
	}
	if err != nil {
		r.unknown = err
		return r
	}
	return r.faster(a, o, coldPodman)
}

// copyBuild copies many files into an image, and into a directory and a compressed tar.
func (b *bench) copyBuild(ctx context.Context) row {
	r := row{name: fmt.Sprintf("COPY of %d files, times cp -a and tar | gzip -1", copiedFiles), goal: fmt.Sprintf("<= %.1f", copyFiles)}
	dir := filepath.Join(b.dir, "context-copy")
	if r.unknown = makeFiles(filepath.Join(dir, "files")); r.unknown != nil {
		return r
	}
	if r.unknown = os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY files /files\n"), 0o644); r.unknown != nil {
		return r
	}
	theirs := command{
		args:  []string{"sh", "-c", `cp -a "$1" "$2" && tar -C "$1" -cf - . | gzip -1 > "$2.tar.gz"`, "sh", filepath.Join(dir, "files"), "{}/files"},
		fresh: b.fresh(),
	}
	a, o, err := pairs(ctx, b.sbxCommand("", "build", "-q", "--no-cache", dir), theirs, 3)
	if err != nil {
		r.unknown = err
		return r
	}
	return r.compare(median(times(a)), median(times(o)), copyFiles)
}

// makeFiles writes files that compress about as well as text does.
func makeFiles(dir string) error {
	line := []byte("all work and no play makes jack a dull boy, number ")
	data := make([]byte, 0, copiedBytes)
	for n := range copiedFiles {
		at := filepath.Join(dir, fmt.Sprint(n%200))
		if n < 200 {
			if err := os.MkdirAll(at, 0o755); err != nil {
				return err
			}
		}
		for data = data[:0]; len(data) < copiedBytes; {
			data = fmt.Appendf(append(data, line...), "%d\n", (n*7919+len(data))*104729)
		}
		if err := os.WriteFile(filepath.Join(at, fmt.Sprint(n)), data[:copiedBytes], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// load compares the load of what podman has saved.
func (b *bench) load(ctx context.Context, img pullImage, ref string) row {
	r := row{name: "load " + img.name + ", times faster than podman", goal: fmt.Sprintf(">= %.1f", loadPodman)}
	archive := filepath.Join(b.dir, "saved-"+img.name+".tar")
	if _, r.unknown = b.podmanImage("save", "-q", "--format", "docker-archive", "-o", archive, ref).run(ctx); r.unknown != nil {
		return r
	}
	a, o, err := pairs(ctx, b.inFreshHome("", "load", "-q", "-i", archive), b.podmanFresh("load", "-q", "-i", archive), 3)
	if err != nil {
		r.unknown = err
		return r
	}
	return r.faster(a, o, loadPodman)
}
