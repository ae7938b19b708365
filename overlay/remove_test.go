// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sbx/tests/need"
)

func removeIn(ctx context.Context, t testing.TB, base, name string) error {
	t.Helper()
	dir, err := os.Open(base)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	return RemoveAll(ctx, dir, name)
}

// A container's monitor and a command may remove the same tree: both find it gone.
func TestRemoveAllTogether(t *testing.T) {
	base := tempDir(t)
	for range 20 {
		for i := range 300 {
			if err := os.MkdirAll(filepath.Join(base, "tree", fmt.Sprint(i%30), fmt.Sprint(i), "in"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		other := make(chan error)
		go func() { other <- removeIn(t.Context(), t, base, "tree") }()
		if err := errors.Join(removeIn(t.Context(), t, base, "tree"), <-other); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(names(t, base), []string(nil)); diff != "" {
			t.Fatal(diff)
		}
	}
}

func TestRemoveAll(t *testing.T) {
	base := layerDir(t,
		dir("keep"), file("keep/f", "x"), dir("tree"), dir("tree/shut"), dir("tree/shut/in"), file("tree/shut/in/f", ""), dir("tree/read"), file("tree/read/f", ""),
		sym("tree/out", "../keep"), sym("tree/host", "/"), fifo("tree/p"), hard("tree/hard", "keep/f"), file("file", ""), sym("link", "keep"), dir("empty"), file("tree/.wh.white", ""))
	for i := range 3000 {
		if err := os.WriteFile(filepath.Join(base, "tree/shut/in", fmt.Sprint(i)), nil, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"tree/shut/in", "tree/shut", "tree/read"} {
		m := os.FileMode(0)
		if name == "tree/read" {
			m = 0o555
		}
		if err := os.Chmod(filepath.Join(base, name), m); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"tree", "file", "link", "empty", "missing"} {
		if err := removeIn(t.Context(), t, base, name); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(names(t, base), []string{"keep", "keep/f"}); diff != "" {
		t.Error(diff)
	}
	for _, name := range []string{"", ".", "..", "keep/f", "/"} {
		if err := removeIn(t.Context(), t, base, name); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%q: error %v", name, err)
		}
	}
}

// A tree far deeper than there are descriptors and longer than any path (U21).
func TestRemoveAllDeep(t *testing.T) {
	if fi, err := os.Stat("/dev/shm"); err == nil && fi.Mode().Perm()&0o002 != 0 {
		t.Setenv("TMPDIR", "/dev/shm") // a disk takes a minute to make the tree
	}
	for _, stepwise := range []bool{false, true} {
		base, depth := tempDir(t), 100_000
		if stepwise || testing.Short() {
			depth = 5000
		}
		buildDeep(t, base, depth)
		fd, err := unix.Open(base, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		var old unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Fatal(err)
		}
		few := old
		few.Cur = 128
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
			t.Fatal(err)
		}
		err = removeTree(t.Context(), fd, "d", &opener{stepwise: stepwise})
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		if err != nil {
			t.Fatal(err)
		}
		if list := names(t, base); len(list) > 0 {
			t.Errorf("left: %v", list)
		}
	}
}

// buildDeep makes depth directories in each other, each with a file beside.
func buildDeep(t testing.TB, base string, depth int) {
	t.Helper()
	fd, err := unix.Open(base, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range depth {
		if err := unix.Mkdirat(fd, "d", 0o755); err != nil {
			t.Fatal(err)
		}
		if i%10 == 0 {
			for _, name := range []string{"a", "z"} {
				if err := unix.Mkdirat(fd, name, 0o755); err != nil && err != unix.EEXIST {
					t.Fatal(err)
				}
			}
		}
		if i == 0 {
			_ = unix.Unlinkat(fd, "a", unix.AT_REMOVEDIR)
			_ = unix.Unlinkat(fd, "z", unix.AT_REMOVEDIR)
		}
		next, err := openat(fd, "d", openDir, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
}

func TestRemoveAllCancelled(t *testing.T) {
	base := layerDir(t, dir("d"), file("d/f", ""))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := removeIn(ctx, t, base, "d"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// inNamespace runs this test again as root of a user and mount namespace, and
// reports whether this is that run.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const mark = "SBX_OVERLAY_INNER"
	if os.Getenv(mark) == t.Name() {
		return true
	}
	need.Need(t, need.Overlay)
	out, ok := run(t, "env", mark+"="+t.Name(), "unshare", "-Urm", os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	if !ok || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in the namespace:\n%s", out)
	}
	return false
}

// What is mounted in the tree is not entered, whatever kind of mount it is.
func TestRemoveAllStopsAtMounts(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for _, stepwise := range []bool{false, true} {
		base := layerDir(t, dir("keep"), file("keep/f", ""), dir("tree"), dir("tree/bind"), dir("tree/tmpfs"), file("tree/file", ""))
		bind, tmp, file := filepath.Join(base, "tree/bind"), filepath.Join(base, "tree/tmpfs"), filepath.Join(base, "tree/file")
		if err := errors.Join(unix.Mount(filepath.Join(base, "keep"), bind, "", unix.MS_BIND, ""), unix.Mount("none", tmp, "tmpfs", 0, ""),
			unix.Mount(filepath.Join(base, "keep/f"), file, "", unix.MS_BIND, ""), os.WriteFile(filepath.Join(tmp, "f"), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		for _, mounted := range []string{bind, tmp, file} {
			fd, err := unix.Open(base, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err = removeTree(t.Context(), fd, "tree", &opener{stepwise: stepwise}); !errors.Is(err, errMount) {
				t.Errorf("stepwise %v: error %v, want that something is mounted", stepwise, err)
			}
			unix.Close(fd)
			if _, err := os.Lstat(filepath.Join(base, "keep/f")); err != nil {
				t.Fatal(err)
			}
			if mounted == bind {
				if _, err := os.Lstat(filepath.Join(tmp, "f")); err != nil {
					t.Fatal(err)
				}
			}
			if err := unix.Unmount(mounted, 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := removeIn(t.Context(), t, base, "tree"); err != nil {
			t.Error(err)
		}
	}
}

// A file that NFS keeps because a program runs from it cannot be removed before
// the program ends. A mount refuses in the same way.
func TestRemoveAllInUse(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	base := layerDir(t, dir("tree"), file("tree/.nfs0001", ""))
	kept := filepath.Join(base, "tree/.nfs0001")
	if err := unix.Mount(kept, kept, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := removeIn(t.Context(), t, base, "tree"); !errors.Is(err, ErrInUse) {
		t.Errorf("error %v, want that it is in use", err)
	}
	if err := errors.Join(unix.Unmount(kept, 0), removeIn(t.Context(), t, base, "tree")); err != nil {
		t.Error(err)
	}
}

// overlayfs leaves a directory of mode 000 in its work directory. Its owner can
// remove it, as the plain user.
func TestRemoveAllOverlayWork(t *testing.T) {
	need.Need(t, need.Overlay)
	base := tempDir(t)
	script := "set -e; cd '" + base + "'; mkdir -p c/lower c/upper c/work m; echo x >c/lower/f; mkdir c/lower/d;" +
		"mount -t overlay -o userxattr,lowerdir=c/lower,upperdir=c/upper,workdir=c/work none m;" +
		"rm m/f; rmdir m/d; mkdir m/d; chmod 0 m/d; umount m"
	if _, ok := run(t, "unshare", "-Urm", "sh", "-c", script); !ok {
		t.Fatal("unshare is part of the overlay need")
	}
	if fi, err := os.Lstat(filepath.Join(base, "c/work/work")); err != nil || fi.Mode().Perm() != 0 {
		t.Fatalf("overlayfs left %v, %v", fi, err)
	}
	if err := removeIn(t.Context(), t, base, "c"); err != nil {
		t.Error(err)
	}
}
