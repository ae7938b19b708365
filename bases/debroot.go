// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"archive/tar"
	"bytes"
	"crypto/md5" //nolint:gosec // dpkg's sums of configuration files, no protection
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// debRoot writes a root filesystem of unpacked packages as a tar, with the
// records by which dpkg knows them as unpacked: what is left to do is to
// configure them, which is done in a container.
type debRoot struct {
	out    *tar.Writer
	latest time.Time // no entry is later; zero: any
	date   time.Time // of what is made here
	merged bool      // /bin and the like are links into /usr

	made     map[string]bool // directories that are written, as paths
	files    []debInfo
	status   bytes.Buffer
	triggers map[string][]string // interests, by the file that they stand in
}

// debInfo is a file of dpkg's information directory.
type debInfo struct {
	name string
	mode int64
	data []byte
}

// mergedNames lead into /usr where it is merged (https://wiki.debian.org/UsrMerge).
var mergedNames = []string{"bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32"}

func newDebRoot(w io.Writer, arch string, merged bool, latest, date time.Time) (*debRoot, error) {
	r := &debRoot{out: tar.NewWriter(w), latest: latest, date: date, merged: merged, made: map[string]bool{}, triggers: map[string][]string{}}
	if !merged {
		return r, nil
	}
	names := []string{"bin", "sbin", "lib"}
	if arch == "amd64" {
		names = append(names, "lib64")
	}
	if err := r.directory("usr", 0o755); err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := r.directory("usr/"+name, 0o755); err != nil {
			return nil, err
		}
		if err := r.out.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: "usr/" + name, Mode: 0o777, ModTime: r.date}); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *debRoot) directory(name string, mode int64) error {
	r.made[name] = true
	return r.out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, ModTime: r.date})
}

// add writes the files of a package and notes what dpkg would.
func (r *debRoot) add(p *debPackage, d *deb) error {
	var list strings.Builder
	conffiles := confFiles(d.control["conffiles"])
	sums := map[string]string{}
	err := d.eachFile(func(h *tar.Header, content io.Reader) error {
		name := path.Clean("/" + h.Name)
		if leadsUp(h.Name) {
			return fmt.Errorf("file %.200q leads out of the root", h.Name)
		}
		if h.Typeflag == tar.TypeLink && leadsUp(h.Linkname) {
			return fmt.Errorf("hard link %.200q leads out of the root, to %.200q", h.Name, h.Linkname)
		}
		if name == "/" {
			list.WriteString("/.\n")
		} else {
			list.WriteString(name + "\n")
		}
		var sum io.Writer
		if slices.Contains(conffiles, name) {
			hash := md5.New() //nolint:gosec // see the import
			sum = hash
			defer func() { sums[name] = hex.EncodeToString(hash.Sum(nil)) }()
		}
		return r.entry(h, name, content, sum)
	})
	if err != nil {
		return err
	}
	return r.record(p, d, list.String(), conffiles, sums)
}

// leadsUp reports whether a name has a way out of the directory that it begins in.
func leadsUp(name string) bool { return strings.Contains("/"+name+"/", "/../") }

// entry writes one file. In a merged root /bin/ls is /usr/bin/ls, and what is
// in place of the links is left out.
func (r *debRoot) entry(h *tar.Header, name string, content io.Reader, sum io.Writer) error {
	at := r.place(name)
	if at == "" || r.isMergedLink(at) {
		return nil
	}
	out := &tar.Header{
		Typeflag: h.Typeflag, Name: at, Linkname: h.Linkname, Mode: h.Mode & 0o7777, Uid: h.Uid, Gid: h.Gid, Size: h.Size,
		ModTime: h.ModTime.Truncate(time.Second), Devmajor: h.Devmajor, Devminor: h.Devminor,
	}
	if !r.latest.IsZero() && out.ModTime.After(r.latest) {
		out.ModTime = r.latest
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if r.made[at] {
			return nil // the first package that has it decides, as with dpkg
		}
		r.made[at] = true
		out.Name += "/"
	case tar.TypeLink:
		if out.Linkname = r.place(path.Clean("/" + h.Linkname)); out.Linkname == "" {
			return fmt.Errorf("hard link %.200q leads to nothing", h.Name)
		}
	case tar.TypeReg, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
	default:
		return fmt.Errorf("file %.200q is of a strange kind %q", h.Name, h.Typeflag)
	}
	if err := r.out.WriteHeader(out); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	if sum != nil {
		content = io.TeeReader(content, sum)
	}
	_, err := io.Copy(r.out, content)
	return err
}

// place is where a file of a package goes, without the slash.
func (r *debRoot) place(name string) string {
	name = strings.TrimPrefix(name, "/")
	first, _, _ := strings.Cut(name, "/")
	if r.merged && slices.Contains(mergedNames, first) {
		return "usr/" + name
	}
	return name
}

