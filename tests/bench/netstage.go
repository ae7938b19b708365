// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sbx/slirp"
)

// The roles of this program: it starts itself in namespaces.
const (
	roleStage  = "bench-stage"  // the host of the measurement, in namespaces of its own
	roleHold   = "bench-hold"   // a network namespace, held until standard input ends
	roleEngine = "bench-engine" // the engine, on descriptors 3 and up
	roleRounds = "bench-rounds" // connects and asks, again and again
	roleEcho   = "bench-echo"   // answers
)

// The addresses on the stage, its host's and the peer's: of documentation (RFC 5737).
const (
	stageHost = "198.51.100.1"
	stagePeer = "198.51.100.2"
)

// play runs a role, if argv[0] is one.
func play() (played bool, err error) {
	switch os.Args[0] {
	case roleStage:
		return true, playStage()
	case roleHold:
		_, _ = os.Stdin.Read(make([]byte, 1))
		return true, nil
	case roleEngine:
		return true, playEngine()
	case roleRounds:
		return true, playRounds(os.Args[1], os.Args[2])
	case roleEcho:
		return true, playEcho(os.Args[1])
	}
	return false, nil
}

// role is a command of this program.
func role(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = append([]string{name}, args...)
	cmd.Stderr = os.Stderr
	return cmd
}

// stageCommand is the whole measurement as a process: root of a user namespace,
// with its own network, and process 1, so that nothing outlives it.
func stageCommand(ctx context.Context, request stageRequest) *exec.Cmd {
	text, _ := json.Marshal(request)
	cmd := role(ctx, roleStage, string(text))
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	return cmd
}

// stageRequest says what is measured.
type stageRequest struct {
	Seconds   int
	Rounds    int
	Variants  []string
	Only      string // one measurement, or ""
	Processor string // a profile of the engine is written there, or ""
}

// netns is a network namespace that a process holds.
type netns struct {
	pid  int
	done func()
}

func newNetns(ctx context.Context) (*netns, error) {
	cmd := role(ctx, roleHold)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	hold, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	n := &netns{pid: cmd.Process.Pid}
	n.done = func() {
		_ = unix.Unmount(n.path(), unix.MNT_DETACH)
		hold.Close()
		_ = cmd.Wait()
	}
	if err := n.pin(); err != nil {
		return nil, err
	}
	return n, n.ip("link set lo up")
}

// path is a file of the namespace. Programs that have given up their capabilities
// may not open that of a process.
func (n *netns) path() string { return fmt.Sprintf("/run/net-%d", n.pid) }

// pin makes path.
func (n *netns) pin() error {
	if err := os.WriteFile(n.path(), nil, 0o644); err != nil {
		return err
	}
	return unix.Mount(fmt.Sprintf("/proc/%d/ns/net", n.pid), n.path(), "", unix.MS_BIND, "")
}

// inside runs f on a thread that has joined the namespace; what f starts is in it.
func (n *netns) inside(f func() error) error {
	if n == nil {
		return f()
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		fd, err := unix.Open(n.path(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		if err == nil {
			err = f()
		}
		result <- err
	}()
	return <-result
}

// ip runs iproute2 once for each line.
func (n *netns) ip(lines ...string) error {
	return n.inside(func() error {
		for _, line := range lines {
			if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
				return fmt.Errorf("ip %s: %w: %s", line, err, out)
			}
		}
		return nil
	})
}

// start starts a command inside, not bound to the thread.
func (n *netns) start(cmd *exec.Cmd) error { return n.inside(cmd.Start) }

// attachment connects a container's namespace by one of the variants.
type attachment struct {
	pid   int // of the engine; 0 is none
	close func()
}

// usage is the processor time of the engine and its threads so far, and its
// largest resident memory in bytes.
func (a *attachment) usage() (seconds float64, resident, peak int64) {
	if a.pid == 0 {
		return 0, 0, 0
	}
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", a.pid))
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, at := range []int{11, 12} {
		ticks, _ := strconv.ParseFloat(fields[at], 64)
		seconds += ticks / 100
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.pid))
	for line := range strings.Lines(string(status)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d", &kib); n == 1 {
			resident = kib << 10
		}
		if n, _ := fmt.Sscanf(line, "VmHWM: %d", &kib); n == 1 {
			peak = kib << 10
		}
	}
	return seconds, resident, peak
}

// attach brings the network of a variant up in c.
func attach(ctx context.Context, variant string, c *netns, profile string) (*attachment, error) {
	switch variant {
	case "direct":
		return &attachment{close: func() {}}, c.veth()
	case "engine", "engine1":
		return attachEngine(ctx, c, variant, profile)
	case "packet":
		return attachPacket(ctx, c)
	case "slirp4netns":
		return attachSlirp4netns(ctx, c)
	case "pasta":
		return attachPasta(ctx, c)
	}
	return nil, fmt.Errorf("no variant %q", variant)
}

// veth connects c with the stage itself.
func (n *netns) veth() error {
	var host *netns
	if err := host.ip(fmt.Sprintf("link add c%d type veth peer name eth0 netns %d", n.pid, n.pid), fmt.Sprintf("addr add 10.0.2.2/24 dev c%d", n.pid), fmt.Sprintf("link set c%d up", n.pid)); err != nil {
		return err
	}
	_ = os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
	return n.ip("addr add 10.0.2.100/24 dev eth0", "link set eth0 up", "route add default via 10.0.2.2")
}

