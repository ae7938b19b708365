// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// What an archive takes for granted comes from the layers below.
func TestUnpackLower(t *testing.T) {
	earlier := time.Unix(1500000000, 0)
	lower := layers(t,
		[]maker{dir("./", mode(0o711), owned(1, 1)), dir("tmp", mode(0o1777), at(earlier)), dir("home"), dir("home/u", owned(1000, 1000), mode(0o700), attr("user.x", "y")),
			dir("usr"), file("usr/tool", "tool", owned(0, 5), mode(0o4750), attr("security.capability", "\x01")), sym("bin", "usr"), dir("gone", owned(2, 2)), file("gone/f", "")},
		[]maker{dir("./", mode(0o755)), file(".wh.gone", "")})
	tests := []struct {
		name    string
		entries []maker
		path    string
		want    string
		used    bool
	}{
		{"implied", []maker{file("home/u/.config/x", "")}, "home/u", `dir 0700 user.containers.override_stat="1000:1000:0700:dir" user.x="y"`, true},
		{"sticky", []maker{file("tmp/x", "")}, "tmp", `dir 1777 user.containers.override_stat="0:0:1777:dir"`, true},
		{"ordinary", []maker{file("home/x", "")}, "home", "dir 0755", false},
		{"root", []maker{file("x", "")}, ".", "dir 0755", false},
		{"named", []maker{dir("tmp"), file("tmp/x", "")}, "tmp", "dir 0755", false},
		{"new", []maker{file("new/x", "")}, "new", "dir 0755", false},
		{"white below", []maker{file("gone/x", "")}, "gone", "dir 0755", false},
		{"link below", []maker{file("bin/x", "")}, "usr", "dir 0755", true},
		{"no directory in its place", []maker{file("bin/x", "")}, "bin", "no such file or directory", true},
		{"link below, replaced", []maker{dir("bin"), file("bin/x", "")}, "bin", "dir 0755", false},
		{"link below, white", []maker{file(".wh.bin", ""), file("bin/x", "")}, "bin", `dir 0755 user.overlay.opaque="y"`, false},
		{"link below, hidden", []maker{file(".wh..wh..opq", ""), file("bin/x", ""), file("tmp/x", "")}, "bin", "dir 0755", false},
		{"hidden", []maker{file(".wh..wh..opq", ""), file("tmp/x", "")}, "tmp", "dir 0755", false},
		{"through both", []maker{sym("l", "/bin"), file("l/x", "")}, "usr/x", "file 0644 0 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", true},
		{"hard link to what is here", []maker{file("usr/tool", "new"), hard("copy", "bin/tool")}, "copy",
			"file 0644 3 11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437", true},
		{"hard link", []maker{hard("copy", "usr/tool")}, "copy",
			`file 0750 4 1b4eb8b5f1b5d3ce5dad2ac2cb7fd71ff8ff2c2ae0b0b4d2e9b9a1e9b8b2b0a0`, true},
		{"hard link by link", []maker{hard("d/copy", "bin/tool"), file("d/after", "")}, "usr", "dir 0755", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := filepath.Join(tempDir(t), "root")
			result, err := unpackInto(t, root, archive(tt.entries...), UnpackOptions{Lower: lower})
			if err != nil {
				t.Fatal(err)
			}
			if tt.name == "hard link" {
				tt.want = look(t, filepath.Join(lower[1], "usr/tool"))
				var a, b unix.Stat_t
				if unix.Lstat(filepath.Join(root, "copy"), &a) != nil || unix.Lstat(filepath.Join(root, "usr/tool"), &b) != nil || a.Ino != b.Ino {
					t.Error("the target was not copied up")
				}
			}
			if got := look(t, filepath.Join(root, tt.path)); got != tt.want || result.UsedLower != tt.used {
				t.Errorf("used %v, got %s\nwant %v, %s", result.UsedLower, got, tt.used, tt.want)
			}
		})
	}
	root := filepath.Join(tempDir(t), "root")
	if _, err := unpackInto(t, root, archive(file("tmp/x", "")), UnpackOptions{Lower: lower}); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(filepath.Join(root, "tmp")); err != nil || !fi.ModTime().Equal(earlier) {
		t.Errorf("time %v, %v", fi.ModTime(), err)
	}
	// Above the real thing: root's metadata comes from the nearest layer.
	if _, err := unpackInto(t, filepath.Join(tempDir(t), "root"), archive(hard("x", "gone/f")), UnpackOptions{Lower: lower}); err == nil {
		t.Error("a hard link to a file that is whited out")
	}
	other := filepath.Join(tempDir(t), "root")
	result, err := unpackInto(t, other, archive(file("x", "")), UnpackOptions{Lower: lower[1:]})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(look(t, other), `dir 0711 user.containers.override_stat="1:1:0711:dir"`); diff != "" || !result.UsedLower {
		t.Error(diff)
	}
}
