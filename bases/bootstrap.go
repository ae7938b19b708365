// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"sbx/container"
	"sbx/fetch"
	"sbx/store"
)

// Variants of a bootstrap.
const (
	VariantMinbase  = "minbase"  // what is required, and apt
	VariantStandard = "standard" // also what is important, as a server has it
)

// Bootstrap says which system is to be made.
type Bootstrap struct {
	Suite      string
	Mirror     string   // "": of Mirrors, or the host's own, or the vendor's
	Mirrors    []string // asked in order, where Mirror is ""
	Include    []string // further packages
	Variant    string   // "": VariantMinbase
	Arch       string   // Debian's name of an architecture
	Components []string // none: main
	Keyring    string   // a file of keys that may sign; "": the vendor's
	Epoch      time.Time
	Fetch      fetch.Options
	// Progress is told what is being done, in words for the user.
	Progress func(text string)
	// Event is told how much of the packages is there.
	Event func(store.Event)
}

// suiteError says that a suite is not known, and so not whose keys sign it.
type suiteError struct{ suite string }

func (e *suiteError) Error() string { return "unknown suite " + e.suite }

// Hint lists the known ones.
func (e *suiteError) Hint() string {
	var names []string
	for _, v := range vendors() {
		names = append(names, v.suites...)
	}
	return "known are " + strings.Join(names, ", ") + "; for any other, name its mirror and its keys: --mirror URL --keyring FILE"
}

// unpacked is a suite whose packages are chosen and in the cache.
type unpacked struct {
	Bootstrap
	vendor   vendor
	release  *release
	packages []*debPackage
	archive  *archive
}

// prepare settles where everything comes from and who must have signed it. What it
// returns is to be closed.
func (b Bootstrap) prepare(ctx context.Context, h *container.Home) (*unpacked, error) {
	u := &unpacked{Bootstrap: b}
	if u.Variant == "" {
		u.Variant = VariantMinbase
	}
	if len(u.Components) == 0 {
		u.Components = []string{"main"}
	}
	if u.Progress == nil {
		u.Progress = func(string) {}
	}
	if u.Event == nil {
		u.Event = func(store.Event) {}
	}
	var known bool
	if u.vendor, known = vendorOf(b.Suite); !known && (b.Mirror == "" || b.Keyring == "") {
		return nil, &suiteError{b.Suite}
	}
	switch own := u.vendor.mirrorFor("/", b.Arch); {
	case u.Mirror != "":
		u.Mirrors = []string{u.Mirror}
	case own != "":
		u.Mirrors = append(slices.Clone(u.Mirrors), own)
	}
	keys, err := u.readKeys()
	if err != nil {
		return nil, err
	}
	cache, err := openCache(ctx, h.Store, b.Fetch)
	if err != nil {
		return nil, err
	}
	u.archive = &archive{keys: keys, cache: cache, now: time.Now()}
	return u, nil
}

func (u *unpacked) close() { u.archive.cache.close() }

// reach asks one mirror after the other for the suite's index, until one has it. Where
// none answers, one that is kept will do.
func (u *unpacked) reach(ctx context.Context) error {
	var err error
	for i, mirror := range u.Mirrors {
		u.Mirror = strings.TrimRight(mirror, "/")
		u.archive.url = u.Mirror
		u.Progress("Getting the index of " + u.Suite + " from " + u.Mirror)
		u.release, err = u.archive.release(ctx, u.Suite)
		if err == nil || !mayBeElsewhere(err) || ctx.Err() != nil {
			return err
		}
		if i < len(u.Mirrors)-1 {
			u.Progress(err.Error())
		}
	}
	if isUnanswered(err) && u.reachKept() {
		u.Progress(err.Error())
		u.Progress("Using the index of " + u.release.date.UTC().Format(time.DateOnly) + ", which is kept")
		return nil
	}
	return err
}

// reachKept is reach without a network.
func (u *unpacked) reachKept() bool {
	for _, mirror := range u.Mirrors {
		u.Mirror = strings.TrimRight(mirror, "/")
		u.archive.url = u.Mirror
		var err error
		if u.release, err = u.archive.keptRelease(u.Suite); err == nil {
			return true
		}
	}
	return false
}

// readKeys reads the keys that may sign: those that were named, those of this
// machine, those that are linked in.
func (u *unpacked) readKeys() (keyring, error) {
	data, name := u.vendor.keys, u.Keyring
	if name == "" && u.vendor.keyring != "" {
		if own, err := os.ReadFile(u.vendor.keyring); err == nil {
			data = own
		}
	}
	if name != "" {
		var err error
		if data, err = os.ReadFile(name); err != nil {
			return nil, fmt.Errorf("read keys: %w", err)
		}
	}
	keys, err := parseKeyring(data)
	if err != nil {
		return nil, fmt.Errorf("read keys of %s: %w", or(name, u.vendor.name), err)
	}
	if len(keys) == 0 {
		return nil, &noKeysError{u.vendor.name}
	}
	return keys, nil
}

// noKeysError says that this machine has no keys of a vendor.
type noKeysError struct{ vendor string }

func (e *noKeysError) Error() string { return "no keys that sign the archive of " + e.vendor }

// Hint says where to get them.
func (e *noKeysError) Hint() string {
	return "copy the archive's keyring (" + e.vendor + "-archive-keyring.gpg) from a machine that has it, and name it: --keyring FILE"
}

