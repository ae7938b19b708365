// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbx/slirp"
)

func newTestHome(t *testing.T) *Home {
	t.Helper()
	// Longer than a socket's path may be.
	return &Home{dir: t.TempDir() + "/" + strings.Repeat("d", 120) + "/containers"}
}

// frame is an IPv4 packet to dst with a payload of n bytes.
func frame(dst netip.Addr, n int) []byte {
	f := make([]byte, slirp.VnetHeaderSize+20+n)
	f[slirp.VnetHeaderSize] = 0x45
	copy(f[slirp.VnetHeaderSize+16:], dst.AsSlice())
	return f
}

func TestSwitch(t *testing.T) {
	h := newTestHome(t)
	n, err := h.CreateNetwork(NetworkOptions{Name: "lab", Subnets: []string{"172.29.241.0/28"}})
	if err != nil {
		t.Fatal(err)
	}
	ends := map[string]*endpoint{}
	inbox := map[string]chan []byte{}
	switches := map[string]*netSwitch{}
	plug := func(name string) {
		t.Helper()
		end, err := n.join(&Config{ID: strings.Repeat(name[:1], 64), Name: name}, Endpoint{Network: "lab", Aliases: []string{"Alias-" + name}})
		if err != nil {
			t.Fatal(err)
		}
		s, box := newSwitch(), make(chan []byte, 1000)
		s.plug(switchedPlace{Place: end.place, dir: end.dir, socket: pollable(end.socket)}, func(f []byte) error {
			box <- bytes.Clone(f)
			return nil
		})
		ends[name], inbox[name], switches[name] = end, box, s
	}
	plug("alice")
	plug("bob")
	t.Cleanup(func() { switches["alice"].close() })
	bob := ends["bob"].place.Address.Addr()
	if bob.String() != "172.29.241.3" {
		t.Errorf("bob has %s", bob)
	}
	for _, a := range []string{"172.29.241.1", "172.29.241.14", "172.29.241.9", "10.0.0.1", "::1"} {
		if switches["alice"].Takes(netip.MustParseAddr(a)) {
			t.Errorf("the switch takes %s", a)
		}
	}
	if !switches["alice"].Takes(bob) {
		t.Fatal("the switch does not take bob's packets")
	}
	// More than the socket holds at once, of the largest size: in order, none lost.
	for i := range 40 {
		f := frame(bob, 65000)
		f[len(f)-1] = byte(i)
		switches["alice"].Forward(f)
	}
	for i := range 40 {
		f := <-inbox["bob"]
		if len(f) != slirp.VnetHeaderSize+20+65000 || f[len(f)-1] != byte(i) {
			t.Fatalf("frame %d: %d bytes, number %d", i, len(f), f[len(f)-1])
		}
	}
	switches["alice"].Forward(nil)
	switches["alice"].Forward(make([]byte, 40))

	names := newLocalNames(&Networking{AddHosts: []string{"db:192.0.2.1", "h:host-gateway"}}, ends["alice"].place, func() []string { return []string{ends["alice"].dir} })
	for name, want := range map[string]string{
		"bob": "[172.29.241.3] true", "alias-bob": "[172.29.241.3] true", "bbbbbbbbbbbb": "[172.29.241.3] true", "db": "[192.0.2.1] true", "h": "[172.29.241.1] true", "carol": "[] false",
	} {
		addrs, known := names.Addresses(name)
		if got := fmt.Sprint(addrs, known); got != want {
			t.Errorf("%s: %s; want %s", name, got, want)
		}
	}
	if got := names.NameOf(bob); got != "bob" {
		t.Errorf("%s is %q", bob, got)
	}
	if err := h.RemoveNetwork(n); err == nil {
		t.Error("a network is removed that containers are in")
	}
	// An address that is asked for and taken; one that was given up is free again.
	if _, err := n.join(&Config{ID: strings.Repeat("c", 64), Name: "carol"}, Endpoint{Network: "lab", Address: bob.String()}); err == nil {
		t.Error("carol has bob's address")
	}
	switches["bob"].close()
	// The first may still wait behind the last of those above.
	for deadline := time.Now().Add(time.Minute); switches["alice"].Takes(bob); switches["alice"].Forward(frame(bob, 10)) {
		if time.Now().After(deadline) {
			t.Fatal("the switch takes packets to bob, who has gone")
		}
	}
	plug("carol")
	if a := ends["carol"].place.Address.Addr(); a != bob {
		t.Errorf("carol has %s, and not the first that is free", a)
	}
	// Killed without a word: the socket is left, and in nobody's way.
	switches["carol"].places[0].socket.Close()
	plug("dave")
	if a := ends["dave"].place.Address.Addr(); a != bob {
		t.Errorf("dave has %s, and not that of carol, who was killed", a)
	}
	switches["dave"].close()
	switches["alice"].close()
	if err := h.RemoveNetwork(n); err != nil {
		t.Error(err)
	}
}

