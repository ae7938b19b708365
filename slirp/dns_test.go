// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// stub is a name server on loopback: it answers "NAME" with the address that
// answer gives, or as code says, or not at all.
type stub struct {
	addr   netip.AddrPort
	asked  atomic.Int32
	answer func(q dnsmessage.Question, overTCP bool) (dnsmessage.RCode, netip.Addr, bool)
}

func newStub(t *testing.T, answer func(dnsmessage.Question, bool) (dnsmessage.RCode, netip.Addr, bool)) *stub {
	t.Helper()
	s := &stub{answer: answer}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u, err := net.ListenPacket("udp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s.addr = netip.MustParseAddrPort(l.Addr().String())
	var wait sync.WaitGroup
	t.Cleanup(func() { l.Close(); u.Close(); wait.Wait() })
	wait.Go(func() {
		buf := make([]byte, maxMessage)
		for {
			n, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			if out := s.reply(buf[:n], false); out != nil {
				u.WriteTo([]byte("garbage"), from)
				forged := append([]byte{}, out...)
				forged[0] ^= 0xff
				u.WriteTo(forged, from)
				u.WriteTo(out, from)
			}
		}
	})
	wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			q, err := readMessage(c)
			if err == nil {
				if out := s.reply(q, true); out != nil {
					writeMessage(c, out)
				}
			}
			c.Close()
		}
	})
	return s
}

func (s *stub) reply(question []byte, overTCP bool) []byte {
	s.asked.Add(1)
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	code, addr, ok := s.answer(m.Questions[0], overTCP)
	if !ok {
		return nil
	}
	m.Response, m.RCode, m.Additionals = true, code, nil
	if addr.IsValid() && m.Questions[0].Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 60}, Body: &dnsmessage.AResource{A: addr.As4()}}}
	}
	if code == dnsmessage.RCodeSuccess && !overTCP && strings.HasPrefix(m.Questions[0].Name.String(), "long.") {
		m.Truncated, m.Answers = true, nil
	}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return out
}

func always(addr string) func(dnsmessage.Question, bool) (dnsmessage.RCode, netip.Addr, bool) {
	return func(dnsmessage.Question, bool) (dnsmessage.RCode, netip.Addr, bool) {
		return dnsmessage.RCodeSuccess, netip.MustParseAddr(addr), true
	}
}

func says(code dnsmessage.RCode) func(dnsmessage.Question, bool) (dnsmessage.RCode, netip.Addr, bool) {
	return func(dnsmessage.Question, bool) (dnsmessage.RCode, netip.Addr, bool) { return code, netip.Addr{}, true }
}

func silent(dnsmessage.Question, bool) (dnsmessage.RCode, netip.Addr, bool) {
	return 0, netip.Addr{}, false
}

func question(t testing.TB, name string, kind dnsmessage.Type) []byte {
	t.Helper()
	n, err := dnsmessage.NewName(name)
	if err != nil {
		t.Fatal(err)
	}
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 4711, RecursionDesired: true}, Questions: []dnsmessage.Question{{Name: n, Type: kind, Class: dnsmessage.ClassINET}}}
	out, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// ask asks r and returns the answer in words.
func ask(t *testing.T, r *HostResolver, name string, kind dnsmessage.Type) string {
	t.Helper()
	return words(t, r.Query(t.Context(), question(t, name, kind), netip.AddrPort{}), name)
}

func words(t *testing.T, answer []byte, name string) string {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(answer); err != nil {
		t.Fatalf("%s: %v in % x", name, err, answer)
	}
	if m.ID != 4711 || !m.Response || len(m.Questions) != 1 || m.Questions[0].Name.String() != name {
		t.Errorf("%s: the answer is to something else: %+v", name, m)
	}
	text := strings.TrimPrefix(m.RCode.String(), "RCode")
	for _, a := range m.Answers {
		switch body := a.Body.(type) {
		case *dnsmessage.AResource:
			text += " " + netip.AddrFrom4(body.A).String()
		case *dnsmessage.AAAAResource:
			text += " " + netip.AddrFrom16(body.AAAA).String()
		case *dnsmessage.PTRResource:
			text += " " + body.PTR.String()
		}
	}
	if m.Truncated {
		text += " truncated"
	}
	return text
}

