// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxMembers bounds the entries of an image archive.
const maxMembers = 100_000

// memberSet is the files of an image on disk: a folder's or a tar's.
type memberSet interface {
	// member opens a regular file by its clean slash-separated name. The error of one
	// that is not there is fs.ErrNotExist.
	member(name string) (*section, error)
	close() error
}

// section is one member, to be closed after reading.
type section struct {
	*io.SectionReader
	io.Closer
}

// readMember returns the content of a member that is a document: an index, a
// manifest or a config, of at most maxManifest bytes.
func readMember(m memberSet, name string) ([]byte, error) {
	s, err := m.member(name)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if s.Size() > maxManifest {
		return nil, fmt.Errorf("%s is larger than %d MiB", name, maxManifest>>20)
	}
	return io.ReadAll(s)
}

// folder is a directory whose members are opened step by step beneath it, through no
// symbolic link: a layout from elsewhere must not make us read this machine's files.
type folder struct {
	dir *os.File
}

func (f *folder) member(name string) (*section, error) {
	at := int(f.dir.Fd())
	steps := strings.Split(name, "/")
	for i, step := range steps {
		flags := unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK
		if i < len(steps)-1 {
			flags |= unix.O_PATH | unix.O_DIRECTORY
		}
		fd, err := unix.Openat(at, step, flags, 0)
		if at != int(f.dir.Fd()) {
			unix.Close(at)
		}
		if err != nil {
			return nil, stepError(f.dir, steps[:i+1], err)
		}
		at = fd
	}
	file := os.NewFile(uintptr(at), name)
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return &section{io.NewSectionReader(file, 0, info.Size()), file}, nil
}

// stepError names what stands in the way.
func stepError(dir *os.File, steps []string, err error) error {
	name := strings.Join(steps, "/")
	var st unix.Stat_t
	if (err == unix.ELOOP || err == unix.ENOTDIR) && unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return &hinted{text: name + " is a symbolic link", hint: "links in a layout are not followed: copy the file they point to"}
	}
	return fmt.Errorf("%s: %w", name, err)
}

func (f *folder) close() error { return f.dir.Close() }

// tarball is an uncompressed tar whose members are read where they lie.
type tarball struct {
	file    *os.File
	members map[string]tarMember
}

type tarMember struct {
	offset, size int64
	link         string // for links: the member meant
	sparse       bool
}

// indexTar reads all headers of the tar file. Of two members of one name the later
// counts, as when unpacking.
func indexTar(file *os.File) (*tarball, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	b := &tarball{file: file, members: map[string]tarMember{}}
	t := tar.NewReader(file)
	for count := 0; ; count++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return b, nil
		}
		if count == 0 && (errors.Is(err, tar.ErrHeader) || err != nil && info.Size() < tarBlock) {
			head := make([]byte, 256)
			n, _ := file.ReadAt(head, 0)
			return nil, notTar(head[:n])
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, &hinted{text: "the file is truncated", hint: "download or copy it again"}
		}
		if err != nil {
			return nil, fmt.Errorf("read tar: %w", err)
		}
		if count == maxMembers {
			return nil, fmt.Errorf("the archive has more than %d members", maxMembers)
		}
		// archive/tar has read the headers and nothing of the data.
		offset, err := file.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		name := memberName(h.Name)
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeGNUSparse:
			m := tarMember{offset: offset, size: h.Size, sparse: isSparse(h)}
			if !m.sparse && m.size > info.Size()-m.offset {
				return nil, &hinted{text: "the file is truncated", hint: "download or copy it again"}
			}
			b.members[name] = m
		case tar.TypeSymlink:
			b.members[name] = tarMember{link: memberName(path.Join(path.Dir(name), h.Linkname))}
		case tar.TypeLink:
			b.members[name] = tarMember{link: memberName(h.Linkname)}
		}
	}
}

func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func (b *tarball) member(name string) (*section, error) {
	m, ok := b.members[name]
	switch {
	case !ok:
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	case m.link != "":
		return nil, &hinted{text: name + " is a link", hint: "links in a layout are not followed: pack the file they point to"}
	case m.sparse:
		return nil, fmt.Errorf("%s is stored with holes, which image archives do not use", name)
	}
	return &section{io.NewSectionReader(b.file, m.offset, m.size), io.NopCloser(nil)}, nil
}

// resolve follows links between members: old archives of docker save hold a layer once
// and link to it.
func (b *tarball) resolve(name string) string {
	name = memberName(name)
	for range 8 {
		m, ok := b.members[name]
		if !ok || m.link == "" {
			break
		}
		name = m.link
	}
	return name
}

func (b *tarball) has(name string) bool {
	m, ok := b.members[name]
	return ok && m.link == ""
}

func (b *tarball) close() error { return b.file.Close() }
