// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Bounds of the resolver. A program inside waits five seconds for an answer
// (resolv.conf(5)); it gets one before, if only that there is none.
const (
	answerTime    = 4500 * time.Millisecond
	nextServer    = 1 * time.Second // without an answer, the next is asked as well
	maxQuestions  = 256             // at a time; more are answered with SERVFAIL
	maxMessage    = 65535
	maxPipeline   = 1000 // questions on one TCP connection
	idleTime      = 20 * time.Second
	localTTL      = 30      // seconds, of names of containers: they come and go
	maxUDPMessage = 8 << 10 // more than EDNS asks for
)

// Names answers for names that are known here: those of --add-host and of the
// containers on the same network.
type Names interface {
	// Addresses returns the addresses of a name in lower case and without a
	// final dot, and whether there is such a name.
	Addresses(name string) (addrs []netip.Addr, known bool)
	// NameOf returns the name that has an address, or "".
	NameOf(addr netip.Addr) string
}

// HostResolver is the Resolver of containers: it answers some questions from what
// is known here, the others by asking the host's own resolvers, as they are at that
// moment. Its fields must not be changed once it is in use.
//
// Runs in: the host's network namespace, so that a stub on 127.0.0.53 is reached.
type HostResolver struct {
	// Upstreams are asked instead of the host's resolvers, unless empty.
	Upstreams []netip.AddrPort
	// Config is the host's file of resolvers; /etc/resolv.conf when empty.
	Config string
	// Local answers before anybody is asked; it may be nil.
	Local Names
	// Rules say which names may be asked for, and learn what they mean.
	Rules *Rules

	asking slots
	host   hostConfig
}

// slots counts what goes on at one time.
type slots struct {
	mu   sync.Mutex
	used int
}

func (s *slots) take(most int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used >= most {
		return false
	}
	s.used++
	return true
}

func (s *slots) free() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used--
}

// Query answers a question that came over UDP, within five seconds. The answer is
// nil where none is due (what came is no question), and cut where it is larger
// than the asker takes, which tells it to ask over TCP.
func (r *HostResolver) Query(ctx context.Context, question []byte, _ netip.AddrPort) []byte {
	answer := r.answer(ctx, question, false)
	if len(answer) <= maxPlain || len(answer) <= accepts(question) {
		return answer
	}
	var p dnsmessage.Parser
	header, err := p.Start(answer)
	if err != nil {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	short := failure(header, &q, header.RCode)
	if len(short) > 2 {
		short[2] |= 1 << 1 // TC, RFC 1035 4.1.1
	}
	return short
}

// maxPlain is what everyone takes over UDP, RFC 1035 4.2.1.
const maxPlain = 512

// accepts is the size of answers that an asker takes over UDP (RFC 6891 6.2.3).
func accepts(question []byte) int {
	var p dnsmessage.Parser
	if _, err := p.Start(question); err != nil || p.SkipAllQuestions() != nil || p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return maxPlain
	}
	for {
		h, err := p.AdditionalHeader()
		if err != nil {
			return maxPlain
		}
		if h.Type == dnsmessage.TypeOPT {
			return max(int(h.Class), maxPlain)
		}
		if p.SkipAdditional() != nil {
			return maxPlain
		}
	}
}

// answer returns the answer to a question, both as DNS messages of at most 65,535
// bytes, or nil.
func (r *HostResolver) answer(ctx context.Context, question []byte, overTCP bool) []byte {
	var p dnsmessage.Parser
	header, err := p.Start(question)
	if err != nil || header.Response {
		return nil
	}
	q, err := p.Question()
	if err != nil || header.OpCode != 0 {
		return failure(header, nil, pick(err != nil, dnsmessage.RCodeFormatError, dnsmessage.RCodeNotImplemented))
	}
	if _, err := p.Question(); err == nil || len(question) > maxMessage {
		return failure(header, &q, dnsmessage.RCodeFormatError)
	}
	if answer := r.local(header, q); answer != nil {
		return answer
	}
	if name := q.Name.String(); r.Rules != nil && !r.Rules.PermitsName(name) {
		return failure(header, &q, dnsmessage.RCodeRefused)
	}
	if !r.asking.take(maxQuestions) {
		return failure(header, &q, dnsmessage.RCodeServerFailure)
	}
	defer r.asking.free()
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	answer, err := r.forward(ctx, question, q, overTCP)
	if err != nil {
		return failure(header, &q, dnsmessage.RCodeServerFailure)
	}
	r.learn(q, answer)
	return answer
}

func pick(first bool, a, b dnsmessage.RCode) dnsmessage.RCode {
	if first {
		return a
	}
	return b
}

// failure is an answer that says only why there is none.
func failure(to dnsmessage.Header, q *dnsmessage.Question, code dnsmessage.RCode) []byte {
	b := dnsmessage.NewBuilder(nil, replyHeader(to, code))
	if q != nil {
		if err := errors.Join(b.StartQuestions(), b.Question(*q)); err != nil {
			return nil
		}
	}
	out, err := b.Finish()
	if err != nil {
		return nil
	}
	return out
}

func replyHeader(to dnsmessage.Header, code dnsmessage.RCode) dnsmessage.Header {
	return dnsmessage.Header{
		ID: to.ID, Response: true, OpCode: to.OpCode, RecursionDesired: to.RecursionDesired, RecursionAvailable: true, RCode: code,
	}
}

// learn tells the policy what addresses a permitted name has.
func (r *HostResolver) learn(q dnsmessage.Question, answer []byte) {
	if r.Rules == nil || (q.Type != dnsmessage.TypeA && q.Type != dnsmessage.TypeAAAA) {
		return
	}
	var p dnsmessage.Parser
	if _, err := p.Start(answer); err != nil || p.SkipAllQuestions() != nil {
		return
	}
	for {
		h, err := p.AnswerHeader()
		if err != nil {
			return
		}
		var addr netip.Addr
		switch h.Type {
		case dnsmessage.TypeA:
			a, err := p.AResource()
			if err != nil {
				return
			}
			addr = netip.AddrFrom4(a.A)
		case dnsmessage.TypeAAAA:
			a, err := p.AAAAResource()
			if err != nil {
				return
			}
			addr = netip.AddrFrom16(a.AAAA)
		default:
			if p.SkipAnswer() != nil {
				return
			}
			continue
		}
		r.Rules.Learn(q.Name.String(), addr, time.Duration(h.TTL)*time.Second)
	}
}

// Serve answers the questions that come over a connection, each with its length
// before it (RFC 1035 4.2.2), until that ends or is idle, and closes it.
func (r *HostResolver) Serve(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	for range maxPipeline {
		if conn.SetDeadline(time.Now().Add(idleTime)) != nil {
			return
		}
		question, err := readMessage(conn)
		if err != nil {
			return
		}
		answer := r.answer(ctx, question, true)
		if answer == nil || writeMessage(conn, answer) != nil {
			return
		}
	}
}

func readMessage(from io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(from, length[:]); err != nil {
		return nil, err
	}
	message := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(from, message)
	return message, err
}

func writeMessage(to io.Writer, message []byte) error {
	if len(message) > maxMessage {
		return errors.New("write DNS message: it is too long")
	}
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(message)), uint16(len(message)))
	_, err := to.Write(append(framed, message...))
	return err
}
