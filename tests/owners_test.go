// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sbx/tests/need"
)

// TestOwnersAlike has the same commands change owners on each rung: what they see
// of it and the layer that is made of it must be the same. With SBX_TEST_ARTIFACTS
// both are left, to be compared with what another user and real root see.
func TestOwnersAlike(t *testing.T) {
	need.Need(t, need.Userns, need.Images)
	for name, image := range map[string]string{"alpine": need.Alpine, "debian": need.Debian} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen, layer := map[string]string{}, map[string]string{}
			for _, rung := range []string{"single", "mapped"} {
				t.Run(rung, func(t *testing.T) {
					needRung(t, rung)
					seen[rung], layer[rung] = ownersOn(t, rung, name, filepath.Join(os.Getenv("SBX_TEST_IMAGES"), image))
					leaveArtifact(t, rung, "owners-"+name, []byte(seen[rung]))
					leaveArtifact(t, rung, "owners-"+name+"-layer", []byte(layer[rung]))
				})
			}
			if len(seen) < 2 {
				return
			}
			for what, on := range map[string]map[string]string{"inside": seen, "in the layer": layer} {
				if diff := cmp.Diff(strings.Split(on["mapped"], "\n"), strings.Split(on["single"], "\n")); diff != "" {
					t.Errorf("%s (-mapped +single):\n%s", what, diff)
				}
			}
		})
	}
}

// ownersOn runs owners/NAME.sh on an image, makes an image of that, and returns what
// a container of it shows and what its last layer holds.
func ownersOn(t *testing.T, rung, name, image string) (seen, layer string) {
	t.Helper()
	home := filepath.Join(t.TempDir(), "store")
	t.Cleanup(func() { removeTree(home) })
	script := func(name string) string {
		data, err := os.ReadFile(filepath.Join("owners", name+".sh"))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	sbx := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), sbxBinary, args...)
		cmd.Env = append(os.Environ(), "SBX_HOME="+home, "SBX_RUNG="+rung)
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("sbx %.100q: %v\n%s", args, err, said.String())
		}
		return string(out)
	}
	sbx("run", "-q", "--network", "none", "--name", "changed", image, "sh", "-c", script(name))
	sbx("commit", "changed", "changed")
	seen = sbx("run", "--rm", "--network", "none", "changed", "sh", "-c", script("list"))
	archive := filepath.Join(t.TempDir(), "image.tar")
	sbx("save", "-o", archive, "changed")
	nodes, err := archivedNodes(bytes.NewReader(lastLayer(t, archive)))
	if err != nil {
		t.Fatal(err)
	}
	return seen, listing(nodes)
}

// lastLayer is the tar of the last layer of an archive that `save` wrote.
func lastLayer(t *testing.T, archive string) []byte {
	t.Helper()
	members := tarMembers(t, archive)
	var manifest []struct{ Layers []string }
	if err := json.Unmarshal(members["manifest.json"], &manifest); err != nil || len(manifest) != 1 || len(manifest[0].Layers) == 0 {
		t.Fatalf("%s: %v", members["manifest.json"], err)
	}
	names := manifest[0].Layers
	r, err := gzip.NewReader(bytes.NewReader(members[names[len(names)-1]]))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// tarMembers are the plain files of a tar.
func tarMembers(t *testing.T, archive string) map[string][]byte {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	members := map[string][]byte{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return members
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if members[h.Name], err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
	}
}
