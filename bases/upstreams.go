// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"context"
	"errors"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sbx/reference"
)

// alpineArchs are those that Alpine calls differently than Go.
var alpineArchs = map[string]string{"amd64": "x86_64", "arm64": "aarch64", "386": "x86", "armv7": "armv7", "armv6": "armhf"}

// The patterns are compiled when they are used, and not at every start of sbx.
const (
	alpineTag     = `^(\d+\.\d+)(\.\d+)?$`
	ubuntuFile    = `^ubuntu-base-([0-9.]+)-base-([a-z0-9]+)\.tar\.gz$`
	ubuntuRelease = `href="(\d\d\.\d\d)/?"`
	archFile      = `^archlinux-bootstrap-(\d{4}\.\d\d\.\d\d)-x86_64\.tar\.(zst|gz|xz)$`
	archTag       = `^\d{4}\.\d\d\.\d\d$`
)

// findAlpine reads Alpine's list of a branch's newest releases. A release before
// that has a file with its sum beside it.
func findAlpine(ctx context.Context, s *site, tag string) (*published, error) {
	arch := or(alpineArchs[s.arch+s.arm], s.arch)
	branch, exact := "latest-stable", ""
	switch m := regexp.MustCompile(alpineTag).FindStringSubmatch(tag); {
	case tag == "edge":
		branch = tag
	case tag == "latest", tag == "3":
	case m == nil:
		return nil, s.missing(tag)
	default:
		branch = "v" + m[1]
		if m[2] != "" {
			exact = tag
		}
	}
	dir := branch + "/releases/" + arch
	index := dir + "/latest-releases.yaml"
	data, err := s.readIf(ctx, index)
	if err != nil {
		return nil, err
	}
	if data == nil {
		return nil, s.missing(tag)
	}
	release, err := alpineRootfs(data)
	if err != nil {
		return nil, s.fail(index, err)
	}
	if exact != "" && release.version != exact {
		if release, err = s.olderAlpine(ctx, dir, arch, exact); err != nil {
			return nil, err
		}
	}
	p := &published{url: s.url + "/" + dir + "/" + release.file, version: release.version, digest: release.digest, size: release.size}
	if len(s.keys) > 0 {
		p.signature, err = s.read(ctx, dir+"/"+release.file+".asc")
	}
	return p, err
}

func (s *site) olderAlpine(ctx context.Context, dir, arch, tag string) (alpineRelease, error) {
	r := alpineRelease{version: tag, file: "alpine-minirootfs-" + tag + "-" + arch + ".tar.gz", size: anySize}
	index := dir + "/" + r.file + ".sha256"
	data, err := s.readIf(ctx, index)
	if err != nil {
		return r, err
	}
	if data == nil {
		return r, s.missing(tag)
	}
	sums, err := parseSums(data)
	if err == nil && (len(sums) != 1 || sums[0].name != r.file) {
		err = errors.New("it is not the sum of " + r.file)
	}
	if err != nil {
		return r, s.fail(index, err)
	}
	r.digest = sums[0].digest
	return r, nil
}

// alpineRelease is the mini root filesystem of Alpine's list.
type alpineRelease struct {
	version, file string
	digest        reference.Digest
	size          int64
}

// alpineRootfs finds the mini root filesystem in latest-releases.yaml: a list of
// maps of plain values, of which those indented further belong to a text.
func alpineRootfs(data []byte) (alpineRelease, error) {
	var found []map[string]string
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, " \r\n")
		if rest, ok := strings.CutPrefix(line, "-"); ok && !strings.HasPrefix(line, "--") {
			found = append(found, map[string]string{})
			line = " " + rest
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "  "), ":")
		if !ok || !strings.HasPrefix(line, "  ") || len(found) == 0 || strings.TrimSpace(name) != name {
			continue
		}
		found[len(found)-1][name] = strings.Trim(strings.TrimSpace(value), `"'`)
	}
	i := slices.IndexFunc(found, func(m map[string]string) bool { return m["flavor"] == "alpine-minirootfs" })
	if i < 0 {
		return alpineRelease{}, errors.New("it lists no mini root filesystem")
	}
	m := found[i]
	r := alpineRelease{version: m["version"], file: m["file"], size: anySize}
	var err error
	if r.digest, err = reference.ParseDigest("sha256:" + m["sha256"]); err != nil {
		return r, err
	}
	if size := m["size"]; size != "" {
		if r.size, err = strconv.ParseInt(size, 10, 64); err != nil || r.size < 0 {
			return r, errors.New("strange size " + strconv.Quote(size))
		}
	}
	if r.file == "" || path.Base(r.file) != r.file || r.file[0] == '.' {
		return r, errors.New("strange file name " + strconv.Quote(r.file))
	}
	return r, nil
}

