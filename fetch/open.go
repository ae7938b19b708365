// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// Opened is what lies at a location: one of Image and Rootfs is set.
type Opened struct {
	Image  *Image
	Rootfs *Rootfs
	// Origin changes when the file does: size, time of change and inode of a file, the
	// server's validator of a URL. It is for comparing, not for reading.
	Origin string

	closers []func() error
}

// Rootfs is a tarball of a root filesystem.
type Rootfs struct {
	Reader io.Reader // the tar as it came, compressed if it was
	Config ocispec.Image
}

// Close releases files and connections. Image and Rootfs cannot be read any more.
func (o *Opened) Close() error {
	var errs []error
	for _, c := range o.closers {
		errs = append(errs, c())
	}
	o.closers = nil
	return errors.Join(errs...)
}

// Locate tells whether arg, as the user typed it, is a local path or an http(s) URL
// rather than a reference: it begins with ./, ../, / or a scheme. The location is the
// absolute path or the URL.
func Locate(arg string) (location string, ok bool) {
	if isURL(arg) {
		return arg, true
	}
	local := arg == "." || arg == ".." || strings.HasPrefix(arg, "./") || strings.HasPrefix(arg, "../") || strings.HasPrefix(arg, "/")
	if !local {
		return "", false
	}
	abs, err := filepath.Abs(arg)
	if err != nil {
		return arg, true // no working directory any more: opening it will say so
	}
	return abs, true
}

func isURL(s string) bool {
	scheme, _, ok := strings.Cut(s, "://")
	return ok && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https"))
}

// Open looks at what lies at location, a path or an http(s) URL, and opens it: an OCI
// layout (a folder or a tar), an archive of docker save, or a root filesystem's
// tarball. Archives may be compressed by gzip, zstd, xz or bzip2; the contents decide,
// not the name. Of an image for several platforms o.Platform is chosen. A download
// lives as long as ctx. Errors are *Error.
func Open(ctx context.Context, location string, o Options) (*Opened, error) {
	o = o.withDefaults()
	if isURL(location) {
		return openURL(ctx, location, o)
	}
	op := "open " + location
	// O_NONBLOCK: a named pipe must not hold us up before we know that it is one.
	f, err := os.OpenFile(location, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, localError(op, err)
	}
	opened, err := openLocal(ctx, f, location, o)
	if err != nil {
		f.Close()
		return nil, localError(op, err)
	}
	return opened, nil
}

func openLocal(ctx context.Context, f *os.File, location string, o Options) (*Opened, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch {
	case info.IsDir():
		return openFolder(ctx, f, location, o)
	case !info.Mode().IsRegular():
		return nil, &hinted{text: "it is neither a file nor a folder", hint: "save the data to a file first"}
	}
	opened, err := openFile(ctx, f, location, o)
	if err != nil {
		return nil, err
	}
	opened.Origin = origin(info)
	return opened, nil
}

// origin identifies a state of a file.
func origin(info fs.FileInfo) string {
	s := fmt.Sprintf("size=%d mtime=%d", info.Size(), info.ModTime().UnixNano())
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s += fmt.Sprintf(" inode=%d", st.Ino)
	}
	return s
}

func openFolder(ctx context.Context, dir *os.File, location string, o Options) (*Opened, error) {
	set := &folder{dir: dir}
	version, err := set.member(layoutFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &hinted{text: "the folder is not an OCI layout", hint: "to run a root filesystem that lies in a folder: --rootfs " + location}
	}
	if err != nil {
		return nil, err
	}
	version.Close()
	l := &layout{members: set, where: location}
	image, err := l.image(ctx, normalize(o.Platform))
	if err != nil {
		return nil, err
	}
	opened := &Opened{Image: image, closers: []func() error{image.Close}}
	if index, err := os.Lstat(filepath.Join(location, indexFile)); err == nil {
		opened.Origin = origin(index)
	}
	return opened, nil
}

// openFile opens a regular file, which the result owns.
func openFile(ctx context.Context, f *os.File, location string, o Options) (*Opened, error) {
	archive, err := isImageArchive(&contextReader{ctx, f})
	if err != nil {
		return nil, err
	}
	if archive {
		opened, err := openArchive(ctx, f, location, o)
		if opened != nil || err != nil {
			return opened, err
		}
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return &Opened{Rootfs: &Rootfs{Reader: f, Config: rootfsConfig(o)}, closers: []func() error{f.Close}}, nil
}

// openArchive opens what looked like an image in a tar; nil if it is none after all.
func openArchive(ctx context.Context, f *os.File, location string, o Options) (*Opened, error) {
	flat, err := flatten(ctx, f, o.TempDir)
	if err != nil {
		return nil, err
	}
	image, err := archiveImage(ctx, flat, location, o)
	if image == nil || err != nil {
		if flat != f {
			flat.Close()
		}
		return nil, err
	}
	opened := &Opened{Image: image, closers: []func() error{image.Close}}
	if flat != f {
		opened.closers = append(opened.closers, f.Close)
	}
	return opened, nil
}

func archiveImage(ctx context.Context, flat *os.File, location string, o Options) (*Image, error) {
	b, err := indexTar(flat)
	if err != nil {
		return nil, err
	}
	if b.has(layoutFile) {
		l := &layout{members: b, where: location}
		return l.image(ctx, normalize(o.Platform))
	}
	if !b.has(saveFile) {
		return nil, nil
	}
	body, err := readMember(b, saveFile)
	if err != nil {
		return nil, err
	}
	images, ok := parseSave(body)
	if !ok {
		return nil, nil
	}
	s := &saved{tar: b, where: location}
	return s.image(ctx, images)
}

// rootfsConfig is the config of an image that brings none.
func rootfsConfig(o Options) ocispec.Image {
	p := normalize(o.Platform)
	if p.Architecture == "arm64" {
		p.Variant = "" // as images usually have it
	}
	return ocispec.Image{
		Platform: p,
		Config:   ocispec.ImageConfig{Cmd: []string{"/bin/sh"}},
		RootFS:   ocispec.RootFS{Type: "layers"},
	}
}

// localError makes the *Error of something on this machine.
func localError(op string, err error) error {
	var own *Error
	if err == nil || errors.As(err, &own) {
		return err
	}
	var path *fs.PathError
	if errors.As(err, &path) && err == error(path) {
		err = path.Err // op names the path already
	}
	e := &Error{Op: op, Cause: err}
	var hint interface{ Hint() string }
	if errors.As(err, &hint) {
		e.hint = hint.Hint()
	} else {
		e.hint = diskHint(err)
	}
	return e
}
