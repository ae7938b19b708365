// SPDX-License-Identifier: Apache-2.0

package container

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
)

// bridgePlace are the addresses of a container on the default network: its own
// for each container, and the same for all, unless the host routes them itself.
func bridgePlace(wanted string) (Place, error) {
	routes := hostRoutes()
	place := Place{Network: NetworkBridge}
	prefix, err := bridgeRange(wanted, routes)
	if err != nil {
		return place, err
	}
	at := func(n uint32) netip.Addr { return nth(prefix.Addr(), n) }
	place.Address = netip.PrefixFrom(at(100), prefix.Bits())
	place.Gateway, place.DNS = at(2), at(3)
	if routes.outside6 {
		for _, candidate := range []string{"fd00::", "fd73:6278::", "fd73:6278:1::", "fd73:6278:2::"} {
			first := netip.MustParseAddr(candidate)
			prefix := netip.PrefixFrom(first, 64)
			if !routes.overlap(prefix) {
				place.Address6 = netip.PrefixFrom(nth6(first, 100), 64)
				place.Gateway6, place.DNS6 = nth6(first, 2), nth6(first, 3)
				break
			}
		}
	}
	return place, nil
}

// bridgeRange is the range that the configuration asks for, or the first of ours
// that the host does not route.
func bridgeRange(wanted string, routes *routes) (netip.Prefix, error) {
	if wanted != "" {
		p, err := netip.ParsePrefix(wanted)
		if err != nil || !p.Addr().Is4() || p.Bits() > 25 {
			return netip.Prefix{}, fmt.Errorf("network range %s: want an IPv4 prefix of 25 bits at most", wanted)
		}
		return p.Masked(), nil
	}
	for _, candidate := range []string{"10.0.2.0/24", "10.111.2.0/24", "172.31.252.0/24", "192.168.252.0/24", "100.127.2.0/24", "198.18.2.0/24"} {
		if p := netip.MustParsePrefix(candidate); !routes.overlap(p) {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("choose network range: this machine routes all of ours; name a free one as network.range in config.toml")
}

// nth is the address n after a.
func nth(a netip.Addr, n uint32) netip.Addr {
	b := a.As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+n)
	return netip.AddrFrom4(b)
}

// nth6 is the address n after the first of a prefix.
func nth6(a netip.Addr, n uint64) netip.Addr {
	b := a.As16()
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])+n)
	return netip.AddrFrom16(b)
}

// routes are the networks that the host itself routes, default routes left out.
type routes struct {
	prefixes []netip.Prefix
	outside6 bool // there is a way out over IPv6
}

func (r *routes) overlap(p netip.Prefix) bool {
	for _, other := range r.prefixes {
		if other.Overlaps(p) {
			return true
		}
	}
	return false
}

// hostRoutes reads the main tables, proc(5).
func hostRoutes() *routes {
	r := &routes{}
	data, _ := readFile("/proc/net/route")
	for line := range strings.Lines(string(data)) {
		if p, ok := parseRoute4(line); ok && p.Bits() > 0 {
			r.prefixes = append(r.prefixes, p)
		}
	}
	data, _ = readFile("/proc/net/ipv6_route")
	for line := range strings.Lines(string(data)) {
		p, device, ok := parseRoute6(line)
		switch {
		case !ok || device == "lo":
		case p.Bits() == 0:
			r.outside6 = true
		default:
			r.prefixes = append(r.prefixes, p)
		}
	}
	return r
}

// parseRoute4 reads a line of /proc/net/route: device, destination, gateway,
// flags, reference count, use, metric, mask, ..; addresses in hexadecimal as the
// machine has them in memory.
func parseRoute4(line string) (netip.Prefix, bool) {
	f := strings.Fields(line)
	if len(f) < 8 {
		return netip.Prefix{}, false
	}
	to, err := strconv.ParseUint(f[1], 16, 32)
	mask, err2 := strconv.ParseUint(f[7], 16, 32)
	if err != nil || err2 != nil {
		return netip.Prefix{}, false
	}
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], uint32(to))
	return netip.PrefixFrom(netip.AddrFrom4(b), bits.OnesCount32(uint32(mask))), true
}

// parseRoute6 reads a line of /proc/net/ipv6_route: destination, its length, ..,
// device.
func parseRoute6(line string) (netip.Prefix, string, bool) {
	f := strings.Fields(line)
	if len(f) < 10 {
		return netip.Prefix{}, "", false
	}
	to, err := hex.DecodeString(f[0])
	length, err2 := strconv.ParseUint(f[1], 16, 8)
	addr, ok := netip.AddrFromSlice(to)
	if err != nil || err2 != nil || !ok || length > 128 {
		return netip.Prefix{}, "", false
	}
	return netip.PrefixFrom(addr, int(length)), f[9], true
}
