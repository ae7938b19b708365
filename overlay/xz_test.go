// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"
)

// readXz decodes as sbx does: whole, or with an error.
func readXz(packed []byte) ([]byte, error) {
	r, _, err := Decompress(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// packedByXz is data as the machine's xz packs it.
func packedByXz(t *testing.T, data []byte, options ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	packed, ok := run(t, append(append([]string{"xz", "-c"}, options...), path)...)
	if !ok {
		t.Fatal("there is no xz")
	}
	return packed
}

// What xz packs with several threads, in blocks that tell their sizes, and what it
// packs otherwise; what is damaged of it in any place is an error of one line.
func TestXzBlocks(t *testing.T) {
	data := noise(600_017)
	for _, options := range []string{
		"-T1", "-T2 --block-size=100000", "-T2 --block-size=100000 --check=crc32", "-T2 --block-size=100000 --check=sha256", "-T2 --block-size=100000 --check=none",
		"-T1 --block-size=100000", "-0 -T3 --block-size=65536", "-T2 --block-list=1,200000,4096,0", "-T2 --block-size=100000 --lzma2=dict=4KiB",
	} {
		t.Run(options, func(t *testing.T) {
			packed := packedByXz(t, data, strings.Fields(options)...)
			if got, err := readXz(packed); err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%d bytes, error %v", len(got), err)
			}
			twice := append(append(bytes.Clone(packed), 0, 0, 0, 0, 0, 0, 0, 0), packed...)
			if got, err := readXz(twice); err != nil || !bytes.Equal(got, append(bytes.Clone(data), data...)) {
				t.Errorf("two streams: %d bytes, error %v", len(got), err)
			}
			check := func(what string, damaged []byte) {
				t.Helper()
				got, err := readXz(damaged)
				if err == nil || !strings.HasPrefix(err.Error(), "decompress xz: ") || strings.Contains(err.Error(), "\n") || !bytes.HasPrefix(data, got) {
					t.Errorf("%s: %d bytes, error %v", what, len(got), err)
				}
			}
			for _, at := range []int{13, 100, len(packed) / 2, len(packed) - 40, len(packed) - 13, len(packed) - 3} {
				check("cut", packed[:at])
			}
			for _, at := range []int{9, 12, 13, 16, len(packed) - 20, len(packed) - 12, len(packed) - 6, len(packed) - 1} {
				wrong := bytes.Clone(packed)
				wrong[at] ^= 0x10
				check("one bit", wrong)
			}
			check("followed by three zeros", append(bytes.Clone(packed), 0, 0, 0))
		})
	}
}

// A wrong byte in the data is found by the block's check, and what is before it is read.
func TestXzCheck(t *testing.T) {
	data := random(1 << 20) // which xz stores
	for _, check := range []string{"crc32", "crc64", "sha256"} {
		packed := packedByXz(t, data, "-T2", "--block-size=262144", "--check="+check)
		packed[len(packed)*5/8] ^= 1
		got, err := readXz(packed)
		if err == nil || err.Error() != "decompress xz: damaged data" || !bytes.HasPrefix(data, got[:min(len(got), 262144*2)]) || len(got) < 262144*2 {
			t.Errorf("%s: %d bytes, error %v", check, len(got), err)
		}
	}
}

func TestXzFilters(t *testing.T) {
	for _, options := range [][]string{{"--delta=dist=4", "--lzma2"}, {"--x86", "--lzma2"}, {"-T2", "--block-size=65536", "--arm64", "--lzma2"}} {
		_, err := readXz(packedByXz(t, noise(200000), options...))
		if err == nil || err.Error() != "decompress xz: filters other than LZMA2 are not supported" {
			t.Errorf("%v: error %v", options, err)
		}
	}
}

// sizedBlocks is of xz -T2 --block-size=40 --check=crc32.
var sizedBlocks, _ = hex.DecodeString("fd377a585a0000016922de3602c02928210116001f60dc3fe0002700215d00341949ee8de911e01c8144735d45ce6079b13fff501617a94f2286c4b65692a00000000000925be0fc02c02a2821011600" +
	"b11248b9e0002700225d00329b2cde202931ca08c3bd609697facad5d95d8e96b0a0d802b1880b0787be2414ad0000006fdf695e02c02825210116000b77100ce0002400205d003661b840627c3325bb" +
	"fa2e2681bbe61b1bd54e05f31160d00163a7507211000000eb87829f000339283a28382575905d733e300d8b020000000001595a")

// Whatever the bytes are, the result is that of the library's own reader, which reads
// one block after the other.
func FuzzXz(f *testing.F) {
	data := noise(5000)
	for _, c := range []xz.WriterConfig{{}, {BlockSize: 1000}, {CheckSum: xz.SHA256}, {CheckSum: xz.CRC32, BlockSize: 4096}, {NoCheckSum: true}} {
		f.Add(xzed(data, c))
	}
	f.Add(sizedBlocks)
	f.Add(append(append(bytes.Clone(sizedBlocks), 0, 0, 0, 0), sizedBlocks...))
	f.Fuzz(func(t *testing.T, packed []byte) {
		if !bytes.HasPrefix(packed, []byte(xzMagic)) {
			return
		}
		got, err := readXz(packed)
		var limit *LimitError
		if errors.As(err, &limit) {
			return // before the library would allocate it
		}
		var want []byte
		r, wantErr := xz.NewReader(bytes.NewReader(packed))
		if wantErr == nil {
			want, wantErr = io.ReadAll(r)
		}
		if wantErr == nil && errors.Is(err, io.ErrUnexpectedEOF) && !hasFooter(bytes.TrimRight(packed, "\x00")) {
			return // the library takes a file that is cut in front of a block or index for whole
		}
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
			t.Errorf("%d bytes, error %v; the library has %d, error %v", len(got), err, len(want), wantErr)
		}
	})
}

// hasFooter reports whether data ends as a whole stream does.
func hasFooter(data []byte) bool {
	if len(data) < 12+8+12 || !bytes.HasSuffix(data, []byte(xzFooterMagic)) {
		return false
	}
	footer := data[len(data)-12:]
	return binary.LittleEndian.Uint32(footer) == crc32.ChecksumIEEE(footer[4:10])
}
