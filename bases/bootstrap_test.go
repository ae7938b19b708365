// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ulikunitz/xz"
	"pault.ag/go/debian/version"

	"sbx/reference"
	"sbx/store"
	"sbx/tests/upstream"
)

const testSuite = "test"

// prepared is a bootstrap from a mirror, ready to choose.
func prepared(t *testing.T, m *fakeMirror) *unpacked {
	t.Helper()
	keys, err := parseKeyring(m.Signer.Packet)
	if err != nil {
		t.Fatal(err)
	}
	u := &unpacked{Bootstrap: Bootstrap{Suite: testSuite, Arch: "amd64", Variant: VariantMinbase, Components: []string{"main"}, Mirrors: []string{m.URL}, Progress: func(string) {}, Event: func(store.Event) {}}}
	u.archive = &archive{url: m.URL, keys: keys, cache: cache{dir: t.TempDir()}, now: time.Unix(2000, 0)}
	return u
}

// choose gets the index and what is chosen of it.
func choose(t *testing.T, u *unpacked) error {
	if err := u.reach(t.Context()); err != nil {
		return err
	}
	return u.choose(t.Context())
}

func required(name, fields string) upstream.Package {
	return upstream.Package{Name: name, Version: "1", Fields: "Priority: required\n" + fields}
}

func optional(name, fields string) upstream.Package {
	return upstream.Package{Name: name, Version: "1", Fields: "Priority: optional\n" + fields}
}

// names of what is chosen, in order.
func chosen(u *unpacked) string {
	var names []string
	for _, p := range u.packages {
		names = append(names, p.name)
	}
	return strings.Join(names, " ")
}

func TestBootstrapChoice(t *testing.T) {
	apt := optional("apt", "")
	for name, test := range map[string]struct {
		packages []upstream.Package
		include  []string
		variant  string
		want     string // packages, or what the error says
	}{
		"required and essential": {packages: []upstream.Package{apt, required("aa", ""), optional("bb", "Essential: yes\n"), optional("cc", "")}, want: "apt aa bb"},
		"needed":                 {packages: []upstream.Package{apt, required("aa", "Depends: bb\nPre-Depends: cc (>= 1)\n"), optional("bb", "Depends: dd\n"), optional("cc", ""), optional("dd", "Depends: aa\n")}, want: "aa apt bb cc dd"},
		"first alternative":      {packages: []upstream.Package{apt, required("aa", "Depends: gone | bb | cc\n"), optional("bb", ""), optional("cc", "")}, want: "aa apt bb"},
		"chosen alternative":     {packages: []upstream.Package{apt, required("aa", "Depends: bb | cc\n"), optional("bb", ""), required("cc", "")}, want: "aa apt cc"},
		"provided":               {packages: []upstream.Package{apt, required("aa", "Depends: virtual\n"), optional("bb", "Provides: virtual\n"), optional("cc", "Provides: virtual\n")}, want: "aa apt bb"},
		"provided in version":    {packages: []upstream.Package{apt, required("aa", "Depends: virtual (>= 2)\n"), optional("bb", "Provides: virtual\n"), optional("cc", "Provides: virtual (= 2)\n")}, want: "aa apt cc"},
		"of other machines":      {packages: []upstream.Package{apt, required("aa", "Depends: gone [armhf], bb [amd64]\n"), optional("bb", "")}, want: "aa apt bb"},
		"included":               {packages: []upstream.Package{apt, optional("bb", "")}, include: []string{"bb"}, want: "apt bb"},
		"merged by a package":    {packages: []upstream.Package{apt, required("aa", "Depends: usrmerge | usr-is-merged\n"), optional("usr-is-merged", ""), optional("usrmerge", "")}, want: "aa apt usr-is-merged"},
		"missing":                {packages: []upstream.Package{apt}, include: []string{"nosuch"}, want: "choose packages: the suite has no package nosuch, asked for by --include"},
		"unsatisfied": {packages: []upstream.Package{apt, optional("bb", "Depends: cc\n"), optional("cc", "Depends: dd (>= 3)\n"), optional("dd", "")}, include: []string{"bb"},
			want: "choose packages: nothing in the suite satisfies dd (>= 3), needed by cc, needed by bb, asked for by --include"},
		"standard":          {packages: []upstream.Package{apt, required("aa", ""), optional("bb", ""), {Name: "cc", Version: "1", Fields: "Priority: important\nDepends: dd\n"}, optional("dd", "")}, variant: VariantStandard, want: "aa apt cc dd"},
		"standard, lacking": {packages: []upstream.Package{apt, {Name: "cc", Version: "1", Fields: "Priority: important\nDepends: dd\n"}}, variant: VariantStandard, want: "choose packages: nothing in the suite satisfies dd, needed by cc, of variant standard"},
		"no importance":     {packages: []upstream.Package{apt, {Name: "cc", Version: "1", Fields: "Priority: important\n"}}, want: "apt"},
		"conflict":          {packages: []upstream.Package{apt, required("aa", "Conflicts: bb\n"), required("bb", "")}, want: "choose packages: aa and bb cannot be installed together"},
		"no apt":            {packages: []upstream.Package{required("aa", "")}, want: "choose packages: the suite has no package apt, of every system"},
	} {
		m := newFakeMirror(t)
		m.publish(testSuite, time.Unix(1500, 0), "", test.packages...)
		u := prepared(t, m)
		u.Include, u.Variant = test.include, or(test.variant, VariantMinbase)
		err := choose(t, u)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			list := strings.Fields(chosen(u))
			// The order is that of the index and of need; what matters is which.
			got = strings.Join(sortedFields(list), " ")
		}
		want := test.want
		if err == nil {
			want = strings.Join(sortedFields(strings.Fields(want)), " ")
		}
		if got != want {
			t.Errorf("%s:\n  %s\nwant\n  %s", name, got, want)
		}
	}
}

