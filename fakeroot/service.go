// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A service is the work on one listener. One thread receives, answers, receives:
// with several, each hand-over would go around all CPUs. When a handler takes
// long, as it can on a network filesystem, another thread takes over and the
// slow one ends after its answer.
type service struct {
	s        *Supervisor
	listener listener
	mounts   int
	procfs   int
	user     Credentials
	primed   atomic.Bool // user has been written
	paths    []string
	tried    atomic.Int32 // how many of paths

	namespace int // the container's mounts, for threads that start later
	synced    bool
	current   atomic.Pointer[worker] // the one that may receive
	workers   sync.WaitGroup
	finish    sync.Once
	done      chan struct{} // closed when nothing more will come
	ended     chan error
	joined    chan struct{} // closed when mounts and procfs of the caller are needed no more
	asleep    atomic.Bool   // the watch
	wake      chan struct{}
}

const (
	// slow is how long a handler may take before another thread takes over.
	slow = 50 * time.Millisecond
	// maxWorkers bounds the threads that can hang on one listener.
	maxWorkers = 16
)

func (s *Supervisor) newService(l Listener) *service {
	return &service{
		s:         s,
		listener:  listener{fd: l.File.Fd(), features: s.options.Features},
		mounts:    l.Mounts,
		procfs:    int(l.Procfs.Fd()),
		user:      l.User,
		paths:     l.Paths,
		namespace: noFD,
		done:      make(chan struct{}),
		ended:     make(chan error, 1),
		joined:    make(chan struct{}),
		wake:      make(chan struct{}, 1),
	}
}

// run serves until the end. It returns when every thread of the service has
// ended, which is later than the end that it tells for those that hang.
func (v *service) run() {
	first := &worker{s: v.s, v: v}
	v.current.Store(first)
	v.workers.Add(1)
	go first.run(v.joinFirst)
	v.watch()
	v.workers.Wait()
	if v.namespace != noFD {
		unix.Close(v.namespace)
		unix.Close(v.procfs)
	}
}

// end tells Serve how it went; the first word counts.
func (v *service) end(err error) {
	v.finish.Do(func() {
		v.ended <- err
		close(v.done)
	})
}

// watch replaces a worker that hangs in a handler. It wakes up only while
// notifications come in: a container that does nothing costs nothing.
func (v *service) watch() {
	threads := 1
	timer := time.NewTimer(slow)
	defer timer.Stop()
	for {
		v.asleep.Store(true)
		// A handler that began before it could see that is found here.
		if !isBusy(v.current.Load().turn.Load()) || !v.asleep.CompareAndSwap(true, false) {
			select {
			case <-v.done:
				return
			case <-v.wake:
			}
		}
		for last := uint64(0); ; {
			timer.Reset(slow)
			select {
			case <-v.done:
				return
			case <-timer.C:
			}
			now := v.current.Load()
			turn := now.turn.Load()
			if turn != last {
				last = turn
				continue
			}
			if !isBusy(turn) {
				break
			}
			if threads == maxWorkers {
				continue
			}
			threads++
			next := &worker{s: v.s, v: v}
			v.current.Store(next)
			v.workers.Add(1)
			go next.run(v.joinAgain)
			last = 0
			v.s.log.Debug("a handler is slow, another thread takes over", "threads", threads)
		}
	}
}

// isBusy reports whether a worker with this count of turns is in a handler: it
// counts one up when it begins, and one when it is done.
func isBusy(turn uint64) bool { return turn%2 == 1 }

// joinFirst brings the calling thread into the container's mounts, and leaves
// what later threads need for the same.
func (v *service) joinFirst() error {
	defer close(v.joined)
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := v.enter(v.mounts); err != nil {
		return err
	}
	procfs, err := unix.FcntlInt(uintptr(v.procfs), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("duplicate procfs", err)
	}
	own := v.s.self + "/task/" + strconv.Itoa(unix.Gettid()) + "/ns/mnt"
	namespace, err := unix.Openat(procfs, own, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(procfs)
		return fmt.Errorf("open own mount namespace: %w", err)
	}
	v.procfs, v.namespace = procfs, namespace
	if err := v.settle(); err != nil {
		return err
	}
	v.synced = v.listener.setSync()
	return v.s.prepare()
}

// enter joins a mount namespace. Before Linux 5.8 a pidfd does not do for that,
// and the directory of its process in procfs does.
func (v *service) enter(mounts int) error {
	err := unix.Setns(mounts, unix.CLONE_NEWNS)
	if !errors.Is(err, unix.EINVAL) {
		return os.NewSyscallError("setns", err)
	}
	info := v.s.self + "/fdinfo/" + strconv.Itoa(mounts)
	fd, err := unix.Openat(v.procfs, info, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("look at pidfd: %w", err)
	}
	buf := make([]byte, 1024)
	n, _ := unix.Read(fd, buf)
	unix.Close(fd)
	_, rest, _ := strings.Cut(string(buf[:max(n, 0)]), "\nPid:")
	pid, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
	fd, err = unix.Openat(v.procfs, pid+"/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open mount namespace: %w", err)
	}
	defer unix.Close(fd)
	return os.NewSyscallError("setns", unix.Setns(fd, unix.CLONE_NEWNS))
}

// joinAgain is joinFirst for the threads after the first.
func (v *service) joinAgain() error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Setns(v.namespace, unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("setns", err)
	}
	return v.settle()
}

// settle gives the thread its working directory and umask. Both are the thread's
// own since it unshared them.
func (v *service) settle() error {
	if err := unix.Fchdir(v.procfs); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	unix.Umask(0)
	return nil
}

// A worker is one thread of a service, with the buffers of its handlers.
type worker struct {
	s    *Supervisor
	v    *service
	turn atomic.Uint64

	// install gives the waiting process a descriptor; tests put another here.
	install func(n *notification, fd int, flags uint32) answer

	notification notification
	response     response
	at, other    room
	value        [512]byte
	st           unix.Stat_t
	stx          unix.Statx_t
}

// run is a worker's life. Its thread has left what threads of a process share,
// and so must end with it: it is never unlocked.
func (w *worker) run(join func() error) {
	runtime.LockOSThread()
	defer w.v.workers.Done()
	w.s.threads.Add(1)
	defer w.s.threads.Add(-1)
	if errno := blockSignals(); errno != 0 {
		w.v.end(fmt.Errorf("block signals: %w", errno))
		return
	}
	if err := join(); err != nil {
		w.v.end(fmt.Errorf("join container: %w", err))
		return
	}
	w.install = w.installNow
	w.loop()
}

func (w *worker) loop() {
	l := w.v.listener
	for w.v.current.Load() == w {
		// Older kernels do not tell one who waits in RECV that nobody is left, but
		// they tell one who polls.
		if !w.v.synced && l.hungUp(true) {
			w.v.end(nil)
			return
		}
		switch errno := l.receive(&w.notification); errno {
		case 0:
		case unix.EINTR:
			continue
		case unix.ENOENT, unix.ENOTCONN:
			if l.hungUp(false) {
				w.v.end(nil)
				return
			}
			continue
		default:
			w.v.end(fmt.Errorf("receive notification: %w", errno))
			return
		}
		w.turn.Add(1)
		if w.v.asleep.Load() && w.v.asleep.CompareAndSwap(true, false) {
			w.v.wake <- struct{}{}
		}
		a := w.answer(&w.notification)
		if !a.sent {
			a.fill(&w.response, w.notification.ID)
			l.send(&w.response) // ENOENT: it died meanwhile
		}
		w.turn.Add(1)
	}
}
