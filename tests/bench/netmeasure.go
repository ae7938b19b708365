// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// profileTo writes a processor profile, if path names a file.
func profileTo(path string) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}, nil
}

// figure is what one measurement of one variant found, by rounds.
type figure struct {
	Rate    []float64 // bits per second at the receiver, or microseconds
	Loss    []float64 // percent
	Seconds []float64 // of the engine, per 10^9 bytes
	Peak    int64     // bytes, resident
	Err     string
}

// stageReport holds figures by measurement and variant.
type stageReport map[string]map[string]*figure

// measurement is one thing that is measured.
type measurement struct {
	name     string
	variants []string
	run      func(ctx context.Context, s *stage, a *attachment) (sampled, error)
}

type sampled struct {
	rate, loss float64
	bytes      float64
}

var measurements = []measurement{
	{"tcp up", []string{"direct", "engine", "engine1", "packet", "slirp4netns", "pasta"}, iperf()},
	{"tcp down", []string{"direct", "engine", "engine1", "packet", "slirp4netns", "pasta"}, iperf("-R")},
	{"tcp up, 4 streams", []string{"direct", "engine", "engine1", "packet", "slirp4netns", "pasta"}, iperf("-P", "4")},
	{"tcp down, 4 streams", []string{"direct", "engine", "engine1", "packet", "slirp4netns", "pasta"}, iperf("-P", "4", "-R")},
	{"udp up", []string{"direct", "engine", "engine1", "packet", "slirp4netns", "pasta"}, iperf("-u", "-b", "0", "-l", "1400")},
	{"udp up, 500 Mbit/s", []string{"direct", "engine", "engine1", "packet", "slirp4netns", "pasta"}, iperf("-u", "-b", "500M", "-l", "1400")},
	{"udp down, 500 Mbit/s", []string{"direct", "engine", "engine1", "packet", "slirp4netns", "pasta"}, iperf("-u", "-b", "500M", "-l", "1400", "-R")},
	{"connect and ask", []string{"direct", "engine", "engine1", "packet", "slirp4netns", "pasta"}, rounds("connect")},
	{"ask", []string{"direct", "engine", "engine1", "packet", "slirp4netns", "pasta"}, rounds("ask")},
	{"hold, and ask again", []string{"engine", "engine1", "packet", "slirp4netns", "pasta"}, rounds("hold")},
	{"published, into", []string{"engine", "engine1"}, published()},
	{"published, out of", []string{"engine", "engine1"}, published("-R")},
}

// stage is the host of the measurement.
type stage struct {
	request   stageRequest
	peer      *netns // where servers are, behind a veth pair
	container *netns
}

