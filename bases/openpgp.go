// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // OpenPGP's name for a key (RFC 4880 §12.2), no protection
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/big"
	"time"
)

// publicKey is a key that may sign an archive's index.
type publicKey struct {
	id      uint64
	rsa     *rsa.PublicKey
	ed25519 ed25519.PublicKey
}

// keyring is the keys that are trusted, as gpg --export writes them. Their
// binding signatures are not looked at: a key that is in the file is trusted.
type keyring []publicKey

// OpenPGP's numbers (RFC 4880, RFC 9580).
const (
	packetSignature = 2
	packetPublicKey = 6
	packetSubkey    = 14

	algorithmRSA     = 1
	algorithmRSASign = 3
	algorithmEdDSA   = 22

	subpacketCreated = 2
	subpacketExpires = 3
	subpacketIssuer  = 16
)

// oidEd25519 names the curve of an EdDSA key (RFC 9580 §9.2).
var oidEd25519 = []byte{0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01}

var errOpenPGP = errors.New("damaged OpenPGP data")

// parseKeyring reads public keys and subkeys; other packets are passed over, as
// are keys of algorithms that no archive uses any more.
func parseKeyring(data []byte) (keyring, error) {
	var keys keyring
	data, err := plainPackets(data, beginKeys, endKeys)
	if err != nil {
		return nil, err
	}
	for len(data) > 0 {
		tag, body, rest, err := nextPacket(data)
		if err != nil {
			return nil, err
		}
		data = rest
		if tag != packetPublicKey && tag != packetSubkey {
			continue
		}
		key, err := parseKey(body)
		if err != nil {
			return nil, err
		}
		if key != nil {
			keys = append(keys, *key)
		}
	}
	return keys, nil
}

// nextPacket takes a packet off data (RFC 4880 §4.2).
func nextPacket(data []byte) (tag byte, body, rest []byte, err error) {
	r := reader{data: data}
	head := r.byte()
	var n uint64
	switch {
	case head&0xc0 == 0xc0:
		tag = head & 0x3f
		n = r.newLength()
	case head&0x80 != 0:
		tag = head >> 2 & 0x0f
		if head&3 == 3 {
			return 0, nil, nil, errOpenPGP // without a length: not in a file of keys
		}
		n = r.number(1 << (head & 3))
	default:
		return 0, nil, nil, errOpenPGP
	}
	body = r.take(n)
	if r.bad {
		return 0, nil, nil, errOpenPGP
	}
	return tag, body, r.data, nil
}

func parseKey(body []byte) (*publicKey, error) {
	r := reader{data: body}
	version := r.byte()
	r.take(4) // made when
	algorithm := r.byte()
	if r.bad {
		return nil, errOpenPGP
	}
	if version != 4 {
		return nil, nil
	}
	key := &publicKey{}
	switch algorithm {
	case algorithmRSA, algorithmRSASign:
		n, e := r.integer(), r.integer()
		if r.bad || e.BitLen() > 31 || e.BitLen() < 2 {
			return nil, errOpenPGP
		}
		if n.BitLen() < 2048 {
			return nil, nil // too weak to prove anything
		}
		key.rsa = &rsa.PublicKey{N: n, E: int(e.Int64())}
	case algorithmEdDSA:
		oid, point := r.take(uint64(r.byte())), r.integer().Bytes()
		if r.bad {
			return nil, errOpenPGP
		}
		if !bytes.Equal(oid, oidEd25519) || len(point) != 1+ed25519.PublicKeySize || point[0] != 0x40 {
			return nil, nil
		}
		key.ed25519 = point[1:]
	default:
		return nil, nil
	}
	sum := sha1.New() //nolint:gosec // see the import
	sum.Write([]byte{0x99, byte(len(body) >> 8), byte(len(body))})
	sum.Write(body)
	key.id = binary.BigEndian.Uint64(sum.Sum(nil)[12:])
	return key, nil
}

// signature is one of a text's, of which any may prove it.
type signature struct {
	kind      byte
	algorithm byte
	digest    byte
	hashed    []byte // what of the signature is itself signed
	expires   time.Time
	issuer    uint64
	values    []byte
}

