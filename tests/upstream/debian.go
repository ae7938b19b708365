// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Package is one of a Debian archive.
type Package struct {
	Name, Version string
	Fields        string            // further lines of its paragraph
	Control       map[string]string // further control files
	Data          []tar.Header
	Contents      map[string]string // of the files in Data, by name
	Arch          string            // "": amd64
	Compression   string            // of the data: xz, zst; "": gz
}

// Suite is what a Debian archive says of a suite.
type Suite struct {
	Name   string
	Date   time.Time
	Fields string // further lines of the release file
	Arch   string // "": amd64
}

// Debian publishes a suite of these packages below a path, which is "" or ends with
// a slash.
func (s *Site) Debian(at string, suite Suite, packages ...Package) {
	if suite.Arch == "" {
		suite.Arch = "amd64"
	}
	var index strings.Builder
	for _, p := range packages {
		p.Arch = suite.Arch
		file := p.File()
		name := "pool/" + p.Name + ".deb"
		s.Put(at+name, file)
		fmt.Fprintf(&index, "Package: %s\nVersion: %s\nArchitecture: %s\n%sFilename: %s\nSize: %d\nSHA256: %s\n\n", p.Name, p.Version, p.Arch, p.Fields, name, len(file), Sum(file))
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(index.String()))
	z.Close()
	packagesFile := "main/binary-" + suite.Arch + "/Packages.gz"
	s.Put(at+path.Join("dists", suite.Name, packagesFile), b.Bytes())
	release := fmt.Sprintf("Origin: Test\nSuite: stable\nCodename: %s\nDate: %s\n%sArchitectures: %s all\nComponents: main\nSHA256:\n %s %d %s\n",
		suite.Name, suite.Date.UTC().Format(time.RFC1123), suite.Fields, suite.Arch, Sum(b.Bytes()), b.Len(), packagesFile)
	s.Put(at+"dists/"+suite.Name+"/InRelease", []byte(s.Signer.ClearSigned(release, 0)))
}

// File is the package as dpkg-deb makes it (deb(5)).
func (p Package) File() []byte {
	if p.Arch == "" {
		p.Arch = "amd64"
	}
	control := map[string]string{
		"./control": fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: T <t@example.org>\nDescription: test\n%s", p.Name, p.Version, p.Arch, p.Fields),
	}
	headers := []tar.Header{{Typeflag: tar.TypeReg, Name: "./control", Mode: 0o644}}
	for name, text := range p.Control {
		if name != "control" {
			headers = append(headers, tar.Header{Typeflag: tar.TypeReg, Name: "./" + name, Mode: 0o755})
		}
		control["./"+name] = text
	}
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	member := func(name string, content []byte) {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, 0, 0, 0, "100644", len(content))
		b.Write(content)
		if len(content)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	member("debian-binary", []byte("2.0\n"))
	member("control.tar.gz", ZippedTar(headers, control))
	if p.Compression == "" {
		p.Compression = "gz"
	}
	member("data.tar."+p.Compression, compressed(plainTar(p.Data, p.Contents), p.Compression))
	return b.Bytes()
}

// ZippedTar is a gzipped tar of these entries, and what is in the files of them.
func ZippedTar(headers []tar.Header, contents map[string]string) []byte {
	return compressed(plainTar(headers, contents), "gz")
}

func plainTar(headers []tar.Header, contents map[string]string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h.Size = int64(len(contents[h.Name]))
		if err := w.WriteHeader(&h); err != nil {
			panic(err) // the test's own mistake
		}
		_, _ = w.Write([]byte(contents[h.Name]))
	}
	w.Close()
	return b.Bytes()
}

func compressed(data []byte, how string) []byte {
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch how {
	case "gz":
		w = gzip.NewWriter(&b)
	case "xz":
		w, err = xz.NewWriter(&b)
	case "zst":
		w, err = zstd.NewWriter(&b)
	default:
		panic("no compression " + how)
	}
	if err == nil {
		_, err = w.Write(data)
	}
	if err != nil {
		panic(err) // the test's own mistake
	}
	w.Close()
	return b.Bytes()
}
