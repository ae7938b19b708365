// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"net/netip"
)

// prefixes of special addresses, from the registries of IANA (RFC 6890) and the
// documents that they name.
var (
	thisHost4   = netip.MustParsePrefix("0.0.0.0/8")       // RFC 1122 3.2.1.3; Linux connects 0.0.0.0 to loopback
	loopback4   = netip.MustParsePrefix("127.0.0.0/8")     // RFC 1122
	linkLocal4  = netip.MustParsePrefix("169.254.0.0/16")  // RFC 3927; clouds serve metadata in it
	multicast4  = netip.MustParsePrefix("224.0.0.0/4")     // RFC 1112
	reserved4   = netip.MustParsePrefix("240.0.0.0/4")     // RFC 1112; 255.255.255.255 in it
	compatible6 = netip.MustParsePrefix("::/96")           // RFC 4291 2.5.5.1, with :: and ::1 in it
	translated6 = netip.MustParsePrefix("::ffff:0:0:0/96") // RFC 2765, IPv4-translated
	nat64       = netip.MustParsePrefix("64:ff9b::/96")    // RFC 6052
	nat64Local  = netip.MustParsePrefix("64:ff9b:1::/48")  // RFC 8215
	sixToFour   = netip.MustParsePrefix("2002::/16")       // RFC 3056
	teredo      = netip.MustParsePrefix("2001::/32")       // RFC 4380
	linkLocal6  = netip.MustParsePrefix("fe80::/10")       // RFC 4291
	siteLocal6  = netip.MustParsePrefix("fec0::/10")       // RFC 3879, deprecated
	multicast6  = netip.MustParsePrefix("ff00::/8")        // RFC 4291
)

// metadata are the addresses outside of link-local at which clouds tell whoever
// asks from a machine that machine's secrets.
var metadata = []netip.Addr{
	netip.MustParseAddr("100.100.100.200"), // Alibaba
	netip.MustParseAddr("168.63.129.16"),   // Azure
	netip.MustParseAddr("192.0.0.192"),     // Oracle, classic
	netip.MustParseAddr("fd00:ec2::254"),   // Amazon
	netip.MustParseAddr("fd00:c1::a9fe:a9fe"),
	netip.MustParseAddr("fd00:42::42"), // Scaleway
	netip.MustParseAddr("fd20:ce::254"),
}

// neverReached says why no rule can open an address: this machine's loopback has
// its own flag, and the other forms of an IPv4 address are no one's on the wire.
func neverReached(addr netip.Addr) string {
	switch {
	case addr.Is4() && (loopback4.Contains(addr) || thisHost4.Contains(addr)):
		return "it is the host's loopback"
	case addr.Is4() && (multicast4.Contains(addr) || reserved4.Contains(addr)):
		return "it is no single host's address"
	case addr.Is4():
		return ""
	case addr == netip.IPv6Loopback() || addr == netip.IPv6Unspecified():
		return "it is the host's loopback"
	// netip never puts an address that is mapped into a prefix that is.
	case addr.Is4In6() || compatible6.Contains(addr) || translated6.Contains(addr):
		return "it is an IPv4 address in another form"
	case multicast6.Contains(addr):
		return "it is no single host's address"
	}
	if inner, ok := embedded(addr); ok {
		return neverReached(inner)
	}
	return ""
}

// byDefault says why an address is refused unless a rule names it.
func byDefault(addr netip.Addr) string {
	if linkLocal4.Contains(addr) || linkLocal6.Contains(addr) || siteLocal6.Contains(addr) {
		return "it is a link-local address"
	}
	for _, m := range metadata {
		if addr == m {
			return "it is a cloud's metadata service"
		}
	}
	if inner, ok := embedded(addr); ok {
		return byDefault(inner)
	}
	return ""
}

// embedded is the IPv4 address to which a translator or relay on the way would
// take an IPv6 packet.
func embedded(addr netip.Addr) (netip.Addr, bool) {
	b := addr.As16()
	var v4 [4]byte
	switch {
	case !addr.Is6():
		return addr, false
	case nat64.Contains(addr), nat64Local.Contains(addr):
		copy(v4[:], b[12:])
	case sixToFour.Contains(addr):
		copy(v4[:], b[2:])
	case teredo.Contains(addr):
		for i := range v4 {
			v4[i] = b[12+i] ^ 0xff
		}
	default:
		return addr, false
	}
	return netip.AddrFrom4(v4), true
}
