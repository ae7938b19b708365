// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/tests/need"
)

const faultyLayer = 1 << 20

// always, once and twice say how often something goes wrong at a path.
func always(part string, f fault) fault { return times(part, 1<<30, f) }
func once(part string, f fault) fault   { return times(part, 1, f) }
func twice(part string, f fault) fault  { return times(part, 2, f) }

func times(part string, most int, f fault) fault {
	return func(w http.ResponseWriter, r *http.Request, body []byte, n int) bool {
		return strings.Contains(r.URL.Path, part) && n <= most && f(w, r, body, n)
	}
}

// status answers with a status and headers, "Name: value".
func status(code int, headers ...string) fault {
	return func(w http.ResponseWriter, _ *http.Request, _ []byte, _ int) bool {
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(code)
		return true
	}
}

// sends answers with another body.
func sends(change func([]byte) []byte, headers ...string) fault {
	return func(w http.ResponseWriter, r *http.Request, body []byte, _ int) bool {
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			w.Header().Set(name, value)
		}
		if r.Method != http.MethodHead {
			_, _ = w.Write(change(body))
		}
		return true
	}
}

func cuts(n int, reset bool) fault {
	return func(w http.ResponseWriter, r *http.Request, body []byte, _ int) bool {
		cut(w, r, body, n, reset)
		return true
	}
}

func redirects(to string) fault {
	return func(w http.ResponseWriter, r *http.Request, _ []byte, _ int) bool {
		target := to
		if to == "self" {
			target = r.URL.Path
		}
		w.Header().Set("Location", target)
		w.WriteHeader(http.StatusTemporaryRedirect)
		return true
	}
}

func flipped(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)/2] ^= 1
	return b
}

func html([]byte) []byte { return []byte("<html>welcome to the hotel's network</html>") }

// pullFault is a row: what goes wrong, and what comes of it.
type pullFault struct {
	name  string
	fault fault
	spoil func([]byte) []byte // of the layer itself
	want  string              // what the error says; "" for success
}

