// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"bytes"
	"io"
	"time"
)

var (
	beginKeys = []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----")
	endKeys   = []byte("-----END PGP PUBLIC KEY BLOCK-----")
)

// plainPackets takes the armour off packets that have one.
func plainPackets(data, begin, end []byte) ([]byte, error) {
	armoured, ok := bytes.CutPrefix(bytes.TrimSpace(data), begin)
	if !ok {
		return data, nil
	}
	lines := bytes.Split(bytes.ReplaceAll(armoured, []byte("\r\n"), []byte("\n")), []byte("\n"))
	return unarmour(lines[1:], end)
}

// verifyDetached checks a signature that stands in a file of its own, armoured or
// not, and returns the key that made it. write writes what is signed, from its
// beginning each time.
func (k keyring) verifyDetached(data []byte, write func(io.Writer) error, now time.Time) (uint64, error) {
	data, err := plainPackets(data, beginSignature, endSignature)
	if err != nil {
		return 0, err
	}
	list, err := parseSignatures(data)
	if err != nil {
		return 0, err
	}
	refused := &signatureError{}
	for _, s := range list {
		// The other kind, of text, has line ends of its own.
		if s.kind == 0 && k.verify(s, write, now) {
			return s.issuer, nil
		}
		refused.issuers = append(refused.issuers, s.issuer)
	}
	return 0, refused
}
