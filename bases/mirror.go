// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// vendor is a distribution with an archive of Debian packages.
type vendor struct {
	name    string
	suites  []string // the known ones, by every name
	mirror  string   // where no nearer one is known
	ports   string   // the same for machines other than amd64
	keyring string   // where a machine of the vendor's keeps the archive's keys
	keys    []byte   // the same, linked in
}

func vendors() []vendor {
	return []vendor{
		{
			name:   "debian",
			suites: []string{"bullseye", "bookworm", "trixie", "forky", "sid", "unstable", "testing", "stable", "oldstable", "oldoldstable"},
			mirror: "http://ftp.debian.org/debian", ports: "http://ftp.debian.org/debian",
			keyring: "/usr/share/keyrings/debian-archive-keyring.gpg", keys: debianKeys,
		},
		{
			name:   "ubuntu",
			suites: []string{"focal", "jammy", "noble", "plucky", "questing", "resolute"},
			mirror: "http://archive.ubuntu.com/ubuntu", ports: "http://ports.ubuntu.com/ubuntu-ports",
			keyring: "/usr/share/keyrings/ubuntu-archive-keyring.gpg", keys: ubuntuKeys,
		},
	}
}

// vendorOf finds whose suite has a name.
func vendorOf(suite string) (vendor, bool) {
	all := vendors()
	i := slices.IndexFunc(all, func(v vendor) bool { return slices.Contains(v.suites, suite) })
	if i < 0 {
		return vendor{}, false
	}
	return all[i], true
}

// VendorOf is the name of the distribution that has a suite, or "".
func VendorOf(suite string) string {
	v, _ := vendorOf(suite)
	return v.name
}

// mirrorFor is where this machine's own apt takes packages from, if it is of the
// same vendor; else the vendor's own mirror.
func (v vendor) mirrorFor(root, arch string) string {
	release, _ := os.ReadFile(filepath.Join(root, "etc/os-release"))
	if osID(release) == v.name {
		if uri := hostMirror(root); uri != "" {
			return uri
		}
	}
	if arch == "amd64" {
		return v.mirror
	}
	return v.ports
}

// osID reads the ID of os-release(5).
func osID(data []byte) string {
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "ID="); ok {
			return strings.Trim(value, `"'`)
		}
	}
	return ""
}

// aptSource is an entry of sources.list(5).
type aptSource struct{ uris, suites, components []string }

// hostMirror is the first URL from which apt takes a suite's own packages, not
// its updates.
func hostMirror(root string) string {
	files := []string{filepath.Join(root, "etc/apt/sources.list")}
	for _, pattern := range []string{"*.list", "*.sources"} {
		more, _ := filepath.Glob(filepath.Join(root, "etc/apt/sources.list.d", pattern))
		files = append(files, more...)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		parse := parseSourceLines
		if strings.HasSuffix(name, ".sources") {
			parse = parseSourceParagraphs
		}
		for _, s := range parse(data) {
			if uri := s.mirror(); uri != "" {
				return uri
			}
		}
	}
	return ""
}

func (s aptSource) mirror() string {
	own := func(suite string) bool {
		_, known := vendorOf(suite)
		return known
	}
	if !slices.Contains(s.components, "main") || !slices.ContainsFunc(s.suites, own) {
		return ""
	}
	for _, uri := range s.uris {
		if strings.HasPrefix(uri, "http://") || strings.HasPrefix(uri, "https://") {
			return strings.TrimRight(uri, "/")
		}
	}
	return ""
}

// parseSourceLines reads the form of one line for each entry.
func parseSourceLines(data []byte) []aptSource {
	var list []aptSource
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if kind != "deb" {
			continue
		}
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			_, rest, _ = strings.Cut(rest, "]")
		}
		if f := strings.Fields(rest); len(f) >= 3 {
			list = append(list, aptSource{f[:1], f[1:2], f[2:]})
		}
	}
	return list
}

// parseSourceParagraphs reads the form of deb822(5).
func parseSourceParagraphs(data []byte) []aptSource {
	var list []aptSource
	_ = eachParagraph(data, func(p paragraph) error {
		if slices.Contains(strings.Fields(p["types"]), "deb") && p["enabled"] != "no" {
			list = append(list, aptSource{strings.Fields(p["uris"]), strings.Fields(p["suites"]), strings.Fields(p["components"])})
		}
		return nil
	})
	return list
}
