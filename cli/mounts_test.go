// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sbx/container"
)

func TestParseVolume(t *testing.T) {
	t.Chdir("/tmp")
	bind := func(source, target string, ro bool) container.Mount {
		return container.Mount{Type: container.Bind, Source: source, Target: target, ReadOnly: ro, Create: true}
	}
	for _, tt := range []struct {
		in   string
		want container.Mount
	}{
		{"/data", container.Mount{Type: container.Volume, Target: "/data"}},
		{"/a:/b", bind("/a", "/b", false)},
		{"/a:/b:ro", bind("/a", "/b", true)},
		{"/a:/b:rw", bind("/a", "/b", false)},
		{"/a/../c/:/b/./d/", bind("/c", "/b/d", false)},
		{".:/b", bind("/tmp", "/b", false)},
		{"./x:/b", bind("/tmp/x", "/b", false)},
		{"../x:/b", bind("/x", "/b", false)},
		{"/a:/b:z,ro,cached", bind("/a", "/b", true)},
		{"/a:/b:Z,rprivate", bind("/a", "/b", false)},
		{"name:/b", container.Mount{Type: container.Volume, Name: "name", Target: "/b"}},
		{"na_me.1-x:/b:ro,nocopy", container.Mount{Type: container.Volume, Name: "na_me.1-x", Target: "/b", ReadOnly: true, NoCopy: true}},
	} {
		got, err := parseVolume(tt.in)
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.in, diff)
		}
	}
}

func TestParseVolumeErrors(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", `invalid volume specification "": empty section between colons`},
		{":/b", `invalid volume specification ":/b": empty section between colons`},
		{"/a::ro", `invalid volume specification "/a::ro": empty section between colons`},
		{"/a:/b:ro:x", `invalid volume specification "/a:/b:ro:x": too many colons`},
		{"/a:/", `invalid volume specification "/a:/": the destination can't be '/'`},
		{"/a:/b/..", `invalid volume specification "/a:/b/..": the destination can't be '/'`},
		{"/a:b", `invalid volume specification "/a:b": invalid mount path "b": it must be absolute`},
		{"data", `invalid volume specification "data": invalid mount path "data": it must be absolute`},
		{"/a:/b:bogus", `invalid volume specification "/a:/b:bogus": invalid mode: bogus`},
		{"a/b:/c", `invalid volume specification "a/b:/c": "a/b" is not a volume's name`},
		{"~/x:/c", `invalid volume specification "~/x:/c": "~/x" is not a volume's name`},
		{"/a:/b:rshared", `invalid volume specification "/a:/b:rshared": propagation rshared is not possible: a container of a user without privileges has its own copy of the mounts`},
		{"x:/c", `invalid volume specification "x:/c": "x" is not a volume's name`},
	} {
		if _, err := parseVolume(tt.in); err == nil || err.Error() != tt.want {
			t.Errorf("%q:\n got %v\nwant %s", tt.in, err, tt.want)
		}
	}
}

func TestParseMount(t *testing.T) {
	t.Chdir("/tmp")
	for _, tt := range []struct {
		in   string
		want container.Mount
	}{
		{"type=bind,source=/a,target=/b", container.Mount{Type: container.Bind, Source: "/a", Target: "/b"}},
		{"type=bind,src=/a,dst=/b,readonly", container.Mount{Type: container.Bind, Source: "/a", Target: "/b", ReadOnly: true}},
		{"type=bind,src=./a,destination=/b,ro=true", container.Mount{Type: container.Bind, Source: "/tmp/a", Target: "/b", ReadOnly: true}},
		{"type=bind,src=/a,dst=/b,ro=0", container.Mount{Type: container.Bind, Source: "/a", Target: "/b"}},
		{"TYPE=bind,src=/a,dst=/b,bind-propagation=rprivate", container.Mount{Type: container.Bind, Source: "/a", Target: "/b"}},
		{"type=bind,src=/a,dst=/b,bind-create-src", container.Mount{Type: container.Bind, Source: "/a", Target: "/b", Create: true}},
		{`type=bind,"src=/a,b",dst=/b`, container.Mount{Type: container.Bind, Source: "/a,b", Target: "/b"}},
		{"source=data,target=/b", container.Mount{Type: container.Volume, Name: "data", Target: "/b"}},
		{"target=/b", container.Mount{Type: container.Volume, Target: "/b"}},
		{"src=data,dst=/b,volume-nocopy,volume-subpath=a/../c,volume-label=x=y,volume-driver=local", container.Mount{Type: container.Volume, Name: "data", Target: "/b", NoCopy: true, Subpath: "c", Labels: map[string]string{"x": "y"}}},
		{"type=tmpfs,dst=/b", container.Mount{Type: container.Tmpfs, Target: "/b", Options: "noexec"}},
		{"type=tmpfs,dst=/b,tmpfs-size=1m,tmpfs-mode=0700", container.Mount{Type: container.Tmpfs, Target: "/b", Options: "size=1048576,mode=700,noexec"}},
		{"type=tmpfs,dst=/b,ro", container.Mount{Type: container.Tmpfs, Target: "/b", Options: "noexec", ReadOnly: true}},
	} {
		got, _, err := parseMount(tt.in)
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.in, diff)
		}
	}
	_, unmet, err := parseMount("type=bind,src=/a,dst=/b,bind-recursive=disabled")
	if diff := cmp.Diff([]string{"bind-recursive=disabled"}, unmet); diff != "" || err != nil {
		t.Errorf("unmet: %v (-want +got):\n%s", err, diff)
	}
}

