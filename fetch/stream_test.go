// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// faulty serves one blob and does to each request for it what the test says.
type faulty struct {
	image *testImage
	blob  func(rw http.ResponseWriter, r *http.Request, try int, body []byte)

	mu     sync.Mutex
	tries  int
	ranges []string
}

func (f *faulty) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.URL.Path, "/blobs/") {
		tagged(f.image.manifest, f.image.desc.MediaType, f.image).ServeHTTP(rw, r)
		return
	}
	f.mu.Lock()
	f.tries++
	try := f.tries
	f.ranges = append(f.ranges, r.Header.Get("Range"))
	f.mu.Unlock()
	parts := strings.Split(r.URL.Path, "/")
	f.blob(rw, r, try, f.image.blobs[parts[len(parts)-1]])
}

// openFaulty pulls from f and returns the image's large layer.
func openFaulty(t *testing.T, w *world, f *faulty) (*Image, ocispec.Descriptor) {
	t.Helper()
	f.image = makeImage(t, "amd64")
	w.serve("registry.test:443", f)
	got, err := Registry(t.Context(), mustRef(t, "registry.test/app"), w.options())
	if err != nil {
		t.Fatal(err)
	}
	return got, descriptor(ocispec.MediaTypeImageLayer, f.image.layers[0])
}

// sendFrom answers a range honestly from the given first byte to before last.
func sendFrom(rw http.ResponseWriter, body []byte, first, last, size int) {
	rw.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last-1, size))
	rw.Header().Set("Content-Length", strconv.Itoa(last-first))
	rw.WriteHeader(206)
	rw.Write(body[first:last])
}

// asked returns the first byte that a request wants.
func asked(r *http.Request) int {
	var first, last int
	fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last)
	return first
}

