// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// noise is data that compresses a little.
func noise(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = "abcdefgh"[r.IntN(8)]
	}
	return b
}

func zipped(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	w.Close()
	return b.Bytes()
}

func zstded(data []byte, options ...zstd.EOption) []byte {
	w, err := zstd.NewWriter(nil, options...)
	if err != nil {
		panic(err)
	}
	return w.EncodeAll(data, nil)
}

func xzed(data []byte, c xz.WriterConfig) []byte {
	var b bytes.Buffer
	w, err := c.NewWriter(&b)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err)
	}
	return b.Bytes()
}

// bzipped is "hello bzip2\n"; Go has no encoder.
var bzipped, _ = hex.DecodeString("425a6839314159265359ab6ba1f1000002d9800010400010001264c01020003100d34d04001ea3ef4e51a2078bb9229c284855b5d0f880")

// skippable is a zstd frame of metadata.
const skippable = "\x50\x2a\x4d\x18\x04\x00\x00\x00meta"

func TestDecompress(t *testing.T) {
	data := noise(3 << 20)
	twice := append(bytes.Clone(data), data...)
	tests := []struct {
		name string
		in   []byte
		want []byte
		c    Compression
	}{
		{"gzip", zipped(data), data, Gzip},
		{"gzip members", append(zipped(data), zipped(data)...), twice, Gzip},
		{"gzip of nothing", zipped(nil), nil, Gzip},
		{"zstd", zstded(data), data, Zstd},
		{"zstd frames", append(zstded(data), zstded(data)...), twice, Zstd},
		{"zstd skippable", append([]byte(skippable), zstded(data)...), data, Zstd},
		{"xz", xzed(data, xz.WriterConfig{}), data, Xz},
		{"xz blocks", xzed(data, xz.WriterConfig{BlockSize: 100000}), data, Xz},
		{"xz streams", append(append(xzed(data, xz.WriterConfig{CheckSum: xz.SHA256}), 0, 0, 0, 0), xzed(data, xz.WriterConfig{CheckSum: xz.CRC32})...), twice, Xz},
		{"xz without check", xzed(data, xz.WriterConfig{NoCheckSum: true}), data, Xz},
		{"xz of nothing", xzed(nil, xz.WriterConfig{}), nil, Xz},
		{"xz of noise", xzed(random(1<<20), xz.WriterConfig{}), random(1 << 20), Xz},
		{"bzip2", bzipped, []byte("hello bzip2\n"), Bzip2},
		{"bzip2 twice", append(bytes.Clone(bzipped), bzipped...), []byte("hello bzip2\nhello bzip2\n"), Bzip2},
		{"plain", archive(file("x", "y")), archive(file("x", "y")), Plain},
		{"plain called PK", archive(file("PK\x03\x04", "y")), archive(file("PK\x03\x04", "y")), Plain},
		{"nothing", nil, nil, Plain},
		{"short", []byte("\x1f"), []byte("\x1f"), Plain},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			source := bytes.NewReader(tt.in)
			r, c, err := Decompress(source)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			got, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, tt.want) || c != tt.c {
				t.Errorf("%d bytes of %v, want %d of %v", len(got), c, len(tt.want), tt.c)
			}
			if source.Len() > 0 {
				t.Errorf("%d bytes were not read", source.Len())
			}
		})
	}
}

// random is data that does not compress, so that xz stores it.
func random(n int) []byte {
	r := rand.NewChaCha8([32]byte{})
	b := make([]byte, n)
	r.Read(b)
	return b
}

// What is not one whole compressed stream is an error (U20).
func TestU20DamagedCompression(t *testing.T) {
	data := noise(1 << 20)
	tests := map[string][]byte{"gzip": zipped(data), "zstd": zstded(data), "xz": xzed(data, xz.WriterConfig{}), "bzip2": bzipped}
	for name, whole := range tests {
		check := func(how string, in []byte) {
			t.Helper()
			r, _, err := Decompress(bytes.NewReader(in))
			if err == nil {
				_, err = io.Copy(io.Discard, r)
				r.Close()
			}
			if err == nil {
				t.Errorf("%s, %s: no error", name, how)
			} else if !strings.HasPrefix(err.Error(), "decompress ") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s, %s: error %q", name, how, err)
			}
		}
		check("cut at the end", whole[:len(whole)-3])
		check("cut in the middle", whole[:len(whole)/2])
		check("cut in the header", whole[:6])
		check("followed by garbage", append(bytes.Clone(whole), "this is garbage"...))
		wrong := bytes.Clone(whole)
		wrong[len(wrong)/2] ^= 0x40
		check("one bit", wrong)
		if name == "gzip" || name == "bzip2" {
			wrong = bytes.Clone(whole)
			wrong[len(wrong)-6] ^= 1
			check("checksum", wrong)
		}
	}
}

