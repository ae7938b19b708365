// SPDX-License-Identifier: Apache-2.0

package build

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"sbx/overlay"
	"sbx/store"
)

// Context is a tree that COPY reads. It must be closed.
type Context struct {
	// Image names the image that a named context stands for; there is no tree then.
	Image string

	tree tree
	temp *tempDir
}

// DirContext is a directory of this machine, read where it is.
func DirContext(dir string) (Context, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Context{}, err
	}
	fi, err := os.Stat(abs)
	if err == nil && !fi.IsDir() {
		err = errors.New("not a directory")
	}
	if err != nil {
		var p *fs.PathError
		if errors.As(err, &p) {
			err = p.Err
		}
		return Context{}, fmt.Errorf("unable to prepare context: path %q: %w", dir, err)
	}
	return Context{tree: tree{Lower: []string{abs}, Plain: true}}, nil
}

// EmptyContext has no file.
func EmptyContext() Context { return Context{} }

// StreamContext is what a stream holds: a tar archive, compressed or not, or a
// Dockerfile alone, which is returned then.
func StreamContext(ctx context.Context, st *store.Store, r io.Reader) (c Context, dockerfile []byte, err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	content, compression, err := overlay.Decompress(in)
	if err != nil {
		return Context{}, nil, fmt.Errorf("read build context: %w", err)
	}
	defer content.Close()
	body := bufio.NewReaderSize(content, 64<<10)
	head, err := body.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return Context{}, nil, fmt.Errorf("read build context: %w", err)
	}
	if len(head) == 0 {
		return Context{}, nil, errors.New("read build context: it is empty")
	}
	if compression == overlay.Plain && !isTar(head) {
		data, err := io.ReadAll(io.LimitReader(body, maxDockerfile+1))
		return Context{}, data, err
	}
	c.temp = newTempDir(st)
	dir, err := c.temp.dir()
	if err != nil {
		return Context{}, nil, err
	}
	if err := unpackContext(ctx, dir, body); err != nil {
		c.Close()
		return Context{}, nil, fmt.Errorf("unpack build context: %w", err)
	}
	c.tree = tree{Lower: []string{dir}, Recorded: true, Nobody: true}
	return c, nil, nil
}

func isTar(head []byte) bool {
	if len(head) < 512 {
		return false
	}
	_, err := tar.NewReader(&headReader{head}).Next()
	return err == nil || len(head) > 262 && string(head[257:262]) == "ustar"
}

// headReader reads a header, and then nothing.
type headReader struct{ rest []byte }

func (h *headReader) Read(p []byte) (int, error) {
	n := copy(p, h.rest)
	h.rest = h.rest[n:]
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func unpackContext(ctx context.Context, dir string, r io.Reader) error {
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	_, err = overlay.Unpack(ctx, root, r, overlay.UnpackOptions{Recorded: true})
	return err
}

// Close removes what the context was unpacked into.
func (c *Context) Close() {
	if c.temp != nil {
		c.temp.remove()
	}
}

// Ignore leaves out what the patterns of a .dockerignore match.
func (c *Context) Ignore(data []byte) error {
	patterns, err := readIgnore(data)
	if err == nil {
		_, err = newFilter(patterns)
	}
	if err != nil {
		return fmt.Errorf("read .dockerignore: %w", err)
	}
	c.tree.Ignore = patterns
	return nil
}

// ReadFile reads a file of the context, a Dockerfile or its .dockerignore. Links
// lead nowhere but inside. The error is fs.ErrNotExist if there is none.
func (c *Context) ReadFile(name string) ([]byte, error) {
	if len(c.tree.Lower) == 0 {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	f, err := overlay.OpenMerged(c.tree.Lower, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxDockerfile+1))
	if err == nil && len(data) > maxDockerfile {
		err = fmt.Errorf("read %s: it is larger than %d bytes", name, maxDockerfile)
	}
	return data, err
}
