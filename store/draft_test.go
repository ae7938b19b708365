// SPDX-License-Identifier: Apache-2.0

package store

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"sbx/overlay"
	"sbx/reference"
	"sbx/userns"
)

// changedUpper does in a real overlay over the image what a program might, and returns
// what the overlay has kept. Owners are written as the rung has them.
func changedUpper(t testing.TB, s *Store, img Image) Changes {
	t.Helper()
	dirs, err := s.LayerDirs(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(dirs)
	at := filepath.Join(s.dir, "work-"+randomName())
	for _, d := range []string{"", "/upper", "/work", "/root"} {
		if err := os.Mkdir(at+d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	stamp := []unix.Timespec{{Sec: 1700000100, Nsec: 5}, {Sec: 1700000100, Nsec: 5}}
	p := &userns.Prog{}
	p.Call("mount", unix.SYS_MOUNT, "overlay", at+"/root", "overlay", 0, "lowerdir="+strings.Join(dirs, ":")+",upperdir="+at+"/upper,workdir="+at+"/work,userxattr")
	p.Call("chdir", unix.SYS_CHDIR, at+"/root")
	fd := p.Reg()
	create := func(name, data string, mode int) {
		p.Call("create "+name, unix.SYS_OPENAT, unix.AT_FDCWD, name, unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY|unix.O_CLOEXEC, mode).Into(fd)
		p.Call("write "+name, unix.SYS_WRITE, fd, []byte(data), len(data))
		p.Call("close "+name, unix.SYS_CLOSE, fd)
	}
	p.Call("umask", unix.SYS_UMASK, 0)
	create("etc/new", "new", 0o644)
	create("etc/passwd", "changed", 0o644)
	create("secret", "0000", 0)
	create("owned", "by 7:8", 0o600)
	p.Call("mkdir", unix.SYS_MKDIRAT, unix.AT_FDCWD, "made", 0o700)
	create("made/f", "f", 0o600)
	p.Call("link", unix.SYS_LINKAT, unix.AT_FDCWD, "made/f", unix.AT_FDCWD, "made/g", 0)
	p.Call("symlink", unix.SYS_SYMLINKAT, "f", unix.AT_FDCWD, "made/l")
	p.Call("unlink", unix.SYS_UNLINKAT, unix.AT_FDCWD, "bin/su", 0)
	p.Call("unlink", unix.SYS_UNLINKAT, unix.AT_FDCWD, "home/link", 0)
	p.Call("rmdir", unix.SYS_UNLINKAT, unix.AT_FDCWD, "home", unix.AT_REMOVEDIR)
	p.Call("mkdir again", unix.SYS_MKDIRAT, unix.AT_FDCWD, "home", 0o755)
	owned := func(name string) {
		if s.rung.IsMapped() {
			p.Call("chown "+name, unix.SYS_FCHOWNAT, unix.AT_FDCWD, name, 7, 8, 0)
			return
		}
		kind := "file:0600"
		if name == "made" {
			kind = "dir:0700"
		}
		k, mode, _ := strings.Cut(kind, ":")
		record := []byte("7:8:" + mode + ":" + k)
		p.Call("record "+name, unix.SYS_SETXATTR, name, overlay.RecordXattr, record, len(record), 0)
	}
	owned("owned")
	owned("made/f")
	owned("made")
	for _, name := range []string{"etc/new", "etc/passwd", "secret", "owned", "made/f", "made/l", "made", "home", "etc", "bin"} {
		p.Call("stamp "+name, unix.SYS_UTIMENSAT, unix.AT_FDCWD, name, bytesOf(stamp), unix.AT_SYMLINK_NOFOLLOW)
	}
	p.Exit(0)
	child, err := userns.Start(t.Context(), s.rung, unix.CLONE_NEWNS, p)
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Started(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ws, err := child.Wait(); err != nil || ws.ExitStatus() != 0 {
		t.Fatal(ws, err)
	}
	return Changes{Dir: at + "/upper", Lower: dirs}
}

func bytesOf(ts []unix.Timespec) []byte {
	var b []byte
	for _, t := range ts {
		for _, v := range []int64{int64(t.Sec), int64(t.Nsec)} {
			for i := range 8 {
				b = append(b, byte(v>>(8*i)))
			}
		}
	}
	return b
}

// A layer is the same bytes on every rung, becomes the unpacked layer without being
// unpacked, and an image made of it is one that can be removed.
func TestDraft(t *testing.T) {
	layers := map[string]Layer{}
	for _, r := range rungs(t) {
		t.Run(r.Name, func(t *testing.T) {
			needUserns(t)
			s := newStore(t, r)
			img := mustPull(t, s, alpine, source(t, base(t)))
			ch := changedUpper(t, s, img)
			d, err := s.NewDraft(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			kept, err := d.AddChanges(t.Context(), ch, LayerOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if s.isUnpacked(kept.DiffID) {
				t.Error("a directory that was to stay is the layer")
			}
			l, err := d.AddChanges(t.Context(), ch, LayerOptions{Consume: true})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(l, kept, sameDigest); d != "" {
				t.Error(d)
			}
			if _, err := os.Lstat(ch.Dir); err == nil || !s.isUnpacked(l.DiffID) {
				t.Errorf("the directory was not moved: %v", err)
			}
			if err := s.Collect(t.Context(), Roots{}); err != nil {
				t.Fatal(err)
			}
			created := time.Unix(1700000200, 0).UTC()
			config := img.Config
			config.Config.Cmd, config.Config.OnBuild = []string{"made"}, []string{"RUN true"}
			config.History = []ocispec.History{{Created: &created, CreatedBy: "a step"}}
			made, err := d.Commit(t.Context(), NewImage{Base: img, Layers: []Layer{l}, Config: config, Names: []string{"docker.io/library/made:1", "docker.io/library/made:2"}})
			if err != nil {
				t.Fatal(err)
			}
			d.Close()
			mustCheck(t, s)
			layers[r.Name] = l
			if len(made.Layers) != 2 || made.Size != img.Size+l.Bytes || made.Config.Config.OnBuild[0] != "RUN true" || len(made.Config.History) != 1 {
				t.Errorf("%+v", made)
			}
			if names, err := s.Names(made.ID); err != nil || len(names) != 2 {
				t.Errorf("%q, %v", names, err)
			}
			if err := s.Collect(t.Context(), Roots{}); err != nil {
				t.Fatal(err)
			}
			mustCheck(t, s)
			if _, err := s.LayerDirs(t.Context(), made); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Remove(t.Context(), made.ID, Roots{}); err != nil {
				t.Fatal(err)
			}
			if s.isUnpacked(l.DiffID) || !s.isUnpacked(img.Layers[0]) {
				t.Error("removing the image removed the wrong layers")
			}
			mustCheck(t, s)
			mustBeClean(t, s)
			if err := s.RemoveTree(context.Background(), filepath.Dir(ch.Dir)); err != nil {
				t.Error(err)
			}
		})
	}
	if single, mapped := layers["single"], layers["mapped"]; !mapped.DiffID.IsZero() {
		if d := cmp.Diff(single, mapped, sameDigest); d != "" {
			t.Errorf("the rungs make different layers: %s", d)
		}
	}
}

// The layer says what was done, file by file.
func TestDraftEntries(t *testing.T) {
	onRungs(t, "", func(t *testing.T, s *Store) {
		needUserns(t)
		img := mustPull(t, s, alpine, source(t, base(t)))
		ch := changedUpper(t, s, img)
		d, err := s.NewDraft(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		list, err := s.ListChanges(t.Context(), ch)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, c := range list {
			lines = append(lines, string(c.Kind)+" "+c.Path)
		}
		wantLines := []string{"C /bin", "D /bin/su", "C /etc", "A /etc/new", "C /etc/passwd", "C /home", "D /home/link", "A /made", "A /made/f", "A /made/g", "A /made/l", "A /owned", "A /secret"}
		if d := cmp.Diff(lines, wantLines); d != "" {
			t.Error(d)
		}
		l, err := d.AddChanges(t.Context(), ch, LayerOptions{Zstd: true, Epoch: time.Unix(1700000050, 0)})
		if err != nil {
			t.Fatal(err)
		}
		f, err := s.Blob(mustDigest(t, string(l.Blob.Digest)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		z, c, err := overlay.Decompress(f)
		if err != nil || c != overlay.Zstd {
			t.Fatal(c, err)
		}
		defer z.Close()
		var got []string
		for r := tar.NewReader(z); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if h.ModTime.Unix() > 1700000050 {
				t.Errorf("%s is of %v", h.Name, h.ModTime)
			}
			got = append(got, fmt.Sprintf("%c %s %04o %d:%d %d %s", h.Typeflag, h.Name, h.Mode, h.Uid, h.Gid, h.Size, h.Linkname))
		}
		want := []string{
			"5 bin/ 0755 0:0 0 ", "0 bin/.wh.su 0000 0:0 0 ",
			"5 etc/ 0711 0:5 0 ", "0 etc/new 0644 0:0 3 ", "0 etc/passwd 0644 0:0 7 ",
			"5 home/ 0755 0:0 0 ", "0 home/.wh.link 0000 0:0 0 ",
			"5 made/ 0700 7:8 0 ", "0 made/f 0600 7:8 1 ", "1 made/g 0600 7:8 0 made/f", "2 made/l 0777 0:0 0 f",
			"0 owned 0600 7:8 6 ", "0 secret 0000 0:0 4 ",
		}
		if d := cmp.Diff(got, want); d != "" {
			t.Error(d)
		}
		if err := s.RemoveTree(context.Background(), filepath.Dir(ch.Dir)); err != nil {
			t.Error(err)
		}
	})
}

// An image can be made of nothing, and of tars.
func TestDraftFromTars(t *testing.T) {
	onRungs(t, "", func(t *testing.T, s *Store) {
		d, err := s.NewDraft(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		bare, err := d.Commit(t.Context(), NewImage{Config: dockerspec.DockerOCIImage{}, Names: []string{"docker.io/library/bare:1"}})
		if err != nil || len(bare.Layers) != 0 || bare.Config.OS != "linux" {
			t.Errorf("%+v, %v", bare, err)
		}
		low, err := d.AddTar(t.Context(), bytes.NewReader(base(t)), nil, PullOptions{})
		if err != nil {
			t.Fatal(err)
		}
		high, err := d.AddTar(t.Context(), bytes.NewReader(gzipOf(t, second(t))), []reference.Digest{low.DiffID}, PullOptions{})
		if err != nil {
			t.Fatal(err)
		}
		img, err := d.Commit(t.Context(), NewImage{Layers: []Layer{low, high}})
		if err != nil || img.Name != "" {
			t.Fatalf("%+v, %v", img, err)
		}
		if whole, err := d.Keep(t.Context(), low); err != nil || !whole {
			t.Errorf("%v, %v", whole, err)
		}
		d.Close()
		mustCheck(t, s)
		if _, err := s.Remove(t.Context(), img.ID, Roots{}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Remove(t.Context(), bare.ID, Roots{}); err != nil {
			t.Fatal(err)
		}
		if left, _ := filepath.Glob(s.path(blobsDir, "sha256", "*")); len(left) > 0 {
			t.Errorf("left %q", left)
		}
	})
}

func TestTag(t *testing.T) {
	s := newStore(t, userns.SingleRung())
	img := mustPull(t, s, alpine, source(t, base(t)))
	other := mustPull(t, s, "docker.io/library/other:latest", source(t, base(t), second(t)))
	if err := s.Tag(t.Context(), alpine, "docker.io/library/mine:1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(t.Context(), img.ID.String(), other.Name); err != nil {
		t.Fatal(err)
	}
	names, err := s.Names(img.ID)
	if d := cmp.Diff(names, []string{alpine, "docker.io/library/mine:1", other.Name}); d != "" || err != nil {
		t.Error(d, err)
	}
	if names, err := s.Names(other.ID); len(names) != 0 || err != nil {
		t.Errorf("the other image has the names %q, %v", names, err)
	}
	if got, err := s.Image(other.ID.String()); err != nil || got.Name != "" {
		t.Errorf("%+v, %v", got, err)
	}
	if err := s.Tag(t.Context(), "docker.io/library/none:1", "docker.io/library/x:1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("error %v", err)
	}
	mustCheck(t, s)
}
