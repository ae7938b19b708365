// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A copy has the same content and the same holes.
func TestCopyData(t *testing.T) {
	for _, plain := range []bool{false, true} {
		base := t.TempDir()
		src, err := os.Create(filepath.Join(base, "src"))
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		piece := noise(300_000)
		for _, off := range []int64{0, 4 << 20, 9 << 20} {
			if _, err := src.WriteAt(piece, off); err != nil {
				t.Fatal(err)
			}
		}
		if err := src.Truncate(16 << 20); err != nil {
			t.Fatal(err)
		}
		dst, err := os.Create(filepath.Join(base, "dst"))
		if err != nil {
			t.Fatal(err)
		}
		defer dst.Close()
		if plain {
			c := copier{ctx: t.Context(), dst: int(dst.Fd()), src: int(src.Fd()), plain: true}
			err = c.copyRange(0, 16<<20)
		} else {
			var n int64
			if n, err = CopyData(t.Context(), dst, src); n != 16<<20 {
				t.Errorf("%d bytes", n)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		a, err1 := os.ReadFile(src.Name())
		b, err2 := os.ReadFile(dst.Name())
		if err := errors.Join(err1, err2); err != nil || !bytes.Equal(a, b) {
			t.Errorf("the copy differs: %v", err)
		}
		var sa, sb unix.Stat_t
		if err := errors.Join(unix.Stat(src.Name(), &sa), unix.Stat(dst.Name(), &sb)); err != nil {
			t.Fatal(err)
		}
		if !plain && sb.Blocks > sa.Blocks+64 {
			t.Errorf("the copy takes %d blocks, the file %d", sb.Blocks, sa.Blocks)
		}
	}
}

func TestCopyDataCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	base := t.TempDir()
	src, err1 := os.Create(filepath.Join(base, "src"))
	dst, err2 := os.Create(filepath.Join(base, "dst"))
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	defer dst.Close()
	if _, err := src.WriteString("content"); err != nil {
		t.Fatal(err)
	}
	if _, err := CopyData(ctx, dst, src); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestChecks(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := CheckXattr(dir); err != nil {
		t.Error(err)
	}
	if err := CheckWhiteout(dir); err != nil {
		t.Error(err)
	}
	if list, err := os.ReadDir(dir.Name()); err != nil || len(list) > 0 {
		t.Errorf("left: %v, %v", list, err)
	}
	proc, err := os.Open("/proc/self")
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	if err := CheckXattr(proc); err == nil {
		t.Error("procfs takes files")
	}
	var refused *FeatureError
	if err := CheckWhiteout(proc); !errors.As(err, &refused) || refused.Hint() == "" {
		t.Errorf("error %v", err)
	}
}
