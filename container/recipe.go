// SPDX-License-Identifier: Apache-2.0

package container

import (
	"path/filepath"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"sbx/seccomp"
	"sbx/userns"
)

// start holds what the programs of one start share: the record, where things
// are, and the descriptors that the client has prepared.
type start struct {
	config *Config
	dir    string // the container's own directory
	stage  string // a directory to mount on, see makeStage
	files  []hostFile
	step   *Step // of a build, or nil
	filter *seccomp.Program
	// emulation is nil where IDs are what they seem.
	emulation *emulation
	size      *unix.Winsize // of the client's terminal, at first
	net       NetworkState
	others    others // containers whose namespaces this shares
	admission *admission
	again     bool // it is the monitor's own start, of a program that ended
	run       execution

	control int // descriptors, all of 20 or more: the monitor's conversation,
	descriptors
}

// descriptors are those that a start program is born with, all of 20 or more.
type descriptors struct {
	channel     int    // where the monitor receives what the program sends,
	programEnd  int    // and where the program sends it;
	null        int    // /dev/null,
	stdio       [3]int // and the program's own three, unused with a terminal
	status      int    // where the process beside an executed program tells of its end; 0: nowhere
	channelCopy int    // of channel, of any number; 0: the death of the monitor is this program's
}

// execution is a program to execute in a container: the container's own, or
// another beside it.
type execution struct {
	args       []string
	env        []string
	identity   Identity
	dir        string
	tty        bool
	privileged bool // with every capability of the user namespace
	beside     bool // not the container's own: it enters what is there
	// handOver is the request by which it gives the monitor its listener, on the
	// channel; without one, who started it does that.
	handOver string
}

// newStart is the start of a container's own program, but for its descriptors.
func newStart(c *Config, net NetworkState, dir, home string, filter *seccomp.Program) *start {
	return &start{
		config: c, dir: dir, stage: filepath.Join(home, namesDir), files: hostFiles(c, &net), filter: filter, net: net,
		run: execution{args: c.Command(), env: environmentOf(c.Env, c.Identity), identity: c.Identity, dir: c.WorkingDir, tty: c.TTY},
	}
}

// Descriptor numbers that paths of the recipe can name as /proc/self/fd/N. They
// stay below a limit of 256 open files but for many-layered images.
const (
	slotSource = 199
	slotTarget = 200
	slotDev    = 201
	slotLower  = 202
	slotOther  = 203
)

func slot(n int) string { return "/proc/self/fd/" + strconv.Itoa(n) }

// monitorProgram is what becomes the monitor: with the IDs mapped, it starts the
// container's pid 1 as its only child and executes this binary.
//
// Runs in: new user, pid and mount namespaces, with all capabilities there.
func (s *start) monitorProgram() *userns.Prog {
	p := &userns.Prog{}
	s.admission.await(p)
	// A session of its own: ctrl-c in the client's terminal must reach neither
	// the monitor nor, a second time, the program.
	p.Call("start session", unix.SYS_SETSID)
	held := s.forkContainer(p)
	// The start directory of a container must not be held busy by its monitor.
	p.Call("change directory to /", unix.SYS_CHDIR, "/")
	for fd := range 3 {
		p.Call("place descriptor", unix.SYS_DUP3, s.null, fd, 0)
	}
	p.ResetSignals()
	p.Execve(monitorRole, s.config.ID, []string{}, s.control, s.channel, held)
	return p
}

// forkContainer forks what becomes the container, and returns its pidfd.
func (s *start) forkContainer(p *userns.Prog) any {
	if s.others.pid != 0 {
		return s.forkAmongOthers(p)
	}
	pidfd, held := new(int32), p.Reg()
	p.Fork("clone container", unix.CLONE_NEWPID|unix.CLONE_PIDFD, pidfd, s.containerProgram())
	p.Load(held, pidfd)
	return held
}

