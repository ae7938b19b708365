// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"sbx/container"
)

// homeDir is where images and containers are kept: $SBX_HOME, else
// $XDG_DATA_HOME/sbx, else ~/.local/share/sbx.
func (c *client) homeDir() (string, error) {
	if dir := c.variable("SBX_HOME"); dir != "" {
		return filepath.Abs(dir)
	}
	// The XDG specification has relative paths ignored.
	if dir := c.variable("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "sbx"), nil
	}
	home := c.variable("HOME")
	if !filepath.IsAbs(home) {
		return "", &homeError{cause: "$HOME is not set"}
	}
	dir := filepath.Join(home, ".local", "share", "sbx")
	if _, err := os.Lstat(dir); err == nil {
		return dir, nil // the store checks whose it is
	}
	return dir, checkOwner(home)
}

// checkOwner refuses to make a store in another user's home, which su and sudo
// may leave in $HOME.
func checkOwner(home string) error {
	fi, err := os.Stat(home)
	if err != nil {
		return &homeError{cause: fmt.Sprintf("$HOME is %s: %v", home, withoutPath(err))}
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return &homeError{cause: fmt.Sprintf("$HOME is %s, which belongs to another user (%d)", home, st.Uid)}
	}
	return nil
}

// homeError says that there is no place for the store.
type homeError struct{ cause string }

func (e *homeError) Error() string { return "choose store: " + e.cause }

// Hint says how to name one.
func (e *homeError) Hint() string {
	return "name a directory of yours for images and containers: SBX_HOME=/path/to/directory"
}

// variable is an environment variable's value, empty if it is not set.
func (c *client) variable(name string) string {
	value, _ := c.lookup(name)
	return value
}

// open opens the home on a rung: the one of the flag, else of SBX_RUNG, else the
// highest.
func (c *client) open(ctx context.Context, rung string) (*container.Home, error) {
	dir, err := c.homeDir()
	if err != nil {
		return nil, err
	}
	if rung == "" {
		rung = c.variable("SBX_RUNG")
	}
	return container.Open(ctx, dir, rung)
}

// foreignProgram is the path of another sbx that the shell would find before
// this one, or "".
func (c *client) foreignProgram() string {
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return ""
	}
	for _, dir := range filepath.SplitList(c.variable("PATH")) {
		path := filepath.Join(dir, program)
		fi, err := os.Stat(path)
		if err != nil || !fi.Mode().IsRegular() || fi.Mode()&0o111 == 0 {
			continue
		}
		if os.SameFile(fi, self) {
			return ""
		}
		return path
	}
	return ""
}
