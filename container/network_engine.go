// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sbx/slirp"
)

// wire is the network of a container in its monitor: for each program that the
// container runs an engine, and between them what outlives a program: bound
// ports, the places in networks, the files of the log and the capture.
//
// Runs in: the host's network namespace; the monitor shares it with the client.
type wire struct {
	home    string // the directory of containers
	files   map[string]*os.File
	rules   *slirp.Rules
	hosts   *localNames
	beside  *netSwitch
	capture *captureFile

	mu     sync.Mutex // of what follows
	state  NetworkState
	engine *slirp.Network
	inside *inside
	cancel context.CancelFunc
}

// newWire takes over the network that hello describes, with its files.
func newWire(home string, state NetworkState, files map[string]*os.File) *wire {
	w := &wire{home: home, state: state, files: map[string]*os.File{}, beside: newSwitch()}
	take := func(name string) {
		if f := files[name]; f != nil {
			w.files[name] = f
			delete(files, name)
		}
	}
	for i := range state.Bindings {
		take(filePort + strconv.Itoa(i))
	}
	for i, p := range state.Places {
		name := fileEnd + strconv.Itoa(i)
		take(name)
		if f := w.files[name]; f != nil {
			w.beside.plug(switchedPlace{Place: p, dir: endpointsOf(home, p.Network), socket: pollable(f)}, w.deliver)
			delete(w.files, name)
		}
	}
	take(fileFlowLog)
	take(fileCapture)
	if f := w.files[fileCapture]; f != nil {
		w.capture = &captureFile{file: f}
	}
	return w
}

// deliver hands a packet of another container to the engine that runs.
func (w *wire) deliver(frame []byte) error {
	w.mu.Lock()
	engine := w.engine
	w.mu.Unlock()
	if engine == nil {
		return errNotRunning
	}
	return engine.Deliver(frame)
}

// current is what the network is now.
func (w *wire) current() NetworkState {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// startNetwork starts the engine beside a program. A container that was to have a
// network does not run without: it ends, and its state says why.
func (m *monitor) startNetwork(ctx context.Context, p *program, queues []*os.File) {
	config, err := m.config()
	if err == nil {
		err = m.wire.start(ctx, config, p.namespace("net"), queues)
	}
	if err == nil {
		return
	}
	_ = m.setState(func(s *State) { s.Error = err.Error() })
	_ = p.signal(unix.SIGKILL)
}

// namespace is a duplicate of the descriptor of one of the program's namespaces,
// or nil.
func (p *program) namespace(name string) *os.File {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.held[name]
	if f == nil {
		return nil
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), f.Name())
}

// start starts an engine on the device that a start program has made in the
// network namespace ns, which it takes over. The program runs meanwhile.
func (w *wire) start(ctx context.Context, config *Config, ns *os.File, queues []*os.File) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	w.cancel = cancel
	if err := w.prepare(&config.Networking); err != nil {
		cancel()
		return err
	}
	if ns != nil {
		w.inside = enter(ctx, ns)
	}
	engine, err := slirp.Start(ctx, w.config(&config.Networking, queues))
	if err != nil {
		cancel()
		return err
	}
	w.engine = engine
	return w.publish(engine)
}

// prepare makes what all engines of the container share.
func (w *wire) prepare(n *Networking) error {
	if w.rules != nil {
		return nil
	}
	rules, err := n.rules()
	if err != nil {
		return err
	}
	w.rules = rules
	w.moveRules()
	w.hosts = newLocalNames(n, w.state.Places[0], w.networks)
	return nil
}

// networks are the directories of the networks that the container is in now.
func (w *wire) networks() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var dirs []string
	for _, p := range w.state.Places {
		if p.ID != "" {
			dirs = append(dirs, endpointsOf(w.home, p.Network))
		}
	}
	return dirs
}

func (w *wire) config(n *Networking, queues []*os.File) slirp.Config {
	c := slirp.Config{
		Link:      slirp.Link{Queues: queues},
		Addresses: w.addresses(),
		DNS4:      w.state.Places[0].DNS, DNS6: w.state.Places[0].DNS6,
		Policy:   w.rules,
		Switch:   w.beside,
		Resolver: &slirp.HostResolver{Upstreams: n.upstreams(), Local: w.hosts, Rules: w.rules},
	}
	if w.state.Packet {
		c.Link.Kind = slirp.Packet
	}
	if w.inside != nil {
		c.DialGuest = w.inside.dial
	}
	if f := w.files[fileFlowLog]; f != nil {
		c.FlowLog = f
	}
	if w.capture != nil {
		c.Pcap = w.capture.begin()
	}
	return c
}

// publish connects the bound ports with an engine.
func (w *wire) publish(engine *slirp.Network) error {
	var failed error
	for i, b := range w.state.Bindings {
		f := w.files[filePort+strconv.Itoa(i)]
		addr, err := netip.ParseAddr(b.Address)
		if f == nil || err != nil {
			continue
		}
		port := slirp.Port{Proto: protocol(b.Proto), Host: netip.AddrPortFrom(addr, b.Host), Guest: b.Port}
		if b.Local {
			number := uint8(port.Proto)
			port.Admit = func(local, remote netip.AddrPort) bool { return sameUser(number, local, remote) }
		}
		l, err := slirp.Inherit(port, f)
		if err == nil {
			err = engine.Publish(l)
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// stop ends the engine of a program that has ended, and is finished with. What it
// wrote down is in the files when it returns.
func (w *wire) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.engine != nil {
		_ = w.engine.Close()
		w.cancel()
	}
	w.engine, w.inside = nil, nil
}

// lastWords is how long an engine outlives its program at most, and silence how long
// where nobody takes what the program has sent.
const (
	lastWords = 20 * time.Second
	silence   = 5 * time.Second
)

// finish waits until the host has what a program sent before it ended, which its
// kernel is still about. What cannot be sent is cut off so that the other side sees
// that.
func (w *wire) finish(ctx context.Context, p *program) {
	p.awaitNetwork()
	w.mu.Lock()
	engine, inside := w.engine, w.inside
	w.mu.Unlock()
	if engine == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lastWords)
	defer cancel()
	if engine.Finish(ctx, silence) != nil || w.beside.finish(ctx, silence, inside) != nil {
		_ = engine.Close()
	}
}

// close ends the network with the container, but for the engine: the end of this
// process takes that apart faster than it does itself. It is waited for here only
// where it has something to write.
func (w *wire) close(ctx context.Context, p *program) {
	w.beside.leave()
	if w.files[fileFlowLog] != nil || w.capture != nil {
		w.finish(ctx, p)
		w.stop()
	}
}

// captureFile is one pcap file for several engines: the header of the first is
// the file's.
type captureFile struct {
	file *os.File
	runs int
}

// pcapHeader is the length of a pcap file's header in bytes.
const pcapHeader = 24

func (c *captureFile) begin() io.Writer {
	c.runs++
	if c.runs == 1 {
		return c.file
	}
	return &skipWriter{to: c.file, left: pcapHeader}
}

// skipWriter writes all but the first bytes.
type skipWriter struct {
	to   io.Writer
	left int
}

func (s *skipWriter) Write(p []byte) (int, error) {
	skip := min(s.left, len(p))
	s.left -= skip
	if skip == len(p) {
		return skip, nil
	}
	n, err := s.to.Write(p[skip:])
	return skip + n, err
}