// segmentTo is a frame with a TCP segment, told by a number.
func segmentTo(dst netip.Addr, flags, number byte) []byte {
	f := frame(dst, 20)
	packet := f[slirp.VnetHeaderSize:]
	packet[9], packet[20], packet[20+13] = unix.IPPROTO_TCP, number, flags
	return f
}

// A container that has left a network still hears of its connections, until somebody
// has its address: what begins something is the successor's then.
func TestSwitchLeft(t *testing.T) {
	h := newTestHome(t)
	n, err := h.CreateNetwork(NetworkOptions{Name: "lab", Subnets: []string{"172.29.243.0/28"}})
	if err != nil {
		t.Fatal(err)
	}
	inbox := map[string]chan byte{}
	plug := func(name, address string) *netSwitch {
		t.Helper()
		end, err := n.join(&Config{ID: strings.Repeat(name[:1], 64), Name: name}, Endpoint{Network: "lab", Address: address})
		if err != nil {
			t.Fatal(err)
		}
		s, box := newSwitch(), make(chan byte, 100)
		s.plug(switchedPlace{Place: end.place, dir: end.dir, socket: pollable(end.socket)}, func(f []byte) error {
			box <- f[slirp.VnetHeaderSize+20]
			return nil
		})
		t.Cleanup(s.close)
		inbox[name] = box
		return s
	}
	expect := func(name string, numbers ...byte) {
		t.Helper()
		for _, want := range numbers {
			if got := <-inbox[name]; got != want {
				t.Fatalf("%s got packet %d, want %d", name, got, want)
			}
		}
	}
	const ack, syn = 16, 2
	at := netip.MustParseAddr("172.29.243.9")
	old, web := plug("old", at.String()), plug("web", "")
	send := func(flags, number byte) {
		t.Helper()
		if !web.Takes(at) {
			t.Fatalf("the switch does not take packet %d", number)
		}
		web.Forward(segmentTo(at, flags, number))
	}
	send(syn, 1)
	old.leave()
	if members, err := n.Members(); err != nil || len(members) != 1 {
		t.Errorf("%v, %v are in the network after one has left", members, err)
	}
	send(ack, 2)
	send(syn, 3) // there is nobody else
	expect("old", 1, 2, 3)
	plug("new", at.String())
	send(ack, 4)
	expect("old", 4)
	send(syn, 5)
	expect("new", 5)
	send(ack, 6)
	expect("new", 6)
}

// What waits for a container that is slow has been sent when finish returns.
func TestSwitchFinish(t *testing.T) {
	h := newTestHome(t)
	n, err := h.CreateNetwork(NetworkOptions{Name: "lab", Subnets: []string{"172.29.244.0/28"}})
	if err != nil {
		t.Fatal(err)
	}
	slow, err := n.join(&Config{ID: strings.Repeat("a", 64), Name: "slow"}, Endpoint{Network: "lab"})
	if err != nil {
		t.Fatal(err)
	}
	end, err := n.join(&Config{ID: strings.Repeat("b", 64), Name: "b"}, Endpoint{Network: "lab"})
	if err != nil {
		t.Fatal(err)
	}
	s := newSwitch()
	s.plug(switchedPlace{Place: end.place, dir: end.dir, socket: pollable(end.socket)}, func([]byte) error { return nil })
	t.Cleanup(s.close)
	to := slow.place.Address.Addr()
	if !s.Takes(to) {
		t.Fatal("the switch does not take the packets")
	}
	const frames = 40
	for range frames {
		s.Forward(frame(to, 65000))
	}
	s.leave()
	ctx := context.Background()
	if err := s.finish(ctx, time.Millisecond, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("finished with %v although nobody reads", err)
	}
	socket := pollable(slow.socket)
	t.Cleanup(func() { socket.Close() })
	read := make(chan error, 1)
	go func() {
		b := make([]byte, maxFrame)
		for range frames {
			if _, err := socket.Read(b); err != nil {
				read <- err
				return
			}
		}
		read <- nil
	}()
	if err := s.finish(ctx, time.Minute, nil); err != nil {
		t.Error(err)
	}
	s.close()
	if err := <-read; err != nil {
		t.Error(err)
	}
}

