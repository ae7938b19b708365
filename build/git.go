// SPDX-License-Identifier: Apache-2.0

package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sbx/store"
)

// GitContext is a repository, URL#ref:subdirectory, cloned by the host's git: the
// one program of the host that a build runs.
func GitContext(ctx context.Context, st *store.Store, url string) (Context, error) {
	var c Context
	c.temp = newTempDir(st)
	dir, err := c.temp.dir()
	if err == nil {
		err = clone(ctx, dir, url, false)
	}
	if err != nil {
		c.Close()
		return Context{}, err
	}
	if dir, err = subdirectory(dir, url); err != nil {
		c.Close()
		return Context{}, err
	}
	c.tree = tree{Lower: []string{dir}, Plain: true}
	return c, nil
}

// subdirectory is the directory of a repository's files that its URL names. Links lead
// nowhere but inside.
func subdirectory(dir, url string) (string, error) {
	sub := parseGit(url).subdir
	if sub == "" {
		return dir, nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	fi, err := root.Stat(sub)
	if err != nil || !fi.IsDir() {
		return "", fmt.Errorf("clone %s: there is no directory %s in it", url, sub)
	}
	return filepath.EvalSymlinks(filepath.Join(dir, sub))
}

// clone puts the files of a repository at a ref into dir, with .git only if it is
// to be kept. No more history is fetched than is needed.
func clone(ctx context.Context, dir, url string, keep bool) error {
	ref := parseGit(url)
	if strings.HasPrefix(ref.ref, "-") || strings.HasPrefix(ref.remote, "-") {
		return fmt.Errorf("clone %s: strange name", url)
	}
	g := repository{dir: dir, protocols: remoteProtocols}
	if strings.HasPrefix(ref.remote, "file://") {
		g.protocols += ":file"
	}
	err := g.git(ctx, "init", "-q", ".")
	if err == nil {
		err = g.git(ctx, "remote", "add", "origin", ref.remote)
	}
	if err == nil {
		err = g.fetchRef(ctx, ref.ref)
	}
	if err == nil {
		if _, statErr := os.Lstat(filepath.Join(dir, ".gitmodules")); statErr == nil {
			// Whoever wrote it must not name a repository of this machine (CVE-2022-39253).
			g.protocols = remoteProtocols
			err = g.git(ctx, "submodule", "update", "-q", "--init", "--recursive", "--depth", "1")
		}
	}
	if err != nil {
		return fmt.Errorf("clone %s: %w", url, err)
	}
	if !keep {
		return os.RemoveAll(filepath.Join(dir, ".git"))
	}
	return nil
}

// repository is one in the making, and the protocols by which git may fetch for it.
type repository struct{ dir, protocols string }

// remoteProtocols are those that lead nowhere on this machine.
const remoteProtocols = "https:http:ssh:git"

// fetchRef fetches a ref, or the remote's HEAD, and checks it out.
func (g repository) fetchRef(ctx context.Context, ref string) error {
	want := ref
	if want == "" {
		want = "HEAD"
	}
	err := g.git(ctx, "fetch", "-q", "--depth", "1", "origin", want)
	if err != nil && ctx.Err() == nil {
		// A server of plain files cannot send less than everything.
		if whole := g.git(ctx, "fetch", "-q", "origin", want); whole == nil {
			err = nil
		}
	}
	if err == nil {
		return g.git(ctx, "checkout", "-q", "--detach", "FETCH_HEAD")
	}
	// Not every server sends a commit that no branch names.
	if ref != "" && g.git(ctx, "fetch", "-q", "--tags", "origin") == nil {
		if known := g.git(ctx, "checkout", "-q", "--detach", want); known == nil {
			return nil
		}
	}
	return err
}

func (g repository) git(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = g.dir
	// It asks nobody: whatever it needs stands in the user's configuration.
	for _, e := range os.Environ() {
		// A git that runs us, in a hook, may have said which repository is meant.
		if name, _, _ := strings.Cut(e, "="); !strings.HasPrefix(name, "GIT_") || strings.HasPrefix(name, "GIT_SSH") || strings.HasPrefix(name, "GIT_CONFIG") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, "GIT_TERMINAL_PROMPT=0", "GIT_ALLOW_PROTOCOL="+g.protocols, "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if errors.Is(err, exec.ErrNotFound) {
		return &noGitError{}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if text := strings.TrimSpace(string(bytes.ToValidUTF8(out, []byte("?")))); text != "" {
		err = errors.New(strings.ReplaceAll(text, "\n", "; "))
	}
	return fmt.Errorf("git %s: %w", args[0], err)
}

// noGitError says that git is not installed.
type noGitError struct{}

func (e *noGitError) Error() string { return "run git: not found" }

// Hint says what to do.
func (e *noGitError) Hint() string {
	return "install git, or clone the repository yourself and name its directory"
}
