// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path"
	"runtime"
	"strings"
	"time"

	"sbx/tests/upstream"
)

// dpkgScript is as much of dpkg(1) as configures a system of packages whose status
// it does not keep.
const dpkgScript = `#!/bin/sh
[ "$1" = --configure ] || exit 0
for script in /var/lib/dpkg/info/*.postinst; do
	package=$(basename "$script" .postinst)
	echo "Setting up $package (1) ..."
	"$script" configure || { s=$?; echo "dpkg: error processing package $package (--configure):" >&2; echo " its script returned $s" >&2; exit 1; }
done
`

// smallDebian publishes bookworm below /debian as few packages, with the programs
// of a busybox, and some that cannot be installed.
func smallDebian(site *upstream.Site, busyboxTar string) error {
	busybox, err := readBusybox(busyboxTar)
	if err != nil {
		return err
	}
	system := upstream.Package{
		Name: "apt", Version: "1", Fields: "Priority: required\n", Control: map[string]string{"postinst": "#!/bin/sh\necho configured > /etc/which\n"},
		Data: []tar.Header{
			{Typeflag: tar.TypeDir, Name: "./etc/", Mode: 0o755}, {Typeflag: tar.TypeDir, Name: "./usr/bin/", Mode: 0o755},
			{Typeflag: tar.TypeReg, Name: "./usr/bin/busybox", Mode: 0o755}, {Typeflag: tar.TypeReg, Name: "./usr/bin/dpkg", Mode: 0o755},
			{Typeflag: tar.TypeReg, Name: "./etc/shadow", Mode: 0o640, Gid: 42},
		},
		Contents: map[string]string{"./usr/bin/busybox": busybox, "./usr/bin/dpkg": dpkgScript},
	}
	for _, name := range []string{"sh", "cat", "rm", "basename", "echo", "ls", "stat", "sleep"} {
		system.Data = append(system.Data, tar.Header{Typeflag: tar.TypeSymlink, Name: "./usr/bin/" + name, Linkname: "busybox"})
	}
	optional := func(name, fields string) upstream.Package {
		return upstream.Package{Name: name, Version: "1", Fields: "Priority: optional\n" + fields}
	}
	broken := optional("broken", "")
	broken.Control = map[string]string{"postinst": "#!/bin/sh\necho the disk is on fire >&2\nexit 3\n"}
	waiting := optional("waiting", "")
	waiting.Control = map[string]string{"postinst": "#!/bin/sh\nexec sleep 3600\n"}
	early := optional("early", "")
	early.Control = map[string]string{"preinst": "#!/bin/sh\necho the disk is wet >&2\nexit 4\n"}
	with := func(name string, data ...tar.Header) upstream.Package {
		p := optional(name, "")
		p.Data = data
		return p
	}
	out := tar.Header{Typeflag: tar.TypeSymlink, Name: "./srv", Linkname: os.TempDir()}
	important := with("important", tar.Header{Typeflag: tar.TypeReg, Name: "./etc/important", Mode: 0o644})
	important.Fields = "Priority: important\n"
	site.Debian("debian/", upstream.Suite{Name: "bookworm", Date: time.Now().Add(-time.Hour), Arch: runtime.GOARCH}, system, broken, early, waiting, important,
		with("escaping", tar.Header{Typeflag: tar.TypeReg, Name: "./usr/../../evil", Mode: 0o644}),
		with("absolute", tar.Header{Typeflag: tar.TypeReg, Name: "/evil", Mode: 0o644}),
		with("linking", tar.Header{Typeflag: tar.TypeLink, Name: "./etc/evil", Linkname: "../../../etc/passwd"}),
		with("through", out, tar.Header{Typeflag: tar.TypeReg, Name: "./srv/sbx-evil", Mode: 0o644}),
		optional("middle", "Depends: nowhere (>= 2)\n"), optional("outer", "Depends: middle\n"), optional("extra", ""))
	site.Put("debian/dists/stable/InRelease", site.File("debian/dists/bookworm/InRelease"))
	site.Debian("debian/", upstream.Suite{Name: "trixie", Date: time.Now().Add(-time.Hour), Arch: "s390x"}, foreignSystem())
	return nil
}

// foreignSystem has a shell for another kind of machine.
func foreignSystem() upstream.Package {
	return upstream.Package{
		Name: "apt-foreign", Version: "1", Fields: "Priority: required\nProvides: apt\n",
		Data:     []tar.Header{{Typeflag: tar.TypeDir, Name: "./usr/bin/", Mode: 0o755}, {Typeflag: tar.TypeReg, Name: "./usr/bin/sh", Mode: 0o755}},
		Contents: map[string]string{"./usr/bin/sh": "\x7fELF\x02\x02\x01" + strings.Repeat("\x00", 10) + "\x02\x00\x16\x00\x00\x00\x01"},
	}
}

// readBusybox takes the program out of its root filesystem's tarball.
func readBusybox(tarball string) (string, error) {
	f, err := os.Open(tarball)
	if err != nil {
		return "", err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return "", err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err != nil {
			return "", errors.Join(errors.New("no busybox in "+tarball), err)
		}
		if h.Typeflag != tar.TypeReg || h.Size < 100_000 || !strings.HasPrefix(path.Clean(h.Name), "bin/") {
			continue
		}
		data, err := io.ReadAll(r)
		return string(data), err
	}
}