// names are a table of Names.
type names map[string][]netip.Addr

func (n names) Addresses(name string) ([]netip.Addr, bool) { a, ok := n[name]; return a, ok }

func (n names) NameOf(addr netip.Addr) string {
	for name, addrs := range n {
		for _, a := range addrs {
			if a == addr {
				return name
			}
		}
	}
	return ""
}

func TestResolverForwards(t *testing.T) {
	up := newStub(t, always("192.0.2.1"))
	r := &HostResolver{Upstreams: []netip.AddrPort{up.addr}}
	for _, c := range []struct {
		name string
		kind dnsmessage.Type
		want string
	}{
		{"example.com.", dnsmessage.TypeA, "Success 192.0.2.1"},
		{"ExAmPlE.cOm.", dnsmessage.TypeA, "Success 192.0.2.1"},
		{"example.com.", dnsmessage.TypeMX, "Success"},
		{"long.example.com.", dnsmessage.TypeA, "Success truncated"},
	} {
		if got := ask(t, r, c.name, c.kind); got != c.want {
			t.Errorf("%s %v: %q; want %q", c.name, c.kind, got, c.want)
		}
	}
	if got := words(t, r.answer(t.Context(), question(t, "long.example.com.", dnsmessage.TypeA), true), "long.example.com."); got != "Success 192.0.2.1" {
		t.Errorf("over TCP: %q", got)
	}
}

func TestResolverServers(t *testing.T) {
	good := newStub(t, always("192.0.2.1"))
	mute := newStub(t, silent)
	broken := newStub(t, says(dnsmessage.RCodeServerFailure))
	none := newStub(t, says(dnsmessage.RCodeNameError))
	closed := netip.MustParseAddrPort("127.0.0.1:1")
	for _, c := range []struct {
		what    string
		servers []netip.AddrPort
		want    string
	}{
		{"the first is silent", []netip.AddrPort{mute.addr, good.addr}, "Success 192.0.2.1"},
		{"the first is closed", []netip.AddrPort{closed, good.addr}, "Success 192.0.2.1"},
		{"the first is broken", []netip.AddrPort{broken.addr, good.addr}, "Success 192.0.2.1"},
		{"no such name is an answer", []netip.AddrPort{none.addr, good.addr}, "NameError"},
		{"all broken", []netip.AddrPort{broken.addr, closed}, "ServerFailure"},
		{"closed", []netip.AddrPort{closed}, "ServerFailure"},
		{"silent", []netip.AddrPort{mute.addr}, "ServerFailure"},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			if got := ask(t, &HostResolver{Upstreams: c.servers}, "a.test.", dnsmessage.TypeA); got != c.want {
				t.Errorf("%q; want %q", got, c.want)
			}
		})
	}
}

// A flood of questions to a server that says nothing: those above the bound are
// answered at once, and none is left without an answer.
func TestResolverBounded(t *testing.T) {
	mute := newStub(t, silent)
	r := &HostResolver{Upstreams: []netip.AddrPort{mute.addr}}
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	for range maxQuestions {
		wait.Go(func() { r.answer(ctx, question(t, "a.test.", dnsmessage.TypeA), false) })
	}
	for full := false; !full; {
		r.asking.mu.Lock()
		full = r.asking.used == maxQuestions
		r.asking.mu.Unlock()
		if mute.asked.Load() == 0 {
			continue
		}
	}
	if got := ask(t, r, "b.test.", dnsmessage.TypeA); got != "ServerFailure" {
		t.Errorf("one too many: %q", got)
	}
	cancel()
	wait.Wait()
	if r.asking.used != 0 {
		t.Errorf("%d questions are still counted", r.asking.used)
	}
}

