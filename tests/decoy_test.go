// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// A decoy is a tree that nothing may touch: everything that can be known of its
// files is looked at before and after. The time of change betrays what sets all
// else back.
type decoy struct{ dir string }

func newDecoy(t *testing.T) decoy {
	t.Helper()
	d := decoy{filepath.Join(t.TempDir(), "decoy")}
	in := func(name string) string { return filepath.Join(d.dir, name) }
	for _, err := range []error{
		os.MkdirAll(in("sub/deep"), 0o750), os.Mkdir(in(".ssh"), 0o700),
		os.WriteFile(in("secret"), []byte("secret"), 0o640), os.WriteFile(in(".ssh/id"), []byte("key"), 0o600), os.WriteFile(in("sub/program"), nil, 0o755),
		os.Symlink("secret", in("link")), unix.Mkfifo(in("pipe"), 0o600), os.Link(in("secret"), in("hard")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	_ = unix.Setxattr(in("secret"), "user.mark", []byte("1"), 0) // where the filesystem has them
	return d
}

// look describes every file, and the directory that the decoy is in.
func (d decoy) look(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(filepath.Dir(d.dir), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		text := fmt.Sprintf("%o %d:%d %d links %d %d changed %d.%09d", st.Mode, st.Uid, st.Gid, st.Size, st.Nlink, st.Ino, st.Ctim.Sec, st.Ctim.Nsec)
		switch {
		case e.Type().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %x", sha256.Sum256(data))
		case e.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += " -> " + to
		}
		names := make([]byte, 4096)
		if n, err := unix.Llistxattr(path, names); err == nil {
			text += " " + string(names[:n])
		}
		all[path] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestDecoy has the oracle see what an extractor does that follows whatever it
// meets; one that saw nothing would prove nothing.
func TestDecoy(t *testing.T) {
	seen, tried := 0, 60
	for i := range tried {
		d := newDecoy(t)
		before := d.look(t)
		root := filepath.Join(t.TempDir(), "root")
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		extractNaively(root, layerOfNumber(i, d.dir))
		if cmp.Diff(before, d.look(t)) != "" {
			seen++
		}
	}
	t.Logf("%d of %d layers got out", seen, tried)
	if seen < tried/10 {
		t.Errorf("only %d of %d hostile layers got out of an extractor that follows everything", seen, tried)
	}
}

// extractNaively is how not to do it: names are joined, links are followed.
func extractNaively(root string, layer []byte) {
	for r := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := r.Next()
		if err != nil {
			return
		}
		path := root + "/" + h.Name
		if strings.HasPrefix(h.Name, "/") {
			path = h.Name
		}
		switch h.Typeflag {
		case tar.TypeReg:
			if base, ok := strings.CutPrefix(filepath.Base(path), ".wh."); ok {
				_ = os.Remove(filepath.Dir(path) + "/" + base)
				continue
			}
			if f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|unix.O_NONBLOCK, 0o644); err == nil {
				_, _ = io.Copy(f, r)
				f.Close()
			}
		case tar.TypeDir:
			_ = os.Mkdir(path, 0o755)
			_ = unix.Chmod(path, uint32(h.Mode&0o777))
		case tar.TypeSymlink:
			_ = os.Remove(path)
			_ = os.Symlink(h.Linkname, path)
		case tar.TypeLink:
			from := root + "/" + h.Linkname
			if strings.HasPrefix(h.Linkname, "/") {
				from = h.Linkname
			}
			_ = os.Link(from, path)
		case tar.TypeFifo:
			_ = unix.Mkfifo(path, 0o600)
		}
	}
}