// cut sends n bytes of a response that promises all of body from first on, and breaks.
func cut(rw http.ResponseWriter, body []byte, first, n int) {
	rw.Header().Set("Content-Length", strconv.Itoa(len(body)-first))
	if first > 0 {
		rw.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, len(body)-1, len(body)))
		rw.WriteHeader(206)
	}
	rw.Write(body[first : first+n])
	rw.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func TestBlobResume(t *testing.T) {
	for _, tt := range []struct {
		name  string
		blob  func(rw http.ResponseWriter, r *http.Request, try int, body []byte)
		tries int
		err   string
	}{
		{"cut once", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
			if try == 1 {
				cut(rw, body, 0, len(body)/3)
			}
			sendFrom(rw, body, asked(r), len(body), len(body))
		}, 2, ""},
		{"cut before the first byte", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
			if try == 1 {
				cut(rw, body, 0, 0)
			}
			http.ServeContent(rw, r, "", testNow, bytes.NewReader(body))
		}, 2, ""},
		{"cut at the last byte", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
			if try == 1 {
				cut(rw, body, 0, len(body)-1)
			}
			sendFrom(rw, body, asked(r), len(body), len(body))
		}, 2, ""},
		{"many cuts with progress", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
			first := asked(r)
			if first+progressStep < len(body) {
				cut(rw, body, first, progressStep)
			}
			http.ServeContent(rw, r, "", testNow, bytes.NewReader(body))
		}, 5, ""},
		{"cuts without progress", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
			cut(rw, body, asked(r), 10)
		}, maxTries, "cut off at byte 50"},
		{"range ignored", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
			if try == 1 {
				cut(rw, body, 0, len(body)/2)
			}
			rw.Write(body)
		}, 2, ""},
		{"range starts before", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
			if try == 1 {
				cut(rw, body, 0, len(body)/2)
			}
			sendFrom(rw, body, 100, len(body), len(body))
		}, 2, ""},
		{"range starts behind", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
			switch first := asked(r); {
			case try == 1:
				cut(rw, body, 0, len(body)/2)
			case first > 0:
				sendFrom(rw, body, first+1, len(body), len(body))
			default:
				rw.Write(body)
			}
		}, 3, ""},
		{"range unreadable", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
			switch {
			case try == 1:
				cut(rw, body, 0, len(body)/2)
			case asked(r) > 0:
				rw.Header().Set("Content-Range", "bytes half")
				rw.WriteHeader(206)
				rw.Write(body[asked(r):])
			default:
				rw.Write(body)
			}
		}, 3, ""},
		{"range not satisfiable", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
			switch {
			case try == 1:
				cut(rw, body, 0, len(body)/2)
			case asked(r) > 0:
				rw.WriteHeader(416)
			default:
				rw.Write(body)
			}
		}, 3, ""},
		{"range ends early", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
			switch first := asked(r); {
			case try == 1:
				cut(rw, body, 0, 300<<10)
			case try == 2:
				sendFrom(rw, body, first, first+1000, len(body))
			default:
				sendFrom(rw, body, first, len(body), len(body))
			}
		}, 3, ""},
		{"range of another size", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
			if try == 1 {
				cut(rw, body, 0, len(body)/2)
			}
			sendFrom(rw, body, asked(r), len(body), len(body)+7)
		}, 2, "its descriptor says"},
		{"range always behind", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
			sendFrom(rw, body, 5, len(body), len(body))
		}, 1, "a part of it came that was not asked for"},
		{"a part unasked, from the beginning", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
			sendFrom(rw, body, asked(r), len(body), len(body))
		}, 1, ""},
		{"longer by its length", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
			rw.Write(append(bytes.Clone(body), 'x'))
		}, 1, "its descriptor says"},
		{"longer in chunks", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
			rw.(http.Flusher).Flush()
			rw.Write(append(bytes.Clone(body), 'x'))
		}, 1, "longer than the"},
		{"shorter by its length", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
			rw.Write(body[:1000])
		}, 1, "it has"},
		{"shorter in chunks", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
			rw.(http.Flusher).Flush()
			rw.Write(body[:1000])
		}, maxTries, "cut off at byte 1000"},
		{"empty", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {}, 1, "it has 0 bytes"},
		{"no content", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) { rw.WriteHeader(204) }, 1, "204 No Content"},
		{"web page", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) { io.WriteString(rw, "<html>") }, 1, "its descriptor says"},
		{"gone", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) { rw.WriteHeader(404) }, 1, "404 Not Found"},
		{"gone in the middle", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
			if try == 1 {
				cut(rw, body, 0, 1000)
			}
			rw.WriteHeader(404)
		}, 2, "404 Not Found"},
		{"bytes one by one", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
			rw.Header().Set("Content-Length", strconv.Itoa(len(body)))
			for n := range 500 {
				rw.Write(body[n : n+1])
				rw.(http.Flusher).Flush()
			}
			rw.Write(body[500:])
		}, 1, ""},
		{"called gzip", func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
			rw.Header().Set("Content-Encoding", "gzip") // a mislabel that object stores make; the digest decides
			rw.Write(body)
		}, 1, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, f := newWorld(t), &faulty{blob: tt.blob}
			image, layer := openFaulty(t, w, f)
			var got []byte
			r, err := image.Blob(t.Context(), layer, 0)
			if err == nil {
				got, err = io.ReadAll(r)
				r.Close()
			}
			if tt.err != "" {
				wantError(t, err, "read blob "+string(layer.Digest)+": ", tt.err)
			} else if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(f.image.layers[0], got) || tt.err == "" && len(got) != int(layer.Size) {
				t.Errorf("%d wrong bytes of %d", len(got), layer.Size)
			}
			if f.tries != tt.tries {
				t.Errorf("%d requests, want %d: %q", f.tries, tt.tries, f.ranges)
			}
		})
	}
}

// TestBlobCutEverywhere cuts at many offsets, and again right after.
func TestBlobCutEverywhere(t *testing.T) {
	w := newWorld(t)
	var at int
	f := &faulty{}
	f.blob = func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
		switch first := asked(r); {
		case first == 0 && at > 0 && try == 1:
			cut(rw, body, 0, at)
		case try <= 3 && first > 0 && first+1 < len(body):
			cut(rw, body, first, 1)
		default:
			http.ServeContent(rw, r, "", testNow, bytes.NewReader(body))
		}
	}
	image, layer := openFaulty(t, w, f)
	for _, at = range []int{1, 2, 511, 512, 513, 4095, 4096, 65535, 65536, 65537, 524288, int(layer.Size) - 2, int(layer.Size) - 1} {
		f.tries = 0
		if got := readBlob(t, image, layer, 0); !bytes.Equal(got, f.image.layers[0]) {
			t.Fatalf("cut at %d: wrong bytes", at)
		}
	}
}

// TestBlobOffset takes up what an earlier process began.
func TestBlobOffset(t *testing.T) {
	w := newWorld(t)
	f := &faulty{blob: func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
		http.ServeContent(rw, r, "", testNow, bytes.NewReader(body))
	}}
	image, layer := openFaulty(t, w, f)
	got := readBlob(t, image, layer, 1000)
	if !bytes.Equal(got, f.image.layers[0][1000:]) {
		t.Error("wrong bytes")
	}
	if want := fmt.Sprintf("bytes=1000-%d", layer.Size-1); f.ranges[0] != want {
		t.Errorf("asked for %q, want %q", f.ranges[0], want)
	}
	if got := readBlob(t, image, layer, layer.Size); len(got) != 0 || f.tries != 1 {
		t.Errorf("a complete blob: %d bytes, %d requests", len(got), f.tries)
	}
}

