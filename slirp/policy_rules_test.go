// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func rules(t testing.TB, specs ...string) []Rule {
	t.Helper()
	list := []Rule{}
	for _, s := range specs {
		r, err := ParseRule(s)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

var (
	gateway4 = netip.MustParseAddr("10.0.2.2")
	gateway6 = netip.MustParseAddr("fd00::2")
	inside   = []netip.Prefix{netip.MustParsePrefix("10.0.2.0/24"), netip.MustParsePrefix("fd00::/64")}
)

func policy(loopback []Ports, only []Rule) *Rules {
	return &Rules{Gateways: []netip.Addr{gateway4, gateway6}, Inside: inside, Loopback: loopback, Only: only}
}

// Every form in which an address of the host's loopback, of the link or of a
// cloud's metadata service can be written into a packet.
var refusedForms = []string{
	"127.0.0.1:80", "127.0.0.53:53", "127.255.255.254:80", "0.0.0.0:80", "0.1.2.3:80",
	"[::1]:80", "[::]:80", "[::ffff:127.0.0.1]:80", "[::ffff:0.0.0.0]:80", "[::127.0.0.1]:80", "[::ffff:0:127.0.0.1]:80",
	"[64:ff9b::7f00:1]:80", "[64:ff9b::]:80", "[64:ff9b:1::7f00:1]:80", "[2002:7f00:1::]:80", "[2002:7f00:1::1]:80",
	"[2001:0:4136:e378:8000:63bf:80ff:fffe]:80", // Teredo, 127.0.0.1 with its bits turned
	"[::ffff:8.8.8.8]:80", "[::8.8.8.8]:80",
	"169.254.169.254:80", "169.254.0.1:80", "[::ffff:169.254.169.254]:80", "[::169.254.169.254]:80",
	"[64:ff9b::a9fe:a9fe]:80", "[2002:a9fe:a9fe::]:80", "[fe80::1]:80", "[fe80::a9fe:a9fe]:80", "[febf::1]:80", "[fec0::1]:80",
	"[fd00:ec2::254]:80", "[fd20:ce::254]:80", "100.100.100.200:80", "168.63.129.16:80", "192.0.0.192:80",
	"[64:ff9b::6464:64c8]:80",
	"224.0.0.1:80", "239.255.255.250:1900", "240.0.0.1:80", "255.255.255.255:67", "[ff02::1]:80", "[ff0e::1]:80",
	"10.0.2.2:80", "10.0.2.3:80", "10.0.2.100:80", "10.0.2.255:80", "[fd00::2]:80", "[fd00::1234]:80",
}

// destination is the verdict in the form of a connect: where to, or why not.
func (p *Rules) destination(dst netip.AddrPort) (netip.AddrPort, error) {
	v := p.Decide(Flow{Proto: TCP, Dst: dst})
	switch {
	case !v.Allow && v.Reason == "":
		panic("refused without a reason")
	case !v.Allow:
		return netip.AddrPort{}, errors.New(v.Reason)
	case v.To.IsValid():
		return v.To, nil
	}
	return dst, nil
}

func TestRulesRefuses(t *testing.T) {
	for _, s := range refusedForms {
		dst := netip.MustParseAddrPort(s)
		if got, err := policy(nil, nil).destination(dst); err == nil {
			t.Errorf("%s leads to %s", s, got)
		}
		if got, err := policy(nil, rules(t, "0.0.0.0/0", "::/0")).destination(dst); err == nil && !linkOrMetadata(dst.Addr()) {
			t.Errorf("%s leads to %s when all is allowed", s, got)
		}
	}
	if got, err := policy(nil, nil).destination(netip.MustParseAddrPort("[fe80::1%eth0]:80")); err == nil {
		t.Errorf("an address with a zone leads to %s", got)
	}
	if got, err := policy(nil, nil).destination(netip.AddrPort{}); err == nil {
		t.Errorf("no address leads to %s", got)
	}
}

// linkOrMetadata are those that a rule may open.
func linkOrMetadata(a netip.Addr) bool { return neverReached(a) == "" && byDefault(a) != "" }

func TestRulesLetsOut(t *testing.T) {
	for _, s := range []string{
		"8.8.8.8:53", "192.168.1.1:80", "10.0.3.1:80", "172.17.0.1:80", "100.64.0.1:80", "126.255.255.255:1", "128.0.0.1:1", "1.0.0.0:1", "223.255.255.255:80",
		"[2606:4700::1111]:443", "[fd00:0:0:1::1]:80", "[64:ff9b::808:808]:80", "[2002:808:808::1]:80", "8.8.8.8:0",
	} {
		dst := netip.MustParseAddrPort(s)
		if got, err := policy(nil, nil).destination(dst); err != nil || got != dst {
			t.Errorf("%s: %v, %v; want itself", s, got, err)
		}
	}
}

func TestRulesLoopback(t *testing.T) {
	for _, c := range []struct {
		ports    []Ports
		dst, got string
	}{
		{nil, "10.0.2.2:80", ""},
		{[]Ports{{}}, "10.0.2.2:80", "127.0.0.1:80"},
		{[]Ports{{}}, "[fd00::2]:80", "[::1]:80"},
		{[]Ports{{}}, "127.0.0.1:80", ""},
		{[]Ports{{}}, "[::1]:80", ""},
		{[]Ports{{}}, "[::ffff:127.0.0.1]:80", ""},
		{[]Ports{{}}, "[::ffff:10.0.2.2]:80", ""},
		{[]Ports{{5432, 5432}, {8000, 8010}}, "10.0.2.2:5432", "127.0.0.1:5432"},
		{[]Ports{{5432, 5432}, {8000, 8010}}, "10.0.2.2:8010", "127.0.0.1:8010"},
		{[]Ports{{5432, 5432}, {8000, 8010}}, "10.0.2.2:8011", ""},
		{[]Ports{{5432, 5432}, {8000, 8010}}, "10.0.2.3:5432", ""},
	} {
		got, err := policy(c.ports, nil).destination(netip.MustParseAddrPort(c.dst))
		if (err != nil) != (c.got == "") || err == nil && got.String() != c.got {
			t.Errorf("%v %s: %v, %v; want %q", c.ports, c.dst, got, err, c.got)
		}
	}
}

func TestRulesAllowNet(t *testing.T) {
	p := policy(nil, rules(t, "192.0.2.7", "198.51.100.0/24:443", "[2001:db8::]/32:80-90", "example.com:443", "*.example.org", "169.254.169.254:80"))
	p.Learn("example.com.", netip.MustParseAddr("203.0.113.1"), time.Minute)
	p.Learn("a.b.EXAMPLE.org", netip.MustParseAddr("203.0.113.2"), time.Minute)
	p.Learn("example.org", netip.MustParseAddr("203.0.113.3"), time.Minute) // *. is what is below
	p.Learn("evil.test", netip.MustParseAddr("203.0.113.4"), time.Minute)
	p.Learn("example.com", netip.MustParseAddr("127.0.0.1"), time.Minute) // a name's owner decides its address
	p.Learn("example.com", netip.MustParseAddr("169.254.1.1"), time.Minute)
	p.Learn("example.com", netip.MustParseAddr("10.0.2.2"), time.Minute)
	for dst, want := range map[string]bool{
		"192.0.2.7:1": true, "192.0.2.8:1": false, "198.51.100.9:443": true, "198.51.100.9:80": false,
		"[2001:db8::1]:80": true, "[2001:db8:ffff::1]:90": true, "[2001:db8::1]:91": false, "[2001:db9::1]:80": false,
		"203.0.113.1:443": true, "203.0.113.1:80": false, "203.0.113.2:1": true, "203.0.113.3:1": false, "203.0.113.4:1": false,
		"8.8.8.8:53": false, "127.0.0.1:443": false, "169.254.1.1:443": false, "169.254.169.254:80": true, "169.254.169.254:81": false, "10.0.2.2:443": false,
	} {
		if _, err := p.destination(netip.MustParseAddrPort(dst)); (err == nil) != want {
			t.Errorf("%s: %v; want allowed %v", dst, err, want)
		}
	}
	for name, want := range map[string]bool{"example.com": true, "Example.COM.": true, "www.example.com": false, "x.example.org": true, "example.org": false, "notexample.org": false} {
		if p.PermitsName(name) != want {
			t.Errorf("name %s: permitted %v", name, !want)
		}
	}
	if !policy(nil, nil).PermitsName("any") || (&Rules{Closed: true}).PermitsName("any") || policy(nil, []Rule{}).PermitsName("any") {
		t.Error("names without a rule")
	}
	if _, err := (&Rules{Closed: true}).destination(netip.MustParseAddrPort("8.8.8.8:53")); err == nil {
		t.Error("an internal network has an outside")
	}
}

func TestRulesForgets(t *testing.T) {
	p := policy(nil, rules(t, "*.test"))
	for i := range maxLessons + 100 {
		p.Learn(fmt.Sprintf("h%d.test", i), netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), time.Hour+time.Duration(i)*time.Second)
	}
	if n := len(p.learned); n > maxLessons {
		t.Errorf("%d addresses are remembered; want %d at most", n, maxLessons)
	}
	if _, err := p.destination(netip.MustParseAddrPort("198.18.16.50:1")); err != nil {
		t.Errorf("the last one is forgotten: %v", err)
	}
	if _, err := p.destination(netip.MustParseAddrPort("198.18.0.0:1")); err == nil {
		t.Error("the first one is still there")
	}
}