// parseSignatures reads the signatures of version 4; others are passed over.
func parseSignatures(data []byte) ([]signature, error) {
	var list []signature
	for len(data) > 0 {
		tag, body, rest, err := nextPacket(data)
		if err != nil {
			return nil, err
		}
		data = rest
		if tag != packetSignature || len(body) == 0 || body[0] != 4 {
			continue
		}
		r := reader{data: body}
		r.byte()
		s := signature{kind: r.byte(), algorithm: r.byte(), digest: r.byte()}
		hashed := r.take(r.number(2))
		loose := r.take(r.number(2))
		r.take(2) // the digest's first bytes, for a quick look
		if r.bad {
			return nil, errOpenPGP
		}
		s.hashed, s.values = body[:6+len(hashed)], r.data
		if err := s.subpackets(hashed, true); err != nil {
			return nil, err
		}
		if err := s.subpackets(loose, false); err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// subpackets reads who signed and until when that holds. Only what is signed
// itself is believed of the latter.
func (s *signature) subpackets(data []byte, signed bool) error {
	var made, lasts uint64
	for r := (reader{data: data}); len(r.data) > 0; {
		p := reader{data: r.take(r.newLength())}
		kind := p.byte() & 0x7f
		switch {
		case kind == subpacketIssuer:
			s.issuer = p.number(8)
		case kind == subpacketCreated && signed:
			made = p.number(4)
		case kind == subpacketExpires && signed:
			lasts = p.number(4)
		}
		if r.bad || p.bad {
			return errOpenPGP
		}
	}
	if lasts > 0 {
		s.expires = time.Unix(int64(made+lasts), 0)
	}
	return nil
}

// verify reports whether one of the keys made the signature of the text that
// write writes.
func (k keyring) verify(s signature, write func(io.Writer) error, now time.Time) bool {
	if s.kind > 1 || !s.expires.IsZero() && now.After(s.expires) {
		return false
	}
	var sum hash.Hash
	var kind crypto.Hash
	switch s.digest {
	case 8:
		sum, kind = sha256.New(), crypto.SHA256
	case 9:
		sum, kind = sha512.New384(), crypto.SHA384
	case 10:
		sum, kind = sha512.New(), crypto.SHA512
	default:
		return false // SHA-1 and older prove nothing any more
	}
	if write(sum) != nil {
		return false
	}
	sum.Write(s.hashed)
	sum.Write(binary.BigEndian.AppendUint32([]byte{4, 0xff}, uint32(len(s.hashed))))
	digest := sum.Sum(nil)
	for _, key := range k {
		if s.issuer != 0 && s.issuer != key.id {
			continue
		}
		r := reader{data: s.values}
		switch {
		case key.rsa != nil && (s.algorithm == algorithmRSA || s.algorithm == algorithmRSASign):
			value := r.integer()
			if r.bad || value.BitLen() > key.rsa.N.BitLen() {
				continue
			}
			if rsa.VerifyPKCS1v15(key.rsa, kind, digest, value.FillBytes(make([]byte, key.rsa.Size()))) == nil {
				return true
			}
		case key.ed25519 != nil && s.algorithm == algorithmEdDSA:
			a, b := r.integer(), r.integer()
			if r.bad || a.BitLen() > 256 || b.BitLen() > 256 {
				continue
			}
			value := append(a.FillBytes(make([]byte, 32)), b.FillBytes(make([]byte, 32))...)
			if ed25519.Verify(key.ed25519, digest, value) {
				return true
			}
		}
	}
	return false
}

// The armour of a clear-signed text (RFC 4880 §7).
var (
	beginSigned    = []byte("-----BEGIN PGP SIGNED MESSAGE-----")
	beginSignature = []byte("-----BEGIN PGP SIGNATURE-----")
	endSignature   = []byte("-----END PGP SIGNATURE-----")
)

// signatureError says that nobody who is trusted signed a text.
type signatureError struct{ issuers []uint64 }

func (e *signatureError) Error() string {
	text := "no good signature of a key that is trusted"
	for i, id := range e.issuers {
		text += fmt.Sprintf("%s %016X", map[bool]string{true: ", signed by", false: " and"}[i == 0], id)
	}
	return text
}

// Hint says what that may mean.
func (e *signatureError) Hint() string {
	return "the server may be damaged or somebody else's; keys are named with --keyring FILE or bases.keys in config.toml"
}

// openSigned returns the text of a clear-signed message that one of the keys has
// signed: its signed lines and nothing before or after them.
func (k keyring) openSigned(data []byte, now time.Time) ([]byte, error) {
	text, armour, err := splitSigned(data)
	if err != nil {
		return nil, err
	}
	packets, err := unarmour(armour, endSignature)
	if err != nil {
		return nil, err
	}
	list, err := parseSignatures(packets)
	if err != nil {
		return nil, err
	}
	canonical := bytes.Join(text, []byte("\r\n"))
	refused := &signatureError{}
	for _, s := range list {
		if k.verify(s, func(w io.Writer) error { _, err := w.Write(canonical); return err }, now) {
			return append(bytes.Join(text, []byte("\n")), '\n'), nil
		}
		refused.issuers = append(refused.issuers, s.issuer)
	}
	return nil, refused
}

var errNotSigned = errors.New("not a signed text")

// splitSigned takes a clear-signed message apart: its lines, without dash
// escapes and spaces at their ends, and the signature's armour.
func splitSigned(data []byte) (text, armour [][]byte, err error) {
	lines := bytes.Split(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")), []byte("\n"))
	if len(lines) == 0 || !bytes.Equal(bytes.TrimRight(lines[0], " \t"), beginSigned) {
		return nil, nil, errNotSigned
	}
	at := 1
	for at < len(lines) && len(lines[at]) > 0 { // Hash: headers
		at++
	}
	for at++; at < len(lines); at++ {
		line := bytes.TrimRight(lines[at], " \t")
		if bytes.Equal(line, beginSignature) {
			return text, lines[at+1:], nil
		}
		if bytes.HasPrefix(line, []byte("- ")) {
			line = line[2:]
		} else if bytes.HasPrefix(line, []byte("-")) {
			return nil, nil, errNotSigned // a dash that is not escaped ends a text
		}
		text = append(text, line)
	}
	return nil, nil, errNotSigned
}

// unarmour decodes base64 lines up to the end mark. The checksum line is passed
// over: the signature protects itself.
func unarmour(lines [][]byte, end []byte) ([]byte, error) {
	var coded []byte
	header := true
	for _, line := range lines {
		line = bytes.TrimSpace(line)
		switch {
		case bytes.Equal(line, end):
			data, err := base64.StdEncoding.DecodeString(string(coded))
			if err != nil {
				return nil, errOpenPGP
			}
			return data, nil
		case header:
			header = len(line) > 0
		case bytes.HasPrefix(line, []byte("=")):
		default:
			coded = append(coded, line...)
		}
	}
	return nil, errNotSigned
}

// reader takes numbers off bytes; once there are too few, bad stays set.
type reader struct {
	data []byte
	bad  bool
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.data)) {
		r.bad, r.data = true, nil
		return nil
	}
	head := r.data[:n]
	r.data = r.data[n:]
	return head
}

func (r *reader) byte() byte {
	if b := r.take(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

// number reads n bytes, the highest first.
func (r *reader) number(n int) uint64 {
	var v uint64
	for _, b := range r.take(uint64(n)) {
		v = v<<8 | uint64(b)
	}
	return v
}

// newLength reads a length of the new format. Partial lengths are of streams,
// which neither keys nor signatures are.
func (r *reader) newLength() uint64 {
	first := uint64(r.byte())
	switch {
	case first < 192:
		return first
	case first < 224:
		return (first-192)<<8 + uint64(r.byte()) + 192
	case first == 255:
		return r.number(4)
	}
	r.bad = true
	return 0
}

// integer reads a multiprecision integer: its bits, then its bytes.
func (r *reader) integer() *big.Int {
	bits := r.number(2)
	return new(big.Int).SetBytes(r.take((bits + 7) / 8))
}
