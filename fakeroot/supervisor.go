// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sbx/overlay"
)

// Options say what a Supervisor is to know of its container. All paths but Own
// are of the host.
type Options struct {
	// Upper is the directory that takes the container's writes: overlay's upper
	// directory, or the root itself where it is a copy. Owners that files there
	// cannot carry are found again by their path in it.
	Upper string
	// Owners is the table that was saved beside Upper (see LoadOwners).
	Owners overlay.Owners
	// Layers are the lower directories, topmost first.
	Layers []Layer
	// Own are the mount points in the container, beside its root, whose files are
	// the container's and not the user's: volumes, and its own tmpfs.
	Own []string
	// Volumes are those of Own whose owners are kept with them.
	Volumes []Volume
	// ForeignRoot says that the root directory itself is the user's: ownership is
	// then remembered in memory only.
	ForeignRoot bool
	// NoNewPrivileges has execve leave virtual IDs alone, too.
	NoNewPrivileges bool
	Features        Features
	Log             *slog.Logger // nil: nothing is logged
}

// Supervisor answers for one container, on as many listeners as it has got
// programs from outside: its first one, and each that `exec` adds. All of them
// share what is remembered of owners and credentials.
type Supervisor struct {
	options  Options
	log      *slog.Logger
	numbers  *numbers
	self     string // our own directory in the procfs that threads work in
	interned *interned
	table    *ownerTable
	saved    *saved
	sockets  sockets

	prepared sync.Once // by the first thread that is in the container's mounts
	prepErr  error
	loaded   atomic.Bool // the tables are in use
	mounts   *mounts
	root     unix.Statx_t // the container's root directory
	rootFD   int
	wandered atomic.Bool // some process may have another root
	threads  atomic.Int64

	mu      sync.Mutex
	serving int           // listeners
	idle    chan struct{} // closed when serving becomes 0
}

// New makes a supervisor. It reads the tables of owners, and starts nothing.
//
// Runs in: the monitor, in the host's mounts.
func New(o Options) (*Supervisor, error) {
	s := &Supervisor{options: o, log: o.Log, self: strconv.Itoa(os.Getpid()), table: newOwnerTable(), rootFD: noFD}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.interned, err = newInterned(); err != nil {
		return nil, fmt.Errorf("read limit of locks: %w", err)
	}
	if s.numbers, err = newNumbers(); err != nil {
		return nil, err
	}
	if s.saved, err = openSaved(&o); err != nil {
		return nil, fmt.Errorf("read owners: %w", err)
	}
	return s, nil
}

// Listener is what Serve needs to answer for one program and its descendants.
type Listener struct {
	File *os.File // as the program sent it; Serve closes it
	// Mounts is the container's mount namespace, or a pidfd of a process in it that
	// may be looked at. It is used until Serve has joined.
	Mounts int
	// Procfs is an instance of procfs for the pid namespace of the monitor (see
	// OpenProcfs), as which the notified pids count. It stays the caller's.
	Procfs *os.File
	// User is who the program starts as. It is written to the program's process
	// before its first trapped call, the execve, is answered.
	User Credentials
	// Paths are those that the program is started by, in the order in which they
	// are tried; absolute. They are needed where the memory of the process that
	// does so is not to be read: it may be a copy of one that is no concern of the
	// container's.
	Paths []string
}

// Serve answers the notifications of one listener until no process with its
// filter is left, and then returns nil. It keeps a thread of its own for that,
// which lives in the container's mounts; several Serves go on side by side.
//
// When ctx ends first, Serve returns at once. Its thread stays until the
// container's processes are gone: without answers they would hang.
//
// Runs in: the monitor, with all capabilities in the container's user namespace.
func (s *Supervisor) Serve(ctx context.Context, l Listener) error {
	v := s.newService(l)
	s.begin()
	go func() {
		v.run()
		l.File.Close()
		s.finish()
	}()
	select {
	case err := <-v.ended:
		return err
	case <-ctx.Done():
		// The descriptors of the caller may go as soon as this returns.
		select {
		case <-v.joined:
		case <-v.done:
		}
		return ctx.Err()
	}
}

// Threads is the number of threads that serve at the moment.
func (s *Supervisor) Threads() int { return int(s.threads.Load()) }

func (s *Supervisor) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving == 0 {
		s.idle = make(chan struct{})
	}
	s.serving++
}

func (s *Supervisor) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving--; s.serving == 0 {
		close(s.idle)
	}
}

// wait waits until no listener is served.
func (s *Supervisor) wait(ctx context.Context) error {
	s.mu.Lock()
	serving, idle := s.serving, s.idle
	s.mu.Unlock()
	if serving == 0 {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close lets go of the container's directories, unless a thread still serves.
func (s *Supervisor) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving != 0 {
		return
	}
	s.saved.mu.Lock()
	defer s.saved.mu.Unlock()
	s.loaded.Store(false)
	s.saved.close()
	s.sockets.close()
	if s.rootFD != noFD {
		unix.Close(s.rootFD)
		s.rootFD = noFD
	}
}

// prepare looks at the container's mounts and loads what is saved of its files.
//
// Runs in: the container's mounts, on a locked thread; before any program of the
// container runs.
func (s *Supervisor) prepare() error {
	s.prepared.Do(func() {
		s.prepErr = func() error {
			fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open root: %w", err)
			}
			s.rootFD = fd
			if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, statxMask, &s.root); err != nil {
				return fmt.Errorf("look at root: %w", err)
			}
			// The thread's own mounts: those of the process that is this thread.
			text, err := os.ReadFile(s.self + "/task/" + strconv.Itoa(unix.Gettid()) + "/mountinfo")
			if err != nil {
				return fmt.Errorf("read mounts: %w", err)
			}
			for _, v := range s.saved.volumes {
				v.at = s.resolve(v.Target)
			}
			s.mounts = parseMounts(string(text), &Options{ForeignRoot: s.options.ForeignRoot, Own: s.resolved()})
			s.saved.load(s.table, fd)
			s.loaded.Store(true)
			return nil
		}()
	})
	return s.prepErr
}

// resolved are the paths of Own as mountinfo has them.
func (s *Supervisor) resolved() []string {
	paths := make([]string, len(s.options.Own))
	for i, path := range s.options.Own {
		paths[i] = s.resolve(path)
	}
	return paths
}

// resolve is a path as mountinfo has it: a mount point that an image reaches
// through a link is listed where the link leads.
func (s *Supervisor) resolve(path string) string {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return path
	}
	defer unix.Close(fd)
	var buf [pathMax]byte
	n, err := unix.Readlink(s.self+"/fd/"+strconv.Itoa(fd), buf[:])
	if err != nil || n == len(buf) {
		return path
	}
	return string(buf[:n])
}

// OpenProcfs makes a procfs for the pid namespace that the calling process is in,
// and leaves it unmounted: nothing but its descriptor leads there.
func OpenProcfs() (*os.File, error) {
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open procfs: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("create procfs: %w", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, fmt.Errorf("mount procfs: %w", err)
	}
	return os.NewFile(uintptr(fd), "procfs"), nil
}