var pullFaults = []pullFault{
	{name: "manifest 401", fault: always("/manifests/", status(401)), want: `401 Unauthorized`},
	{name: "401 loop", fault: always("/v2/", status(401, `WWW-Authenticate: Basic realm="x"`)), want: `401 Unauthorized`},
	{name: "manifest 403", fault: always("/manifests/", status(403)), want: `403 Forbidden`},
	{name: "manifest 404", fault: always("/manifests/", status(404)), want: `404 Not Found`},
	{name: "manifest 405", fault: always("/manifests/", status(405)), want: `405 Method Not Allowed`},
	{name: "manifest 204", fault: always("/manifests/", status(204)), want: `204 No Content`},
	{name: "manifest HTML", fault: always("/manifests/", sends(html, "Content-Type: text/html")), want: `manifest|HTML|text/html`},
	{name: "manifest 500 twice", fault: twice("/manifests/", status(500))},
	{name: "manifest 503 with Retry-After", fault: once("/manifests/", status(503, "Retry-After: 1"))},
	{name: "manifest 429 with a past date", fault: once("/manifests/", status(429, "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT"))},
	{name: "manifest 429 for a day", fault: always("/manifests/", status(429, "Retry-After: 86400")), want: `429 Too Many Requests`},
	{name: "manifest 429 for a time that is none", fault: once("/manifests/", status(429, "Retry-After: soon"))},
	{name: "manifest 429 without Retry-After", fault: once("/manifests/", status(429))},
	{name: "401 with Basic and Bearer", fault: always("/v2/", status(401, `WWW-Authenticate: Basic realm="x", Bearer realm="http://127.0.0.1:1/token"`)), want: `127\.0\.0\.1:1/token|401 Unauthorized`},
	{name: "connections closed after each answer", fault: always("", func(w http.ResponseWriter, _ *http.Request, _ []byte, _ int) bool {
		w.Header().Set("Connection", "close")
		return false
	})},
	{name: "header of 10 MiB", fault: always("/manifests/", status(200, "X-Filler: "+strings.Repeat("x", 10<<20))), want: `header`},
	{name: "manifest flipped", fault: always("/manifests/", sends(flipped, "Content-Type: "+ocispec.MediaTypeImageManifest)), want: `manifest|404 Not Found`},
	{name: "manifest of 4 MiB and more", fault: always("/manifests/", sends(func(b []byte) []byte {
		return append(b, bytes.Repeat([]byte(" "), 4<<20+1)...)
	}, "Content-Type: "+ocispec.MediaTypeImageManifest)), want: `large|bytes|digest`},
	{name: "manifest deep", fault: always("/manifests/", sends(func([]byte) []byte { return bytes.Repeat([]byte("["), 1<<20) }, "Content-Type: "+ocispec.MediaTypeImageManifest)), want: `manifest|JSON|digest`},
	{name: "manifest of schema 1", fault: always("/manifests/", sends(func([]byte) []byte { return []byte(`{"schemaVersion":1,"name":"app"}`) },
		"Content-Type: application/vnd.docker.distribution.manifest.v1+prettyjws")), want: `schema|v1|media type|digest`},
	{name: "config missing", fault: always("/blobs/", func(w http.ResponseWriter, _ *http.Request, body []byte, _ int) bool {
		if len(body) > faultyLayer/2 {
			return false
		}
		w.WriteHeader(http.StatusNotFound)
		return true
	}), want: `404 Not Found`},
	{name: "blob 404", fault: layerFault(status(404)), want: `404 Not Found`},
	{name: "blob 500 once", fault: layerTimes(1, status(500))},
	{name: "blob 502 twice", fault: layerTimes(2, status(502))},
	{name: "blob 504 with Retry-After", fault: layerTimes(1, status(504, "Retry-After: 1"))},
	{name: "blob 416", fault: layerFault(status(416)), want: `416 `},
	{name: "blob HTML", fault: layerFault(sends(html, "Content-Type: text/html")), want: `it has 43 bytes, its descriptor says [0-9]+$`},
	{name: "blob 206 unasked", fault: layerTimes(1, func(w http.ResponseWriter, _ *http.Request, body []byte, _ int) bool {
		sendsFrom(0)(w, body)
		return true
	})},
	{name: "blob byte by byte", fault: layerTimes(1, func(w http.ResponseWriter, _ *http.Request, body []byte, _ int) bool {
		for i := range 2000 {
			_, _ = w.Write(body[i : i+1])
			_ = http.NewResponseController(w).Flush()
		}
		_, _ = w.Write(body[2000:])
		return true
	})},
	{name: "blob said to be compressed once more", fault: layerFault(sends(bytes.Clone, "Content-Encoding: gzip"))},
	{name: "blob of another image", fault: layerFault(sends(func(b []byte) []byte { return bytes.Repeat([]byte{7}, len(b)) })), want: `digest`},
	{name: "blob flipped", fault: layerFault(sends(flipped)), want: `digest`},
	{name: "blob too long", fault: layerFault(sends(func(b []byte) []byte { return append(bytes.Clone(b), 'x') })), want: `longer|Content-Length|bytes`},
	{name: "blob too short", fault: layerFault(sends(func(b []byte) []byte { return b[:len(b)-1] })), want: `cut off at byte [0-9]+: unexpected EOF$`},
	{name: "blob reset before the first byte", fault: layerTimes(1, cuts(0, true))},
	{name: "blob reset after one byte", fault: layerTimes(1, cuts(1, true))},
	{name: "blob cut in the middle", fault: layerTimes(1, cuts(faultyLayer/2, false))},
	{name: "blob cut before the last byte", fault: layerTimes(1, func(w http.ResponseWriter, r *http.Request, body []byte, _ int) bool {
		cut(w, r, body, len(body)-1, false)
		return true
	})},
	{name: "blob cut thrice", fault: layerTimes(3, cuts(300<<10, false))},
	{name: "cut, then the range is ignored", fault: cutThen(func(w http.ResponseWriter, body []byte) { _, _ = w.Write(body) })},
	{name: "cut, then more than the range is sent", fault: cutThen(sendsFrom(0))},
	{name: "cut, then a later range is sent", fault: cutThen(sendsFrom(faultyLayer/2 + 10)), want: `a part of it came that was not asked for$`},
	{name: "cut, and the signed URL expires", fault: signedFor(1)},
	{name: "signed URLs that expire at once", fault: signedFor(0), want: `403 Forbidden`},
	{name: "redirect over eleven hops", fault: layerFault(func(w http.ResponseWriter, r *http.Request, _ []byte, _ int) bool {
		hop, _ := strconv.Atoi(r.URL.Query().Get("hop"))
		if hop == 11 {
			return false
		}
		w.Header().Set("Location", fmt.Sprintf("%s?hop=%d", r.URL.Path, hop+1))
		w.WriteHeader(http.StatusTemporaryRedirect)
		return true
	}), want: `redirects`},
	{name: "redirect loop", fault: layerFault(redirects("self")), want: `redirect`},
	{name: "redirect to a file", fault: layerFault(redirects("file:///etc/passwd")), want: `redirect|file`},
	{name: "redirect to a private address", fault: layerFault(redirects("http://169.254.169.254/latest")), want: `169\.254\.169\.254|redirect`},
	{name: "gzip truncated", spoil: func(b []byte) []byte { return b[:len(b)-20] }, want: `gzip|EOF|ends too early`},
	{name: "gzip with a wrong checksum", spoil: func(b []byte) []byte {
		b = bytes.Clone(b)
		b[len(b)-8] ^= 1
		return b
	}, want: `gzip|checksum`},
	{name: "no tar in it", spoil: func([]byte) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(bytes.Repeat([]byte("this is no archive "), 1000))
		_ = z.Close()
		return b.Bytes()
	}, want: `archive|tar`},
}

// cutThen cuts the layer in the middle, and answers otherwise from then on.
func cutThen(then func(w http.ResponseWriter, body []byte)) fault {
	return layerFault(func(w http.ResponseWriter, r *http.Request, body []byte, n int) bool {
		if n == 1 {
			cut(w, r, body, faultyLayer/2, false)
		} else {
			then(w, body)
		}
		return true
	})
}

