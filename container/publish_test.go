// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sbx/slirp"
)

func TestParsePublish(t *testing.T) {
	for spec, want := range map[string]string{
		"80":                      "[{ 0 0 80 tcp}]",
		"8080:80":                 "[{ 8080 8080 80 tcp}]",
		"8080:80/udp":             "[{ 8080 8080 80 udp}]",
		"8080:80/UDP":             "[{ 8080 8080 80 udp}]",
		"127.0.0.1:8080:80":       "[{127.0.0.1 8080 8080 80 tcp}]",
		"127.0.0.1::80":           "[{127.0.0.1 0 0 80 tcp}]",
		"[::1]:8080:80":           "[{::1 8080 8080 80 tcp}]",
		"[::ffff:127.0.0.1]:1:80": "[{127.0.0.1 1 1 80 tcp}]",
		"local:8080:80":           "[{local 8080 8080 80 tcp}]",
		"0:80":                    "[{ 0 0 80 tcp}]",
		"8000-8001:80-81":         "[{ 8000 8000 80 tcp} { 8001 8001 81 tcp}]",
		"8000-8010:80":            "[{ 8000 8010 80 tcp}]",
		"80-81":                   "[{ 0 0 80 tcp} { 0 0 81 tcp}]",
		"8000-8001:80-82":         "",
		"8000:80-81":              "",
		"":                        "",
		":":                       "",
		"8080:":                   "",
		"80/sctp":                 "",
		"80/icmp":                 "",
		"65536:80":                "",
		"-1:80":                   "",
		"host:8080:80":            "",
		"::1:8080:80":             "",
		"[::1]:80":                "",
		"[::1":                    "",
		"[fe80::1%eth0]:8080:80":  "",
		"127.0.0.1:8080:80:90":    "",
		"1-65535:1-65535":         "65535",
	} {
		got, err := ParsePublish(spec)
		text := fmt.Sprint(got)
		switch {
		case err != nil:
			text = ""
		case len(got) > 10:
			text = fmt.Sprint(len(got))
		}
		if text != want {
			t.Errorf("%q: %s, %v; want %s", spec, text, err, want)
		}
	}
}

func FuzzParsePublish(f *testing.F) {
	for _, s := range []string{"127.0.0.1:8000-8001:80-81/udp", "[::1]:1:2", "local::80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list, err := ParsePublish(s)
		for _, p := range list {
			if err != nil || p.Port == 0 || p.First > p.Last || (p.Proto != "tcp" && p.Proto != "udp") || len(p.addresses()) == 0 {
				t.Fatalf("%q: %+v, %v", s, p, err)
			}
		}
	})
}

func TestListen(t *testing.T) {
	l, err := listen(t.Context(), []Publish{{Address: "127.0.0.1", Port: 80, Proto: "tcp"}, {Address: "127.0.0.1", Port: 53, Proto: "udp"}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	taken := l.bindings[0].Host
	if len(l.bindings) != 2 || taken == 0 || l.bindings[1].Host == 0 {
		t.Fatalf("bindings %+v", l.bindings)
	}
	_, err = listen(t.Context(), []Publish{{Address: "127.0.0.1", First: taken, Last: taken, Port: 80, Proto: "tcp"}})
	var port *PortError
	if !errors.As(err, &port) || !errors.Is(err, unix.EADDRINUSE) || !strings.HasSuffix(err.Error(), "failed: port is already allocated") {
		t.Fatalf("a port that is taken: %v", err)
	}
	if port.Free == 0 || !strings.Contains(port.Hint(), fmt.Sprintf("-p %d:80", port.Free)) {
		t.Errorf("hint %q", port.Hint())
	}
	// Of a range the first that is free; a listener can be handed over.
	m, err := listen(t.Context(), []Publish{{Address: "127.0.0.1", First: taken, Last: taken + 20, Port: 80, Proto: "tcp"}})
	if err != nil || m.bindings[0].Host <= taken {
		t.Fatalf("range: %+v, %v", m, err)
	}
	defer m.close()
	f, err := m.bound[0].File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	again, err := slirp.Inherit(m.bound[0].Port(), f)
	if err != nil || again.Addr() != m.bound[0].Addr() {
		t.Fatalf("inherited %v, %v", again, err)
	}
	again.Close()
}

func TestBridgeRange(t *testing.T) {
	host := &routes{prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	if p, err := bridgeRange("", host); err != nil || p.String() != "172.31.252.0/24" {
		t.Errorf("beside 10/8: %s, %v", p, err)
	}
	if p, err := bridgeRange("", &routes{}); err != nil || p.String() != "10.0.2.0/24" {
		t.Errorf("alone: %s, %v", p, err)
	}
	if p, err := bridgeRange("10.9.8.7/24", host); err != nil || p.String() != "10.9.8.0/24" {
		t.Errorf("asked for: %s, %v", p, err)
	}
	if _, err := bridgeRange("10.9.8.7/30", host); err == nil {
		t.Error("a range that is too small is taken")
	}
	if _, err := bridgeRange("", &routes{prefixes: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/1"), netip.MustParsePrefix("128.0.0.0/1")}}); err == nil {
		t.Error("a range that the host routes is taken")
	}
}

func TestParseRoutes(t *testing.T) {
	p, ok := parseRoute4("eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0")
	if !ok || p.String() != "192.0.2.0/24" {
		t.Errorf("%s, %v", p, ok)
	}
	if _, ok := parseRoute4("Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT"); ok {
		t.Error("the heading is a route")
	}
	q, device, ok := parseRoute6("fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0")
	if !ok || q.String() != "fd00::/64" || device != "eth0" {
		t.Errorf("%s, %s, %v", q, device, ok)
	}
	if _, _, ok := parseRoute6("zz"); ok {
		t.Error("zz is a route")
	}
}

// Whose socket a connection is, asked of the kernel about one of our own.
func TestSameUser(t *testing.T) {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l)
	if err := errors.Join(unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(l, 1)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(l)
	if err != nil {
		t.Fatal(err)
	}
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c)
	if err := unix.Connect(c, name); err != nil {
		t.Fatal(err)
	}
	own, err := unix.Getsockname(c)
	if err != nil {
		t.Fatal(err)
	}
	at := func(s unix.Sockaddr) netip.AddrPort {
		a := s.(*unix.SockaddrInet4)
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	}
	if !sameUser(unix.IPPROTO_TCP, at(name), at(own)) {
		_, err := socketOwner(unix.IPPROTO_TCP, at(own), at(name))
		t.Errorf("our own connection is another's: %v", err)
	}
	if sameUser(unix.IPPROTO_TCP, at(name), netip.AddrPortFrom(at(own).Addr(), 1)) {
		t.Error("a connection that nobody has is ours")
	}
}

func TestCutHost(t *testing.T) {
	for spec, want := range map[string]string{
		"db:1.2.3.4": "db 1.2.3.4", "db=1.2.3.4": "db 1.2.3.4", "db:[::1]": "db ::1", "db:::1": "db ::1", "h:host-gateway": "h host-gateway",
		"db": "", ":1.2.3.4": "", "db:": "", "db:x": "",
	} {
		name, address, err := cutHost(spec)
		got := name + " " + address
		if err != nil {
			got = ""
		}
		if got != want {
			t.Errorf("%q: %q, %v; want %q", spec, got, err, want)
		}
	}
}