func sortedFields(list []string) []string {
	out := append([]string{}, list...)
	for i := range out {
		for j := i; j > 0 && out[j] < out[j-1]; j-- {
			out[j], out[j-1] = out[j-1], out[j]
		}
	}
	return out
}

// Whatever a mirror sends wrong ends in one error that names it.
func TestBootstrapRefuses(t *testing.T) {
	apt := optional("apt", "")
	for name, test := range map[string]struct {
		change func(m *fakeMirror, u *unpacked)
		want   string
	}{
		"no suite": {func(m *fakeMirror, _ *unpacked) { m.Remove("dists/test/InRelease") }, "has no suite test"},
		"another's key": {func(m *fakeMirror, _ *unpacked) {
			m.Signer = upstream.NewSigner(9)
			m.publish(testSuite, time.Unix(1500, 0), "", apt)
		}, "no good signature of a key that is trusted"},
		"changed text": {func(m *fakeMirror, _ *unpacked) { m.Edit("dists/test/InRelease", "Test", "Evil") }, "no good signature"},
		"another suite": {func(m *fakeMirror, _ *unpacked) {
			m.publish("other", time.Unix(1500, 0), "", apt)
			m.Put("dists/test/InRelease", m.File("dists/other/InRelease"))
		}, "the mirror sent suite stable (other) in place of test"},
		"of the future": {func(m *fakeMirror, _ *unpacked) { m.publish(testSuite, time.Unix(500_000, 0), "", apt) }, "the release is dated Tue, 06 Jan 1970"},
		"out of date": {func(m *fakeMirror, _ *unpacked) {
			m.publish(testSuite, time.Unix(1000, 0), "Valid-Until: Thu, 01 Jan 1970 00:20:00 UTC\n", apt)
		}, "the release was valid until Thu, 01 Jan 1970"},
		"wrong index":   {func(m *fakeMirror, _ *unpacked) { m.Edit("dists/test/main/binary-amd64/Packages.gz", "", "x") }, "it has "},
		"wrong package": {func(m *fakeMirror, _ *unpacked) { m.Edit("pool/apt.deb", "debian-binary", "debian-binarx") }, "package apt: verify "},
		"no package":    {func(m *fakeMirror, _ *unpacked) { m.Remove("pool/apt.deb") }, "package apt: download "},
		"another arch":  {func(_ *fakeMirror, u *unpacked) { u.Arch = "s390x" }, "the suite test is not made for s390x; it is for amd64, all"},
		"no component":  {func(_ *fakeMirror, u *unpacked) { u.Components = []string{"universe"} }, "the suite test has no component universe for amd64"},
	} {
		m := newFakeMirror(t)
		m.publish(testSuite, time.Unix(1500, 0), "", apt)
		u := prepared(t, m)
		test.change(m, u)
		err := choose(t, u)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
		left, _ := filepath.Glob(filepath.Join(u.archive.cache.dir, "*"))
		for _, f := range left {
			if filepath.Ext(f) == "" && strings.HasPrefix(name, "wrong") && name != "wrong package" {
				t.Errorf("%s: %s is left", name, f)
			}
		}
	}
}

