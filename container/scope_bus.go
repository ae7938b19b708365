// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// manager is a conversation with the user's own systemd, in the form of D-Bus over
// the socket that is the manager's alone. Of the protocol it has what three calls
// need: everything little-endian, no descriptors (D-Bus Specification 0.43).
type manager struct {
	conn   net.Conn
	in     *bufio.Reader
	serial uint32
}

const (
	managerName      = "org.freedesktop.systemd1"
	managerPath      = "/org/freedesktop/systemd1"
	managerInterface = managerName + ".Manager"
	// managerPatience is how long a manager may take; without an answer the limits
	// are held in the other way.
	managerPatience = 10 * time.Second
	maxMessage      = 1 << 20
)

// managerSocket is where the user's systemd listens, if there is one.
func managerSocket() string {
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		dir = "/run/user/" + strconv.Itoa(os.Getuid())
	}
	return filepath.Join(dir, "systemd/private")
}

// dialManager connects and says who is here, which the kernel confirms.
func dialManager(ctx context.Context, socket string) (*manager, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	m := &manager{conn: conn, in: bufio.NewReader(conn)}
	err = conn.SetDeadline(time.Now().Add(managerPatience))
	if err == nil {
		_, err = io.WriteString(conn, "\x00AUTH EXTERNAL "+hex.EncodeToString([]byte(strconv.Itoa(os.Getuid())))+"\r\n")
	}
	if err == nil {
		var answer string
		if answer, err = m.in.ReadString('\n'); err == nil && !strings.HasPrefix(answer, "OK ") {
			err = errors.New("it does not know us")
		}
	}
	if err == nil {
		_, err = io.WriteString(conn, "BEGIN\r\n")
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return m, nil
}

// startScope has the manager make a scope with a process in it, whose control group
// is then the user's to divide, and waits until that is so.
func (m *manager) startScope(name, description string, pid int) error {
	var b busWriter
	b.text(name)
	b.text("fail")
	b.array(8, func() {
		b.property("Description", "s", func() { b.text(description) })
		b.property("CollectMode", "s", func() { b.text("inactive-or-failed") })
		b.property("Delegate", "b", func() { b.number(1) })
		b.property("PIDs", "au", func() { b.array(4, func() { b.number(uint32(pid)) }) })
	})
	b.array(8, func() {})
	body, err := m.call("StartTransientUnit", "ssa(sv)a(sa(sv))", b.data)
	if err != nil {
		return err
	}
	job, _, err := busText(body)
	if err != nil {
		return err
	}
	for {
		got, err := m.receive()
		if err != nil {
			return err
		}
		if got.member != "JobRemoved" || len(got.body) < 4 {
			continue
		}
		removed, rest, err := busText(got.body[4:]) // behind the number of the job
		if err != nil || removed != job {
			continue
		}
		if _, rest, err = busText(align(got.body, rest, 4)); err == nil { // the unit
			var result string
			if result, _, err = busText(align(got.body, rest, 4)); err == nil && result != "done" {
				err = fmt.Errorf("start %s: %s", name, result)
			}
		}
		return err
	}
}

// attach moves a process of the user's into a control group below that of a unit.
func (m *manager) attach(unit, group string, pid int) error {
	var b busWriter
	b.text(unit)
	b.text(group)
	b.array(4, func() { b.number(uint32(pid)) })
	_, err := m.call("AttachProcessesToUnit", "ssau", b.data)
	return err
}

// call calls a method and returns the body of its answer.
func (m *manager) call(method, signature string, body []byte) ([]byte, error) {
	m.serial++
	var b busWriter
	b.data = append(b.data, 'l', 1, 0, 1) // little-endian, a call, no flags, version 1
	b.number(uint32(len(body)))
	b.number(m.serial)
	b.array(8, func() {
		b.field(1, "o", func() { b.text(managerPath) })
		b.field(2, "s", func() { b.text(managerInterface) })
		b.field(3, "s", func() { b.text(method) })
		b.field(6, "s", func() { b.text(managerName) })
		b.field(8, "g", func() { b.signature(signature) })
	})
	b.align(8)
	if _, err := m.conn.Write(append(b.data, body...)); err != nil {
		return nil, err
	}
	for {
		got, err := m.receive()
		switch {
		case err != nil:
			return nil, err
		case got.answers != m.serial:
		case got.kind == 3:
			text, _, _ := busText(got.body)
			return nil, fmt.Errorf("%s: %s", method, or(text, "refused"))
		default:
			return got.body, nil
		}
	}
}

// busMessage is what of a message is looked at.
type busMessage struct {
	kind    byte   // 2 is an answer, 3 an error, 4 a signal
	answers uint32 // the serial of the call
	member  string // of a signal
	body    []byte
}

func (m *manager) receive() (busMessage, error) {
	var head [16]byte
	if _, err := io.ReadFull(m.in, head[:]); err != nil {
		return busMessage{}, err
	}
	length, fields := binary.LittleEndian.Uint32(head[4:]), binary.LittleEndian.Uint32(head[12:])
	if head[0] != 'l' || length > maxMessage || fields > maxMessage {
		return busMessage{}, errors.New("strange message")
	}
	padded := (int(fields) + 7) &^ 7
	data := make([]byte, padded+int(length))
	if _, err := io.ReadFull(m.in, data); err != nil {
		return busMessage{}, err
	}
	got := busMessage{kind: head[1], body: data[padded:]}
	for rest := data[:fields]; len(rest) > 4; {
		code, kind := rest[0], rest[2] // each has a signature of one letter
		rest = rest[4:]
		switch kind {
		case 'u':
			if len(rest) < 4 {
				return got, errors.New("strange field")
			}
			if code == 5 {
				got.answers = binary.LittleEndian.Uint32(rest)
			}
			rest = rest[4:]
		case 'g':
			if len(rest) < int(rest[0])+2 {
				return got, errors.New("strange field")
			}
			rest = rest[int(rest[0])+2:]
		default:
			text, after, err := busText(rest)
			if err != nil {
				return got, err
			}
			if code == 3 {
				got.member = text
			}
			rest = after
		}
		rest = align(data[:fields], rest, 8)
	}
	return got, nil
}

// align passes over what fills up to a multiple of n, counted from whole's start.
func align(whole, rest []byte, n int) []byte {
	at := len(whole) - len(rest)
	return whole[min((at+n-1)/n*n, len(whole)):]
}

// busText reads a string, or the path of an object.
func busText(data []byte) (text string, rest []byte, err error) {
	if len(data) < 5 {
		return "", nil, errors.New("strange string")
	}
	n := uint64(binary.LittleEndian.Uint32(data))
	if n > uint64(len(data)-5) {
		return "", nil, errors.New("strange string")
	}
	return string(data[4 : 4+n]), data[5+n:], nil
}

// busWriter marshals values.
type busWriter struct{ data []byte }

func (b *busWriter) align(n int) {
	for len(b.data)%n != 0 {
		b.data = append(b.data, 0)
	}
}

func (b *busWriter) number(v uint32) {
	b.align(4)
	b.data = binary.LittleEndian.AppendUint32(b.data, v)
}

func (b *busWriter) text(s string) {
	b.number(uint32(len(s)))
	b.data = append(append(b.data, s...), 0)
}

func (b *busWriter) signature(s string) {
	b.data = append(append(append(b.data, byte(len(s))), s...), 0)
}

// array writes the length of what elements writes, which begins at a multiple of n.
func (b *busWriter) array(n int, elements func()) {
	b.number(0)
	at := len(b.data) - 4
	b.align(n)
	first := len(b.data)
	elements()
	binary.LittleEndian.PutUint32(b.data[at:], uint32(len(b.data)-first))
}

// property is a structure of a name and a value of any type.
func (b *busWriter) property(name, signature string, value func()) {
	b.align(8)
	b.text(name)
	b.signature(signature)
	value()
}

// field is a structure of a header field's number and its value.
func (b *busWriter) field(code byte, signature string, value func()) {
	b.align(8)
	b.data = append(b.data, code)
	b.signature(signature)
	value()
}