func TestParseMountErrors(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", "it is empty"},
		{"type=bind,src=/a", "it has no target"},
		{"type=bind,dst=/b", "a bind has a source"},
		{"type=bind,src=a,dst=/b", `invalid mount path "a": it must be absolute`},
		{"type=bind,src=/a,dst=b", `invalid mount path "b": it must be absolute`},
		{"type=bind,src=/a,dst=/", "the destination can't be '/'"},
		{"type=bind,src=/a,dst=/b,foo=1", `unknown option "foo"`},
		{"type=bind,src=/a,dst=/b,foo", `invalid field "foo": must be a key=value pair`},
		{"type=bind,src=,dst=/b", "the value of src is empty"},
		{"type=bind, src=/a,dst=/b", `" src=/a" must not have white space around key or value`},
		{"type=bind,src=/a,dst=/b,ro=yes", `ro: "yes" is neither true nor false`},
		{"type=bind,src=/a,dst=/b,tmpfs-size=1", "cannot mix 'tmpfs-*' options with mount type 'bind'"},
		{"type=tmpfs,src=/a,dst=/b", "a tmpfs has no source"},
		{"type=tmpfs,dst=/b,tmpfs-size=x", `tmpfs-size: "x" is no size`},
		{"type=tmpfs,dst=/b,tmpfs-mode=9", `tmpfs-mode: "9" is no octal mode`},
		{"type=image,src=a,dst=/b", `mount type "image" is none of bind, volume, tmpfs`},
		{"src=data,dst=/b,volume-subpath=../x", `volume-subpath: "../x" must be a relative path within the volume`},
		{"src=data,dst=/b,volume-driver=nfs", `there is no volume driver "nfs"`},
		{"src=/a,dst=/b,type=bind,bind-propagation=rshared", "propagation rshared is not possible: a container of a user without privileges has its own copy of the mounts"},
		{"src=a/b,dst=/b", `"a/b" is not a volume's name`},
		{`type=bind,"src=/a`, `extraneous or missing " in quoted-field`},
	} {
		_, _, err := parseMount(tt.in)
		if err == nil || !strings.HasSuffix(err.Error(), tt.want) {
			t.Errorf("%q:\n got %v\nwant %s", tt.in, err, tt.want)
		}
	}
}

func TestParseTmpfs(t *testing.T) {
	for _, tt := range []struct{ in, target, options string }{
		{"/run", "/run", "noexec"},
		{"/run:", "/run", "noexec"},
		{"/run:rw,size=64m,mode=1770", "/run", "size=64m,mode=1770,noexec"},
		{"/run:exec", "/run", "exec"},
		{"/run:ro,noexec,nosuid", "/run", "ro,noexec"},
	} {
		got, err := parseTmpfs(tt.in)
		want := container.Mount{Type: container.Tmpfs, Target: tt.target, Options: tt.options}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", tt.in, err, diff)
		}
	}
	for _, in := range []string{"", "run", "/", "/x:foo", "/x:size=", "/x:size", "/x:exec=1", "/x:=1", "/x:mode=1 2"} {
		if m, err := parseTmpfs(in); err == nil {
			t.Errorf("%q: %+v, want an error", in, m)
		}
	}
}

// Whatever is accepted is absolute, clean, and mounts on no root.
func checkMount(t *testing.T, in string, m container.Mount) {
	t.Helper()
	if m.Target == "/" || !filepath.IsAbs(m.Target) || filepath.Clean(m.Target) != m.Target {
		t.Errorf("%q: target %q", in, m.Target)
	}
	switch m.Type {
	case container.Bind:
		if !filepath.IsAbs(m.Source) {
			t.Errorf("%q: source %q", in, m.Source)
		}
	case container.Volume:
		if m.Source != "" || strings.ContainsAny(m.Name, "/\x00") || strings.HasPrefix(m.Name, ".") || !filepath.IsLocal(filepath.Join("x", m.Subpath)) {
			t.Errorf("%q: volume %q", in, m.Name)
		}
	case container.Tmpfs:
		if m.Source != "" || strings.ContainsAny(m.Options, " \n\x00") {
			t.Errorf("%q: %+v", in, m)
		}
	default:
		t.Errorf("%q: type %q", in, m.Type)
	}
}

func FuzzParseVolume(f *testing.F) {
	for _, s := range []string{"/a:/b:ro", "./x:/y", "name:/z", "::", "/a:/b/..", "a\x00:/b", "/a:/\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if m, err := parseVolume(s); err == nil {
			checkMount(t, s, m)
		}
	})
}

func FuzzParseMount(f *testing.F) {
	for _, s := range []string{"type=bind,src=/a,dst=/b,ro", "type=tmpfs,dst=/x,tmpfs-size=1g", `"src=/a,b",dst=/c`, "dst=/\x00", "type=tmpfs,dst=/x,tmpfs-size=9e999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if m, _, err := parseMount(s); err == nil {
			checkMount(t, s, m)
		}
	})
}

func FuzzParseTmpfs(f *testing.F) {
	for _, s := range []string{"/run", "/run:size=64m,exec", "/x:mode=", ":"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if m, err := parseTmpfs(s); err == nil {
			checkMount(t, s, m)
		}
	})
}
