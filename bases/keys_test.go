// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"crypto/sha1" //nolint:gosec // what OpenPGP fingerprints are
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
)

// The keys that are linked in are those that their owners have published: a
// fingerprint is the SHA-1 of the key's packet (RFC 4880, 12.2).
func TestLinkedKeys(t *testing.T) {
	for name, want := range map[string]struct {
		data         []byte
		fingerprints []string
	}{
		"archlinux": {archKeys, []string{"3e80ca1a8b89f69cba57d98a76a5ef9054449a5c"}},
		"debian": {debianKeys, []string{
			"1f89983e0081fde018f3cc9673a4f27b8dd47936", // bullseye
			"b8b80b5b623eab6ad8775c45b7c5d7d6350947f8", // bookworm
		}},
		"ubuntu": {ubuntuKeys, []string{"f6ecb3762474eda9d21b7022871920d1991bc93c"}},
	} {
		keys, err := parseKeyring(want.data)
		if err != nil || len(keys) == 0 {
			t.Errorf("%s: %d keys, %v", name, len(keys), err)
		}
		var got []string
		for data := want.data; len(data) > 0; {
			tag, body, rest, err := nextPacket(data)
			if err != nil {
				t.Fatal(err)
			}
			if data = rest; tag == packetPublicKey {
				head := binary.BigEndian.AppendUint16([]byte{0x99}, uint16(len(body)))
				got = append(got, fmt.Sprintf("%x", sha1.Sum(append(head, body...)))) //nolint:gosec // see above
			}
		}
		for _, f := range want.fingerprints {
			if !slices.Contains(got, f) {
				t.Errorf("%s: keys %v, want %s", name, got, f)
			}
		}
	}
}