// findUbuntu reads the sums of a release of Ubuntu Base. The tag latest is the
// newest release with long-term support, as Ubuntu's own image has it.
func findUbuntu(ctx context.Context, s *site, tag string) (*published, error) {
	dir := tag
	if tag == "latest" {
		page, err := s.read(ctx, "releases/")
		if err != nil {
			return nil, err
		}
		if dir = newestLTS(page); dir == "" {
			return nil, s.fail("releases/", errors.New("it lists no release"))
		}
	}
	dir = "releases/" + dir + "/release"
	index := dir + "/SHA256SUMS"
	data, err := s.readIf(ctx, index)
	if err != nil {
		return nil, err
	}
	if data == nil {
		return nil, s.missing(tag)
	}
	signer, err := s.verify(ctx, data, index, index+".gpg")
	if err != nil {
		return nil, err
	}
	sums, err := parseSums(data)
	if err != nil {
		return nil, s.fail(index, err)
	}
	pattern := regexp.MustCompile(ubuntuFile)
	var best *published
	var have []string
	for _, l := range sums {
		m := pattern.FindStringSubmatch(l.name)
		if m == nil {
			continue
		}
		if m[2] != DebianArch(s.arch) {
			have = append(have, m[1]+" for "+m[2])
			continue
		}
		if best == nil || compareVersions(best.version, m[1]) < 0 && best.version != tag || m[1] == tag {
			best = &published{url: s.url + "/" + dir + "/" + l.name, version: m[1], digest: l.digest, size: anySize, signer: signer}
		}
	}
	if best == nil {
		return nil, s.missing(tag, have...)
	}
	return best, nil
}

// newestLTS finds the newest release of an even April in a web server's list.
func newestLTS(page []byte) string {
	newest := ""
	for _, m := range regexp.MustCompile(ubuntuRelease).FindAllSubmatch(page, -1) {
		r := string(m[1])
		if (r[1]-'0')%2 == 0 && strings.HasSuffix(r, ".04") && r > newest {
			newest = r
		}
	}
	return newest
}

// findArch reads the sums of a monthly release of Arch Linux, which signs the
// tarball itself.
func findArch(ctx context.Context, s *site, tag string) (*published, error) {
	if tag != "latest" && tag != "base" && !regexp.MustCompile(archTag).MatchString(tag) || s.arch != "amd64" {
		return nil, s.missing(tag)
	}
	dir := tag
	if tag == "base" {
		dir = "latest"
	}
	index := dir + "/sha256sums.txt"
	data, err := s.readIf(ctx, index)
	if err != nil {
		return nil, err
	}
	if data == nil {
		return nil, s.missing(tag)
	}
	sums, err := parseSums(data)
	if err != nil {
		return nil, s.fail(index, err)
	}
	pattern := regexp.MustCompile(archFile)
	i := slices.IndexFunc(sums, func(l sumLine) bool { return pattern.MatchString(l.name) })
	if i < 0 {
		return nil, s.fail(index, errors.New("it lists no bootstrap tarball"))
	}
	file := dir + "/" + sums[i].name
	p := &published{url: s.url + "/" + file, version: pattern.FindStringSubmatch(sums[i].name)[1], digest: sums[i].digest, size: anySize}
	if len(s.keys) > 0 {
		p.signature, err = s.read(ctx, file+".sig")
	}
	return p, err
}
