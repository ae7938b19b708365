// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Goals of bases, from the issues.
const (
	bootstrapMm  = 1.3 // times faster than mmdebstrap
	bootstrapDeb = 2.0 // the same, than debootstrap
	unpackXz     = 3.0 // times xz -dc | tar -x
)

// bootstrapRounds is few: each is minutes on a small machine.
const bootstrapRounds = 2

// baseRows compare what makes bases: a bootstrap of bookworm minbase from this
// machine's mirror, packages cached, and the import of a rootfs.tar.xz.
func (b *bench) baseRows(ctx context.Context) []row {
	mm := row{name: "bootstrap, times faster than mmdebstrap", goal: fmt.Sprintf(">= %.1f", bootstrapMm)}
	deb := row{name: "bootstrap, times faster than debootstrap", goal: fmt.Sprintf(">= %.1f", bootstrapDeb)}
	mirror, err := ownMirror(ctx)
	if err != nil {
		mm.unknown, deb.unknown = err, err
		return []row{mm, deb, b.importXz(ctx, "one block", "-T1"), b.importXz(ctx, "blocks", "-T0")}
	}
	root, cache := filepath.Join(b.dir, "theirs"), filepath.Join(b.dir, "debs")
	clear := func() error { return b.remove(root) }
	mm = b.faster(ctx, mm, command{args: []string{"mmdebstrap", "--quiet", "--variant=minbase", "bookworm", root, mirror}, after: clear}, bootstrapMm)
	if os.Getuid() != 0 {
		deb.unknown = errors.New("debootstrap needs root")
	} else if err := os.MkdirAll(cache, 0o755); err != nil {
		deb.unknown = err
	} else {
		deb = b.faster(ctx, deb, command{args: []string{"debootstrap", "--variant=minbase", "--cache-dir=" + cache, "bookworm", root, mirror}, after: clear}, bootstrapDeb)
	}
	return []row{mm, deb, b.importXz(ctx, "one block", "-T1"), b.importXz(ctx, "blocks", "-T0")}
}

// ownMirror is where this machine's apt takes bookworm from.
func ownMirror(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages", "Codename: bookworm").Output()
	if err != nil {
		return "", fmt.Errorf("apt-get indextargets: %w", err)
	}
	list := strings.Fields(string(out))
	if len(list) == 0 {
		return "", errors.New("this machine's apt has no bookworm")
	}
	return list[0], nil
}

// faster compares a bootstrap of ours with another's. The packages stay in the
// cache, the image does not.
func (b *bench) faster(ctx context.Context, r row, theirs command, goal float64) row {
	ours := b.sbxCommand("", "bootstrap", "-q", "bookworm", "-t", "measured")
	gone := b.sbxCommand("", "rmi", "measured")
	ours.after = func() error { _, err := gone.run(ctx); return err }
	a, o, err := pairs(ctx, ours, theirs, bootstrapRounds)
	if err != nil {
		r.unknown = err
		return r
	}
	us, them := median(times(a)), median(times(o))
	ratio := float64(them) / float64(us)
	r.sbx, r.other, r.ratio = us.Round(time.Millisecond).String(), them.Round(time.Millisecond).String(), fmt.Sprintf("%.2f", ratio)
	r.missed = ratio < goal
	return r
}

// importXz compares the import of a rootfs.tar.xz with xz and tar. It is packed by this
// machine's xz with threads: -T1, the default before 5.6, makes one block; -T0, the
// default since, makes blocks that tell their sizes.
func (b *bench) importXz(ctx context.Context, what, threads string) row {
	r := row{name: "import of a .tar.xz of " + what + " (xz " + threads + "), times xz -dc | tar -x", goal: fmt.Sprintf("<= %.1f", unpackXz)}
	if b.images == "" {
		r.unknown = errors.New("SBX_TEST_IMAGES is not set")
		return r
	}
	tarball := filepath.Join(b.dir, "rootfs"+threads+".tar.xz")
	pack := command{args: []string{"sh", "-c", `gzip -dc "$1" | xz "$3" > "$2"`, "sh", filepath.Join(b.images, "debian-bookworm-slim-amd64-rootfs.tar.gz"), tarball, threads}}
	if _, err := pack.run(ctx); err != nil {
		r.unknown = err
		return r
	}
	theirs := command{args: []string{"sh", "-c", `xz -dc "$1" | tar -xf - -C "$2"`, "sh", tarball, "{}"}, fresh: b.fresh()}
	ours := b.inFreshHome("single", "pull", "-q", tarball)
	a, o, err := pairs(ctx, ours, theirs, 3)
	if err != nil {
		r.unknown = err
		return r
	}
	return r.compare(median(times(a)), median(times(o)), unpackXz)
}