const engineQueues = 2

func attachEngine(ctx context.Context, c *netns, variant, profile string) (*attachment, error) {
	queues := engineQueues
	if variant == "engine1" {
		queues = 1
	}
	var files []*os.File
	err := c.inside(func() error {
		for range queues {
			f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
			if err != nil {
				return err
			}
			files = append(files, f)
			request := slirp.TUNRequest("eth0", queues)
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.TUNSETIFF, uintptr(unsafe.Pointer(&request))); errno != 0 {
				return fmt.Errorf("TUNSETIFF: %w", errno)
			}
		}
		return nil
	})
	if err == nil {
		err = c.ip("addr add 10.0.2.100/24 dev eth0", "link set eth0 txqueuelen 4096 up", "route add default via 10.0.2.2")
	}
	if err != nil {
		return nil, err
	}
	return startEngine(ctx, "tun", files, profile)
}

func attachPacket(ctx context.Context, c *netns) (*attachment, error) {
	if err := c.ip("link add eth0 mtu 1500 type veth peer name far mtu 1500",
		fmt.Sprintf("link set eth0 address %x:%x:%x:%x:%x:%x", slirp.GuestMAC[0], slirp.GuestMAC[1], slirp.GuestMAC[2], slirp.GuestMAC[3], slirp.GuestMAC[4], slirp.GuestMAC[5]),
		"link set far up", "addr add 10.0.2.100/24 dev eth0", "link set eth0 up", "route add default via 10.0.2.2"); err != nil {
		return nil, err
	}
	var file *os.File
	err := c.inside(func() error {
		const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		file = os.NewFile(uintptr(fd), "packet")
		request, _ := unix.NewIfreq("far")
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: int(request.Uint32())})
	})
	if err != nil {
		return nil, err
	}
	return startEngine(ctx, "packet", []*os.File{file}, "")
}

func startEngine(ctx context.Context, kind string, files []*os.File, profile string) (*attachment, error) {
	cmd := role(ctx, roleEngine, kind, strconv.Itoa(len(files)), profile)
	cmd.ExtraFiles = files
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	for _, f := range files {
		f.Close()
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	return &attachment{pid: cmd.Process.Pid, close: func() {
		in.Close()
		_ = cmd.Wait()
	}}, nil
}

func attachSlirp4netns(ctx context.Context, c *netns) (*attachment, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "slirp4netns", "--configure", "--mtu=65520", "--ready-fd=3", "--netns-type=path", c.path(), "tap0")
	cmd.ExtraFiles = []*os.File{w}
	var said bytes.Buffer
	cmd.Stderr = &said
	err = cmd.Start()
	w.Close()
	if err != nil {
		return nil, err
	}
	a := &attachment{pid: cmd.Process.Pid, close: func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}}
	if n, _ := r.Read(make([]byte, 1)); n != 1 {
		a.close()
		return nil, fmt.Errorf("slirp4netns: %s", said.String())
	}
	r.Close()
	return a, nil
}

func attachPasta(ctx context.Context, c *netns) (*attachment, error) {
	cmd := exec.CommandContext(ctx, "pasta", "--foreground", "--config-net", "--no-map-gw", "--mtu", "65520", "--netns-only", "--netns", c.path(), "-t", "none", "-u", "none", "-T", "none", "-U", "none")
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	a := &attachment{pid: cmd.Process.Pid, close: func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}}
	// It says nothing when it is ready; a route is there then.
	for range 200 {
		var out []byte
		_ = c.inside(func() (err error) { out, err = exec.Command("ip", "route").Output(); return err })
		if bytes.Contains(out, []byte("default")) {
			return a, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	a.close()
	return nil, fmt.Errorf("pasta: %s", said.String())
}

// playEngine is the engine as a process, so that its cost can be read.
func playEngine() error {
	count, err := strconv.Atoi(os.Args[2])
	if err != nil {
		return err
	}
	config := slirp.Config{
		Addresses: slirp.Addresses{Guest4: netip.MustParseAddr("10.0.2.100"), Gateway4: netip.MustParseAddr("10.0.2.2")},
		DNS4:      netip.MustParseAddr("10.0.2.3"),
		Policy:    slirp.PolicyFunc(func(slirp.Flow) slirp.Verdict { return slirp.Verdict{Allow: true} }),
	}
	if os.Args[1] == "packet" {
		config.Link.Kind = slirp.Packet
	}
	for i := range count {
		config.Link.Queues = append(config.Link.Queues, os.NewFile(uintptr(3+i), "queue"))
	}
	stop, err := profileTo(os.Args[3])
	if err != nil {
		return err
	}
	defer stop()
	n, err := slirp.Start(context.Background(), config)
	if err != nil {
		return err
	}
	l, err := slirp.Listen(context.Background(), slirp.Port{Proto: slirp.TCP, Host: netip.MustParseAddrPort("0.0.0.0:" + publishedPort), Guest: 5201})
	if err == nil {
		err = n.Publish(l)
	}
	if err != nil {
		return err
	}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1))
	return n.Close()
}

const publishedPort = "5301"

var errNotHere = errors.New("no peer on the stage")
