// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"testing"

	"sbx/tests/need"
)

// Another program can read the store: it is an OCI image layout.
func TestSkopeo(t *testing.T) {
	need.Need(t, need.Peers)
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t, rungs(t)[0])
	img := mustPull(t, s, alpine, source(t, base(t), second(t)))
	// Old versions of skopeo do not look at Docker's manifests in a layout; such an entry
	// must not keep them from the others.
	docker := source(t, base(t))
	docker.setManifest(bytes.ReplaceAll(bytes.ReplaceAll(docker.manifest,
		[]byte("application/vnd.oci.image.manifest.v1+json"), []byte(dockerManifest)),
		[]byte("application/vnd.oci.image.config.v1+json"), []byte(dockerConfig)))
	docker.desc.MediaType = dockerManifest
	mustPull(t, s, "localhost:5000/a/b:v1", docker)
	imported, err := s.Import(t.Context(), "base.sbx/debian:12", Rootfs{Reader: bytes.NewReader(xzOf(t, base(t)))}, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{alpine: string(img.Manifest.Digest), "base.sbx/debian:12": string(imported.Manifest.Digest)} {
		out, err := exec.Command(skopeo, "inspect", "oci:"+s.dir+":"+name).Output()
		if err != nil {
			t.Fatalf("%s: %v: %s", name, err, err.(*exec.ExitError).Stderr)
		}
		var got struct{ Digest string }
		if err := json.Unmarshal(out, &got); err != nil || got.Digest != want {
			t.Errorf("%s: %s, %v; want %s", name, got.Digest, err, want)
		}
		// A copy reads and verifies every blob.
		if out, err := exec.Command(skopeo, "--insecure-policy", "copy", "oci:"+s.dir+":"+name, "dir:"+t.TempDir()).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}