// Names and files of an index become paths: none may lead elsewhere.
func TestPackageIndexRefuses(t *testing.T) {
	const fields = "Version: 1\nSize: 1\nSHA256: 0000000000000000000000000000000000000000000000000000000000000000\n"
	for _, head := range []string{
		"Package: ../x\nFilename: x\n", "Package: a/b\nFilename: x\n", "Package: .x\nFilename: x\n", "Package: aa\nFilename: ../x\n",
		"Package: aa\nFilename: pool/../../x\n", "Package: aa\nFilename: /x\n", "Package: aa\n", "Package: aa\nFilename: x\nSize: -1\n",
		"Package: aa\nFilename: x\nVersion: a:1\n", "Package: aa\nno field\n",
	} {
		// The last of two fields counts, so the good ones come first.
		if _, err := parsePackages([]byte(fields + head)); err == nil {
			t.Errorf("accepted: %q", head)
		}
	}
	if _, err := parsePackages([]byte("Package: aa\nFilename: x\n" + fields)); err != nil {
		t.Error(err)
	}
}

// A download that is cut goes on where it was, in this process and in the next;
// what is in the cache is not asked for again.
func TestBootstrapResumes(t *testing.T) {
	m := newFakeMirror(t)
	big := optional("apt", "")
	big.Data = []tar.Header{{Typeflag: tar.TypeReg, Name: "./f", Mode: 0o644}}
	big.Contents = map[string]string{"./f": strings.Repeat("0123456789abcdef", 4096)}
	m.publish(testSuite, time.Unix(1500, 0), "", big)
	u := prepared(t, m)
	m.Cut("pool/apt.deb", 100)
	if err := choose(t, u); err != nil {
		t.Fatal(err)
	}
	if n := m.Asked("pool/apt.deb"); n != 2 {
		t.Errorf("asked %d times, want 2", n)
	}
	again := prepared(t, m)
	again.archive.cache = u.archive.cache
	if err := choose(t, again); err != nil {
		t.Fatal(err)
	}
	if n := m.Asked("pool/apt.deb"); n != 2 {
		t.Errorf("asked %d times, want 2: it is in the cache", n)
	}
	// What a process that died has left.
	third := prepared(t, m)
	whole := m.File("pool/apt.deb")
	part := filepath.Join(third.archive.cache.dir, upstream.Sum(whole)+".part")
	if err := os.WriteFile(part, whole[:150], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := choose(t, third); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(strings.TrimSuffix(part, ".part")); err != nil || !bytes.Equal(got, whole) {
		t.Errorf("the file that was gone on with is wrong: %v", err)
	}
}

// Without a network a suite is chosen again of what is kept, of the index as it was
// and with the same proof; what is not kept is missing.
func TestBootstrapOffline(t *testing.T) {
	m := newFakeMirror(t)
	m.publish(testSuite, time.Unix(1500, 0), "", optional("apt", ""), optional("bb", ""))
	first := prepared(t, m)
	if err := choose(t, first); err != nil {
		t.Fatal(err)
	}
	m.Close()
	var said []string
	again := prepared(t, m)
	again.archive.cache = first.archive.cache
	again.Mirrors = []string{"http://127.0.0.1:1", m.URL + "/"}
	again.Progress = func(text string) { said = append(said, text) }
	if err := choose(t, again); err != nil {
		t.Fatal(err)
	}
	if chosen(again) != chosen(first) || again.Mirror != m.URL {
		t.Errorf("chosen %s of %s, want %s of %s", chosen(again), again.Mirror, chosen(first), m.URL)
	}
	if text := strings.Join(said, "\n"); !strings.Contains(text, "connection refused\nUsing the index of 1970-01-01, which is kept") {
		t.Errorf("said %q", text)
	}
	again.Include = []string{"bb"}
	if err := choose(t, again); err == nil || !strings.Contains(err.Error(), "package bb: download ") {
		t.Errorf("a package that is not kept: %v", err)
	}
	other, err := parseKeyring(upstream.NewSigner(9).Packet)
	if err != nil {
		t.Fatal(err)
	}
	again.archive.keys = other
	if err := choose(t, again); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("an index that nobody trusted signed: %v", err)
	}
}

// A mirror that answers that it has no such suite is believed, whatever is kept.
func TestBootstrapGone(t *testing.T) {
	m := newFakeMirror(t)
	m.publish(testSuite, time.Unix(1500, 0), "", optional("apt", ""))
	u := prepared(t, m)
	if err := choose(t, u); err != nil {
		t.Fatal(err)
	}
	m.Remove("dists/test/InRelease")
	if err := choose(t, u); err == nil || !strings.Contains(err.Error(), "has no suite test") {
		t.Errorf("error %v", err)
	}
}