func TestDecompressUnknown(t *testing.T) {
	for magic, name := range map[string]string{
		"\x04\x22\x4d\x18": "lz4", "PK\x03\x04": "zip", "7z\xbc\xaf\x27\x1c": "7-Zip", "LZIP\x01": "lzip", "\x1f\x9d\x90": "compress (.Z)",
	} {
		_, _, err := Decompress(strings.NewReader(magic + strings.Repeat("x", 1000)))
		var unknown *UnknownCompressionError
		if !errors.As(err, &unknown) || err.Error() != "decompress: "+name+" is not supported" || hintOf(err) == "" {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// Windows that would take too much memory are refused before it is taken (U21).
func TestU21Windows(t *testing.T) {
	// A zstd frame header: 2 GiB window, exponent 21 of 1 KiB.
	frame := append([]byte("\x28\xb5\x2f\xfd\x00"), 21<<3)
	frame = append(frame, zstded(noise(1000))[6:]...)
	// Content beyond a window of the largest size is no problem.
	large := zstded(make([]byte, 300<<20), zstd.WithWindowSize(8<<20))
	tests := []struct {
		name string
		in   []byte
		want string
	}{
		{"zstd", frame, "more than 134217728 bytes of window"},
		{"xz", xzWithDictionary(t, 40), "more than 67108864 bytes of window"},
		{"xz, 96 MiB", xzWithDictionary(t, 31), "more than 67108864 bytes of window"},
		{"xz, 64 MiB", xzWithDictionary(t, 28), ""},
		{"xz, second block", append(xzWithDictionary(t, 20), xzWithDictionary(t, 40)...), "more than 67108864 bytes of window"},
		{"large zstd", large, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r, _, err := Decompress(bytes.NewReader(tt.in))
			if err == nil {
				defer r.Close()
				_, err = io.Copy(io.Discard, r)
			}
			runtime.ReadMemStats(&after)
			var limit *LimitError
			if tt.want == "" && err != nil || tt.want != "" && (!errors.As(err, &limit) || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %s", err, tt.want)
			}
			if n := after.TotalAlloc - before.TotalAlloc; tt.want != "" && n > 48<<20 {
				t.Errorf("%d bytes were allocated for it", n)
			}
		})
	}
}

// xzWithDictionary is a stream that declares a dictionary by its code in the
// format, 40 for 4 GiB.
func xzWithDictionary(t testing.TB, code byte) []byte {
	t.Helper()
	data := xzed([]byte("content"), xz.WriterConfig{})
	at := bytes.Index(data[12:24], []byte{0x21, 1}) + 12 + 2
	if at < 14 {
		t.Fatal("no LZMA2 filter in the header")
	}
	data[at] = code
	size := (int(data[12]) + 1) * 4
	putCRC32(data[12 : 12+size])
	return data
}

// Close ends the goroutine, whether the source still has something or blocks.
func TestDecompressClose(t *testing.T) {
	before := runtime.NumGoroutine()
	large, small := zipped(noise(1<<20)), zipped(noise(1000))
	for range 20 {
		r, _, err := Decompress(io.MultiReader(bytes.NewReader(large), &endless{next: func(_ int, b *bytes.Buffer) { b.Write(small) }}))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		r.Close()
		r.Close()
		if n, err := io.Copy(io.Discard, r); err == nil || n > 2<<20 {
			t.Errorf("a closed reader reads %d bytes", n)
		}
	}
	pr, pw := io.Pipe()
	go pw.Write(zipped(noise(1 << 20))[:1000])
	r, _, err := Decompress(pr)
	if err != nil {
		t.Fatal(err)
	}
	r.Close() // while the source blocks
	pr.Close()
	pw.Close()
	for end := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, there were %d", runtime.NumGoroutine(), before)
		}
	}
}

// The tools write what we read.
func TestDecompressTools(t *testing.T) {
	data := noise(2 << 20)
	path := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tool := range [][]string{{"gzip", "-c"}, {"bzip2", "-c"}, {"xz", "-9", "-c"}, {"xz", "-T2", "--block-size=300000", "-c"}, {"xz", "-0", "--check=none", "-c"},
		{"zstd", "-q", "-c"}, {"zstd", "-q", "--long=27", "-c"}, {"zstd", "-q", "--ultra", "-22", "-c"}} {
		packed, ok := run(t, append(tool, path)...)
		if !ok {
			continue
		}
		r, _, err := Decompress(bytes.NewReader(packed))
		if err != nil {
			t.Errorf("%v: %v", tool, err)
			continue
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%v: %d bytes, error %v", tool, len(got), err)
		}
		r.Close()
	}
}

// No program decompresses for us: those of an image, first on PATH, are not run
// (U18).
func TestU18RunsNoProgram(t *testing.T) {
	bin := t.TempDir()
	ran := filepath.Join(bin, "ran")
	for _, name := range []string{"gzip", "gunzip", "unpigz", "pigz", "zstd", "unzstd", "xz", "unxz", "bzip2", "bunzip2", "tar", "sh"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\necho >>"+ran+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
	data := archive(file("x", "y"))
	for _, in := range [][]byte{zipped(data), zstded(data), xzed(data, xz.WriterConfig{}), bzipped, []byte("\x1f\x9d"), data} {
		r, _, err := Decompress(bytes.NewReader(in))
		if err != nil {
			continue
		}
		_, _ = unpackReader(t, tempDir(t), r, Limits{})
		r.Close()
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("a program ran")
	}
}
