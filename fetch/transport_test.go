// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDialFaults has connections fail in ways that may pass: they are tried again, a
// bounded number of times.
func TestDialFaults(t *testing.T) {
	lookup := &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "i/o timeout", Name: "registry.test", IsTimeout: true}}
	connect := &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
	for _, tt := range []struct {
		name  string
		fault error
		times int
		want  string
	}{
		{"names are not answered twice", lookup, 2, ""},
		{"names are never answered", lookup, 1 << 30, "GET https://registry.test/v2/: dial tcp: lookup registry.test: i/o timeout"},
		{"nobody answers twice", connect, 2, ""},
		{"nobody ever answers", connect, 1 << 30, "GET https://registry.test/v2/: dial tcp: i/o timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, image := newWorld(t), makeImage(t, "amd64")
			w.serve("registry.test:443", tagged(image.manifest, image.desc.MediaType, image))
			o := w.options()
			dial, dials := o.hooks.dial, 0
			o.hooks.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				if dials++; dials <= tt.times {
					return nil, tt.fault
				}
				return dial(ctx, network, address)
			}
			got, err := Registry(t.Context(), mustRef(t, "registry.test/app"), o)
			if tt.want != "" {
				wantError(t, err, tt.want)
				if dials != maxTries {
					t.Errorf("%d connections, want %d", dials, maxTries)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checkSource(t, got)
			got.Close()
			if n := len(w.clock.sleeps()); n != tt.times {
				t.Errorf("%d waits, want %d", n, tt.times)
			}
		})
	}
}

// TestR05Handshakes offers what must not be accepted, beside TestR05Certificates.
func TestR05Handshakes(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		prepare    func(w *world)
	}{
		{"expired", "certificate has expired", func(w *world) { w.certify(time.Now().Add(-time.Hour)) }},
		{"an old TLS only", "protocol version", func(w *world) { w.best = tls.VersionTLS11 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			tt.prepare(w)
			w.serve("registry.test:443", newRegistry())
			_, err := Registry(t.Context(), mustRef(t, "registry.test/app"), w.options())
			wantError(t, err, "GET https://registry.test/v2/: ", tt.want)
			if n := len(w.clock.sleeps()); n != 0 {
				t.Errorf("%d retries", n)
			}
		})
	}
}

// TestBlobGoAway has a server shut an HTTP/2 connection down in the middle of a blob.
func TestBlobGoAway(t *testing.T) {
	w := newWorld(t)
	f := &faulty{blob: func(rw http.ResponseWriter, r *http.Request, _ int, body []byte) {
		http.ServeContent(rw, r, "", testNow, bytes.NewReader(body))
	}}
	image, layer := openFaulty(t, w, f)
	const sent = 300 << 10
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{w.cert}, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	gone := make(chan error, 1)
	go func() { gone <- goAway(l, f.image.layers[0][:sent]) }()
	// The registry sends the client there once, and serves the rest itself.
	w.mu.Lock()
	w.at["leaving.registry.test:443"] = l.Addr().String()
	w.mu.Unlock()
	serve := f.blob
	f.blob = func(rw http.ResponseWriter, r *http.Request, try int, body []byte) {
		if try == 1 {
			http.Redirect(rw, r, "https://leaving.registry.test/blob", http.StatusTemporaryRedirect)
			return
		}
		if from := asked(r); from != sent {
			t.Errorf("asked for from byte %d on, want %d", from, sent)
		}
		serve(rw, r, try, body)
	}
	if got := readBlob(t, image, layer, 0); !bytes.Equal(got, f.image.layers[0]) {
		t.Error("wrong bytes")
	}
	if err := <-gone; err != nil {
		t.Error(err)
	}
	if f.tries != 2 {
		t.Errorf("%d requests", f.tries)
	}
}

// Frames of HTTP/2, RFC 9113 section 6.
const (
	frameData     = 0
	frameHeaders  = 1
	frameSettings = 4
	frameGoAway   = 7

	endHeaders = 4
	// status200 is ":status: 200" by its index, RFC 7541 appendix A.
	status200 = "\x88"
)

// writeFrame writes one frame.
func writeFrame(w io.Writer, kind, flags byte, stream uint32, payload []byte) error {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(payload)))[1:]
	head = binary.BigEndian.AppendUint32(append(head, kind, flags), stream)
	_, err := w.Write(append(head, payload...))
	return err
}

// readFrame returns the kind and the stream of the next frame.
func readFrame(r io.Reader) (kind byte, stream uint32, err error) {
	head := make([]byte, 9)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, 0, err
	}
	size := int64(head[0])<<16 | int64(head[1])<<8 | int64(head[2])
	_, err = io.CopyN(io.Discard, r, size)
	return head[3], binary.BigEndian.Uint32(head[5:]), err
}

// goAway answers one request with a part of its body, then GOAWAY and the end of the
// connection.
func goAway(l net.Listener, part []byte) error {
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	if _, err := io.CopyN(io.Discard, conn, int64(len(preface))); err != nil {
		return err
	}
	if err := writeFrame(conn, frameSettings, 0, 0, nil); err != nil {
		return err
	}
	kind, stream := byte(0), uint32(0)
	for kind != frameHeaders {
		if kind, stream, err = readFrame(conn); err != nil {
			return err
		}
	}
	if err := writeFrame(conn, frameHeaders, endHeaders, stream, []byte(status200)); err != nil {
		return err
	}
	const most = 16 << 10
	for ; len(part) > 0; part = part[min(most, len(part)):] {
		if err := writeFrame(conn, frameData, 0, stream, part[:min(most, len(part))]); err != nil {
			return err
		}
	}
	last := binary.BigEndian.AppendUint32(nil, stream)
	if err := writeFrame(conn, frameGoAway, 0, 0, append(last, 0, 0, 0, 0)); err != nil { // NO_ERROR
		return err
	}
	if err := conn.(*tls.Conn).CloseWrite(); err != nil {
		return err
	}
	// What is closed with something unread takes back what it has sent.
	_, err = io.Copy(io.Discard, conn)
	return err
}

// TestBlackHole has a registry whose IPv6 address swallows everything: it is reached by
// IPv4. A machine without IPv6 has no such address to begin with.
func TestBlackHole(t *testing.T) {
	image := makeImage(t, "amd64")
	s := httptest.NewServer(tagged(image.manifest, image.desc.MediaType, image))
	defer s.Close()
	address := s.Listener.Addr().(*net.TCPAddr)
	swallow(t, address.Port)
	got, err := Registry(t.Context(), mustRef(t, fmt.Sprintf("localhost:%d/app", address.Port)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	checkSource(t, got)
}

// swallow listens on a port of ::1 with no room for another connection: the kernel drops
// what asks for one.
func swallow(t *testing.T, port int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	t.Cleanup(func() { unix.Close(fd) })
	at := &unix.SockaddrInet6{Port: port, Addr: [16]byte{15: 1}}
	if unix.Bind(fd, at) != nil {
		return
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(c) })
		if err := unix.Connect(c, at); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			t.Fatal(err)
		}
	}
}
