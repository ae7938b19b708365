// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sbx/tests/need"
)

// hostileLayer has everything that a rung must remember because its disk cannot.
const hostileLayer = `
dir 0755 0:0 ./
dir 0000 0:0 shut/
dir 0555 42:42 shut/inner/
file 0000 7:7 shut/inner/file text
file 4755 0:42 setuid x
file 2755 0:8 setgid x @security.capability="\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
file 0640 65534:65534 nobody y
dir 1777 0:0 sticky/
symlink 0777 12:34 link nobody
link 0640 0:0 hard nobody
fifo 0620 1:5 pipe
char 0666 0:0 null 1:3
block 0660 0:6 disk 8:0
`

// TestRecords unpacks images on each rung and holds what was recorded of owners,
// modes and kinds against the archive. With SBX_TEST_ARTIFACTS it also leaves
// its findings there: what two users recorded can then be compared.
func TestRecords(t *testing.T) {
	for _, rung := range []string{"single", "mapped"} {
		t.Run(rung, func(t *testing.T) {
			needRung(t, rung)
			t.Run("hostile", func(t *testing.T) {
				data, err := layerTar(hostileLayer)
				if err != nil {
					t.Fatal(err)
				}
				file := filepath.Join(t.TempDir(), "hostile.tar")
				if err := os.WriteFile(file, data, 0o644); err != nil {
					t.Fatal(err)
				}
				checkRecords(t, rung, "hostile", file, bytes.NewReader(data))
			})
			for _, name := range []string{need.Alpine, need.Debian} {
				t.Run(name, func(t *testing.T) {
					need.Need(t, need.Images)
					file := filepath.Join(os.Getenv("SBX_TEST_IMAGES"), name)
					f, err := os.Open(file)
					if err != nil {
						t.Fatal(err)
					}
					defer f.Close()
					r, err := gzip.NewReader(f)
					if err != nil {
						t.Fatal(err)
					}
					checkRecords(t, rung, name, file, r)
				})
			}
		})
	}
}

func checkRecords(t *testing.T, rung, name, file string, archive io.Reader) {
	t.Helper()
	want, err := archivedNodes(archive)
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(t.TempDir(), "store")
	t.Cleanup(func() { removeTree(home) })
	run := func(args ...string) string {
		cmd := exec.Command(sbxBinary, args...)
		cmd.Env = append(os.Environ(), "SBX_HOME="+home, "SBX_RUNG="+rung)
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("sbx %s: %v\n%s", strings.Join(args, " "), err, said.String())
		}
		return string(out)
	}
	run("pull", "-q", file)
	record := json.RawMessage(run("inspect", file))
	layers, err := filepath.Glob(filepath.Join(home, "layers", rung+"*", "*", "root"))
	if err != nil || len(layers) != 1 {
		t.Fatalf("layers %v, %v; want one", layers, err)
	}
	layer := filepath.Dir(layers[0])
	var got []byte
	if rung == "mapped" {
		got, err = need.Mapped("layertree", layer)
	} else {
		// In a namespace of his own the user may read the records of files that
		// nobody else may read.
		got, err = exec.Command("unshare", "-Ur", "layertree", layer).Output()
	}
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(listing(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
		t.Errorf("the layer's files differ from the archive's (-archive +layer):\n%s", diff)
	}
	leaveArtifact(t, rung, name, append(identityOf(t, record), got...))
}

// identityOf is what may not depend on the rung of an image's record.
func identityOf(t *testing.T, record json.RawMessage) []byte {
	t.Helper()
	var images []struct {
		ID     string `json:"Id"`
		RootFS struct{ Layers []string }
	}
	if err := json.Unmarshal(record, &images); err != nil || len(images) != 1 {
		t.Fatalf("inspect %s: %v", record, err)
	}
	return fmt.Appendf(nil, "image %s\nlayers %s\n", images[0].ID, strings.Join(images[0].RootFS.Layers, " "))
}

// leaveArtifact writes what may not depend on the rung, nor on the user.
func leaveArtifact(t *testing.T, rung, name string, text []byte) {
	t.Helper()
	dir := os.Getenv("SBX_TEST_ARTIFACTS")
	if dir == "" {
		return
	}
	if err := os.MkdirAll(filepath.Join(dir, rung), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, rung, name+".txt"), text, 0o644); err != nil {
		t.Fatal(err)
	}
}
