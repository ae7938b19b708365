// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"crypto/sha1" //nolint:gosec // OpenPGP's name for a key
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"
	"time"
)

// signer signs as an archive does, with an EdDSA key of its own.
type signer struct {
	private ed25519.PrivateKey
	packet  []byte // the public key
	id      []byte
}

func newSigner(seed byte) *signer {
	s := &signer{private: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))}
	public := s.private.Public().(ed25519.PublicKey)
	body := []byte{4, 0, 0, 0, 1, algorithmEdDSA, byte(len(oidEd25519))}
	body = append(append(body, oidEd25519...), mpi(append([]byte{0x40}, public...))...)
	sum := sha1.New() //nolint:gosec // see the import
	sum.Write([]byte{0x99, byte(len(body) >> 8), byte(len(body))})
	sum.Write(body)
	s.id = sum.Sum(nil)[12:]
	s.packet = append([]byte{0xc0 | packetPublicKey, byte(len(body))}, body...)
	return s
}

func mpi(b []byte) []byte {
	b = bytes.TrimLeft(b, "\x00")
	bits := len(b) * 8
	for mask := byte(0x80); len(b) > 0 && b[0]&mask == 0; mask >>= 1 {
		bits--
	}
	return append([]byte{byte(bits >> 8), byte(bits)}, b...)
}

// sign makes a clear-signed message. lasts is how many seconds it holds, 0 for ever.
func (s *signer) sign(text string, lasts uint32) string {
	hashed := []byte{5, subpacketCreated, 0, 0, 0, 10}
	if lasts > 0 {
		hashed = binary.BigEndian.AppendUint32(append(hashed, 5, subpacketExpires), lasts)
	}
	head := []byte{4, 1, algorithmEdDSA, 10, 0, byte(len(hashed))}
	head = append(head, hashed...)
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		lines = append(lines, strings.TrimRight(line, " \t"))
	}
	sum := sha512.New()
	sum.Write([]byte(strings.Join(lines, "\r\n")))
	sum.Write(head)
	sum.Write(binary.BigEndian.AppendUint32([]byte{4, 0xff}, uint32(len(head))))
	value := ed25519.Sign(s.private, sum.Sum(nil))
	body := append(head, 0, 10, 9, subpacketIssuer)
	body = append(append(body, s.id...), 0, 0)
	body = append(append(body, mpi(value[:32])...), mpi(value[32:])...)
	packet := append([]byte{0xc0 | packetSignature, byte(len(body))}, body...)
	if len(body) >= 192 {
		packet = append([]byte{0xc0 | packetSignature, byte((len(body)-192)>>8 + 192), byte(len(body) - 192)}, body...)
	}
	for i, line := range lines {
		if strings.HasPrefix(line, "-") {
			lines[i] = "- " + line
		}
	}
	return "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n" + strings.Join(lines, "\n") +
		"\n-----BEGIN PGP SIGNATURE-----\n\n" + base64.StdEncoding.EncodeToString(packet) + "\n-----END PGP SIGNATURE-----\n"
}

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
type fakeMirror struct {
	*httptest.Server
	mu     sync.Mutex
	files  map[string][]byte
	asked  map[string]int
	cut    map[string]int // after so many bytes the connection ends, once
	signer *signer
}

func newFakeMirror(t *testing.T) *fakeMirror {
	m := &fakeMirror{files: map[string][]byte{}, asked: map[string]int{}, cut: map[string]int{}, signer: newSigner(1)}
	m.Server = httptest.NewServer(m)
	t.Cleanup(m.Close)
	return m
}

// ServeHTTP implements http.Handler.
func (m *fakeMirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	name := strings.TrimPrefix(r.URL.Path, "/")
	data, ok := m.files[name]
	m.asked[name]++
	cut := m.cut[name]
	delete(m.cut, name)
	m.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", `"`+hex.EncodeToString(sum256(data))[:16]+`"`)
	if cut > 0 {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:cut])
		panic(http.ErrAbortHandler)
	}
	http.ServeContent(w, r, name, time.Unix(1000, 0), bytes.NewReader(data))
}

func sum256(data []byte) []byte {
	sum := sha256.Sum256(data)
	return sum[:]
}

// publish makes the suite's index of these package paragraphs, each with its file.
func (m *fakeMirror) publish(suite string, date time.Time, fields string, packages ...fakePackage) {
	var index strings.Builder
	for _, p := range packages {
		file := p.file()
		name := "pool/" + p.name + ".deb"
		m.files[name] = file
		fmt.Fprintf(&index, "Package: %s\nVersion: %s\nArchitecture: amd64\n%sFilename: %s\nSize: %d\nSHA256: %x\n\n", p.name, p.version, p.fields, name, len(file), sum256(file))
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(index.String()))
	z.Close()
	at := "main/binary-amd64/Packages.gz"
	m.files[path.Join("dists", suite, at)] = b.Bytes()
	release := fmt.Sprintf("Origin: Test\nSuite: stable\nCodename: %s\nDate: %s\n%sArchitectures: amd64 all\nComponents: main\nSHA256:\n %x %d %s\n",
		suite, date.UTC().Format(time.RFC1123), fields, sum256(b.Bytes()), b.Len(), at)
	m.files["dists/"+suite+"/InRelease"] = []byte(m.signer.sign(release, 0))
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