func TestParseRule(t *testing.T) {
	for spec, want := range map[string]string{
		"example.com": "example.com {0 0}", "EXAMPLE.com.:443": "example.com {443 443}", "*.example.com:1-2": ".example.com {1 2}",
		"1.2.3.4": "1.2.3.4/32 {0 0}", "1.2.3.4:80": "1.2.3.4/32 {80 80}", "10.1.2.3/8": "10.0.0.0/8 {0 0}", "10.0.0.0/8:80": "10.0.0.0/8 {80 80}",
		"::1": "::1/128 {0 0}", "fe80::/10": "fe80::/10 {0 0}", "[fd00::1]": "fd00::1/128 {0 0}", "[fd00::1]:80": "fd00::1/128 {80 80}",
		"[fd00::]/8": "fd00::/8 {0 0}", "[fd00::]/8:80": "fd00::/8 {80 80}", "[fd00::/8]:80": "fd00::/8 {80 80}", "db_1": "db_1 {0 0}",
		"": "", ":80": "", "host:": "", "host:0": "", "host:65536": "", "host:+80": "", "host:2-1": "", "host:http": "", "a b": "", "*": "", "*.": "", "a..b": "",
		"10.0.0.256": "", "1.2.3": "", "[::1": "", "[::1]x": "", "[::1]:": "", "10.0.0.0/33": "", "fe80::1%eth0": "", "https://example.com": "", "a,b": "",
	} {
		r, err := ParseRule(spec)
		got := ""
		if err == nil {
			got = r.Name
			if r.Prefix.IsValid() {
				got = r.Prefix.String()
			}
			got += fmt.Sprint(" ", r.Ports)
		}
		if got != want {
			t.Errorf("%q: %q, %v; want %q", spec, got, err, want)
		}
	}
}

