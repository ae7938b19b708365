// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/txtar"

	"sbx/tests/need"
)

// TestBuildPeers builds each context of tests/build on both rungs and by podman, and
// compares what came of it: the configuration, and the tree with owners and modes.
func TestBuildPeers(t *testing.T) {
	need.Need(t, need.Userns, need.Subids, need.Images, need.Peers)
	files, err := filepath.Glob("build/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no contexts in tests/build", err)
	}
	work := t.TempDir()
	t.Cleanup(func() { removeTree(work) })
	if err := os.Mkdir(filepath.Join(work, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	p := &peers{work: work}
	t.Cleanup(p.end)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		t.Run(name, func(t *testing.T) {
			dir, args := unpackContext(t, file)
			want := p.podman(t, name, dir, args)
			for _, rung := range []string{"single", "mapped"} {
				got := p.sbx(t, name, rung, dir, args)
				if diff := cmp.Diff(want.config, got.config, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("configuration on %s (-podman +sbx):\n%s", rung, diff)
				}
				if diff := cmp.Diff(want.tree, got.tree); diff != "" {
					t.Errorf("tree on %s (-podman +sbx):\n%s", rung, diff)
				}
			}
		})
	}
}

// unpackContext writes the files of an archive, and beside them Alpine's tarball and
// dir.tar, a tar of dir. A file called podman has flags for the build, a line each.
func unpackContext(t *testing.T, file string) (dir string, args []string) {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for _, f := range archive.Files {
		if f.Name == "podman" {
			args = strings.Fields(string(f.Data))
			continue
		}
		at := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "dir")); err == nil {
		if err := os.Symlink("inner/deep", filepath.Join(dir, "dir", "link")); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, "dir", "inner"), 0o750); err != nil {
			t.Fatal(err)
		}
		output(t, nil, "tar", "-C", dir, "--owner=5", "--group=6", "-cf", filepath.Join(dir, "dir.tar"), "dir")
	}
	data, err := os.ReadFile(filepath.Join(os.Getenv("SBX_TEST_IMAGES"), need.Alpine))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "alpine.tar.gz"), data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir, args
}

// peers builds into stores below one directory.
type peers struct{ work string }

// built is what can be said of an image without its times, digests and history.
type built struct {
	config dockerspec.DockerOCIImageConfig
	tree   string
}

func (p *peers) sbx(t *testing.T, name, rung, dir string, args []string) built {
	t.Helper()
	archive := filepath.Join(p.work, name+"-"+rung+".tar")
	env := []string{"SBX_HOME=" + filepath.Join(p.work, "store-"+rung), "SBX_RUNG=" + rung}
	output(t, env, sbxBinary, slices.Concat([]string{"build", "-q", "-o", "type=docker,dest=" + archive, "-t", "peer"}, args, []string{dir})...)
	return readBuilt(t, archive)
}

func (p *peers) env() []string { return []string{"XDG_RUNTIME_DIR=" + filepath.Join(p.work, "run")} }

func (p *peers) base(args ...string) []string {
	return append([]string{"--root", filepath.Join(p.work, "podman"), "--cgroup-manager", "cgroupfs"}, args...)
}

// podman builds in Docker's format: the other one has no health checks.
func (p *peers) podman(t *testing.T, name, dir string, args []string) built {
	t.Helper()
	archive := filepath.Join(p.work, name+"-podman.tar")
	output(t, p.env(), "podman", p.base(slices.Concat([]string{"build", "-q", "--format", "docker", "--layers=false", "--isolation", "chroot", "-t", "peer"}, args, []string{dir})...)...)
	output(t, p.env(), "podman", p.base("save", "-q", "--format", "docker-archive", "-o", archive, "peer")...)
	return readBuilt(t, archive)
}

// end removes what subordinate IDs own, and ends the process that podman leaves.
func (p *peers) end() {
	remove := exec.Command("podman", p.base("unshare", "rm", "-rf", filepath.Join(p.work, "podman"))...)
	remove.Env = append(os.Environ(), p.env()...)
	_ = remove.Run()
	data, err := os.ReadFile(filepath.Join(p.work, "run", "libpod", "tmp", "pause.pid"))
	if err != nil {
		return
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && pid > 1 {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
}

// output runs a program, whose failure is the test's.
func output(t *testing.T, env []string, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), env...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", program, args, err, said.String())
	}
	return string(out)
}

func readBuilt(t *testing.T, archive string) built {
	t.Helper()
	image, err := tarball.ImageFromPath(archive, nil)
	if err != nil {
		t.Fatal(err)
	}
	data, err := image.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	var config dockerspec.DockerOCIImage
	if err := json.Unmarshal(data, &config); err != nil {
		t.Fatal(err)
	}
	c := config.Config
	for label := range c.Labels {
		if strings.HasPrefix(label, "io.buildah.") {
			delete(c.Labels, label)
		}
	}
	c.ArgsEscaped = false //nolint:staticcheck // Docker writes it, podman does not
	if c.WorkingDir == "" {
		c.WorkingDir = "/"
	}
	slices.Sort(c.Env)
	tree := mutate.Extract(image)
	defer tree.Close()
	nodes, err := archivedNodes(tree)
	if err != nil {
		t.Fatal(err)
	}
	delete(nodes, ".")
	delete(nodes, "etc/resolv.conf") // which podman leaves, empty
	return built{c, listing(nodes)}
}
