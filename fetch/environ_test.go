// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// pullVariable makes the test binary a program that pulls the image it names, with no
// hooks at all.
const pullVariable = "SBX_FETCH_TEST_PULL"

// TestEnvironment pulls in a process of its own: Go reads proxies and authorities from
// the environment once.
func TestEnvironment(t *testing.T) {
	if ref := os.Getenv(pullVariable); ref != "" {
		if _, err := Registry(t.Context(), mustRef(t, ref), Options{}); err != nil {
			t.Fatal(err)
		}
		return
	}
	w, image := newWorld(t), makeImage(t, "amd64")
	w.serve("registry.test:443", tagged(image.manifest, image.desc.MediaType, image))
	w.serve("127.0.0.1:5000", tagged(image.manifest, image.desc.MediaType, image))
	proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != "registry.test:443" {
			rw.WriteHeader(http.StatusForbidden)
			return
		}
		there, err := net.Dial("tcp", w.at["registry.test:443"])
		if err != nil {
			t.Error(err)
			return
		}
		rw.WriteHeader(http.StatusOK)
		here, buffered, err := rw.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		go func() { _, _ = io.Copy(there, buffered); there.Close() }()
		go func() { _, _ = io.Copy(here, there); here.Close() }()
	}))
	defer proxy.Close()
	authority := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.cert.Certificate[0]})
	if err := os.WriteFile(authority, block, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, ref string
		env       []string
		err       string
	}{
		{"proxy and authority", "registry.test/app", []string{"HTTPS_PROXY=" + proxy.URL, "SSL_CERT_FILE=" + authority}, ""},
		{"lower case", "registry.test/app", []string{"https_proxy=" + proxy.URL, "SSL_CERT_FILE=" + authority}, ""},
		{"no authority", "registry.test/app", []string{"HTTPS_PROXY=" + proxy.URL}, "unknown authority"},
		{"refused by the proxy", "other.test/app", []string{"HTTPS_PROXY=" + proxy.URL, "SSL_CERT_FILE=" + authority}, "Forbidden"},
		{"never for this machine", w.at["127.0.0.1:5000"] + "/app", []string{"HTTP_PROXY=" + proxy.URL, "HTTPS_PROXY=" + proxy.URL}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestEnvironment$")
			for _, v := range os.Environ() {
				if name, _, _ := strings.Cut(strings.ToLower(v), "="); !strings.HasSuffix(name, "_proxy") && !strings.HasPrefix(name, "ssl_cert") {
					cmd.Env = append(cmd.Env, v)
				}
			}
			cmd.Env = append(append(cmd.Env, tt.env...), fmt.Sprintf("%s=%s", pullVariable, tt.ref))
			out, err := cmd.CombinedOutput()
			if (err == nil) != (tt.err == "") || !strings.Contains(string(out), tt.err) {
				t.Errorf("%v, want %q:\n%s", err, tt.err, out)
			}
		})
	}
}
