// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"bytes"
	"hash/crc32"
	"os/exec"
	"testing"
)

// run runs a program of this machine as an oracle. Where it is not installed it
// reports false: what it would confirm is also tested without it.
func run(t testing.TB, argv ...string) ([]byte, bool) {
	t.Helper()
	if _, err := exec.LookPath(argv[0]); err != nil {
		t.Logf("%s is not installed", argv[0])
		return nil, false
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, said.String())
	}
	return out, true
}

// putCRC32 corrects the checksum at the end of an xz header.
func putCRC32(header []byte) {
	n := len(header) - 4
	sum := crc32.ChecksumIEEE(header[:n])
	for i := range 4 {
		header[n+i] = byte(sum >> (8 * i))
	}
}