// Whatever the address: what leaves is the address itself, and neither this
// machine nor the link, unless the gateway stands for it.
func FuzzRulesDecide(f *testing.F) {
	for _, s := range refusedForms {
		a := netip.MustParseAddrPort(s).Addr()
		f.Add(a.AsSlice(), uint16(80), true)
	}
	f.Fuzz(func(t *testing.T, raw []byte, port uint16, open bool) {
		addr, ok := netip.AddrFromSlice(raw)
		if !ok {
			return
		}
		p := policy(nil, nil)
		if open {
			p.Loopback = []Ports{{}}
		}
		got, err := p.destination(netip.AddrPortFrom(addr, port))
		if err != nil {
			return
		}
		if addr == gateway4 || addr == gateway6 {
			if !open || !got.Addr().IsLoopback() {
				t.Fatalf("the gateway leads to %s", got)
			}
			return
		}
		out := got.Addr()
		if out != addr || got.Port() != port {
			t.Fatalf("%s leads to %s", addr, got)
		}
		if plain := out.Unmap(); plain.IsLoopback() || plain.IsUnspecified() || plain.IsLinkLocalUnicast() || plain.IsMulticast() || out.Is4In6() || plain.Is4() && plain.As4()[0] == 0 {
			t.Fatalf("%s is let out", out)
		}
	})
}

func FuzzParseRule(f *testing.F) {
	for _, s := range []string{"example.com:80", "[::1]:80", "10.0.0.0/8", "*.x", "[::]/0:1-2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRule(s)
		if err == nil && r.Prefix.IsValid() == (r.Name != "") {
			t.Fatalf("%q: %+v", s, r)
		}
	})
}
