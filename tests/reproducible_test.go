// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sbx/tests/need"
)

// reproducedFile has every kind of step that is as deterministic as its programs are.
const reproducedFile = `FROM scratch AS base
ADD alpine.tar.gz /
FROM base AS made
WORKDIR /srv
COPY --chown=7:8 --chmod=640 files /srv/files
RUN adduser -D ann && mkdir -p made/b made/a && touch made/b/x && chown -R ann:ann made && chmod 4755 made/b/x && ln -s x made/b/l && mkfifo made/p
FROM base
COPY --from=made /srv /srv
COPY --from=made /etc/passwd /etc/group /etc/
ENV A=b
CMD ["true"]
`

// TestReproducible builds one context with SOURCE_DATE_EPOCH: with other times of its
// files, another name of its directory, in a new store, on another rung, it is the same
// image. With SBX_TEST_ARTIFACTS it leaves the digest: users can then be compared.
func TestReproducible(t *testing.T) {
	need.Need(t, need.Userns, need.Images)
	var first string
	for _, rung := range []string{"single", "mapped"} {
		t.Run(rung, func(t *testing.T) {
			needRung(t, rung)
			for n, age := range []time.Duration{0, 48 * time.Hour} {
				got := reproduce(t, rung, age)
				if first == "" {
					first = got
				}
				if got != first {
					t.Errorf("build %d is %s, the first was %s", n, got, first)
				}
			}
			leaveArtifact(t, rung, "reproducible", []byte(first+"\n"))
		})
	}
}

// reproduce builds the context, with files that are so old, and returns the digest of the
// image's manifest.
func reproduce(t *testing.T, rung string, age time.Duration) string {
	t.Helper()
	dir := t.TempDir()
	context, home := filepath.Join(dir, "context"), filepath.Join(dir, "store")
	t.Cleanup(func() { removeTree(home) })
	if err := os.MkdirAll(filepath.Join(context, "files", "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	alpine, err := os.ReadFile(filepath.Join(os.Getenv("SBX_TEST_IMAGES"), need.Alpine))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"Dockerfile": []byte(reproducedFile), "alpine.tar.gz": alpine, "files/b": []byte("b"), "files/a": []byte("a"), "files/deep/c": []byte("c")} {
		at := filepath.Join(context, name)
		when := time.Now().Add(-age)
		if err := os.WriteFile(at, data, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(at, when, when); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		cmd := exec.Command(sbxBinary, args...)
		cmd.Env = append(os.Environ(), "SBX_HOME="+home, "SBX_RUNG="+rung, "SOURCE_DATE_EPOCH=1700000000")
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("sbx %s: %v\n%s", strings.Join(args, " "), err, said.String())
		}
		return strings.TrimSpace(string(out))
	}
	run("build", "-q", "--network", "none", "-t", "reproduced", context)
	return run("inspect", "--format", "{{.Descriptor.Digest}}", "reproduced")
}