func TestEndingStreams(t *testing.T) {
	before, err := endingStreams()
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.83.0.1", "::1"} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		// More than the other side has room for.
		_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		for err == nil {
			_, err = c.Write(make([]byte, 1<<20))
		}
		c.Close()
		list, err := endingStreams()
		if a := netip.MustParseAddr(host); err != nil || !slices.Contains(list, a) {
			t.Errorf("%v, %v does not have %s; before %v", list, err, host, before)
		}
		server.Close()
	}
}

func TestNetworkFull(t *testing.T) {
	h := newTestHome(t)
	n, err := h.CreateNetwork(NetworkOptions{Name: "small", Subnets: []string{"172.29.242.0/29"}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		// .0 the network, .1 the gateway, .6 for names, .7 broadcast
		end, err := n.join(&Config{ID: strings.Repeat("a", 64), Name: "x"}, Endpoint{})
		if err != nil {
			t.Fatalf("container %d: %v", i, err)
		}
		defer end.leave()
	}
	if _, err := n.join(&Config{ID: strings.Repeat("a", 64), Name: "x"}, Endpoint{}); err == nil {
		t.Error("there is room for one more")
	}
}

func TestCreateNetwork(t *testing.T) {
	h := newTestHome(t)
	for _, c := range []struct {
		o    NetworkOptions
		want string
	}{
		{NetworkOptions{Name: "bridge"}, "operation is not permitted on predefined bridge network"},
		{NetworkOptions{Name: "a/b"}, `invalid network name: "a/b": only [a-zA-Z0-9][a-zA-Z0-9_.-]* is allowed`},
		{NetworkOptions{Name: "..", Subnets: []string{"x"}}, `invalid network name: "..": only [a-zA-Z0-9][a-zA-Z0-9_.-]* is allowed`},
		{NetworkOptions{Name: "aa", Subnets: []string{"x"}}, "invalid subnet x: not a prefix such as 172.28.0.0/16"},
		{NetworkOptions{Name: "aa", Subnets: []string{"172.29.1.1/24"}}, "invalid subnet 172.29.1.1/24: it should be 172.29.1.0/24"},
		{NetworkOptions{Name: "aa", Subnets: []string{"172.29.1.0/31"}}, "invalid subnet 172.29.1.0/31: want one of each family, of 8 to 29 bits"},
		{NetworkOptions{Name: "aa", Subnets: []string{"172.29.1.0/24"}, Gateways: []string{"10.0.0.1"}}, "no matching subnet for gateway 10.0.0.1"},
		{NetworkOptions{Name: "aa", Subnets: []string{"172.29.1.0/24", "fd01:2:3::/64"}, Gateways: []string{"172.29.1.9"}}, ""},
		{NetworkOptions{Name: "aa"}, "network with name aa already exists"},
		{NetworkOptions{Name: "bb"}, ""},
	} {
		n, err := h.CreateNetwork(c.o)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%+v: %q; want %q", c.o, got, c.want)
		}
		if err == nil && (n.Gateway == n.dns() || !n.Subnet.Contains(n.dns())) {
			t.Errorf("%+v: gateway %s, dns %s", c.o, n.Gateway, n.dns())
		}
	}
	n, err := h.FindNetwork("aa")
	if err != nil || n.Gateway.String() != "172.29.1.9" || n.Subnet6.String() != "fd01:2:3::/64" {
		t.Fatalf("%+v, %v", n, err)
	}
	if same, err := h.FindNetwork(n.ID[:8]); err != nil || same.Name != "aa" {
		t.Errorf("by the beginning of its ID: %+v, %v", same, err)
	}
}