func or(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// choose reads the indexes and gets the packages.
func (u *unpacked) choose(ctx context.Context) error {
	if !slices.Contains(u.release.architectures, u.Arch) {
		return fmt.Errorf("the suite %s is not made for %s; it is for %s", u.Suite, u.Arch, strings.Join(u.release.architectures, ", "))
	}
	index, err := u.archive.packages(ctx, u.Suite, u.release, u.Components, u.Arch)
	if err != nil {
		return err
	}
	roots, why := u.roots(index)
	if u.packages, err = selectPackages(index, u.Arch, roots, why); err != nil {
		return err
	}
	var size int64
	for _, p := range u.packages {
		size += p.size
	}
	u.Progress(fmt.Sprintf("Getting %d packages, %d MB", len(u.packages), (size+500_000)/1_000_000))
	var had atomic.Int64
	return u.archive.getAll(ctx, u.packages, func(p *debPackage) {
		u.Event(store.Event{Status: store.StatusDownloading, Current: had.Add(p.size), Total: size})
	})
}

// isMerged reports whether the suite has /bin and the like as links into /usr:
// every one since Debian 12, and what debootstrap makes of the ones before.
func (u *unpacked) isMerged() bool { return true }

// roots are the packages that the variant and the user ask for, and why.
func (u *unpacked) roots(index *packageIndex) (names []string, why map[string]string) {
	why = map[string]string{}
	ask := func(name, reason string) {
		if why[name] == "" {
			names, why[name] = append(names, name), reason
		}
	}
	// This package keeps another, which merges /usr, from being chosen.
	if u.isMerged() && index.byName["usr-is-merged"] != nil {
		ask("usr-is-merged", "of every system")
	}
	for _, name := range index.names {
		if p := index.byName[name]; p.essential || p.priority == "required" {
			ask(name, "of every system")
		}
	}
	ask("apt", "of every system")
	if u.Variant == VariantStandard {
		for _, name := range index.names {
			if index.byName[name].priority == "important" {
				ask(name, "of variant standard")
			}
		}
	}
	for _, name := range u.Include {
		ask(name, "asked for by --include")
	}
	return names, why
}

// writeTar writes the root filesystem with all packages unpacked.
func (u *unpacked) writeTar(ctx context.Context, w io.Writer) error {
	root, err := newDebRoot(w, u.Arch, u.isMerged(), u.Epoch, u.date())
	if err != nil {
		return err
	}
	for _, p := range u.packages {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := ofPackage(p, u.unpack(ctx, root, p)); err != nil {
			return err
		}
	}
	return root.finish(u.systemFiles())
}

func (u *unpacked) unpack(ctx context.Context, root *debRoot, p *debPackage) error {
	f, err := u.archive.get(ctx, p.file, p.digest, p.size)
	if err != nil {
		return err
	}
	defer f.Close()
	d, err := openDeb(f)
	if err != nil {
		return err
	}
	d.decompress = func(r io.Reader) (io.ReadCloser, error) { return u.archive.cache.decompress(r, p.digest) }
	return root.add(p, d)
}

// date is that of what no package brings: the release's, so that it is the same
// whenever the same packages are unpacked.
func (u *unpacked) date() time.Time {
	if !u.Epoch.IsZero() && u.Epoch.Before(u.release.date) {
		return u.Epoch
	}
	return u.release.date
}

// systemFiles are files that belong to no package.
func (u *unpacked) systemFiles() []debInfo {
	source := fmt.Sprintf("deb %s %s %s\n", u.Mirror, u.Suite, strings.Join(u.Components, " "))
	return []debInfo{
		{"etc/apt/sources.list", 0o644, []byte(source)},
		{policyFile, 0o755, []byte("#!/bin/sh\nexit 101\n")},
		{configureFile, 0o755, []byte(u.configureScript())},
	}
}

// Files that are there only while the packages are configured.
const (
	policyFile    = "usr/sbin/policy-rc.d" // no service is to be started (invoke-rc.d(8))
	configureFile = ".sbx-configure"
)

// configureScript is run by the system's own shell: what of each package is to
// be done before it is unpacked and could not be, then its configuration by
// dpkg, then what is of this machine and this moment is removed.
func (u *unpacked) configureScript() string {
	var s strings.Builder
	s.WriteString(`#!/bin/sh
set -e
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
export DPKG_ADMINDIR=/var/lib/dpkg DPKG_ROOT= DPKG_MAINTSCRIPT_NAME=preinst DPKG_RUNNING_VERSION=1.20
prepare() {
	script=/var/lib/dpkg/info/$2.preinst
	[ -f "$script" ] || return 0
	export DPKG_MAINTSCRIPT_PACKAGE=$1 DPKG_MAINTSCRIPT_ARCH=$3 DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1
	"$script" install || { echo "dpkg: error processing package $1 (preinst)" >&2; exit 1; }
}
`)
	for _, p := range u.packages {
		fmt.Fprintf(&s, "for base in %s %s:%s; do prepare %s $base %s; done\n", p.name, p.name, p.architecture, p.name, p.architecture)
	}
	s.WriteString(`unset DPKG_MAINTSCRIPT_NAME DPKG_MAINTSCRIPT_PACKAGE DPKG_MAINTSCRIPT_ARCH
dpkg --configure -a
audit=$(dpkg --audit)
[ -z "$audit" ] || { echo "$audit" >&2; exit 1; }
rm -f /` + policyFile + ` /` + configureFile + ` /var/log/dpkg.log /var/log/alternatives.log /var/log/bootstrap.log /var/cache/ldconfig/aux-cache
rm -f /var/lib/dpkg/*-old /var/cache/debconf/*-old /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow-
: > /etc/machine-id
rm -f /var/lib/dbus/machine-id /var/lib/systemd/random-seed
`)
	return s.String()
}