// sendsFrom answers with a part from a byte on, whatever was asked for.
func sendsFrom(from int) func(w http.ResponseWriter, body []byte) {
	return func(w http.ResponseWriter, body []byte) {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(body)-1, len(body)))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(body[from:])
	}
}

// signedFor redirects to a URL that is good for as many answers, of which the first is cut
// off; the registry signs another one each time it is asked.
func signedFor(uses int) fault {
	return func(w http.ResponseWriter, r *http.Request, body []byte, n int) bool {
		switch {
		case len(body) < faultyLayer/2:
			return false
		case r.URL.Path != signedPath:
			w.Header().Set("Location", fmt.Sprintf("%s?signature=%d", signedPath, n))
			w.WriteHeader(http.StatusTemporaryRedirect)
		case uses == 0:
			w.WriteHeader(http.StatusForbidden)
		case n == 1:
			cut(w, r, body, faultyLayer/2, false)
		case r.URL.Query().Get("signature") == "1":
			w.WriteHeader(http.StatusForbidden)
		default:
			return false
		}
		return true
	}
}

// layerFault and layerTimes are for the layer, which is the large blob.
func layerFault(f fault) fault { return layerTimes(1<<30, f) }

func layerTimes(most int, f fault) fault {
	return func(w http.ResponseWriter, r *http.Request, body []byte, n int) bool {
		return len(body) > faultyLayer/2 && n <= most && f(w, r, body, n)
	}
}

// TestPullFaults pulls from a registry that does one thing wrong: within bounded time
// that is overcome, or it is one line that names registry and cause, and nothing has the
// image's name. Once the registry is well the image comes, and what had arrived before is
// not fetched again.
func TestPullFaults(t *testing.T) {
	need.Need(t, need.Userns)
	for _, row := range pullFaults {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r := newFaultyRegistry(t, faultyLayer, row.spoil)
			r.fault = row.fault
			p := newPuller(t)
			out, err := p.pull(t.Context(), r.ref())
			if row.want == "" {
				if err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				p.mustHave(t, r)
				return
			}
			if err == nil {
				t.Fatalf("it was pulled: %s", out)
			}
			checkComplaint(t, out, r.ref(), row.want)
			if _, err := p.run(t.Context(), "inspect", r.ref()); err == nil {
				t.Error("the image has its name all the same")
			}
			if row.spoil != nil {
				return
			}
			r.heal()
			if out, err := p.pull(t.Context(), r.ref()); err != nil {
				t.Fatalf("from the healed registry: %v: %s", err, out)
			}
			p.mustHave(t, r)
		})
	}
}

// checkComplaint wants one line, which names the image and the cause, and perhaps a hint.
func checkComplaint(t *testing.T, out, ref, want string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) > 2 || len(lines) == 2 && !strings.HasPrefix(lines[1], "sbx: hint: ") {
		t.Errorf("more than a line and a hint:\n%s", out)
	}
	if !strings.HasPrefix(lines[0], "sbx: pull "+ref+": ") || !regexp.MustCompile(want).MatchString(lines[0]) {
		t.Errorf("got %q, want `sbx: pull %s: ` and %q", lines[0], ref, want)
	}
}

// puller runs sbx with a store of its own.
type puller struct{ dir string }

func newPuller(t *testing.T) *puller {
	t.Helper()
	p := &puller{dir: t.TempDir()}
	t.Cleanup(func() { removeTree(p.dir) })
	return p
}

func (p *puller) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, sbxBinary, args...)
	cmd.Env = append(os.Environ(), "SBX_HOME="+filepath.Join(p.dir, "store"), "HOME="+p.dir, "XDG_CONFIG_HOME="+p.dir)
	return cmd
}

func (p *puller) run(ctx context.Context, args ...string) (string, error) {
	out, err := p.command(ctx, args...).CombinedOutput()
	return string(out), err
}

// patiencePull is more than all that a pull waits for of its own accord.
const patiencePull = 2 * time.Minute

func (p *puller) pull(ctx context.Context, ref string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patiencePull)
	defer cancel()
	out, err := p.run(ctx, "pull", "-q", ref)
	return out, errors.Join(err, ctx.Err())
}

// mustHave checks what was pulled, by its content.
func (p *puller) mustHave(t *testing.T, r *faultyRegistry) {
	t.Helper()
	out, err := p.run(t.Context(), "inspect", "--format", "{{.Descriptor.Digest}}", r.ref())
	if err != nil || strings.TrimSpace(out) != r.manifest.Digest.String() {
		t.Errorf("the image is %q, %v; want %s", out, err, r.manifest.Digest)
	}
	blob, err := os.ReadFile(filepath.Join(p.dir, "store", "blobs", "sha256", r.layer.Digest.Encoded()))
	if err != nil || !bytes.Equal(blob, r.bodies[r.layerPath()]) {
		t.Errorf("its layer has %d bytes, %v; want the %d that were sent", len(blob), err, r.layer.Size)
	}
}
