// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sbx/tests/need"
)

// TestPullKilled pulls a layer in twenty pieces, each by a process that is killed by
// SIGKILL when it has the piece on disk: at most a hundredth is fetched twice.
func TestPullKilled(t *testing.T) {
	need.Need(t, need.Userns)
	const pieces = 20
	r := newFaultyRegistry(t, 2<<20, nil)
	piece := (int(r.layer.Size) + pieces - 1) / pieces
	r.fault = func(w http.ResponseWriter, req *http.Request, body []byte, _ int) bool {
		from := 0
		if _, err := fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-", &from); err != nil && req.URL.Path != r.layerPath() {
			return false
		}
		to := min(from+piece, len(body))
		w.Header().Set("Content-Length", fmt.Sprint(len(body)-from))
		if from > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(body)-1, len(body)))
			w.WriteHeader(http.StatusPartialContent)
		}
		_, _ = w.Write(body[from:to])
		if to < len(body) {
			_ = http.NewResponseController(w).Flush()
			<-req.Context().Done()
		}
		return true
	}
	p := newPuller(t)
	partial := filepath.Join(p.dir, "store", "tmp", "partial-sha256-"+r.layer.Digest.Encoded())
	for n := 1; n < pieces; n++ {
		cmd := p.command(t.Context(), "pull", "-q", r.ref())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitForSize(t, partial, int64(n*piece))
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
	}
	if out, err := p.pull(t.Context(), r.ref()); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	p.mustHave(t, r)
	sent, asked := r.bytesOf(r.layerPath())
	if sent > r.layer.Size+r.layer.Size/100 || asked != pieces {
		t.Errorf("%d bytes in %d answers for a layer of %d bytes in %d pieces", sent, asked, r.layer.Size, pieces)
	}
}

// waitForSize waits until a file has grown to a size: what it shows is the only sign that
// another process has written it.
func waitForSize(t *testing.T, name string, size int64) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if fi, err := os.Stat(name); err == nil && fi.Size() >= size {
			return
		}
	}
	t.Fatalf("%s has not grown to %d bytes", name, size)
}

// TestPullCut lets the connection be cut at twenty places of a layer, by resets and in
// order, in one pull.
func TestPullCut(t *testing.T) {
	need.Need(t, need.Userns)
	const cutsMade = 20
	r := newFaultyRegistry(t, 20*300<<10, nil)
	r.fault = func(w http.ResponseWriter, req *http.Request, body []byte, n int) bool {
		if req.URL.Path != r.layerPath() || n > cutsMade {
			return false
		}
		// More than what counts as progress, and never at a block's end.
		cut(w, req, body, 290<<10+n*7, false)
		return true
	}
	p := newPuller(t)
	if out, err := p.pull(t.Context(), r.ref()); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	p.mustHave(t, r)
	if sent, asked := r.bytesOf(r.layerPath()); sent > r.layer.Size+r.layer.Size/100 || asked != cutsMade+1 {
		t.Errorf("%d bytes in %d answers for a layer of %d bytes", sent, asked, r.layer.Size)
	}
}

// TestPullAtOnce pulls one image by 32 processes at once: each blob is fetched once.
func TestPullAtOnce(t *testing.T) {
	need.Need(t, need.Userns)
	r := newFaultyRegistry(t, 1<<20, nil)
	p := newPuller(t)
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			if out, err := p.pull(t.Context(), r.ref()); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	all.Wait()
	p.mustHave(t, r)
	for path := range r.bodies {
		if _, asked := r.bytesOf(path); strings.Contains(path, "/blobs/") && asked != 1 {
			t.Errorf("%s was fetched %d times", path, asked)
		}
	}
}

// TestPullWaits shows what a user is told when a server wants him to wait, and what when
// that is too long.
func TestPullWaits(t *testing.T) {
	need.Need(t, need.Userns)
	r := newFaultyRegistry(t, 1<<10, nil)
	r.fault = once("/manifests/", status(http.StatusTooManyRequests, "Retry-After: 1"))
	p := newPuller(t)
	out, err := p.pull(t.Context(), r.ref())
	host := strings.TrimPrefix(r.URL, "http://")
	if want := "sbx: " + host + ": 429 Too Many Requests: trying again in 1s\n"; err != nil || !strings.HasPrefix(out, want) {
		t.Errorf("got %q, %v; want first %q", out, err, want)
	}
	r.mu.Lock()
	r.fault = always("/manifests/", status(http.StatusTooManyRequests, "Retry-After: 7200"))
	r.mu.Unlock()

	out, err = newPuller(t).pull(t.Context(), r.ref())
	if err == nil || !strings.Contains(out, "429 Too Many Requests") || !strings.Contains(out, "2h0m0s") {
		t.Errorf("got %q, %v; want 429 and a hint of two hours", out, err)
	}
}
