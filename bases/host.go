// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/container"
)

// HostName is the reserved name of the image that Host makes.
const HostName = "host"

// hostPrograms are where a machine keeps programs and what they need. On some
// they are links into /usr, which are then made again as links.
var hostPrograms = []string{
	"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt", "nix", "gnu",
}

// hostWritable are fresh and empty in every container.
var hostWritable = map[string]string{
	"tmp": "mode=1777", "var": "mode=755", "run": "mode=755", "root": "mode=700",
}

// maxEtc bounds the copy of /etc, and maxEtcFile one file of it.
const (
	maxEtc     = 64 << 20
	maxEtcFile = 8 << 20
)

// Host is the base of the image `host`: this machine's own programs, read-only,
// with no download and no network. What is readable of /etc is copied; /tmp,
// /var, /run and /root are empty; /home, /srv, /mnt and /media are not there.
// Nothing of the host is ever written.
func Host(ctx context.Context, h *container.Home) (container.Base, error) {
	dir, err := hostTree(ctx, filepath.Join(h.Store.Path(), "cache"))
	if err != nil {
		return container.Base{}, fmt.Errorf("make image host: %w", err)
	}
	b := container.Base{
		Name:  HostName,
		Lower: []string{dir},
		Config: ocispec.ImageConfig{
			Cmd: []string{"/bin/sh"},
			Env: []string{"PATH=" + hostPath()},
		},
		Refused: "Read-only file system",
		Advice:  "the image host shows this machine's programs read-only; /etc, /tmp, /var, /run, /root and what -v brings in can be written, and for an image of your own: sbx run alpine",
	}
	for _, name := range hostPrograms {
		if fi, err := os.Lstat("/" + name); err == nil && fi.IsDir() {
			b.Mounts = append(b.Mounts, container.Mount{Type: container.Bind, Source: "/" + name, Target: "/" + name, ReadOnly: true})
		}
	}
	for name, options := range hostWritable {
		b.Mounts = append(b.Mounts, container.Mount{Type: container.Tmpfs, Target: "/" + name, Options: options})
	}
	return b, nil
}

// hostPath is the default path with the places that only some systems have.
func hostPath() string {
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	if _, err := os.Stat("/run/current-system/sw/bin"); err == nil {
		path += ":/run/current-system/sw/bin"
	}
	return path
}

// hostTree returns the directory with the tree, made anew when /etc or the
// layout of / has changed since the last time.
func hostTree(ctx context.Context, cache string) (string, error) {
	mark, err := fingerprint()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "host-"+mark)
	tree := filepath.Join(dir, "root")
	if _, err := os.Lstat(tree); err == nil {
		return tree, nil
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", err
	}
	next, err := os.MkdirTemp(cache, "host-next-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(next)
	if err := buildHostTree(ctx, filepath.Join(next, "root")); err != nil {
		return "", err
	}
	if err := os.Rename(next, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		if _, there := os.Lstat(tree); there != nil {
			return "", err
		}
	}
	return tree, nil
}

// fingerprint changes when anything of /etc does, or what / links to.
func fingerprint() (string, error) {
	sum := sha256.New()
	for _, name := range hostPrograms {
		link, err := os.Readlink("/" + name)
		fmt.Fprintln(sum, name, link, err == nil)
	}
	err := filepath.WalkDir("/etc", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // what cannot be read is not copied either
		}
		fi, err := d.Info()
		if err != nil {
			return nil
		}
		fmt.Fprintln(sum, path, fi.Mode(), fi.Size(), fi.ModTime().UnixNano())
		return nil
	})
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)[:16]), nil
}

func buildHostTree(ctx context.Context, root string) error {
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	for _, name := range hostPrograms {
		fi, err := os.Lstat("/" + name)
		if err != nil {
			continue
		}
		at := filepath.Join(root, name)
		if fi.Mode()&fs.ModeSymlink != 0 {
			if link, err := os.Readlink("/" + name); err == nil {
				if err := os.Symlink(link, at); err != nil {
					return err
				}
			}
			continue
		}
		if fi.IsDir() {
			if err := os.Mkdir(at, 0o755); err != nil {
				return err
			}
		}
	}
	for name := range hostWritable {
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
			return err
		}
	}
	return copyEtc(ctx, filepath.Join(root, "etc"))
}

// copyEtc copies what this user may read of /etc: directories, links and regular
// files. Permissions lose their set-ID bits, owners are the user.
func copyEtc(ctx context.Context, to string) error {
	left := int64(maxEtc)
	return filepath.WalkDir("/etc", func(path string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return nil // not readable for this user
		}
		at := filepath.Join(to, strings.TrimPrefix(path, "/etc"))
		fi, err := d.Info()
		if err != nil {
			return nil
		}
		switch {
		case d.IsDir():
			return os.Mkdir(at, fi.Mode().Perm()|0o700)
		case fi.Mode()&fs.ModeSymlink != 0:
			link, err := os.Readlink(path)
			if err != nil {
				return nil
			}
			return os.Symlink(link, at)
		case fi.Mode().IsRegular() && fi.Size() <= min(left, maxEtcFile):
			left -= fi.Size()
			return copyFile(path, at, fi.Mode().Perm())
		}
		return nil
	})
}

func copyFile(from, to string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return nil // not readable for this user
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode|0o200)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, io.LimitReader(in, maxEtcFile)); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
