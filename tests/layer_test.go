// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// A layer is written in a script as lines of
//
//	TYPE MODE UID:GID NAME [REST] [@XATTR=VALUE]..
//
// where TYPE is dir, file, link (hard), symlink, char, block or fifo, and REST a
// file's content as a Go string or a word, a link's target, a device's
// MAJOR:MINOR. "probe NAME" is the probe program, and so is "setuid MODE UID:GID NAME".

// stamp is the time of everything in a test's layers.
var stamp = time.Unix(1700000000, 0)

// defaultLayer is an image with nothing in it but the probe, and its links.
const defaultLayer = `
dir 0755 0:0 bin/
probe bin/probe
symlink 0777 0:0 bin/cat probe
symlink 0777 0:0 bin/echo probe
symlink 0777 0:0 bin/env probe
symlink 0777 0:0 bin/false probe
symlink 0777 0:0 bin/id probe
symlink 0777 0:0 bin/sleep probe
symlink 0777 0:0 bin/true probe
`

// layerTar turns lines into a tar.
func layerTar(lines string) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for line := range strings.Lines(lines) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := writeEntry(w, line); err != nil {
			return nil, fmt.Errorf("layer line %q: %w", line, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func writeEntry(w *tar.Writer, line string) error {
	h, content, err := parseEntry(line)
	if err != nil {
		return err
	}
	h.Size = int64(len(content))
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err = w.Write(content)
	return err
}

var entryTypes = map[string]byte{
	"dir": tar.TypeDir, "file": tar.TypeReg, "setuid": tar.TypeReg, "link": tar.TypeLink, "symlink": tar.TypeSymlink,
	"char": tar.TypeChar, "block": tar.TypeBlock, "fifo": tar.TypeFifo,
}

func parseEntry(line string) (*tar.Header, []byte, error) {
	kind, rest, _ := strings.Cut(line, " ")
	if kind == "probe" {
		data, err := os.ReadFile(probeBinary)
		return &tar.Header{Typeflag: tar.TypeReg, Name: rest, Mode: 0o755, ModTime: stamp}, data, err
	}
	h := &tar.Header{Typeflag: entryTypes[kind], ModTime: stamp, Format: tar.FormatPAX}
	if h.Typeflag == 0 {
		return nil, nil, fmt.Errorf("no type %q", kind)
	}
	for {
		before, attribute, ok := cutLast(rest, " @")
		if !ok {
			break
		}
		name, value, _ := strings.Cut(attribute, "=")
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+name] = unquote(value)
		rest = before
	}
	f := strings.SplitN(rest, " ", 4)
	if len(f) < 3 {
		return nil, nil, fmt.Errorf("want TYPE MODE UID:GID NAME")
	}
	var err error
	if h.Mode, err = strconv.ParseInt(f[0], 8, 64); err != nil {
		return nil, nil, err
	}
	if _, err := fmt.Sscanf(f[1], "%d:%d", &h.Uid, &h.Gid); err != nil {
		return nil, nil, err
	}
	h.Name = f[2]
	var argument string
	if len(f) == 4 {
		argument = unquote(f[3])
	}
	if kind == "setuid" {
		data, err := os.ReadFile(probeBinary)
		return h, data, err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return h, []byte(argument), nil
	case tar.TypeLink, tar.TypeSymlink:
		h.Linkname = argument
	case tar.TypeChar, tar.TypeBlock:
		_, err = fmt.Sscanf(argument, "%d:%d", &h.Devmajor, &h.Devminor)
	}
	return h, nil, err
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func unquote(s string) string {
	if text, err := strconv.Unquote(s); err == nil {
		return text
	}
	return s
}

// compress packs a layer with one of the compressions of layers.
func compress(data []byte, how string) ([]byte, error) {
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch how {
	case "none":
		return data, nil
	case "gzip":
		w, err = gzip.NewWriterLevel(&b, gzip.BestSpeed)
	case "zstd":
		w, err = zstd.NewWriter(&b, zstd.WithEncoderLevel(zstd.SpeedFastest))
	case "xz":
		w, err = xz.NewWriter(&b)
	default:
		err = fmt.Errorf("no compression %q: none, gzip, zstd, xz", how)
	}
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	err = w.Close()
	return b.Bytes(), err
}