func TestBlobStalls(t *testing.T) {
	for _, where := range []string{"head", "body"} {
		t.Run(where, func(t *testing.T) {
			w := newWorld(t)
			stalled := make(chan struct{})
			f := &faulty{blob: func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
				if try > 1 {
					http.ServeContent(rw, r, "", testNow, bytes.NewReader(body))
					return
				}
				if where == "body" {
					rw.Header().Set("Content-Length", strconv.Itoa(len(body)))
					rw.Write(body[:5000])
					rw.(http.Flusher).Flush()
				}
				close(stalled)
				<-r.Context().Done()
			}}
			image, layer := openFaulty(t, w, f)
			go func() {
				<-stalled
				for w.clock.ring() == 0 {
					time.Sleep(time.Millisecond) // until the reader waits
				}
			}()
			if got := readBlob(t, image, layer, 0); !bytes.Equal(got, f.image.layers[0]) {
				t.Error("wrong bytes")
			}
			if f.tries != 2 {
				t.Errorf("%d requests", f.tries)
			}
		})
	}
}

func TestBlobCancelled(t *testing.T) {
	w := newWorld(t)
	started := make(chan struct{})
	f := &faulty{blob: func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
		rw.Header().Set("Content-Length", strconv.Itoa(len(body)))
		rw.Write(body[:5000])
		rw.(http.Flusher).Flush()
		close(started)
		<-r.Context().Done()
	}}
	image, layer := openFaulty(t, w, f)
	ctx, cancel := contextWithCancel(t)
	r, err := image.Blob(ctx, layer, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() { <-started; cancel() }()
	if _, err := io.ReadAll(r); !errors.Is(err, ctx.Err()) {
		t.Errorf("got %v", err)
	}
	if f.tries != 1 {
		t.Errorf("%d requests", f.tries)
	}
}

// TestBlobSignedURLExpires sends the blob from a store whose addresses are good once.
func TestBlobSignedURLExpires(t *testing.T) {
	w := newWorld(t)
	issued := 0
	f := &faulty{blob: func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
		issued++
		http.Redirect(rw, r, fmt.Sprintf("https://store.registry.test/blob?signature=canary%d", issued), http.StatusTemporaryRedirect)
	}}
	image, layer := openFaulty(t, w, f)
	used := map[string]bool{}
	w.serve("store.registry.test:443", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if used[r.URL.RawQuery] {
			rw.WriteHeader(403)
			return
		}
		used[r.URL.RawQuery] = true
		if len(used) == 1 {
			cut(rw, f.image.layers[0], 0, 5000)
		}
		if len(used) == 3 {
			rw.WriteHeader(403)
			return
		}
		http.ServeContent(rw, r, "", testNow, bytes.NewReader(f.image.layers[0]))
	}))
	if got := readBlob(t, image, layer, 0); !bytes.Equal(got, f.image.layers[0]) {
		t.Error("wrong bytes")
	}
	if issued != 2 {
		t.Errorf("%d addresses issued", issued)
	}
	_, err := image.Blob(t.Context(), layer, 0)
	e := wantError(t, err, "GET https://store.registry.test/blob: 403 Forbidden")
	if strings.Contains(e.Error(), "canary") {
		t.Errorf("the signature stands in %q", e)
	}
}

func TestParseContentRange(t *testing.T) {
	for _, tt := range []struct {
		in          string
		first, size int64
		ok          bool
	}{
		{"bytes 0-9/10", 0, 10, true},
		{"bytes 5-9/*", 5, -1, true},
		{"bytes 5-5/6", 5, 6, true},
		{"", 0, 0, false}, {"bytes", 0, 0, false}, {"bytes */10", 0, 0, false}, {"bytes 5-/10", 0, 0, false}, {"bytes -5/10", 0, 0, false},
		{"bytes 9-5/10", 0, 0, false}, {"bytes 0-10/10", 0, 0, false}, {"bytes +1-5/10", 0, 0, false}, {"bytes 0-9/10x", 0, 0, false},
		{"items 0-9/10", 0, 0, false}, {"bytes 0-9/99999999999999999999", 0, 0, false}, {"bytes 0-9", 0, 0, false}, {"bytes 0x0-9/10", 0, 0, false},
	} {
		first, size, ok := parseContentRange(tt.in)
		if ok != tt.ok || ok && (first != tt.first || size != tt.size) {
			t.Errorf("parseContentRange(%q) = %d, %d, %v", tt.in, first, size, ok)
		}
	}
}