func TestResolverLocal(t *testing.T) {
	up := newStub(t, always("192.0.2.1"))
	r := &HostResolver{Upstreams: []netip.AddrPort{up.addr}, Local: names{
		"web": {netip.MustParseAddr("172.18.0.2"), netip.MustParseAddr("fd01::2")}, "db.internal": {netip.MustParseAddr("172.18.0.3")},
	}}
	for _, c := range []struct {
		name string
		kind dnsmessage.Type
		want string
	}{
		{"web.", dnsmessage.TypeA, "Success 172.18.0.2"},
		{"WEB.", dnsmessage.TypeA, "Success 172.18.0.2"},
		{"web.", dnsmessage.TypeAAAA, "Success fd01::2"},
		{"web.", dnsmessage.TypeMX, "Success"},
		{"db.internal.", dnsmessage.TypeAAAA, "Success"},
		{"2.0.18.172.in-addr.arpa.", dnsmessage.TypePTR, "Success web."},
		{"2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.d.f.ip6.arpa.", dnsmessage.TypePTR, "Success web."},
	} {
		if got := ask(t, r, c.name, c.kind); got != c.want {
			t.Errorf("%s %v: %q; want %q", c.name, c.kind, got, c.want)
		}
	}
	if n := up.asked.Load(); n != 0 {
		t.Errorf("the host's resolver was asked %d times for names that are known here", n)
	}
	if got := ask(t, r, "other.", dnsmessage.TypeA); got != "Success 192.0.2.1" {
		t.Errorf("other: %q", got)
	}
	if got := ask(t, r, "9.0.18.172.in-addr.arpa.", dnsmessage.TypePTR); got != "Success" || up.asked.Load() != 2 {
		t.Errorf("an address that nobody here has: %q", got)
	}
}

func TestResolverPolicy(t *testing.T) {
	up := newStub(t, always("203.0.113.5"))
	p := policy(nil, rules(t, "example.com:443"))
	r := &HostResolver{Upstreams: []netip.AddrPort{up.addr}, Rules: p}
	if got := ask(t, r, "secret.evil.test.", dnsmessage.TypeA); got != "Refused" || up.asked.Load() != 0 {
		t.Errorf("a name that is not allowed: %q, asked %d", got, up.asked.Load())
	}
	dst := netip.MustParseAddrPort("203.0.113.5:443")
	if _, err := p.destination(dst); err == nil {
		t.Error("reachable before its name was looked up")
	}
	if got := ask(t, r, "example.com.", dnsmessage.TypeA); got != "Success 203.0.113.5" {
		t.Errorf("a name that is allowed: %q", got)
	}
	if _, err := p.destination(dst); err != nil {
		t.Error(err)
	}
}

func TestResolverConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string) {
		if err := os.WriteFile(file+".new", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	var h hostConfig
	check := func(want string) {
		t.Helper()
		var got []string
		for _, a := range h.servers(file) {
			got = append(got, a.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("servers %q; want %q", got, want)
		}
	}
	check("127.0.0.1:53") // no file
	write("# a comment\nnameserver 127.0.0.53\nsearch a.test b.test\noptions edns0 trust-ad\nnameserver bad\nnameserver fe80::1%eth0\n")
	check("127.0.0.53:53 [fe80::1%eth0]:53")
	write("nameserver 192.0.2.1\n")
	check("192.0.2.1:53")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	check("192.0.2.1:53")
	write("nameserver 192.0.2.2\n")
	check("192.0.2.2:53")
}

func TestResolverServe(t *testing.T) {
	up := newStub(t, always("192.0.2.1"))
	r := &HostResolver{Upstreams: []netip.AddrPort{up.addr}}
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	serve := func(ctx context.Context, conn net.Conn) {
		r.Serve(ctx, conn)
		done <- struct{}{}
	}
	go serve(t.Context(), theirs)
	for range 3 {
		if err := writeMessage(ours, question(t, "a.test.", dnsmessage.TypeA)); err != nil {
			t.Fatal(err)
		}
		answer, err := readMessage(ours)
		if err != nil {
			t.Fatal(err)
		}
		if got := words(t, answer, "a.test."); got != "Success 192.0.2.1" {
			t.Error(got)
		}
	}
	ours.Close()
	<-done
	ctx, cancel := context.WithCancel(t.Context())
	ours, theirs = net.Pipe()
	go serve(ctx, theirs)
	cancel()
	<-done
	if _, err := ours.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still open")
	}
}

// An answer that the asker cannot take is cut to a header that says so.
func TestResolverCuts(t *testing.T) {
	many := make([]netip.Addr, 100)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
	}
	r := &HostResolver{Local: names{"many": many}}
	if got := ask(t, r, "many.", dnsmessage.TypeA); got != "Success truncated" {
		t.Errorf("of 512 bytes: %q", got)
	}
	var m dnsmessage.Message
	if err := m.Unpack(question(t, "many.", dnsmessage.TypeA)); err != nil {
		t.Fatal(err)
	}
	var h dnsmessage.ResourceHeader
	if err := h.SetEDNS0(4096, dnsmessage.RCodeSuccess, false); err != nil {
		t.Fatal(err)
	}
	m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
	large, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if got := words(t, r.Query(t.Context(), large, netip.AddrPort{}), "many."); strings.Count(got, " ") != 100 {
		t.Errorf("of 4096 bytes: %q", got)
	}
}

