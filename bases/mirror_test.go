// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"path"
	"strings"
	"testing"
	"time"

	"sbx/tests/upstream"
)

// debFile makes a package of control files and data.
func debFile(control map[string]string, data []tar.Header, contents map[string]string) []byte {
	var c []tar.Header
	for name := range control {
		c = append(c, tar.Header{Typeflag: tar.TypeReg, Name: "./" + name, Mode: 0o755})
	}
	var b bytes.Buffer
	b.WriteString(arMagic)
	member := func(name string, content []byte) {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, 0, 0, 0, "100644", len(content))
		b.Write(content)
		if len(content)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	inControl := map[string]string{}
	for name, text := range control {
		inControl["./"+name] = text
	}
	member("debian-binary", []byte("2.0\n"))
	member("control.tar.gz", zippedTar(c, inControl))
	member("data.tar.gz", zippedTar(data, contents))
	return b.Bytes()
}

func zippedTar(headers []tar.Header, contents map[string]string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, h := range headers {
		h.Size = int64(len(contents[h.Name]))
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
		_, _ = w.Write([]byte(contents[h.Name]))
	}
	w.Close()
	z.Close()
	return b.Bytes()
}

// fakeMirror is a web server with an archive of Debian packages of the test's.
type fakeMirror struct{ *upstream.Site }

func newFakeMirror(t *testing.T) *fakeMirror {
	m := &fakeMirror{upstream.NewSite(upstream.NewSigner(1))}
	t.Cleanup(m.Close)
	return m
}

// publish makes the suite's index of these package paragraphs, each with its file.
func (m *fakeMirror) publish(suite string, date time.Time, fields string, packages ...fakePackage) {
	var index strings.Builder
	for _, p := range packages {
		file := p.file()
		name := "pool/" + p.name + ".deb"
		m.Put(name, file)
		fmt.Fprintf(&index, "Package: %s\nVersion: %s\nArchitecture: amd64\n%sFilename: %s\nSize: %d\nSHA256: %s\n\n", p.name, p.version, p.fields, name, len(file), upstream.Sum(file))
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(index.String()))
	z.Close()
	at := "main/binary-amd64/Packages.gz"
	m.Put(path.Join("dists", suite, at), b.Bytes())
	release := fmt.Sprintf("Origin: Test\nSuite: stable\nCodename: %s\nDate: %s\n%sArchitectures: amd64 all\nComponents: main\nSHA256:\n %s %d %s\n",
		suite, date.UTC().Format(time.RFC1123), fields, upstream.Sum(b.Bytes()), b.Len(), at)
	m.Put("dists/"+suite+"/InRelease", []byte(m.Signer.ClearSigned(release, 0)))
}

type fakePackage struct {
	name, version, fields string
	control               map[string]string
	data                  []tar.Header
	contents              map[string]string
}

func (p fakePackage) file() []byte {
	control := map[string]string{"control": fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: T <t@example.org>\nDescription: test\n%s", p.name, p.version, p.fields)}
	for name, text := range p.control {
		control[name] = text
	}
	return debFile(control, p.data, p.contents)
}
