// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"context"
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sbx/overlay"
	"sbx/tests/need"
)

// trees are the root filesystems that the tests of this process have unpacked.
var trees = struct {
	sync.Mutex
	dirs   map[string]string
	owners map[string]overlay.Owners
}{dirs: map[string]string{}, owners: map[string]overlay.Owners{}}

func removeTrees() {
	for _, dir := range trees.dirs {
		parent, err := os.Open(filepath.Dir(dir))
		if err != nil {
			continue
		}
		overlay.RemoveAll(context.Background(), parent, filepath.Base(dir))
		parent.Close()
	}
}

// tree unpacks an image of SBX_TEST_IMAGES once; "" is a tree of nothing but the
// probe.
func tree(t testing.TB, image string) (string, overlay.Owners) {
	t.Helper()
	need.Need(t, need.Userns, need.Overlay)
	if image != "" {
		need.Need(t, need.Images)
	}
	trees.Lock()
	defer trees.Unlock()
	if dir, ok := trees.dirs[image]; ok {
		return filepath.Join(dir, "root"), trees.owners[image]
	}
	dir, err := os.MkdirTemp("", "fakeroot-")
	if err != nil {
		t.Fatal(err)
	}
	trees.dirs[image] = dir
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if image != "" {
		unpackImage(t, filepath.Join(os.Getenv("SBX_TEST_IMAGES"), image), root, image)
	}
	for _, name := range []string{"proc", "sys", "dev", "tmp", "mnt", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	install(t, self, filepath.Join(root, "probe"))
	if image == "" {
		for _, name := range libraries(t, self) {
			install(t, name, filepath.Join(root, name))
		}
	}
	return root, trees.owners[image]
}

func install(t testing.TB, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err = errors.Join(err, os.MkdirAll(filepath.Dir(to), 0o755)); err == nil {
		err = os.WriteFile(to, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// libraries are what the test binary needs where it is not static, as with -race
// and where cgo is on.
func libraries(t testing.TB, program string) []string {
	t.Helper()
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	interpreter := f.Section(".interp")
	if interpreter == nil {
		return nil
	}
	data, err := interpreter.Data()
	if err != nil {
		t.Fatal(err)
	}
	files := []string{strings.TrimRight(string(data), "\x00")}
	names, err := f.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		matches, _ := filepath.Glob("/lib*/*/" + name)
		more, _ := filepath.Glob("/lib*/" + name)
		if matches = append(matches, more...); len(matches) == 0 {
			t.Fatal("the test binary needs " + name + ", which is not found here: build it with CGO_ENABLED=0")
		}
		files = append(files, matches[0])
	}
	return files
}

func unpackImage(t testing.TB, file, root, image string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, _, err := overlay.Decompress(f)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	dst, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	result, err := overlay.Unpack(t.Context(), dst, r, overlay.UnpackOptions{Recorded: true})
	if err != nil {
		t.Fatal(err)
	}
	trees.owners[image] = result.Owners
}

const (
	debian  = "debian-bookworm-slim-amd64-rootfs.tar.gz"
	busybox = "busybox-musl-amd64-rootfs.tar.gz"
)