func TestResolverMalformed(t *testing.T) {
	r := &HostResolver{Upstreams: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}}
	two := question(t, "a.test.", dnsmessage.TypeA)
	binary.BigEndian.PutUint16(two[4:], 2)
	two = append(two, two[12:]...)
	update := question(t, "a.test.", dnsmessage.TypeA)
	update[2] |= 5 << 3
	for what, c := range map[string]struct {
		in   []byte
		code int
	}{
		"nothing": {nil, -1}, "half a header": {make([]byte, 11), -1}, "an answer": {[]byte{0, 1, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0}, -1},
		"no question": {make([]byte, 12), 1}, "two questions": {two, 1}, "an update": {update, 4},
	} {
		got := r.answer(t.Context(), c.in, false)
		switch {
		case c.code < 0 && got != nil:
			t.Errorf("%s: an answer % x", what, got)
		case c.code >= 0 && (len(got) < 12 || int(got[3]&0xf) != c.code || got[2]&0x80 == 0):
			t.Errorf("%s: % x; want code %d", what, got, c.code)
		}
	}
}

func FuzzResolverAnswer(f *testing.F) {
	f.Add(question(f, "web.", dnsmessage.TypeA))
	f.Add(question(f, "1.0.0.10.in-addr.arpa.", dnsmessage.TypePTR))
	f.Add(make([]byte, 12))
	// The network is closed: nothing is asked of anyone.
	r := &HostResolver{Local: names{"web": {netip.MustParseAddr("172.18.0.2")}}, Rules: &Rules{Closed: true}}
	f.Fuzz(func(t *testing.T, in []byte) {
		out := r.answer(t.Context(), in, false)
		if out == nil {
			return
		}
		var p dnsmessage.Parser
		h, err := p.Start(out)
		if err != nil || !h.Response || h.ID != binary.BigEndian.Uint16(in) {
			t.Fatalf("% x: % x, %v", in, out, err)
		}
	})
}

func FuzzResolverBelieves(f *testing.F) {
	f.Add([]byte{0, 1, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1})
	name := dnsmessage.MustNewName("a.test.")
	q := dnsmessage.Question{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	r := &HostResolver{Rules: &Rules{Only: rules(f, "a.test")}}
	f.Fuzz(func(t *testing.T, in []byte) {
		if answers(in, 1, q) {
			r.learn(q, in)
			if len(in) < 12 || refusal(in) != (in[3]&0xf == 2 || in[3]&0xf == 4 || in[3]&0xf == 5) {
				t.Fatalf("% x", in)
			}
		}
	})
}

func TestReverseAddress(t *testing.T) {
	for name, want := range map[string]string{
		"4.3.2.1.in-addr.arpa": "1.2.3.4", "3.2.1.in-addr.arpa": "invalid IP", "256.2.3.1.in-addr.arpa": "invalid IP", "x.ip6.arpa": "invalid IP", "a.test": "invalid IP",
	} {
		if got := reverseAddress(name).String(); got != want {
			t.Errorf("%s: %s; want %s", name, got, want)
		}
	}
}
