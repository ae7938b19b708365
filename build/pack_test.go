// SPDX-License-Identifier: Apache-2.0

package build

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// makeTree makes files of a description: "dir/", "file=content", "link->target",
// "name|fifo", "name|sock"; a name may have a mode, "0600 name=..".
func makeTree(t testing.TB, files ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, f := range files {
		mode := os.FileMode(0)
		if m, rest, ok := strings.Cut(f, " "); ok && strings.Trim(m, "01234567") == "" {
			n := 0
			fmt.Sscanf(m, "%o", &n)
			mode, f = os.FileMode(n), rest
		}
		var err error
		name, content, isFile := strings.Cut(f, "=")
		link, target, isLink := strings.Cut(f, "->")
		special, kind, isSpecial := strings.Cut(f, "|")
		at := filepath.Join(root, name)
		switch {
		case isLink:
			at = filepath.Join(root, link)
			err = os.Symlink(target, at)
		case isSpecial && kind == "fifo":
			at = filepath.Join(root, special)
			err = unix.Mkfifo(at, 0o644)
		case isSpecial:
			at = filepath.Join(root, special)
			err = unix.Mknod(at, unix.S_IFSOCK|0o644, 0)
		case strings.HasSuffix(f, "/"):
			err = os.MkdirAll(at, 0o755)
		case isFile:
			if err = os.MkdirAll(filepath.Dir(at), 0o755); err == nil {
				err = os.WriteFile(at, []byte(content), 0o644)
			}
		}
		if err == nil && mode != 0 {
			err = os.Chmod(at, mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func packed(t testing.TB, job packJob) (string, error) {
	t.Helper()
	var b bytes.Buffer
	if err := pack(t.Context(), &b, &job); err != nil {
		return "", err
	}
	var out strings.Builder
	r := tar.NewReader(&b)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out.String(), nil
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%c %04o %d:%d %s", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Name)
		if h.Linkname != "" {
			out.WriteString(" -> " + h.Linkname)
		}
		if data, _ := io.ReadAll(r); len(data) > 0 {
			out.WriteString(" " + string(data))
		}
		out.WriteString("\n")
	}
}

func TestPack(t *testing.T) {
	context := makeTree(t, "a.txt=A", "b.txt=B", "0755 run.sh=#!", "dir/one=1", "dir/sub/two=2", "dir/sub/skip.tmp=x", "empty/",
		"link->a.txt", "dlink->dir", "out->/etc/passwd", "dir/inner->../a.txt", "weird\nname=w", "pipe|fifo", "sock|sock", "s p/f=f")
	if err := os.Link(filepath.Join(context, "a.txt"), filepath.Join(context, "hard")); err != nil {
		t.Fatal(err)
	}
	image := makeTree(t, "usr/lib/l=1", "lib->usr/lib", "etc/passwd=root", "bin/tool=t", "app/", "abs->/usr", "d/f/x=1", "file=x", "loop->loop")
	table := []struct {
		name    string
		sources []string
		dest    string
		job     packJob
		want    string
		err     string
	}{
		{name: "file to file", sources: []string{"a.txt"}, dest: "/x/y", want: "5 0755 0:0 x/\n0 0644 0:0 x/y A\n"},
		{name: "file into directory", sources: []string{"a.txt"}, dest: "/app/", want: "0 0644 0:0 app/a.txt A\n"},
		{name: "file into directory that is there", sources: []string{"./run.sh"}, dest: "/app", want: "0 0755 0:0 app/run.sh #!\n"},
		{name: "file over file", sources: []string{"/b.txt"}, dest: "/etc/passwd", want: "0 0644 0:0 etc/passwd B\n"},
		{name: "contents of a directory", sources: []string{"dir"}, dest: "/n",
			want: "5 0755 0:0 n/\n2 0777 0:0 n/inner -> ../a.txt\n0 0644 0:0 n/one 1\n5 0755 0:0 n/sub/\n0 0644 0:0 n/sub/skip.tmp x\n0 0644 0:0 n/sub/two 2\n"},
		{name: "through a link of the image", sources: []string{"a.txt"}, dest: "/lib/", want: "0 0644 0:0 usr/lib/a.txt A\n"},
		{name: "through an absolute link", sources: []string{"a.txt"}, dest: "/abs/new/", want: "5 0755 0:0 usr/new/\n0 0644 0:0 usr/new/a.txt A\n"},
		{name: "link is followed", sources: []string{"link"}, dest: "/app/", want: "0 0644 0:0 app/link A\n"},
		{name: "link to a directory is followed", sources: []string{"dlink/sub"}, dest: "/app/", want: "0 0644 0:0 app/skip.tmp x\n0 0644 0:0 app/two 2\n"},
		{name: "link to the outside", sources: []string{"out"}, dest: "/x", err: `"/out": not found`},
		{name: "climbs", sources: []string{"../../a.txt"}, dest: "/x", want: "0 0644 0:0 x A\n"},
		{name: "missing", sources: []string{"nope"}, dest: "/x", err: `"/nope": not found`},
		{name: "pattern", sources: []string{"*.txt"}, dest: "/app/", want: "0 0644 0:0 app/a.txt A\n0 0644 0:0 app/b.txt B\n"},
		{name: "pattern without a match", sources: []string{"*.none"}, dest: "/app/", want: ""},
		{name: "pattern in the middle", sources: []string{"d*r/su?/t*"}, dest: "/app/", want: "0 0644 0:0 app/two 2\n"},
		{name: "two sources", sources: []string{"a.txt", "empty", "s p"}, dest: "/m/", want: "5 0755 0:0 m/\n0 0644 0:0 m/a.txt A\n0 0644 0:0 m/f f\n"},
		{name: "owner and mode", sources: []string{"dir/sub"}, dest: "/o", job: packJob{Owner: &owner{7, 8}, Mode: "u=rwX,go="},
			want: "5 0755 7:8 o/\n0 0600 7:8 o/skip.tmp x\n0 0600 7:8 o/two 2\n"},
		{name: "exclude", sources: []string{"dir"}, dest: "/n", job: packJob{Excludes: []string{"**/*.tmp", "inner"}},
			want: "5 0755 0:0 n/\n0 0644 0:0 n/one 1\n5 0755 0:0 n/sub/\n0 0644 0:0 n/sub/two 2\n"},
		{name: "exclude all but", sources: []string{"dir"}, dest: "/n", job: packJob{Excludes: []string{"*", "!sub/two"}},
			want: "5 0755 0:0 n/\n5 0755 0:0 n/sub/\n0 0644 0:0 n/sub/two 2\n"},
		{name: "parents", sources: []string{"dir/sub/two", "a.txt"}, dest: "/p/", job: packJob{Parents: true},
			want: "5 0755 0:0 p/\n5 0755 0:0 p/dir/\n5 0755 0:0 p/dir/sub/\n0 0644 0:0 p/dir/sub/two 2\n0 0644 0:0 p/a.txt A\n"},
		{name: "parents from a pivot", sources: []string{"dir/./sub/t*"}, dest: "/p/", job: packJob{Parents: true},
			want: "5 0755 0:0 p/\n5 0755 0:0 p/sub/\n0 0644 0:0 p/sub/two 2\n"},
		{name: "parents with any depth", sources: []string{"**/t*"}, dest: "/p/", job: packJob{Parents: true},
			want: "5 0755 0:0 p/\n5 0755 0:0 p/dir/\n5 0755 0:0 p/dir/sub/\n0 0644 0:0 p/dir/sub/two 2\n"},
		{name: "hard links", sources: []string{"a.txt", "hard"}, dest: "/h/", want: "5 0755 0:0 h/\n0 0644 0:0 h/a.txt A\n0 0644 0:0 h/hard A\n"},
		{name: "special files", sources: []string{"pipe", "sock"}, dest: "/s/", want: "5 0755 0:0 s/\n6 0644 0:0 s/pipe\n"},
		{name: "a name of two lines", sources: []string{"weird*"}, dest: "/w/", want: "5 0755 0:0 w/\n0 0644 0:0 w/weird\nname w\n"},
		{name: "directory over a file", sources: []string{"dir"}, dest: "/file", err: "cannot copy to non-directory: /file"},
		{name: "file over a directory", sources: []string{"dir"}, dest: "/d/", want: "2 0777 0:0 d/inner -> ../a.txt\n0 0644 0:0 d/one 1\n5 0755 0:0 d/sub/\n0 0644 0:0 d/sub/skip.tmp x\n0 0644 0:0 d/sub/two 2\n"},
		{name: "links without end", sources: []string{"a.txt"}, dest: "/loop/x", err: "copy to /loop/x: too many levels of symbolic links"},
	}
	for _, e := range table {
		t.Run(e.name, func(t *testing.T) {
			job := e.job
			job.From = tree{Lower: []string{context}, Plain: true}
			job.Dest, job.Target, job.Timeless = e.dest, tree{Lower: []string{image}, Plain: true}, true
			for _, s := range e.sources {
				job.Sources = append(job.Sources, packSource{Path: s})
			}
			got, err := packed(t, job)
			if e.err != "" {
				if err == nil || err.Error() != e.err {
					t.Fatalf("error %v, want %s", err, e.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(e.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPackIgnores(t *testing.T) {
	context := makeTree(t, "a=1", "b.log=x", "node_modules/x/y=1", "keep/k=1", "keep/k.log=x", "deep/er/est=1", "deep/er/other=2")
	for _, e := range []struct {
		ignore string
		path   string
		want   string
		err    string
	}{
		{"*.log\n# comment\n**/*.log\nnode_modules\n", ".", "0 0644 0:0 a 1\n5 0755 0:0 deep/\n5 0755 0:0 deep/er/\n0 0644 0:0 deep/er/est 1\n0 0644 0:0 deep/er/other 2\n5 0755 0:0 keep/\n0 0644 0:0 keep/k 1\n", ""},
		{"*\n!deep/er/est", ".", "5 0755 0:0 deep/\n5 0755 0:0 deep/er/\n0 0644 0:0 deep/er/est 1\n", ""},
		{"*\n!a", "*", "0 0644 0:0 a 1\n", ""},
		{"/a", "a", "", `"/a": not found`},
		{"deep\n!deep/er/est", "deep", "5 0755 0:0 er/\n0 0644 0:0 er/est 1\n", ""},
		{"keep", "keep/k", "", `"/keep/k": not found`},
	} {
		patterns, err := readIgnore([]byte(e.ignore))
		if err != nil {
			t.Fatal(err)
		}
		got, err := packed(t, packJob{Dest: "/", Timeless: true, From: tree{Lower: []string{context}, Plain: true, Ignore: patterns}, Sources: []packSource{{Path: e.path}}})
		if e.err != "" {
			if err == nil || err.Error() != e.err {
				t.Errorf("%q %s: error %v, want %s", e.ignore, e.path, err, e.err)
			}
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		if diff := cmp.Diff(e.want, got); diff != "" {
			t.Errorf("%q %s:\n%s", e.ignore, e.path, diff)
		}
	}
}

func TestSymbolicMode(t *testing.T) {
	for _, e := range []struct {
		spec  string
		mode  uint32
		isDir bool
		want  uint32
	}{
		{"u+x", 0o644, false, 0o744}, {"a-w", 0o666, false, 0o444}, {"go=", 0o777, false, 0o700}, {"u=rwX,go=rX", 0o600, true, 0o755},
		{"u=rwX,go=rX", 0o600, false, 0o644}, {"+x", 0o644, false, 0o755}, {"u+s,g+s,+t", 0o755, false, 0o7755}, {"g=u", 0o640, false, 0o660},
		{"u=rw,u+x-r", 0o000, false, 0o300}, {"o=", 0o1777, true, 0o1770}, {"4755", 0, false, 0o4755},
	} {
		if got := changeMode(e.spec, e.mode, e.isDir); got != e.want {
			t.Errorf("%s on %04o: %04o, want %04o", e.spec, e.mode, got, e.want)
		}
	}
	for _, bad := range []string{"x", "u+q", "z=r", "9", "77777", "u", ""} {
		if err := checkMode(bad); err == nil && bad != "" {
			t.Errorf("%q is taken for a mode", bad)
		}
	}
}