// containerProgram is the start of the container: it makes the namespaces and
// the root filesystem, gives up what the program may not have, and becomes it.
//
// The order is that of runc's init with what its vulnerabilities taught
// (research of 2026: F01-F14): the root is private before anything is mounted,
// masks come after every mount, capabilities go before the filter where
// no_new_privs allows it, descriptors are closed right before execve.
//
// It dies with the monitor, which is pid 1 of the namespace around it. A parent
// death signal says less, and lies: it is sent when the thread that cloned ends,
// and threads of the monitor end with each process that was executed.
//
// Runs in: the container's pid namespace as pid 1, mapped root.
func (s *start) containerProgram() *userns.Prog {
	r := &recipe{Prog: &userns.Prog{}, start: s}
	c := s.config
	if s.again { // else monitorProgram has waited
		s.admission.await(r.Prog)
	}

	namespaces := unix.CLONE_NEWNS
	for kind, shared := range map[int]bool{
		unix.CLONE_NEWIPC: c.Privileges.IPC == IPCHost || r.others.ipc != 0, unix.CLONE_NEWUTS: c.Privileges.HostUTS, unix.CLONE_NEWCGROUP: c.Privileges.HostCgroup,
	} {
		if !shared {
			namespaces |= kind
		}
	}
	if r.ownsNetwork() {
		namespaces |= unix.CLONE_NEWNET
	}
	r.joinOthers()
	r.farEnd()
	r.Call("create namespaces", unix.SYS_UNSHARE, namespaces)
	r.Call("start session", unix.SYS_SETSID)
	r.Call("set umask", unix.SYS_UMASK, 0)
	r.Call("make mounts private", unix.SYS_MOUNT, nil, "/", nil, unix.MS_REC|unix.MS_PRIVATE, nil)

	r.holdNamespaces()

	r.makeStage()
	r.mountRoot()
	r.mountProc()
	r.mountDev()
	r.mountSys()
	r.network()
	r.bindFiles()
	for _, m := range c.BaseMounts {
		r.mount(m)
	}
	for _, m := range sorted(c.Mounts) {
		r.mount(m)
	}
	r.stepMounts()
	for _, d := range c.Privileges.Devices {
		r.device(d)
	}
	r.sysctls()
	if !c.Privileges.Unmasked && !c.Privileges.Privileged {
		r.hide()
	}
	if c.ReadOnly {
		r.remountReadOnly(".", 0)
	}

	// pivot_root(".", ".") stacks the old root on the new one, so that no
	// directory for it is needed; then it is detached (pivot_root(2)).
	r.Call("pivot root", unix.SYS_PIVOT_ROOT, ".", ".")
	r.Call("detach old root", unix.SYS_UMOUNT2, ".", unix.MNT_DETACH)
	r.Call("change directory to /", unix.SYS_CHDIR, "/")
	if !c.Privileges.HostUTS {
		r.setName(c)
	}

	r.workingDirectory()
	if c.Init {
		r.forkProgram()
		return r.Prog
	}
	r.stdio()
	r.console()
	r.giveUp()
	r.execute()
	return r.Prog
}

// closeMonitorsEnd closes the other end of what awaitMonitor reads: as long as a copy
// of it is open here, the monitor's death is not seen.
func (r *recipe) closeMonitorsEnd() {
	r.Call("close monitor's end", unix.SYS_CLOSE, r.channel)
	if r.channelCopy != 0 {
		r.Call("close copy of monitor's end", unix.SYS_CLOSE, r.channelCopy)
	}
}

// awaitMonitor holds the program back until the monitor has written down that it
// runs: whoever hears from the program finds it in ps. The monitor needs longer
// to start than all that comes before this. When it has died, so does the start.
// The message is not looked at: its length is what there is to know.
func (r *recipe) awaitMonitor(left bool) {
	const step = "wait for monitor"
	if left { // there is no memory to read into
		r.Call(step, unix.SYS_RECVFROM, r.programEnd, nil, 0, unix.MSG_TRUNC, nil, nil).NonZero()
		return
	}
	r.Call(step, unix.SYS_READ, r.programEnd, make([]byte, 64), 64).NonZero()
}

