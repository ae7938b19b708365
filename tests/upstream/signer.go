// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha1" //nolint:gosec // OpenPGP's name for a key
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"strings"
)

// OpenPGP's numbers (RFC 4880, RFC 9580).
const (
	packetSignature  = 2
	packetPublicKey  = 6
	algorithmEdDSA   = 22
	hashSHA512       = 10
	subpacketCreated = 2
	subpacketExpires = 3
	subpacketIssuer  = 16
	binarySignature  = 0
	textSignature    = 1
)

var oidEd25519 = []byte{0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01}

// Signer signs as an archive does, with an EdDSA key of its own.
type Signer struct {
	Packet  []byte // the public key, as gpg --export writes it
	private ed25519.PrivateKey
	id      []byte
}

// NewSigner makes the key of a seed.
func NewSigner(seed byte) *Signer {
	s := &Signer{private: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))}
	public := s.private.Public().(ed25519.PublicKey)
	body := []byte{4, 0, 0, 0, 1, algorithmEdDSA, byte(len(oidEd25519))}
	body = append(append(body, oidEd25519...), mpi(append([]byte{0x40}, public...))...)
	sum := sha1.New() //nolint:gosec // see the import
	sum.Write([]byte{0x99, byte(len(body) >> 8), byte(len(body))})
	sum.Write(body)
	s.id = sum.Sum(nil)[12:]
	s.Packet = packet(packetPublicKey, body)
	return s
}

// Detached signs bytes, as gpg --detach-sign does.
func (s *Signer) Detached(data []byte) []byte { return s.signature(binarySignature, data, 0) }

// ClearSigned signs a text, as gpg --clearsign does. lasts is how many seconds it
// holds, 0 for ever.
func (s *Signer) ClearSigned(text string, lasts uint32) string {
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		lines = append(lines, strings.TrimRight(line, " \t"))
	}
	signature := Armoured("SIGNATURE", s.signature(textSignature, []byte(strings.Join(lines, "\r\n")), lasts))
	for i, line := range lines {
		if strings.HasPrefix(line, "-") {
			lines[i] = "- " + line
		}
	}
	return "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n" + strings.Join(lines, "\n") + "\n" + signature
}

// Armoured is packets as text; what they are is SIGNATURE or PUBLIC KEY BLOCK.
func Armoured(what string, packets []byte) string {
	coded := base64.StdEncoding.EncodeToString(packets)
	var lines strings.Builder
	for len(coded) > 64 {
		lines.WriteString(coded[:64] + "\n")
		coded = coded[64:]
	}
	return "-----BEGIN PGP " + what + "-----\n\n" + lines.String() + coded + "\n-----END PGP " + what + "-----\n"
}

func (s *Signer) signature(kind byte, data []byte, lasts uint32) []byte {
	hashed := []byte{5, subpacketCreated, 0, 0, 0, 10}
	if lasts > 0 {
		hashed = binary.BigEndian.AppendUint32(append(hashed, 5, subpacketExpires), lasts)
	}
	head := append([]byte{4, kind, algorithmEdDSA, hashSHA512, 0, byte(len(hashed))}, hashed...)
	sum := sha512.New()
	sum.Write(data)
	sum.Write(head)
	sum.Write(binary.BigEndian.AppendUint32([]byte{4, 0xff}, uint32(len(head))))
	value := ed25519.Sign(s.private, sum.Sum(nil))
	body := append(head, 0, 10, 9, subpacketIssuer)
	body = append(append(body, s.id...), 0, 0)
	return packet(packetSignature, append(append(body, mpi(value[:32])...), mpi(value[32:])...))
}

// packet is a packet of the new format (RFC 4880 §4.2.2).
func packet(tag byte, body []byte) []byte {
	n := len(body)
	if n < 192 {
		return append([]byte{0xc0 | tag, byte(n)}, body...)
	}
	return append([]byte{0xc0 | tag, byte((n-192)>>8 + 192), byte(n - 192)}, body...)
}

// mpi is a multiprecision integer (RFC 4880 §3.2).
func mpi(b []byte) []byte {
	b = bytes.TrimLeft(b, "\x00")
	bits := len(b) * 8
	for mask := byte(0x80); len(b) > 0 && b[0]&mask == 0; mask >>= 1 {
		bits--
	}
	return append([]byte{byte(bits >> 8), byte(bits)}, b...)
}
