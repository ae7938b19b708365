// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"sbx/tests/need"
)

// The addresses of tests. What goes to outside4 and outside6 is sent to loopback.
var (
	testGuest4, testGateway4, testDNS4 = netip.MustParseAddr("10.0.2.100"), netip.MustParseAddr("10.0.2.2"), netip.MustParseAddr("10.0.2.3")
	testGuest6, testGateway6, testDNS6 = netip.MustParseAddr("fd00::100"), netip.MustParseAddr("fd00::2"), netip.MustParseAddr("fd00::3")
	outside4, outside6                 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
)

// guestEnv holds the guestSetup of a process that plays the container.
const guestEnv = "SBX_TEST_SLIRP_GUEST"

func TestMain(m *testing.M) {
	if setup := os.Getenv(guestEnv); setup != "" {
		if err := playGuest(setup); err != nil {
			fmt.Fprintln(os.Stderr, "guest:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// guestSetup is what the container's device is like.
type guestSetup struct {
	Kind   LinkKind
	Queues int
	MTU    int
}

// guest is a process in a user and network namespace of its own, whose kernel is
// the engine's peer.
type guest struct {
	t       *testing.T
	conn    *net.UnixConn
	mutex   sync.Mutex
	calls   map[int]chan guestReply
	last    int
	network *Network
}

type guestCall struct {
	ID   int
	Name string
	Args json.RawMessage
}

type guestReply struct {
	ID     int
	Result json.RawMessage
	Err    string
}

// startGuest makes the namespace and runs an engine on its device. change may
// alter the engine's configuration.
func startGuest(t *testing.T, setup guestSetup, change func(*Config)) *guest {
	t.Helper()
	need.Need(t, need.Userns, need.TUN)
	if setup.MTU == 0 {
		setup.MTU = DefaultMTU
	}
	setup.Queues = max(setup.Queues, 1)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "guest")
	defer theirs.Close()
	ours := os.NewFile(uintptr(pair[0]), "guest")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(setup)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), guestEnv+"="+string(text))
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	runtime.LockOSThread() // the parent that Pdeathsig speaks of is a thread
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, conn: conn.(*net.UnixConn), calls: map[int]chan guestReply{}}
	t.Cleanup(func() {
		if g.network != nil {
			g.network.Close()
		}
		g.conn.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		runtime.UnlockOSThread()
	})
	link := Link{Kind: setup.Kind, Queues: g.receiveQueues(setup.Queues)}
	config := Config{
		Link: link, MTU: setup.MTU,
		Addresses: Addresses{Guest4: testGuest4, Gateway4: testGateway4, Guest6: testGuest6, Gateway6: testGateway6},
		DNS4:      testDNS4, DNS6: testDNS6,
		Policy: PolicyFunc(toLoopback),
	}
	if change != nil {
		change(&config)
	}
	if g.network, err = Start(context.Background(), config); err != nil {
		t.Fatal(err)
	}
	go g.readReplies()
	return g
}

// toLoopback sends what goes to outside4 and outside6 to this machine's loopback.
func toLoopback(f Flow) Verdict {
	switch f.Dst.Addr() {
	case outside4:
		return Verdict{Allow: true, To: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), f.Dst.Port())}
	case outside6:
		return Verdict{Allow: true, To: netip.AddrPortFrom(netip.IPv6Loopback(), f.Dst.Port())}
	}
	return Verdict{Reason: "not of this test"}
}

func (g *guest) receiveQueues(n int) []*os.File {
	g.t.Helper()
	b, oob := make([]byte, 4096), make([]byte, 4096)
	size, oobSize, _, _, err := g.conn.ReadMsgUnix(b, oob)
	if err != nil || oobSize == 0 {
		g.t.Fatalf("the guest did not start: %v: %s", err, b[:size])
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobSize])
	if err != nil {
		g.t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != n {
		g.t.Fatalf("%d descriptors: %v", len(fds), err)
	}
	var files []*os.File
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		files = append(files, os.NewFile(uintptr(fd), "queue"))
	}
	return files
}

func (g *guest) readReplies() {
	b := make([]byte, 64<<10)
	for {
		n, err := g.conn.Read(b)
		var r guestReply
		if err != nil || n == 0 || json.Unmarshal(b[:n], &r) != nil {
			g.mutex.Lock()
			for id, c := range g.calls {
				c <- guestReply{Err: "the guest has gone"}
				delete(g.calls, id)
			}
			g.mutex.Unlock()
			return
		}
		g.mutex.Lock()
		c := g.calls[r.ID]
		delete(g.calls, r.ID)
		g.mutex.Unlock()
		if c != nil {
			c <- r
		}
	}
}

