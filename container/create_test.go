// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestEnvironment(t *testing.T) {
	c := &Config{Hostname: "box", Identity: Identity{Home: "/home/www"}}
	for _, tt := range []struct {
		name        string
		tty         bool
		image, user []string
		want        []string
	}{
		{name: "defaults", want: []string{"PATH=" + defaultPath, "HOSTNAME=box", "HOME=/home/www"}},
		{name: "terminal", tty: true, want: []string{"PATH=" + defaultPath, "HOSTNAME=box", "TERM=xterm", "HOME=/home/www"}},
		{name: "image", image: []string{"PATH=/opt/bin", "A=1"}, want: []string{"PATH=/opt/bin", "HOSTNAME=box", "A=1", "HOME=/home/www"}},
		{name: "user over image", image: []string{"A=1", "B=2"}, user: []string{"A=x=y,z", "HOME=/"}, want: []string{"PATH=" + defaultPath, "HOSTNAME=box", "A=x=y,z", "B=2", "HOME=/"}},
		{name: "unset", image: []string{"A=1", "B=2"}, user: []string{"A", "C"}, want: []string{"PATH=" + defaultPath, "HOSTNAME=box", "B=2", "HOME=/home/www"}},
		{name: "empty value", user: []string{"A="}, want: []string{"PATH=" + defaultPath, "HOSTNAME=box", "A=", "HOME=/home/www"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.TTY = tt.tty
			if diff := cmp.Diff(tt.want, environmentOf(environment(c, tt.image, tt.user), c.Identity)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestCandidates(t *testing.T) {
	for _, tt := range []struct {
		program string
		env     []string
		want    []string
	}{
		{"/bin/sh", nil, []string{"/bin/sh"}},
		{"./sh", []string{"PATH=/x"}, []string{"./sh"}},
		{"sh", []string{"PATH=/x:/y"}, []string{"/x/sh", "/y/sh"}},
		{"sh", []string{"PATH="}, []string{"./sh"}},
		{"sh", []string{"PATH=:/y"}, []string{"./sh", "/y/sh"}},
		{"sh", []string{"PATHS=/y"}, []string{"/usr/local/sbin/sh", "/usr/local/bin/sh", "/usr/sbin/sh", "/usr/bin/sh", "/sbin/sh", "/bin/sh"}},
	} {
		if diff := cmp.Diff(tt.want, candidates(tt.program, tt.env)); diff != "" {
			t.Errorf("%s %q (-want +got)\n%s", tt.program, tt.env, diff)
		}
	}
}

func TestTmpfsOptions(t *testing.T) {
	const guard = unix.MS_NOSUID | unix.MS_NODEV
	for _, tt := range []struct {
		mount   Mount
		options string
		flags   int
	}{
		{Mount{}, "mode=1777", guard},
		{Mount{Options: "rw,size=10m,mode=700"}, "size=10m,mode=700", guard},
		{Mount{Options: "noexec,ro"}, "mode=1777", guard | unix.MS_NOEXEC | unix.MS_RDONLY},
		{Mount{ReadOnly: true}, "mode=1777", guard | unix.MS_RDONLY},
		{Mount{Options: "suid,dev,exec"}, "mode=1777", guard},
	} {
		options, flags := tmpfsOptions(tt.mount)
		if options != tt.options || flags != tt.flags {
			t.Errorf("%+v: got %q %#x, want %q %#x", tt.mount, options, flags, tt.options, tt.flags)
		}
	}
}

func TestSplit(t *testing.T) {
	for in, want := range map[string]string{"/": "", "": "", "/a//b/": "a b", "/../x": "x", "/a/../b": "b", "a/./b": "a b"} {
		if got := strings.Join(split(in), " "); got != want {
			t.Errorf("split(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestCheckMounts(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		name   string
		mounts []Mount
		fail   string
	}{
		{"bind", []Mount{{Type: Bind, Source: dir, Target: "/a"}}, ""},
		{"volume", []Mount{{Type: Volume, Name: "data", Target: "/a"}}, ""},
		{"anonymous volume", []Mount{{Type: Volume, Target: "/a"}}, ""},
		{"missing source of -v", []Mount{{Type: Bind, Source: dir + "/new/er", Target: "/a", Create: true}}, ""},
		{"missing source of --mount", []Mount{{Type: Bind, Source: dir + "/none", Target: "/a"}}, "no such file"},
		{"root", []Mount{{Type: Tmpfs, Target: "/x/.."}}, "not /"},
		{"relative target", []Mount{{Type: Tmpfs, Target: "a"}}, "absolute"},
		{"relative source", []Mount{{Type: Bind, Source: "x", Target: "/a"}}, "absolute"},
		{"twice", []Mount{{Type: Tmpfs, Target: "/a"}, {Type: Tmpfs, Target: "/a/"}}, "two mounts"},
		{"in /proc", []Mount{{Type: Tmpfs, Target: "/proc/self/../self"}}, "nothing may be mounted in /proc"},
		{"on /proc", []Mount{{Type: Tmpfs, Target: "/proc"}}, "nothing may be mounted in /proc"},
		{"beside /proc", []Mount{{Type: Tmpfs, Target: "/process"}}, ""},
		{"what lxcfs shows", []Mount{{Type: Bind, Source: "/dev/null", Target: "/proc/meminfo"}}, ""},
		{"type", []Mount{{Type: "npipe", Target: "/a"}}, "unknown type"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := checkMounts(&Config{Mounts: tt.mounts})
			if tt.fail == "" && err != nil || tt.fail != "" && (err == nil || !strings.Contains(err.Error(), tt.fail)) {
				t.Errorf("got %v, want %q", err, tt.fail)
			}
		})
	}
	if fi, err := os.Stat(dir + "/new/er"); err != nil || !fi.IsDir() {
		t.Errorf("the source of -v was not made: %v", err)
	}
}

// A container gets its own mounts, then those of others, then the image's volumes.
func TestUseVolumes(t *testing.T) {
	h := &Home{dir: filepath.Join(t.TempDir(), "containers")}
	other := newID()
	record := Config{ID: other, Mounts: []Mount{
		{Type: Bind, Source: "/src", Target: "/bind"}, {Type: Tmpfs, Target: "/tmp"}, {Type: Bind, Source: "/theirs", Target: "/own"},
	}}
	if err := os.MkdirAll(filepath.Join(h.dir, other), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeJSON(filepath.Join(h.dir, other, "config.json"), record); err != nil {
		t.Fatal(err)
	}
	c := &Config{Mounts: []Mount{{Type: Volume, Name: "data", Target: "/own"}}}
	release, err := h.useVolumes(t.Context(), c, map[string]struct{}{"/own/": {}, "/v": {}, "/": {}}, []string{other + ":ro"})
	if err != nil {
		t.Fatal(err)
	}
	release()
	anon := c.Mounts[2]
	want := []Mount{
		{Type: Volume, Name: "data", Source: filepath.Join(filepath.Dir(h.dir), "volumes/data/_data"), Target: "/own"},
		{Type: Bind, Source: "/src", Target: "/bind", ReadOnly: true, NoCopy: true},
		{Type: Volume, Name: anon.Name, Source: anon.Source, Target: "/v", Anonymous: true},
	}
	if diff := cmp.Diff(want, c.Mounts); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if !isID(anon.Name) || !isDirectory(anon.Source) {
		t.Errorf("anonymous volume %+v", anon)
	}
	if _, err := h.useVolumes(t.Context(), &Config{Mounts: []Mount{{Type: Volume, Name: "../x", Target: "/a"}}}, nil, nil); err == nil {
		t.Error("a volume was made outside")
	}
	if err := h.RemoveAnonymous(t.Context(), c.Mounts); err != nil || isDirectory(anon.Source) || !isDirectory(c.Mounts[0].Source) {
		t.Errorf("remove anonymous volumes: %v", err)
	}
}

func TestNames(t *testing.T) {
	h := &Home{dir: t.TempDir()}
	if err := os.Mkdir(filepath.Join(h.dir, namesDir), 0o700); err != nil {
		t.Fatal(err)
	}
	first, second := newID(), newID()
	if err := os.Mkdir(filepath.Join(h.dir, first), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeJSON(filepath.Join(h.dir, first, "config.json"), Config{ID: first}); err != nil {
		t.Fatal(err)
	}
	if err := h.takeName("web", first); err != nil {
		t.Fatal(err)
	}
	var taken *NameInUseError
	if err := h.takeName("web", second); !errors.As(err, &taken) || taken.ID != first {
		t.Errorf("a name was given twice: %v", err)
	}
	if err := h.dropName("web", second); err != nil {
		t.Fatal(err)
	}
	if id, err := h.named("web"); err != nil || id != first {
		t.Errorf("another's drop took the name away: %q, %v", id, err)
	}
	// Its container gone, the name is free again, without anyone having dropped it.
	if err := os.RemoveAll(filepath.Join(h.dir, first)); err != nil {
		t.Fatal(err)
	}
	if err := h.takeName("web", second); err != nil {
		t.Errorf("a stale name is not free: %v", err)
	}
	// While a container is being made it holds its name already.
	third := newID()
	making := filepath.Join(h.dir, makingPrefix+second)
	lock, err := h.makeLocked(making)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.takeName("web", third); !errors.As(err, &taken) {
		t.Errorf("the name of a container in the making was taken: %v", err)
	}
	unix.Close(lock)
	if err := h.takeName("web", third); err != nil {
		t.Errorf("the name of a dead making is not free: %v", err)
	}
	for _, bad := range []string{"", "x", ".a", "-a", "a/b", "..", "a b", "ä", strings.Repeat("a", 129), "a\x00b"} {
		if err := h.takeName(bad, third); err == nil {
			t.Errorf("name %q was accepted", bad)
		}
	}
}

func TestRandomNames(t *testing.T) {
	seen := map[string]bool{}
	for range 200 {
		name := randomName()
		if !validName(name) {
			t.Fatalf("%q is no valid name", name)
		}
		seen[name] = true
	}
	if len(seen) < 150 {
		t.Errorf("200 names, only %d different", len(seen))
	}
}
