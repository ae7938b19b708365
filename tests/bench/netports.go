// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"sbx/tests/need"
)

const (
	netAdds  = 2 * time.Millisecond // the default network, to a start
	netPorts = 1.8                  // times rootlesskit's builtin driver
)

// networkStart is what the default network adds to the shortest run.
func (b *bench) networkStart(ctx context.Context) row {
	r := row{name: "start, what the network adds", goal: "<= " + milliseconds(netAdds)}
	with, without, err := pairs(ctx, b.sbxCommand("", "run", "--rm", b.image, "true"), b.sbxCommand("", "run", "--rm", "--network", "none", b.image, "true"), b.rounds)
	if err != nil {
		r.unknown = err
		return r
	}
	added := median(times(with)) - median(times(without))
	r.sbx, r.missed = milliseconds(added), added > netAdds
	return r
}

// publishedRows compares published ports with those of rootlesskit's builtin driver:
// a server in the namespace of either, and a client on this machine's loopback. It is
// not on the stage, for rootlesskit wants subordinate IDs.
func (b *bench) publishedRows(ctx context.Context) []row {
	var rows []row
	for _, way := range []struct {
		name  string
		flags []string
	}{{"into", nil}, {"out of", []string{"-R"}}} {
		r := row{name: "published port, " + way.name + ", times rootlesskit", goal: fmt.Sprintf(">= %.1f", netPorts)}
		var ours, theirs []float64
		r.unknown = b.findRootlesskit()
		for round := 0; round < 3 && r.unknown == nil; round++ {
			for i := range 2 {
				rates, server := &ours, b.publishingServer
				if i != round%2 {
					rates, server = &theirs, rootlesskitServer
				}
				var rate float64
				rate, r.unknown = publishedRate(ctx, server, b.net.request.Seconds, way.flags)
				if r.unknown != nil {
					break
				}
				*rates = append(*rates, rate)
			}
		}
		if r.unknown == nil {
			us, them := median(ours), median(theirs)
			r.sbx, r.other, r.ratio = unitOf("", us), unitOf("", them), fmt.Sprintf("%.2f", us/them)
			r.missed = us < them*netPorts
		}
		rows = append(rows, r)
	}
	return rows
}

func (b *bench) findRootlesskit() error {
	for _, program := range []string{"rootlesskit", "slirp4netns", "iperf3"} {
		if _, err := exec.LookPath(program); err != nil {
			return err
		}
	}
	return need.Missing(need.Subids)
}

// publishingServer is a server in a container that ends after its first client.
func (b *bench) publishingServer(port string) command {
	return b.sbxCommand("", "run", "--rm", "-p", "127.0.0.1:"+port+":5201", "host", "iperf3", "-s", "-1")
}

func rootlesskitServer(port string) command {
	return command{args: []string{"rootlesskit", "--net=slirp4netns", "--mtu=65520", "--disable-host-loopback",
		"--port-driver=builtin", "-p", "127.0.0.1:" + port + ":5201/tcp", "iperf3", "-s", "-1"}}
}

// publishedRate measures one stream, in bits per second.
func publishedRate(ctx context.Context, server func(port string) command, seconds int, flags []string) (float64, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second+20*time.Second)
	defer cancel()
	c := server(port)
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	args := append([]string{"-c", "127.0.0.1", "-p", port, "-J", "-t", strconv.Itoa(seconds)}, flags...)
	for {
		out, _ := exec.CommandContext(ctx, "iperf3", args...).Output()
		if result, err := readIperf(out); err == nil {
			return result.End.SumReceived.BitsPerSecond, <-ended
		}
		select {
		case err := <-ended:
			return 0, errors.Join(fmt.Errorf("%s ended before it was measured", filepath.Base(c.args[0])), err)
		case <-time.After(50 * time.Millisecond): // it does not listen yet
		}
	}
}