// playStage measures and writes a stageReport.
func playStage() error {
	s := &stage{}
	if err := json.Unmarshal([]byte(os.Args[1]), &s.request); err != nil {
		return err
	}
	ctx := context.Background()
	if err := s.build(ctx); err != nil {
		return err
	}
	report := stageReport{}
	for _, m := range measurements {
		if s.request.Only != "" && !strings.HasPrefix(m.name, s.request.Only) {
			continue
		}
		report[m.name] = map[string]*figure{}
		variants := slices.DeleteFunc(slices.Clone(m.variants), func(v string) bool {
			return len(s.request.Variants) > 0 && !slices.Contains(s.request.Variants, v)
		})
		for round := range s.request.Rounds {
			order := slices.Clone(variants)
			if round%2 == 1 {
				slices.Reverse(order)
			}
			for _, v := range order {
				f := report[m.name][v]
				if f == nil {
					f = &figure{}
					report[m.name][v] = f
				}
				if f.Err != "" {
					continue
				}
				if err := s.measure(ctx, m, v, f); err != nil {
					f.Err = err.Error()
				}
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}

// build makes the peer's namespace and the servers in it.
func (s *stage) build(ctx context.Context) (err error) {
	for _, kind := range []string{"proc:/proc", "tmpfs:/run"} {
		kind, at, _ := strings.Cut(kind, ":")
		if err := unix.Mount(kind, at, kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", at, err)
		}
	}
	var host *netns
	if err := host.ip("link set lo up"); err != nil {
		return err
	}
	if s.peer, err = newNetns(ctx); err != nil {
		return err
	}
	if err := host.ip(fmt.Sprintf("link add p0 type veth peer name eth0 netns %d", s.peer.pid), "addr add "+stageHost+"/24 dev p0", "link set p0 up", "route add default via "+stagePeer); err != nil {
		return err
	}
	if err := s.peer.ip("addr add "+stagePeer+"/24 dev eth0", "link set eth0 up", "route add 10.0.2.0/24 via "+stageHost); err != nil {
		return err
	}
	iperf := exec.CommandContext(ctx, "iperf3", "-s")
	if err := s.peer.start(iperf); err != nil {
		return err
	}
	echo := role(ctx, roleEcho, stagePeer)
	ready, err := echo.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.peer.start(echo); err != nil {
		return err
	}
	_, err = ready.Read(make([]byte, 1))
	return err
}

// measure runs one measurement of one variant in a fresh namespace.
func (s *stage) measure(ctx context.Context, m measurement, variant string, f *figure) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.request.Seconds)*time.Second+20*time.Second)
	defer cancel()
	var a *attachment
	if s.container, err = newNetns(ctx); err != nil {
		return err
	}
	defer s.container.done()
	if a, err = attach(ctx, variant, s.container, s.request.Processor); err != nil {
		return err
	}
	defer a.close()
	before, _, _ := a.usage()
	got, err := m.run(ctx, s, a)
	if err != nil {
		return err
	}
	after, _, peak := a.usage()
	f.Rate = append(f.Rate, got.rate)
	f.Loss = append(f.Loss, got.loss)
	f.Peak = max(f.Peak, peak)
	if got.bytes > 0 {
		f.Seconds = append(f.Seconds, (after-before)/got.bytes*1e9)
	}
	return nil
}

// iperf measures from inside the container to the peer.
func iperf(args ...string) func(context.Context, *stage, *attachment) (sampled, error) {
	return func(ctx context.Context, s *stage, _ *attachment) (sampled, error) {
		return s.runIperf(ctx, s.container, append([]string{"-c", stagePeer}, args...))
	}
}

// published measures from the peer to a port of the host.
func published(args ...string) func(context.Context, *stage, *attachment) (sampled, error) {
	return func(ctx context.Context, s *stage, _ *attachment) (sampled, error) {
		server := exec.CommandContext(ctx, "iperf3", "-s", "-1")
		if err := s.container.start(server); err != nil {
			return sampled{}, err
		}
		defer func() {
			_ = server.Process.Kill()
			_ = server.Wait()
		}()
		if err := s.container.listening(5201); err != nil {
			return sampled{}, err
		}
		return s.runIperf(ctx, s.peer, append([]string{"-c", stageHost, "-p", publishedPort}, args...))
	}
}