// holdNamespaces leaves references to the mount and network namespaces with the
// monitor, in a message that it need not even receive. Taking them apart costs a
// millisecond, which would otherwise come between the program's end and its
// exit status.
func (r *recipe) holdNamespaces() {
	fd := r.Reg()
	names := []string{"mnt"}
	if r.ownsNetwork() {
		names = append(names, "net")
	}
	for _, name := range names {
		r.Call("open own namespace", unix.SYS_OPENAT, unix.AT_FDCWD, "/proc/self/ns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0).Into(fd)
		r.send(r.programEnd, `{"what":"`+name+`"}`, fd)
		r.Call("close", unix.SYS_CLOSE, fd)
	}
}

// recipe is a start program in the making, with its registers.
type recipe struct {
	*userns.Prog
	*start
	root userns.Reg // the new root, O_PATH
	a, b userns.Reg // directories on the way to a target
	work userns.Reg // anything short-lived

	far, farLink, packets userns.Reg // of a veth pair: see farEnd
	shm                   userns.Reg // the /dev/shm of another container: see joinIPC
}

// setName names the machine, as its own UTS namespace has it.
func (r *recipe) setName(c *Config) {
	host := []byte(c.Hostname)
	r.Call("set hostname", unix.SYS_SETHOSTNAME, host, len(host))
	if c.Domainname != "" {
		domain := []byte(c.Domainname)
		r.Call("set domain name", unix.SYS_SETDOMAINNAME, domain, len(domain))
	}
	r.Call("set umask", unix.SYS_UMASK, 0o022)
}

// forkProgram makes the process that becomes the program a child of pid 1,
// which stays as a reaper. The reaper's memory is a copy of the client's: it is
// made unreadable for whoever is root in the container. In ps it is what Docker's is.
func (r *recipe) forkProgram() {
	program := &recipe{Prog: &userns.Prog{}, start: r.start}
	program.work = program.Reg()
	program.Call("start session", unix.SYS_SETSID)
	program.stdio()
	program.console()
	program.giveUp()
	program.execute()
	r.Call("hide memory", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	child := r.forkTold(program.Prog)
	r.Retitle("docker-init", append([]string{"/sbin/docker-init", "--"}, r.run.args...))
	r.setCapabilities(1 << unix.CAP_KILL)
	r.dieWithMonitor()
	r.Call("close descriptors", unix.SYS_CLOSE_RANGE, 0, uintptr(^uint32(0)), 0)
	r.Reap(child)
}

// forkTold forks and sends the monitor what names the child. The parent cannot
// stand for it: nobody enters namespaces by a process whose memory is hidden.
func (r *recipe) forkTold(program *userns.Prog) userns.Reg {
	child, pidfd := r.Reg(), new(int32)
	r.Fork("clone program", unix.CLONE_PIDFD, pidfd, program).Into(child)
	r.Load(r.work, pidfd)
	r.send(r.programEnd, `{"what":"`+filePidfd+`"}`, r.work)
	return child
}

// stdio places the program's three standard descriptors: pipes that the monitor
// reads, or a terminal of the container's own devpts, whose master is sent to
// the monitor. The host's terminal is never handed over (CVE-2017-5226).
func (r *recipe) stdio() {
	if !r.run.tty {
		for fd, from := range r.descriptors.stdio {
			r.Call("place standard descriptor", unix.SYS_DUP3, from, fd, 0)
		}
		return
	}
	master := r.work
	r.Call("open /dev/pts/ptmx", unix.SYS_OPENAT, unix.AT_FDCWD, "/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0).Into(master)
	r.Call("unlock terminal", unix.SYS_IOCTL, master, unix.TIOCSPTLCK, make([]byte, 4))
	if r.size != nil {
		r.Call("size terminal", unix.SYS_IOCTL, master, unix.TIOCSWINSZ, unsafe.Pointer(r.size))
	}
	r.send(r.programEnd, `{"what":"terminal"}`, master)
	// TIOCGPTPEER opens the other side of this very master: a path could be
	// another's (CVE-2025-52565).
	r.Call("open terminal", unix.SYS_IOCTL, master, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY).Into(r.work)
	r.Call("take controlling terminal", unix.SYS_IOCTL, r.work, unix.TIOCSCTTY, 0)
	for fd := range 3 {
		r.Call("place standard descriptor", unix.SYS_DUP3, r.work, fd, 0)
	}
}

// console binds the terminal over /dev/console, in the container's own start.
func (r *recipe) console() {
	if r.run.tty {
		r.Call("bind /dev/console", unix.SYS_MOUNT, "/dev/pts/0", "/dev/console", nil, unix.MS_BIND, nil)
	}
}

// send sends the descriptors in fds, with a message, to the monitor.
func (r *recipe) send(socket int, message string, fds ...userns.Reg) {
	text := []byte(message)
	iov := &unix.Iovec{Base: &text[0]}
	iov.SetLen(len(text))
	control := make([]byte, unix.CmsgSpace(4*len(fds)))
	header := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	header.Level, header.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
	header.SetLen(unix.CmsgLen(4 * len(fds)))
	msg := &unix.Msghdr{Iov: iov, Control: &control[0]}
	msg.SetIovlen(1)
	msg.SetControllen(len(control))
	r.Keep(text)
	r.Keep(iov)
	for i, fd := range fds {
		r.Store((*int32)(unsafe.Pointer(&control[unix.CmsgLen(4*i)])), fd)
	}
	r.Call("send descriptor to monitor", unix.SYS_SENDMSG, socket, unsafe.Pointer(msg), unix.MSG_NOSIGNAL)
}

// workingDirectory enters the working directory, made if it is missing. It is
// opened in the root without magic links, so that "/proc/self/fd/N" cannot name
// a directory of the host through a descriptor (CVE-2024-21626).
func (r *recipe) workingDirectory() {
	dir := r.run.dir
	if dir == "" || dir == "/" {
		return
	}
	r.Call("open /", unix.SYS_OPENAT, unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).Into(r.root)
	r.directory(dir, "change directory to "+dir)
	r.Call("change directory to "+dir, unix.SYS_FCHDIR, r.a)
}