// isMergedLink reports whether a package would put its own link or directory in
// the place of one that merges /usr.
func (r *debRoot) isMergedLink(at string) bool {
	base, ok := strings.CutPrefix(at, "usr/")
	return r.merged && ok && slices.Contains(mergedNames, base) && r.made[at]
}

// confFiles reads a control file of that name: paths, without those that are to
// be removed (deb-conffiles(5)).
func confFiles(data []byte) []string {
	var names []string
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "/") {
			names = append(names, path.Clean(line))
		}
	}
	return names
}

// record notes a package as unpacked, as dpkg(1) writes it: its status, its list
// of files and its scripts.
func (r *debRoot) record(p *debPackage, d *deb, list string, conffiles []string, sums map[string]string) error {
	var fields paragraph
	err := eachParagraph(d.control["control"], func(p paragraph) error {
		if fields == nil {
			fields = maps.Clone(p)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if fields["package"] != p.name || fields["version"] != p.version {
		return fmt.Errorf("it is package %.80q %.80q, the index says %q %q", fields["package"], fields["version"], p.name, p.version)
	}
	base := p.name
	if fields["multi-arch"] == "same" {
		base += ":" + fields["architecture"]
	}
	r.files = append(r.files, debInfo{base + ".list", 0o644, []byte(list)})
	for _, name := range slices.Sorted(maps.Keys(d.control)) {
		switch name {
		case "control":
		case "preinst", "postinst", "prerm", "postrm", "config":
			r.files = append(r.files, debInfo{base + "." + name, 0o755, d.control[name]})
		default:
			r.files = append(r.files, debInfo{base + "." + name, 0o644, d.control[name]})
		}
	}
	r.writeStatus(d.control["control"], conffiles, sums)
	return r.noteTriggers(base, d.control["triggers"])
}

// writeStatus writes a package's paragraph of dpkg's status file.
func (r *debRoot) writeStatus(control []byte, conffiles []string, sums map[string]string) {
	for line := range strings.Lines(strings.TrimRight(string(control), "\n") + "\n") {
		r.status.WriteString(line)
		if strings.HasPrefix(strings.ToLower(line), "package:") {
			r.status.WriteString("Status: install ok unpacked\n")
		}
	}
	for i, name := range conffiles {
		if i == 0 {
			r.status.WriteString("Conffiles:\n")
		}
		sum := sums[name]
		if sum == "" {
			sum = "newconffile"
		}
		r.status.WriteString(" " + name + " " + sum + "\n")
	}
	r.status.WriteString("\n")
}

// noteTriggers notes what a package wants to be told of (deb-triggers(5)), in
// the files that dpkg keeps below triggers/.
func (r *debRoot) noteTriggers(base string, data []byte) error {
	for line := range strings.Lines(string(data)) {
		words := strings.Fields(line)
		if len(words) < 2 || !strings.HasPrefix(words[0], "interest") {
			continue
		}
		who := base
		if words[0] == "interest-noawait" {
			who += "/noawait"
		}
		trigger := words[1]
		switch {
		case path.IsAbs(trigger):
			r.triggers["File"] = append(r.triggers["File"], trigger+" "+who)
		case strings.Contains(trigger, "/") || trigger[0] == '.':
			return fmt.Errorf("strange trigger %.80q", trigger)
		default:
			r.triggers[trigger] = append(r.triggers[trigger], who)
		}
	}
	return nil
}

// finish writes dpkg's records, then extra files, and ends the tar.
func (r *debRoot) finish(extra []debInfo) error {
	const dpkg = "var/lib/dpkg/"
	files := []debInfo{
		{dpkg + "status", 0o644, r.status.Bytes()},
		{dpkg + "available", 0o644, nil},
		{dpkg + "diversions", 0o644, nil},
		{dpkg + "info/format", 0o644, []byte("1\n")},
	}
	for _, f := range r.files {
		files = append(files, debInfo{dpkg + "info/" + f.name, f.mode, f.data})
	}
	for _, name := range slices.Sorted(maps.Keys(r.triggers)) {
		files = append(files, debInfo{dpkg + "triggers/" + name, 0o644, []byte(strings.Join(r.triggers[name], "\n") + "\n")})
	}
	for _, f := range append(files, extra...) {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.data)), ModTime: r.date}
		if err := r.out.WriteHeader(h); err != nil {
			return err
		}
		if _, err := r.out.Write(f.data); err != nil {
			return err
		}
	}
	return r.out.Close()
}

// packageError says which package an error is of.
type packageError struct {
	name string
	err  error
}

func (e *packageError) Error() string { return "package " + e.name + ": " + e.err.Error() }

func (e *packageError) Unwrap() error { return e.err }

func ofPackage(p *debPackage, err error) error {
	if err == nil || errors.Is(err, io.ErrClosedPipe) {
		return err
	}
	return &packageError{p.name, err}
}
