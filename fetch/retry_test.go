// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestRetryStatus answers the manifest's request with a status before, or instead of,
// the manifest.
func TestRetryStatus(t *testing.T) {
	for _, tt := range []struct {
		name       string
		status     int
		retryAfter string
		times      int // the status is given before the manifest
		requests   int
		slept      time.Duration // 0: any
		err        string
		hint       string
	}{
		{"once unavailable", 503, "", 1, 2, 0, "", ""},
		{"often unavailable", 503, "", 4, 5, 0, "", ""},
		{"always unavailable", 503, "", 99, 5, 0, "503 Service Unavailable", "problem of its own"},
		{"internal error", 500, "", 2, 3, 0, "", ""},
		{"bad gateway", 502, "", 2, 3, 0, "", ""},
		{"gateway timeout", 504, "", 2, 3, 0, "", ""},
		{"request timeout", 408, "", 2, 3, 0, "", ""},
		{"too many, in seconds", 429, "7", 1, 2, 7 * time.Second, "", ""},
		{"too many, by date", 429, testNow.Add(9 * time.Second).Format(http.TimeFormat), 1, 2, 9 * time.Second, "", ""},
		{"too many, in the past", 429, testNow.Add(-time.Hour).Format(http.TimeFormat), 1, 2, 0, "", ""},
		{"too many, unreadable", 429, "soon", 1, 2, 0, "", ""},
		{"too many, without a word", 429, "", 1, 2, 0, "", ""},
		{"too many, too long", 429, "21600", 1, 1, 0, "429 Too Many Requests", "try again in 6h0m0s"},
		{"too many, absurd", 429, "99999999999999999999999", 1, 1, 0, "429 Too Many Requests", "try again in 8760h0m0s"},
		{"always too many", 429, "1", 99, 5, 0, "429 Too Many Requests", "try again in 1s"},
		{"not ours to repeat", 404, "1", 1, 1, 0, "404 Not Found", "has the tag latest"},
		{"not implemented", 501, "", 1, 1, 0, "501 Not Implemented", "problem of its own"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, image, n := newWorld(t), makeImage(t, "amd64"), 0
			w.serve("registry.test:443", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "/manifests/") {
					if n++; n <= tt.times {
						if tt.retryAfter != "" {
							rw.Header().Set("Retry-After", tt.retryAfter)
						}
						rw.WriteHeader(tt.status)
						return
					}
				}
				tagged(image.manifest, image.desc.MediaType, image).ServeHTTP(rw, r)
			}))
			_, err := Registry(t.Context(), mustRef(t, "registry.test/app"), w.options())
			if tt.err != "" {
				e := wantError(t, err, tt.err)
				if !strings.Contains(e.Hint(), tt.hint) {
					t.Errorf("hint %q, want %q", e.Hint(), tt.hint)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if n != tt.requests {
				t.Errorf("%d requests, want %d", n, tt.requests)
			}
			slept := w.clock.sleeps()
			if tt.slept != 0 && (len(slept) != 1 || slept[0] != tt.slept) {
				t.Errorf("slept %v, want %v", slept, tt.slept)
			}
			for _, d := range slept {
				if d > longestRetryAfter {
					t.Errorf("slept %v", d)
				}
			}
		})
	}
}

// TestRetryConnection closes connections before an answer came.
func TestRetryConnection(t *testing.T) {
	for _, at := range []string{"/v2/", "/v2/app/manifests/latest"} {
		w, image, n := newWorld(t), makeImage(t, "amd64"), 0
		w.serve("localhost:5000", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if n++; r.URL.Path == at && n < 4 {
				panic(http.ErrAbortHandler)
			}
			tagged(image.manifest, image.desc.MediaType, image).ServeHTTP(rw, r)
		}))
		if _, err := Registry(t.Context(), mustRef(t, "localhost:5000/app"), w.options()); err != nil {
			t.Errorf("%s: %v", at, err)
		}
	}
}

func TestPause(t *testing.T) {
	for try, want := range map[int]time.Duration{1: firstPause, 2: 2 * firstPause, 4: 8 * firstPause, 5: longestPause, 1000: longestPause} {
		for range 100 {
			if got := pause(try); got < want*3/4 || got > want*5/4 {
				t.Fatalf("pause(%d) = %v, want about %v", try, got, want)
			}
		}
	}
}