// listening waits until a server listens to a port in the namespace.
func (n *netns) listening(port int) error {
	want := fmt.Sprintf(":%04X ", port)
	for range 500 {
		for _, file := range []string{"tcp", "tcp6"} {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", n.pid, file))
			for line := range strings.Lines(string(b)) {
				if f := strings.Fields(line); len(f) > 3 && f[3] == "0A" && strings.Contains(f[1]+" ", want) {
					return nil
				}
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("nobody listens to port %d", port)
}

func (s *stage) runIperf(ctx context.Context, in *netns, args []string) (sampled, error) {
	receiver := s.peer
	if slices.Contains(args, "-R") {
		receiver = in
	}
	full := receiver.socketsFull()
	cmd := exec.CommandContext(ctx, "iperf3", append(args, "-J", "-t", strconv.Itoa(s.request.Seconds))...)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := in.start(cmd); err != nil {
		return sampled{}, err
	}
	werr := cmd.Wait()
	result, err := readIperf(out.Bytes())
	if err != nil {
		return sampled{}, errors.Join(werr, err)
	}
	if slices.Contains(args, "-u") {
		sum := result.End.Sum
		got := sum.Bytes * (1 - sum.LostPercent/100)
		// What came to the receiver's socket, and found it full, was not lost on the way.
		loss := sum.LostPercent - (receiver.socketsFull()-full)/sum.Packets*100
		return sampled{rate: got * 8 / sum.Seconds, loss: max(loss, 0), bytes: got}, nil
	}
	r := result.End.SumReceived
	return sampled{rate: r.BitsPerSecond, bytes: r.Bytes}, nil
}

// iperfResult is what iperf3 -J prints.
type iperfResult struct {
	Error string
	End   struct {
		SumReceived struct {
			Bytes         float64
			BitsPerSecond float64 `json:"bits_per_second"`
		} `json:"sum_received"`
		Sum struct {
			Bytes       float64
			Seconds     float64
			LostPercent float64 `json:"lost_percent"`
			Packets     float64
		}
	}
}

func readIperf(out []byte) (r iperfResult, err error) {
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("iperf3: %w: %s", err, out)
	}
	if r.Error != "" {
		return r, fmt.Errorf("iperf3: %s", r.Error)
	}
	return r, nil
}

// socketsFull counts the datagrams that a full socket of the namespace dropped.
func (n *netns) socketsFull() float64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/snmp", n.pid))
	names := true
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 5 && f[0] == "Udp:" {
			if !names {
				count, _ := strconv.ParseFloat(f[5], 64)
				return count
			}
			names = false
		}
	}
	return 0
}

// rounds measures the time of one exchange, in microseconds.
func rounds(what string) func(context.Context, *stage, *attachment) (sampled, error) {
	return func(ctx context.Context, s *stage, _ *attachment) (sampled, error) {
		cmd := role(ctx, roleRounds, what, stagePeer)
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := s.container.start(cmd); err != nil {
			return sampled{}, err
		}
		if err := cmd.Wait(); err != nil {
			return sampled{}, err
		}
		micros, err := strconv.ParseFloat(strings.TrimSpace(out.String()), 64)
		return sampled{rate: micros}, err
	}
}

// echoPorts are many, because connections that linger slow one port down.
const (
	echoFirst = 7000
	echoPorts = 16
)

func playEcho(host string) error {
	for i := range echoPorts {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(echoFirst+i)))
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					_, _ = io.Copy(c, struct{ io.Reader }{c})
				}()
			}
		}()
	}
	fmt.Println("ready")
	select {}
}

// held are the connections that are open at once, and stuffed what each is sent: it
// comes back, and nobody reads it.
const held, stuffed = 1000, 256 << 10

// hold opens connections that do not read.
func hold(dial func(i int) (net.Conn, error)) ([]net.Conn, error) {
	var list []net.Conn
	for i := range held {
		c, err := dial(i)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
		_ = c.SetWriteDeadline(time.Now().Add(5 * time.Millisecond))
		_, _ = c.Write(make([]byte, stuffed)) // as far as there is room
	}
	return list, nil
}

// playRounds prints the median of many exchanges of one byte, in microseconds.
func playRounds(what, host string) error {
	var list []float64
	dial := func(i int) (net.Conn, error) {
		return net.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(echoFirst+i%echoPorts)))
	}
	if what == "hold" {
		others, err := hold(dial)
		if err != nil {
			return err
		}
		defer runtime.KeepAlive(others)
	}
	b := []byte{1}
	ask := func(c net.Conn) error {
		if _, err := c.Write(b); err != nil {
			return err
		}
		_, err := io.ReadFull(c, b)
		return err
	}
	var c net.Conn
	for i := range 3000 {
		var err error
		begin := time.Now()
		if what == "connect" || c == nil {
			if c, err = dial(i); err != nil {
				return err
			}
		}
		if err := ask(c); err != nil {
			return err
		}
		if i >= 100 {
			list = append(list, float64(time.Since(begin).Nanoseconds())/1000)
		}
		if what == "connect" {
			c.Close()
		}
	}
	fmt.Printf("%.2f\n", median(list))
	return nil
}
