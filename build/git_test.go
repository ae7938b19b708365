// SPDX-License-Identifier: Apache-2.0

package build

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sbx/tests/need"
)

// gitWorld is a directory with repositories in it, and a secret that none of them has.
type gitWorld struct {
	*testing.T
	dir string
}

const gitSecret = "a secret of this machine"

func newGitWorld(t *testing.T) gitWorld {
	t.Helper()
	need.Need(t, need.Peers)
	w := gitWorld{t, t.TempDir()}
	for name, value := range map[string]string{
		"HOME": w.dir, "GIT_CONFIG_NOSYSTEM": "1", "GIT_SSH_COMMAND": filepath.Join(w.dir, "ssh"), "CANARY": filepath.Join(w.dir, "canary"),
	} {
		t.Setenv(name, value)
	}
	w.write("ssh", "#!/bin/sh\necho \"$@\" >> \"$CANARY.ssh\"\nexit 1\n")
	if err := os.Chmod(filepath.Join(w.dir, "ssh"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.write("secret", gitSecret)
	w.git("init", "-q", "private.git")
	w.write("private.git/file", gitSecret)
	w.commit("private.git")
	return w
}

func (w gitWorld) write(name, text string) {
	w.Helper()
	path := filepath.Join(w.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		w.Fatal(err)
	}
}

func (w gitWorld) git(args ...string) {
	w.Helper()
	cmd := exec.CommandContext(w.Context(), "git", append([]string{"-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "protocol.file.allow=always"}, args...)...)
	cmd.Dir = w.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		w.Fatalf("git %q: %v %s", args, err, out)
	}
}

func (w gitWorld) commit(name string) {
	w.Helper()
	w.git("-C", name, "add", "-A")
	w.git("-C", name, "commit", "-q", "-m", "x")
}

// clean fails where a program was run that a name named, or the secret was brought along.
func (w gitWorld) clean(what, dir string) {
	w.Helper()
	if _, err := os.Lstat(filepath.Join(w.dir, "canary")); !errors.Is(err, fs.ErrNotExist) {
		w.Fatalf("%s executed a program", what)
	}
	if said, err := os.ReadFile(filepath.Join(w.dir, "canary.ssh")); err == nil && bytes.Contains(said, []byte(" -oProxyCommand")) {
		w.Fatalf("%s gave ssh %s", what, said)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if data, err := os.ReadFile(path); err == nil && bytes.Contains(data, []byte(gitSecret)) {
				w.Errorf("%s brought %s", what, path)
			}
		}
		return err
	})
	if err != nil {
		w.Error(err)
	}
}

// TestB06GitURLs has names of repositories, refs and directories that are options, other
// protocols or ways out. Each is refused, or is no name of a repository at all.
func TestB06GitURLs(t *testing.T) {
	w := newGitWorld(t)
	w.git("init", "-q", "good.git")
	w.write("good.git/sub/file", "x")
	for link, to := range map[string]string{"out": "../..", "away": w.dir, "etc": "/etc", "file": "sub/file", "loop": "loop"} {
		if err := os.Symlink(to, filepath.Join(w.dir, "good.git", link)); err != nil {
			t.Fatal(err)
		}
	}
	w.commit("good.git")
	const touch = "touch $CANARY"
	urls := []string{
		"-u./good.git", "--upload-pack=" + touch, "--upload-pack=" + touch + " good.git", "-c core.sshCommand=x good.git",
		"ext::sh -c " + touch + "%20.git", "ext::sh%20-c%20touch.git", "fd::7.git", "fd::7/x.git", "file::" + w.dir + "/private.git", "http::ext::sh.git",
		w.dir + "/private.git", "./private.git", "../private.git", "private.git", "~/private.git", "good.git:x", ":private.git",
		"ssh://-oProxyCommand=" + touch + "/x.git", "ssh://-oProxyCommand=" + touch + "@host/x.git", "ssh://x@-oProxyCommand=y/x.git", "ssh://-x:22/x.git", "git@-oProxyCommand=x:y.git",
		"-oProxyCommand=x@host:y.git", "git://-oProxyCommand=x/y.git", "git@host:-x.git", "git@host:--upload-pack=x", "user@host:$(" + touch + ")", "git@host:`" + touch + "`.git",
		"ftp://127.0.0.1/x.git", "rsync://127.0.0.1/x.git", "sso://a/b.git", "persistent-https://127.0.0.1/x.git", "FILE://" + w.dir + "/private.git", "http+unix://x.git",
		"http://127.0.0.1:1/--upload-pack=x.git", "https://127.0.0.1:1/-x.git", "http://-x:1/y.git", "github.com/-x/--y", "data:,x.git", "javascript:x.git",
	}
	for _, fragment := range []string{
		"--upload-pack=" + touch, "-x", "--exec=" + touch, "-", "--", "..", "../..", "a..b", "refs/heads/*", "*", "^x", "HEAD~1", "@{-1}", "+nosuch", "nosuch:sub", "x y", "\x1b[31m", "$(" + touch + ")",
		":..", ":../..", ":../private.git", ":/..", ":sub/../..", ":out", ":away", ":etc", ":out/private.git", ":away/private.git", ":file", ":loop", ":.git", ":.git/hooks", ":nosuch", ":sub\x00", ":-x", ":--",
	} {
		urls = append(urls, "file://"+w.dir+"/good.git#"+fragment)
	}
	taken := 0
	for _, url := range urls {
		if !IsGit(url) {
			continue // a directory, or a file of a server
		}
		dir := t.TempDir()
		err := clone(t.Context(), dir, url, false)
		if err == nil {
			_, err = subdirectory(dir, url)
		}
		if err == nil {
			t.Errorf("%q is taken", url)
			taken++
		}
		w.clean(url, dir)
	}
	t.Logf("%d names, %d taken", len(urls), taken)
	if len(urls) < 60 {
		t.Errorf("only %d names", len(urls))
	}
}

// TestB06Repositories brings repositories whose own files name others, and lead out.
func TestB06Repositories(t *testing.T) {
	w := newGitWorld(t)
	for _, url := range []string{"file://" + w.dir + "/private.git", w.dir + "/private.git", "../private.git", "ext::sh -c touch% $CANARY", "--upload-pack=touch $CANARY", "ssh://-oProxyCommand=x/y"} {
		w.git("init", "-q", "hostile.git")
		w.git("-C", "hostile.git", "submodule", "add", "-q", w.dir+"/private.git", "sub")
		w.write("hostile.git/.gitmodules", "[submodule \"sub\"]\n\tpath = sub\n\turl = "+url+"\n")
		if err := errors.Join(os.Symlink(w.dir+"/secret", filepath.Join(w.dir, "hostile.git/Dockerfile")), os.Symlink("../../secret", filepath.Join(w.dir, "hostile.git/.dockerignore"))); err != nil {
			t.Fatal(err)
		}
		w.commit("hostile.git")
		dir := t.TempDir()
		if err := clone(t.Context(), dir, "file://"+w.dir+"/hostile.git", false); err == nil {
			t.Errorf("a submodule of %q is taken", url)
		}
		w.clean("a submodule of "+url, dir)
		c := Context{tree: tree{Lower: []string{dir}, Plain: true}}
		for _, name := range []string{"Dockerfile", ".dockerignore"} {
			if data, err := c.ReadFile(name); err == nil || bytes.Contains(data, []byte(gitSecret)) {
				t.Errorf("%s leads out: %q %v", name, data, err)
			}
		}
		if err := os.RemoveAll(filepath.Join(w.dir, "hostile.git")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestB06Seen has the looks find what a git does that is let.
func TestB06Seen(t *testing.T) {
	w := newGitWorld(t)
	w.git("init", "-q", "hostile.git")
	w.git("-C", "hostile.git", "submodule", "add", "-q", "file://"+w.dir+"/private.git", "sub")
	w.commit("hostile.git")
	w.git("clone", "-q", "--recurse-submodules", "hostile.git", "cloned")
	data, err := os.ReadFile(filepath.Join(w.dir, "cloned/sub/file"))
	if err != nil || !strings.Contains(string(data), gitSecret) {
		t.Errorf("a submodule of this machine was not brought: %q %v", data, err)
	}
}