// begin calls a function of guestFuncs in the container; the result is fetched by
// what it returns.
func (g *guest) begin(name string, args any) func(result any) error {
	text, _ := json.Marshal(args)
	g.mutex.Lock()
	g.last++
	id, c := g.last, make(chan guestReply, 1)
	g.calls[id] = c
	g.mutex.Unlock()
	call, _ := json.Marshal(guestCall{ID: id, Name: name, Args: text})
	if _, err := g.conn.Write(call); err != nil {
		return func(any) error { return err }
	}
	return func(result any) error {
		r := <-c
		if r.Err != "" {
			return errors.New(r.Err)
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(r.Result, result)
	}
}

// do calls a function in the container and fails the test with it.
func (g *guest) do(name string, args, result any) {
	g.t.Helper()
	if err := g.begin(name, args)(result); err != nil {
		g.t.Fatalf("%s: %v", name, err)
	}
}

// guestFuncs are what a container can be told to do.
var guestFuncs = map[string]func(args json.RawMessage) (any, error){}

// onGuest registers a function, in the way of tests: at package level.
func onGuest[A, R any](name string, f func(A) (R, error)) string {
	guestFuncs[name] = func(text json.RawMessage) (any, error) {
		var args A
		if err := json.Unmarshal(text, &args); err != nil {
			return nil, err
		}
		return f(args)
	}
	return name
}

// playGuest is the process inside.
func playGuest(text string) error {
	var setup guestSetup
	if err := json.Unmarshal([]byte(text), &setup); err != nil {
		return err
	}
	file := os.NewFile(3, "engine")
	conn, err := net.FileConn(file)
	if err != nil {
		return err
	}
	unix.CloseOnExec(3)
	fds, err := makeDevice(setup)
	if err != nil {
		_, _ = conn.Write([]byte(err.Error()))
		return err
	}
	if _, _, err := conn.(*net.UnixConn).WriteMsgUnix([]byte("ready"), unix.UnixRights(fds...), nil); err != nil {
		return err
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	b := make([]byte, 64<<10)
	var mutex sync.Mutex
	for {
		n, err := conn.Read(b)
		if err != nil || n == 0 {
			return nil
		}
		var call guestCall
		if err := json.Unmarshal(b[:n], &call); err != nil {
			return err
		}
		go func() {
			reply := guestReply{ID: call.ID}
			f := guestFuncs[call.Name]
			if f == nil {
				reply.Err = "no such function"
			} else if result, err := f(call.Args); err != nil {
				reply.Err = err.Error()
			} else {
				reply.Result, _ = json.Marshal(result)
			}
			text, _ := json.Marshal(reply)
			mutex.Lock()
			defer mutex.Unlock()
			_, _ = conn.Write(text)
		}()
	}
}

// makeDevice makes eth0, gives it its addresses and routes, and returns what the
// engine reads.
func makeDevice(setup guestSetup) ([]int, error) {
	if setup.Kind == Packet {
		return makePair(setup)
	}
	var fds []int
	for range setup.Queues {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		request := TUNRequest("eth0", setup.Queues)
		if err := ioctl(fd, unix.TUNSETIFF, unsafe.Pointer(&request)); err != nil {
			return nil, fmt.Errorf("TUNSETIFF: %w", err)
		}
		fds = append(fds, fd)
	}
	return fds, setUp(fmt.Sprintf("link set eth0 mtu %d txqueuelen 4096 up", setup.MTU))
}

// setUp gives eth0 its addresses and routes, after what the link needs.
func setUp(link ...string) error {
	var commands []string
	for _, c := range append(link,
		"link set lo up",
		"addr add 10.0.2.100/24 dev eth0", "route add default via 10.0.2.2",
		"addr add fd00::100/64 dev eth0 nodad", "route add default via fd00::2",
	) {
		commands = append(commands, "ip "+c)
	}
	// The kernel adds the route of an address to itself some time later, and drops
	// what comes for it before.
	commands = append(commands, "until ip -6 route show table local | grep -q fd00::100; do :; done")
	if out, err := exec.Command("sh", "-ec", strings.Join(commands, "\n")).CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s", err, out)
	}
	return nil
}

// makePair makes eth0 as one end of a veth pair, and a packet socket on the other.
func makePair(setup guestSetup) ([]int, error) {
	if err := setUp(
		fmt.Sprintf("link add eth0 mtu %d type veth peer name far mtu %d", setup.MTU, setup.MTU),
		fmt.Sprintf("link set eth0 address %s", net.HardwareAddr(GuestMAC[:])),
		"link set far up", "link set eth0 up",
	); err != nil {
		return nil, err
	}
	far, err := net.InterfaceByName("far")
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	return []int{fd}, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: far.Index})
}

func ioctl(fd int, request uint, p unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(p)); errno != 0 {
		return errno
	}
	return nil
}

func runIP(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s", err, out)
	}
	return nil
}