func TestBootstrapTar(t *testing.T) {
	m := newFakeMirror(t)
	apt := optional("apt", "")
	apt.Control = map[string]string{
		"conffiles": "/etc/apt.conf\nremove-on-upgrade /etc/old\n", "postinst": "#!/bin/sh\n", "md5sums": "x\n",
		"triggers": "interest-noawait ldconfig\ninterest /usr/share/x\nactivate other\n",
	}
	apt.Data = []tar.Header{
		{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}, {Typeflag: tar.TypeDir, Name: "./bin/", Mode: 0o755}, {Typeflag: tar.TypeDir, Name: "./etc/", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: "./bin/tool", Mode: 0o4755, Uid: 0, Gid: 42, ModTime: time.Unix(5000, 0)},
		{Typeflag: tar.TypeLink, Name: "./usr/bin/same", Linkname: "./bin/tool"},
		{Typeflag: tar.TypeSymlink, Name: "./lib64", Linkname: "usr/lib64"},
		{Typeflag: tar.TypeReg, Name: "./etc/apt.conf", Mode: 0o644},
	}
	apt.Contents = map[string]string{"./bin/tool": "tool", "./etc/apt.conf": "conf"}
	m.publish(testSuite, time.Unix(1500, 0), "", apt)
	u := prepared(t, m)
	u.Epoch = time.Unix(4000, 0)
	if err := choose(t, u); err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	if err := errors.Join(u.writeTar(t.Context(), &first), u.writeTar(t.Context(), &second)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two tars of the same packages differ")
	}
	got := map[string]string{}
	for r := tar.NewReader(&first); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.ModTime.After(u.Epoch) {
			t.Errorf("%s is dated %v", h.Name, h.ModTime)
		}
		if h.Name != configureFile {
			got[h.Name] = strings.TrimSpace(fmt.Sprintf("%o %d:%d %s%s", h.Mode, h.Uid, h.Gid, h.Linkname, data))
		}
	}
	want := map[string]string{
		"usr/": "755 0:0", "usr/bin/": "755 0:0", "usr/sbin/": "755 0:0", "usr/lib/": "755 0:0", "usr/lib64/": "755 0:0",
		"bin": "777 0:0 usr/bin", "sbin": "777 0:0 usr/sbin", "lib": "777 0:0 usr/lib", "lib64": "777 0:0 usr/lib64",
		"etc/": "755 0:0", "usr/bin/tool": "4755 0:42 tool", "usr/bin/same": "0 0:0 usr/bin/tool", "etc/apt.conf": "644 0:0 conf",
		"var/lib/dpkg/status": "644 0:0 Package: apt\nStatus: install ok unpacked\nVersion: 1\nArchitecture: amd64\nMaintainer: T <t@example.org>\nDescription: test\nPriority: optional\n" +
			"Conffiles:\n /etc/apt.conf 3a8e4c06e471595f6eb262bb9b5582d9",
		"var/lib/dpkg/available": "644 0:0", "var/lib/dpkg/diversions": "644 0:0", "var/lib/dpkg/info/format": "644 0:0 1",
		"var/lib/dpkg/info/apt.list":      "644 0:0 /.\n/bin\n/etc\n/bin/tool\n/usr/bin/same\n/lib64\n/etc/apt.conf",
		"var/lib/dpkg/info/apt.conffiles": "644 0:0 /etc/apt.conf\nremove-on-upgrade /etc/old", "var/lib/dpkg/info/apt.postinst": "755 0:0 #!/bin/sh",
		"var/lib/dpkg/info/apt.md5sums": "644 0:0 x", "var/lib/dpkg/info/apt.triggers": "644 0:0 interest-noawait ldconfig\ninterest /usr/share/x\nactivate other",
		"var/lib/dpkg/triggers/File": "644 0:0 /usr/share/x apt", "var/lib/dpkg/triggers/ldconfig": "644 0:0 apt/noawait",
		"etc/apt/sources.list": "644 0:0 deb " + m.URL + " test main", policyFile: "755 0:0 #!/bin/sh\nexit 101",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Data of every kind that dpkg-deb writes is read, and is the same.
func TestBootstrapCompressions(t *testing.T) {
	for _, how := range []string{"gz", "xz", "zst"} {
		m := newFakeMirror(t)
		m.publish(testSuite, time.Unix(1500, 0), "", upstream.Package{
			Name: "apt", Version: "1", Fields: "Priority: required\n", Compression: how,
			Data: []tar.Header{{Typeflag: tar.TypeReg, Name: "./f", Mode: 0o644}}, Contents: map[string]string{"./f": noise(100_000)},
		})
		if !bytes.Contains(m.File("pool/apt.deb"), []byte("data.tar."+how)) {
			t.Fatalf("the test's package has no data.tar.%s", how)
		}
		u := prepared(t, m)
		if err := choose(t, u); err != nil {
			t.Fatal(err)
		}
		for _, when := range []string{"first", "of what is kept"} {
			var out bytes.Buffer
			if err := u.writeTar(t.Context(), &out); err != nil {
				t.Errorf("%s, %s: %v", how, when, err)
			}
			if got := contentOf(t, &out, "f"); got != noise(100_000) {
				t.Errorf("%s, %s: the file has %d bytes", how, when, len(got))
			}
		}
	}
}

// contentOf is that of a file in a tar.
func contentOf(t *testing.T, tarball io.Reader, name string) string {
	t.Helper()
	for r := tar.NewReader(tarball); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if h.Name != name {
			continue
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
}

// A package that tries to leave the root, or is none, is refused by name.
func TestBootstrapHostilePackages(t *testing.T) {
	for name, test := range map[string]struct {
		p    upstream.Package
		want string
	}{
		"dots":         {upstream.Package{Data: []tar.Header{{Typeflag: tar.TypeReg, Name: "./a/../../x"}}}, `leads out of the root`},
		"hard link up": {upstream.Package{Data: []tar.Header{{Typeflag: tar.TypeLink, Name: "./x", Linkname: "./../../etc/passwd"}}}, `hard link "./x" leads out of the root, to "./../../etc/passwd"`},
		"hard link":    {upstream.Package{Data: []tar.Header{{Typeflag: tar.TypeLink, Name: "./x", Linkname: "/"}}}, `leads to nothing`},
		"control":      {upstream.Package{Control: map[string]string{"../x": ""}}, `strange control file`},
		"trigger":      {upstream.Package{Control: map[string]string{"triggers": "interest ../x\n"}}, `strange trigger "../x"`},
		"other name":   {upstream.Package{Control: map[string]string{"control": "Package: zz\nVersion: 1\n"}}, `it is package "zz" "1", the index says "apt" "1"`},
	} {
		m := newFakeMirror(t)
		test.p.Name, test.p.Version, test.p.Fields = "apt", "1", "Priority: required\n"
		m.publish(testSuite, time.Unix(1500, 0), "", test.p)
		u := prepared(t, m)
		err := choose(t, u)
		if err == nil {
			err = u.writeTar(t.Context(), io.Discard)
		}
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "package apt: ") {
			t.Errorf("%s: error %v, want %q of package apt", name, err, test.want)
		}
	}
}

func TestHostMirror(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		want  string
	}{
		"lines":      {map[string]string{"etc/apt/sources.list": "# deb http://no/ bookworm main\ndeb-src http://src/d bookworm main\ndeb cdrom:[x]/ bookworm main\ndeb [signed-by=/k arch=amd64] http://one/debian/ bookworm main contrib\n"}, "http://one/debian"},
		"paragraphs": {map[string]string{"etc/apt/sources.list.d/d.sources": "Types: deb deb-src\nURIs: https://two/debian\nSuites: trixie trixie-updates\nComponents: main\n"}, "https://two/debian"},
		"security":   {map[string]string{"etc/apt/sources.list": "deb http://sec/ bookworm-security main\n"}, "http://ftp.debian.org/debian"},
		"disabled":   {map[string]string{"etc/apt/sources.list.d/d.sources": "Enabled: no\nTypes: deb\nURIs: https://two/debian\nSuites: trixie\nComponents: main\n"}, "http://ftp.debian.org/debian"},
		"others":     {map[string]string{"etc/apt/sources.list": "deb http://third/ nodistro main\n"}, "http://ftp.debian.org/debian"},
		"nothing":    {nil, "http://ftp.debian.org/debian"},
	} {
		files := map[string]string{"etc/os-release": "NAME=x\nID=debian\n"}
		for k, v := range test.files {
			files[k] = v
		}
		v, _ := vendorOf("bookworm")
		if got := v.mirrorFor(machineTree(t, files), "amd64"); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
	// Another vendor's machine has no mirror of this one.
	v, _ := vendorOf("bookworm")
	root := machineTree(t, map[string]string{"etc/os-release": "ID=ubuntu\n", "etc/apt/sources.list": "deb http://u/ubuntu noble main\n"})
	if got := v.mirrorFor(root, "amd64"); got != v.mirror {
		t.Errorf("on another vendor's machine: %s", got)
	}
	u, _ := vendorOf("noble")
	if got := u.mirrorFor(root, "amd64"); got != "http://u/ubuntu" {
		t.Errorf("on its own machine: %s", got)
	}
	if got := v.mirrorFor(t.TempDir(), "arm64"); got != v.ports {
		t.Errorf("for arm64: %s", got)
	}
}

// Versions are ordered as dpkg orders them; the library is held to dpkg's own
// cases (deb-version(7)).
func TestVersionOrder(t *testing.T) {
	ascending := []string{"0~~", "0~~a", "0~", "0", "0+1", "0.1", "1.0~rc1-1", "1.0-1", "1.0-1+b1", "1.0-1.1", "1.0a", "1.0+", "1.2", "1.10", "1:0.1", "2:0"}
	for i := range ascending[1:] {
		a, errA := version.Parse(ascending[i])
		b, errB := version.Parse(ascending[i+1])
		if errA != nil || errB != nil || version.Compare(a, b) >= 0 {
			t.Errorf("%s is not before %s (%v %v)", ascending[i], ascending[i+1], errA, errB)
		}
	}
}

func FuzzDeb(f *testing.F) {
	f.Add(upstream.Package{Name: "aa", Version: "1", Data: []tar.Header{{Typeflag: tar.TypeReg, Name: "./x"}}}.File())
	f.Add([]byte(arMagic))
	f.Fuzz(func(_ *testing.T, data []byte) {
		d, err := openDeb(bytes.NewReader(data))
		if err != nil {
			return
		}
		_ = d.eachFile(func(_ *tar.Header, r io.Reader) error {
			_, err := io.Copy(io.Discard, io.LimitReader(r, 1<<20))
			return err
		})
	})
}

func FuzzPackages(f *testing.F) {
	f.Add([]byte("Package: aa\nVersion: 1\nDepends: bb (>= 1) | cc [amd64]\nFilename: a\nSize: 1\nSHA256: " + strings.Repeat("0", 64) + "\nPriority: required\n\nPackage: bb\nVersion: 1:2~3\nProvides: x (= 1)\nFilename: b\nSize: 1\nSHA256: " + strings.Repeat("1", 64) + "\n"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		index, err := parsePackages(data)
		if err != nil {
			return
		}
		var roots []string
		roots = append(roots, index.names...)
		_, _ = selectPackages(index, "amd64", roots, map[string]string{})
	})
}

// What xz has compressed is decompressed once: the next bootstrap reads what was
// kept. What was not read to its end, or is empty, is not kept.
func TestBootstrapKeeps(t *testing.T) {
	var packed bytes.Buffer
	w, err := xz.NewWriter(&packed)
	if err == nil {
		_, err = io.WriteString(w, noise(100_000))
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	c := cache{dir: t.TempDir()}
	digest := reference.SHA256([32]byte{1})
	kept := filepath.Join(c.dir, digest.Hex()+".data")
	read := func(from []byte, most int64) (string, error) {
		r, err := c.decompress(bytes.NewReader(from), digest)
		if err != nil {
			return "", err
		}
		data, err := io.ReadAll(io.LimitReader(r, most))
		return string(data), errors.Join(err, r.Close())
	}
	if _, err := read(packed.Bytes(), 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := read(packed.Bytes()[:packed.Len()/2], 1<<20); err == nil {
		t.Error("half of a package was read")
	}
	if left, _ := filepath.Glob(c.dir + "/*"); len(left) > 0 {
		t.Errorf("kept of what was not read whole: %v", left)
	}
	if err := os.WriteFile(kept, nil, 0o600); err != nil { // as a power cut leaves it
		t.Fatal(err)
	}
	for range 2 {
		if got, err := read(packed.Bytes(), 1<<20); err != nil || got != noise(100_000) {
			t.Fatalf("%d bytes, error %v", len(got), err)
		}
	}
	if got, err := read(nil, 1<<20); err != nil || got != noise(100_000) {
		t.Errorf("what was kept: %d bytes, error %v", len(got), err)
	}
	if left, _ := filepath.Glob(c.dir + "/*"); len(left) != 1 || left[0] != kept {
		t.Errorf("in the cache: %v", left)
	}
}
