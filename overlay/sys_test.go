// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOpenat2WhileOthersRename resolves a path with ".." while names change elsewhere,
// for which the kernel refuses to say where it led (EAGAIN).
func TestOpenat2WhileOthersRename(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	for _, name := range []string{filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(elsewhere, "one")} {
		if err := os.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		one, two := filepath.Join(elsewhere, "one"), filepath.Join(elsewhere, "two")
		for {
			select {
			case <-stop:
				return
			default:
				_ = os.Rename(one, two)
				one, two = two, one
			}
		}
	}()
	defer func() { close(stop); <-done }()
	for i := range 100_000 {
		fd, err := Openat2(root, "a/../b/../a/../b", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
		if err == unix.ENOSYS || err == unix.EPERM {
			return // an older kernel, or a filter: there is nothing to be called again
		}
		if err != nil {
			t.Fatalf("try %d: %v", i, err)
		}
		unix.Close(fd)
	}
}
