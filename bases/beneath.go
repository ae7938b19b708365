// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"archive/tar"
	"errors"
	"io"
	"path"
	"strings"

	"sbx/overlay"
)

// beneath is a tarball with one of its directories as the root; "" leaves it as it
// is. What is not in there is left out. It must be closed.
func beneath(tarball io.Reader, dir string) io.ReadCloser {
	if dir == "" {
		return io.NopCloser(tarball)
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(copyBeneath(w, tarball, dir)) }()
	return r
}

func copyBeneath(w io.Writer, tarball io.Reader, dir string) error {
	plain, _, err := overlay.Decompress(tarball)
	if err != nil {
		return err
	}
	defer plain.Close()
	in, out := tar.NewReader(plain), tar.NewWriter(w)
	any := false
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name, ok := below(h.Name, dir)
		if !ok {
			continue
		}
		any = true
		h.Name = name
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		if h.Typeflag == tar.TypeLink {
			if h.Linkname, ok = below(h.Linkname, dir); !ok {
				return errors.New("a hard link leads out of " + dir)
			}
		}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
	}
	if !any {
		return errors.New("the archive has no directory " + dir)
	}
	return out.Close()
}

// below is a name in an archive, as seen from a directory of it.
func below(name, dir string) (string, bool) {
	name = path.Clean(strings.TrimPrefix(name, "./"))
	if name == dir {
		return ".", true
	}
	rest, ok := strings.CutPrefix(name, dir+"/")
	return rest, ok && rest != ".." && !strings.HasPrefix(rest, "../")
}
