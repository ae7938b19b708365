// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// local answers a question about a name or an address that is known here, or
// returns nil. A name that is known has no other records than its addresses.
func (r *HostResolver) local(header dnsmessage.Header, q dnsmessage.Question) []byte {
	if r.Local == nil || q.Class != dnsmessage.ClassINET {
		return nil
	}
	name := foldName(q.Name.String())
	b := dnsmessage.NewBuilder(nil, replyHeader(header, dnsmessage.RCodeSuccess))
	b.EnableCompression()
	if err := errors.Join(b.StartQuestions(), b.Question(q), b.StartAnswers()); err != nil {
		return nil
	}
	head := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: localTTL}
	if q.Type == dnsmessage.TypePTR {
		owner := r.Local.NameOf(reverseAddress(name))
		ptr, err := dnsmessage.NewName(owner + ".")
		if owner == "" || err != nil || b.PTRResource(head, dnsmessage.PTRResource{PTR: ptr}) != nil {
			return nil
		}
		return finish(b)
	}
	addrs, known := r.Local.Addresses(name)
	if !known {
		return nil
	}
	for _, a := range addrs {
		var err error
		switch {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			err = b.AResource(head, dnsmessage.AResource{A: a.As4()})
		case a.Is6() && q.Type == dnsmessage.TypeAAAA:
			err = b.AAAAResource(head, dnsmessage.AAAAResource{AAAA: a.As16()})
		}
		if err != nil {
			return nil
		}
	}
	return finish(b)
}

func finish(b dnsmessage.Builder) []byte {
	out, err := b.Finish()
	if err != nil {
		return nil
	}
	return out
}

// reverseAddress is the address that a name below in-addr.arpa or ip6.arpa is
// about, or the zero one.
func reverseAddress(name string) netip.Addr {
	if digits, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(digits, ".")
		if len(parts) != 4 {
			return netip.Addr{}
		}
		var b [4]byte
		for i, p := range parts {
			n, err := strconv.ParseUint(p, 10, 8)
			if err != nil {
				return netip.Addr{}
			}
			b[3-i] = byte(n)
		}
		return netip.AddrFrom4(b)
	}
	digits, ok := strings.CutSuffix(name, ".ip6.arpa")
	parts := strings.Split(digits, ".")
	if !ok || len(parts) != 32 {
		return netip.Addr{}
	}
	var b [16]byte
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 16, 4)
		if err != nil || len(p) != 1 {
			return netip.Addr{}
		}
		b[15-i/2] |= byte(n) << (4 * (i % 2))
	}
	return netip.AddrFrom16(b)
}
