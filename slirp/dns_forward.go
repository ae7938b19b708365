// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// forward asks the resolvers, one after the other, and returns the first answer.
// A server that is slow is not given up when the next is asked: one of several
// that are all far away still answers in time.
func (r *HostResolver) forward(ctx context.Context, question []byte, q dnsmessage.Question, overTCP bool) ([]byte, error) {
	servers := r.Upstreams
	if len(servers) == 0 {
		servers = r.host.servers(r.Config)
	}
	if len(servers) == 0 {
		return nil, errors.New("ask resolver: this machine names none")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		answer []byte
		err    error
	}
	results := make(chan result, len(servers)*attempts)
	asked, answered := 0, 0
	ask := func() {
		server := servers[asked%len(servers)]
		asked++
		go func() {
			answer, err := exchange(ctx, server, question, q, overTCP)
			results <- result{answer, err}
		}()
	}
	ask()
	next := time.NewTicker(nextServer)
	defer next.Stop()
	var last error
	var bad []byte
	for {
		more := asked < cap(results)
		select {
		case got := <-results:
			answered++
			if got.err == nil && !refusal(got.answer) {
				return got.answer, nil
			}
			last = got.err
			if got.err == nil {
				bad = got.answer
			}
			switch {
			case more:
				ask()
			case answered == asked && len(bad) > 0:
				return bad, nil // every server says so
			case answered == asked:
				return nil, last
			}
		case <-next.C:
			if more {
				ask()
			}
		case <-ctx.Done():
			return nil, errors.Join(last, ctx.Err())
		}
	}
}

// attempts is how often each server is asked, as resolv.conf(5) has it.
const attempts = 2

// refusal reports whether a server says that it cannot tell: another might.
func refusal(answer []byte) bool {
	switch code := dnsmessage.RCode(answer[3] & 0xf); code {
	case dnsmessage.RCodeServerFailure, dnsmessage.RCodeNotImplemented, dnsmessage.RCodeRefused:
		return true
	}
	return false
}

// exchange asks one server. The question gets an identifier and a port that
// nobody can guess, and only an answer from that server, with that identifier,
// to that question counts (RFC 5452).
func exchange(ctx context.Context, server netip.AddrPort, question []byte, q dnsmessage.Question, overTCP bool) ([]byte, error) {
	network := "udp"
	if overTCP {
		network = "tcp"
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, server.String())
	if err != nil {
		return nil, fmt.Errorf("ask resolver %s: %w", server, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	asked := bytes.Clone(question)
	_, _ = rand.Read(asked[:2])
	id := binary.BigEndian.Uint16(asked)
	if overTCP {
		err = writeMessage(conn, asked)
	} else {
		_, err = conn.Write(asked)
	}
	var buf []byte
	for err == nil {
		var answer []byte
		if overTCP {
			answer, err = readMessage(conn)
		} else {
			if buf == nil {
				buf = make([]byte, maxUDPMessage)
			}
			var n int
			n, err = conn.Read(buf)
			answer = buf[:max(n, 0)]
		}
		if err == nil && answers(answer, id, q) {
			out := bytes.Clone(answer)
			copy(out, question[:2])
			return out, nil
		}
		if err == nil && overTCP {
			err = errors.New("the answer is to another question")
		}
	}
	return nil, fmt.Errorf("ask resolver %s: %w", server, err)
}

// answers reports whether a message is the answer to a question.
func answers(answer []byte, id uint16, q dnsmessage.Question) bool {
	var p dnsmessage.Parser
	header, err := p.Start(answer)
	if err != nil || !header.Response || header.ID != id {
		return false
	}
	got, err := p.Question()
	if errors.Is(err, dnsmessage.ErrSectionDone) {
		// Servers that cannot read a question need not repeat it.
		return header.RCode != dnsmessage.RCodeSuccess
	}
	return err == nil && got.Type == q.Type && got.Class == q.Class && strings.EqualFold(got.Name.String(), q.Name.String())
}

// hostConfig are the host's resolvers as its file has them now.
type hostConfig struct {
	mu    sync.Mutex
	seen  fileState
	addrs []netip.AddrPort
}

// fileState tells two states of a file apart.
type fileState struct {
	dev, ino uint64
	size     int64
	changed  syscall.Timespec
}

func (h *hostConfig) servers(path string) []netip.AddrPort {
	if path == "" {
		path = "/etc/resolv.conf"
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		st = syscall.Stat_t{}
	}
	now := fileState{st.Dev, st.Ino, st.Size, st.Ctim}
	if h.addrs != nil && now == h.seen {
		return h.addrs
	}
	data, err := os.ReadFile(path)
	if err != nil && h.addrs != nil {
		return h.addrs // between two versions there may be none
	}
	h.seen, h.addrs = now, ParseResolvConf(data).Servers
	if len(h.addrs) == 0 {
		// As the C library has it, resolv.conf(5).
		h.addrs = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 53)}
	}
	return h.addrs
}

// ResolvConf is what a resolv.conf(5) says.
type ResolvConf struct {
	Servers []netip.AddrPort
	Search  []string
	Options []string
}

// ParseResolvConf reads a resolv.conf(5); what it does not know it skips.
func ParseResolvConf(data []byte) ResolvConf {
	var c ResolvConf
	for line := range bytes.Lines(data) {
		fields := strings.Fields(string(line))
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") || strings.HasPrefix(fields[0], ";") {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(fields[1]); err == nil && len(c.Servers) < maxServers {
				c.Servers = append(c.Servers, netip.AddrPortFrom(a.Unmap(), 53))
			}
		case "search", "domain":
			c.Search = fields[1:]
		case "options":
			c.Options = append(c.Options, fields[1:]...)
		}
	}
	return c
}

// maxServers is more than the C library's three: a local resolver may be behind them.
const maxServers = 8
