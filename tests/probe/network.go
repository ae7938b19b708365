// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"
)

// patience bounds every wait for the network.
const patience = 30 * time.Second

// serve answers clients at "tcp ADDRESS" or "udp ADDRESS": with its host's name and
// where it sees them, and what they said. With a third argument it ends after the
// first. It says "serving" when it listens, and at which port if that was for the
// kernel to choose.
func serve(args []string) error {
	if len(args) < 2 {
		return errors.New("serve NETWORK ADDRESS [once]")
	}
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	once := len(args) > 2
	if strings.HasPrefix(args[0], "udp") {
		return serveDatagrams(args[0], args[1], name, once)
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), args[0], args[1])
	if err != nil {
		return err
	}
	if strings.HasSuffix(args[1], ":0") {
		fmt.Println("serving", l.Addr().(*net.TCPAddr).Port)
	} else {
		fmt.Println("serving")
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		c.SetDeadline(time.Now().Add(patience))
		said, err := io.ReadAll(c)
		if err == nil {
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			fmt.Fprintf(c, "%s sees %s saying %s\n", name, host, said)
		}
		c.Close()
		if once {
			return err
		}
	}
}

func serveDatagrams(network, address, name string, once bool) error {
	l, err := (&net.ListenConfig{}).ListenPacket(context.Background(), network, address)
	if err != nil {
		return err
	}
	fmt.Println("serving")
	buf := make([]byte, 1<<16)
	for {
		n, from, err := l.ReadFrom(buf)
		if err != nil {
			return err
		}
		host, _, _ := net.SplitHostPort(from.String())
		if _, err := l.WriteTo(fmt.Appendf(nil, "%s sees %s saying %s\n", name, host, buf[:n]), from); err != nil || once {
			return err
		}
	}
}

// dial says a word to a server at "tcp ADDRESS", "unix PATH" or "udp ADDRESS" and prints what
// that answers.
func dial(args []string) error {
	if len(args) != 3 {
		return errors.New("dial NETWORK ADDRESS WORD")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, args[0], args[1])
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, args[2]); err != nil {
		return err
	}
	if stream, ok := c.(interface{ CloseWrite() error }); ok {
		stream.CloseWrite()
		_, err = io.Copy(os.Stdout, c)
		return err
	}
	buf := make([]byte, 1<<16)
	n, err := c.Read(buf)
	os.Stdout.Write(buf[:max(n, 0)])
	return err
}

// lookup prints the addresses of a name.
func lookup(args []string) error {
	if len(args) != 1 {
		return errors.New("lookup NAME")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	addrs, err := (&net.Resolver{PreferGo: true}).LookupHost(ctx, args[0])
	if err != nil {
		return err
	}
	slices.Sort(addrs)
	fmt.Println(strings.Join(addrs, "\n"))
	return nil
}

// datagrams are what say sends over UDP: many of a size, and fewer than a socket holds.
const datagrams, datagramSize = 40, 1000

// say sends to a server at "tcp ADDRESS" what the kernels take until nobody takes
// more, or some datagrams at "udp ADDRESS"; it tells how many bytes that was, and ends.
func say(args []string) error {
	if len(args) != 2 {
		return errors.New("say NETWORK ADDRESS")
	}
	c, err := net.DialTimeout(args[0], args[1], patience)
	if err != nil {
		return err
	}
	said := 0
	defer func() { fmt.Println(said, "bytes") }()
	if strings.HasPrefix(args[0], "udp") {
		for range datagrams {
			n, err := c.Write(make([]byte, datagramSize))
			said += n
			if err != nil {
				return err
			}
		}
		return nil
	}
	for {
		c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := c.Write(make([]byte, 1<<16))
		said += n
		if err != nil {
			return nil
		}
	}
}

// count waits for a client at "tcp ADDRESS" and for a line of standard input; it
// tells how many bytes the client then sends, and how that ends. At "udp ADDRESS" it
// is the datagrams that say sends.
func count(args []string) error {
	if len(args) != 2 {
		return errors.New("count NETWORK ADDRESS")
	}
	if strings.HasPrefix(args[0], "udp") {
		return countDatagrams(args[0], args[1])
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), args[0], args[1])
	if err != nil {
		return err
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	c, err := l.Accept()
	if err != nil {
		return err
	}
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return err
	}
	c.SetReadDeadline(time.Now().Add(patience))
	n, err := io.Copy(io.Discard, c)
	fmt.Println(n, "bytes")
	return err
}

func countDatagrams(network, address string) error {
	l, err := (&net.ListenConfig{}).ListenPacket(context.Background(), network, address)
	if err != nil {
		return err
	}
	fmt.Println(l.LocalAddr().(*net.UDPAddr).Port)
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return err
	}
	l.SetReadDeadline(time.Now().Add(patience))
	got := 0
	defer func() { fmt.Println(got, "bytes") }()
	for b := make([]byte, 1<<16); got < datagrams*datagramSize; {
		n, _, err := l.ReadFrom(b)
		got += n
		if err != nil {
			return err
		}
	}
	return nil
}
