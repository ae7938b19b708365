// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkUnpack unpacks each real image, decompression included.
func BenchmarkUnpack(b *testing.B) {
	for _, name := range imageFiles(b) {
		b.Run(filepath.Base(name), func(b *testing.B) {
			base := tempDir(b)
			up, err := os.Open(base)
			if err != nil {
				b.Fatal(err)
			}
			defer up.Close()
			for i := 0; b.Loop(); i++ {
				root := fmt.Sprint("root", i)
				unpackFile(b, name, filepath.Join(base, root), UnpackOptions{Recorded: true})
				b.StopTimer()
				if err := RemoveAll(context.Background(), up, root); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			var used unix.Rusage
			if unix.Getrusage(unix.RUSAGE_SELF, &used) == nil {
				b.ReportMetric(float64(used.Maxrss)/1024, "MiB-rss")
			}
		})
	}
}

func BenchmarkDecompress(b *testing.B) {
	for _, name := range imageFiles(b) {
		b.Run(filepath.Base(name), func(b *testing.B) {
			for b.Loop() {
				f, err := os.Open(name)
				if err != nil {
					b.Fatal(err)
				}
				r, _, err := Decompress(f)
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.Copy(io.Discard, r)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(n)
				r.Close()
				f.Close()
			}
		})
	}
}

// BenchmarkRemoveAll removes the largest real image.
func BenchmarkRemoveAll(b *testing.B) {
	files := imageFiles(b)
	base := tempDir(b)
	up, err := os.Open(base)
	if err != nil {
		b.Fatal(err)
	}
	defer up.Close()
	for b.Loop() {
		b.StopTimer()
		unpackFile(b, files[len(files)-1], filepath.Join(base, "root"), UnpackOptions{Recorded: true})
		b.StartTimer()
		if err := RemoveAll(context.Background(), up, "root"); err != nil {
			b.Fatal(err)
		}
	}
}
