// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"sbx/overlay"
)

// deb is a binary package that is being read (deb(5)): an ar archive of a
// version, the control files and the data, in this order.
type deb struct {
	r       io.Reader
	control map[string][]byte // by name: control, md5sums, preinst, ..
	// decompress opens the data; nil: as overlay.Decompress does.
	decompress func(io.Reader) (io.ReadCloser, error)
}

// The ar archive of a deb(5), and bounds for what is kept in memory of it.
const (
	arMagic    = "!<arch>\n"
	arHeader   = 60
	maxControl = 32 << 20
)

var errDeb = errors.New("not a Debian package")

// openDeb reads up to the data.
func openDeb(r io.Reader) (*deb, error) {
	d := &deb{r: r}
	magic := make([]byte, len(arMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != arMagic {
		return nil, errDeb
	}
	name, size, err := d.next()
	if err != nil || name != "debian-binary" || size > 64 {
		return nil, errDeb
	}
	version := make([]byte, size)
	if _, err := io.ReadFull(d.r, version); err != nil || !bytes.HasPrefix(version, []byte("2.")) {
		return nil, errDeb
	}
	if err := d.pad(size); err != nil {
		return nil, err
	}
	if name, size, err = d.next(); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(name, "control.tar") {
		return nil, errDeb
	}
	if err := d.readControl(io.LimitReader(d.r, size)); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return d, d.pad(size)
}

// next reads the header of an ar member.
func (d *deb) next() (name string, size int64, err error) {
	head := make([]byte, arHeader)
	if _, err := io.ReadFull(d.r, head); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return "", 0, err
	}
	if string(head[58:]) != "`\n" {
		return "", 0, errDeb
	}
	size, err = strconv.ParseInt(strings.TrimSpace(string(head[48:58])), 10, 64)
	if err != nil || size < 0 {
		return "", 0, errDeb
	}
	return strings.TrimSuffix(strings.TrimSpace(string(head[:16])), "/"), size, nil
}

// pad passes over the byte behind a member of odd length.
func (d *deb) pad(size int64) error {
	if size%2 == 0 {
		return nil
	}
	_, err := io.CopyN(io.Discard, d.r, 1)
	return err
}

func (d *deb) readControl(r io.Reader) error {
	plain, _, err := overlay.Decompress(r)
	if err != nil {
		return err
	}
	defer plain.Close()
	d.control = map[string][]byte{}
	left := int64(maxControl)
	for archive := tar.NewReader(plain); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name := path.Clean(h.Name)
		if h.Typeflag != tar.TypeReg || strings.Contains(name, "/") || !validControl(name) {
			if h.Typeflag == tar.TypeDir {
				continue
			}
			return fmt.Errorf("strange control file %.60q", h.Name)
		}
		if left -= h.Size; left < 0 {
			return errors.New("its control files are too large")
		}
		if d.control[name], err = io.ReadAll(archive); err != nil {
			return err
		}
	}
	if d.control["control"] == nil {
		return errDeb
	}
	// What is behind the end of the tar belongs to the member.
	_, err = io.Copy(io.Discard, r)
	return err
}

// validControl holds the name of a control file to what dpkg allows: it becomes
// a part of a file's name.
func validControl(name string) bool {
	return name != "" && name[0] != '.' && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// eachFile calls f for each entry of the data, with the content of a file.
func (d *deb) eachFile(f func(h *tar.Header, r io.Reader) error) error {
	for {
		name, size, err := d.next()
		if err != nil {
			return err
		}
		if strings.HasPrefix(name, "data.tar") {
			return d.readData(io.LimitReader(d.r, size), f)
		}
		// Members whose name begins with _ are for others (deb(5)).
		if !strings.HasPrefix(name, "_") {
			return errDeb
		}
		if _, err := io.CopyN(io.Discard, d.r, size+size%2); err != nil {
			return err
		}
	}
}

func (d *deb) readData(r io.Reader, f func(h *tar.Header, r io.Reader) error) error {
	if d.decompress == nil {
		d.decompress = func(r io.Reader) (io.ReadCloser, error) {
			plain, _, err := overlay.Decompress(r)
			return plain, err
		}
	}
	plain, err := d.decompress(r)
	if err != nil {
		return err
	}
	defer plain.Close()
	for archive := tar.NewReader(plain); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			_, err := io.Copy(io.Discard, plain) // with the checksum at the end
			return err
		}
		if err != nil {
			return err
		}
		if err := f(h, archive); err != nil {
			return err
		}
	}
}
