// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sbx/userns"
)

// FuzzHandlers makes up notifications: calls, arguments and the memory that these
// point to. The handlers run in a jail of their own, a process that is both the
// supervisor and the program that it answers; a crash is the end of that process.
func FuzzHandlers(f *testing.F) {
	seed := func(name string, args ...uint16) []byte {
		for i, t := range traps {
			if t.name == name {
				b := []byte{byte(i)}
				for _, a := range args {
					b = append(b, byte(a>>14), byte(a), byte(a>>8)&0x3f)
				}
				return append(b, make([]byte, 3*(6-len(args)))...)
			}
		}
		f.Fatal(name)
		return nil
	}
	const memory, cwd, small = 0, 1 << 14, 2 << 14
	for _, s := range [][]byte{
		seed("newfstatat", cwd, memory, memory|512, small),
		seed("fchownat", cwd, memory, small|7, small|8, small),
		seed("openat", cwd, memory, small|0x42, small|0o644),
		seed("setgroups", small|3, memory),
		seed("setxattr", memory, memory|100, memory|200, small|28, small),
		seed("execve", memory, small, small),
		seed("statx", cwd, memory, small, small|0x7ff, memory|512),
		seed("mknodat", cwd, memory, small|0x21b6, small|0x103),
		seed("openat2", cwd, memory, memory|256, small|24),
		seed("bind", small|3, memory, small|20),
		append(seed("chroot", memory), seed("fstat", small|3, memory)...),
		append(seed("setresuid", small|5, small|5, small|5), seed("mkdirat", cwd, memory, small|0o777)...),
	} {
		for _, text := range []string{"/f\x00", "d/../l\x00", "/proc/self/fd/1\x00", "\x01\x00/d/s\x00", "system.posix_acl_access\x00"} {
			f.Add(s, []byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, calls, memory []byte) {
		if len(calls) > 20*callSize || len(memory) > 3*arenaPage {
			return
		}
		j := startJail(t)
		if err := j.Send(fuzzQuestion{Calls: calls, Memory: memory}); err != nil {
			t.Fatal(err)
		}
		var a fuzzAnswer
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := j.Receive(ctx, &a); err != nil {
			j.Close()
			jail = nil
			t.Fatalf("the handlers crashed, or hang: %v", err)
		}
		if a.Error != "" {
			t.Fatal(a.Error)
		}
	})
}

type fuzzQuestion struct{ Calls, Memory []byte }

type fuzzAnswer struct{ Error string }

const (
	arenaPage = 4096
	callSize  = 19 // the call, and six times a kind and a number
)

var (
	jail   *userns.Conn
	jailMu sync.Mutex
)

func startJail(t testing.TB) *userns.Conn {
	jailMu.Lock()
	defer jailMu.Unlock()
	if jail != nil {
		return jail
	}
	c, theirs, err := userns.Pair()
	if err != nil {
		t.Fatal(err)
	}
	high, err := userns.HighFile(theirs)
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	p := &userns.Prog{}
	p.Call("die with parent", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
	p.Execve("testfuzz", "", nil, int(high.Fd()))
	child, err := userns.Start(context.Background(), userns.SingleRung(), unix.CLONE_NEWNS|unix.CLONE_NEWPID, p)
	high.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Started(context.Background()); err != nil {
		t.Fatal(err)
	}
	jail = c
	return c
}

// fuzzRole is the jail.
func fuzzRole(ctx context.Context, c *userns.Conn) error {
	signal.Ignore(unix.SIGPIPE)
	runtime.LockOSThread()
	w, arena, err := enterJail()
	for {
		var q fuzzQuestion
		if _, err := c.Receive(ctx, &q); err != nil {
			return err
		}
		var a fuzzAnswer
		if err == nil {
			err = w.fuzz(arena, q)
		}
		if err != nil {
			a.Error = err.Error()
		}
		if err := c.Send(a); err != nil {
			return err
		}
		err = nil
	}
}

func enterJail() (*worker, []byte, error) {
	procfs, err := OpenProcfs()
	if err != nil {
		return nil, nil, err
	}
	if err := first(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "size=16m,nr_inodes=5000"),
		os.Chdir("/tmp"), os.Mkdir("d", 0o755), os.WriteFile("f", []byte("#!x"), 0o755), os.Symlink("f", "l"), os.Symlink("/d", "d/s"), os.Mkdir("proc", 0o755),
		unix.Mount("proc", "proc", "proc", 0, ""),
		unix.Mount("/tmp", "/tmp", "", unix.MS_BIND|unix.MS_REC, ""), os.Chdir("/tmp"),
		unix.PivotRoot(".", "."), unix.Unmount(".", unix.MNT_DETACH),
		unix.Fchdir(int(procfs.Fd())),
	); err != nil {
		return nil, nil, err
	}
	unix.Umask(0)
	s, err := New(Options{Features: Features{AddFD: true}})
	if err != nil {
		return nil, nil, err
	}
	if err := s.prepare(); err != nil {
		return nil, nil, err
	}
	arena, err := unix.Mmap(-1, 0, 4*arenaPage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err == nil {
		err = unix.Mprotect(arena[3*arenaPage:], unix.PROT_NONE)
	}
	w := &worker{s: s, install: func(*notification, int, uint32) answer { return success }}
	return w, arena, err
}

func (w *worker) fuzz(arena []byte, q fuzzQuestion) error {
	before := openFiles()
	for _, c := range chunks(q.Calls) {
		copy(arena, q.Memory)
		t := traps[int(c[0])%len(traps)]
		n := &notification{ID: 1, PID: uint32(os.Getpid())}
		for i := range n.Args {
			kind, number := c[1+3*i], uint64(binary.LittleEndian.Uint16(c[2+3*i:]))
			switch kind % 5 {
			case 0:
				n.Args[i] = uint64(uintptr(unsafe.Pointer(&arena[0]))) + number%(4*arenaPage)
			case 1:
				at := int32(unix.AT_FDCWD)
				n.Args[i] = uint64(uint32(at))
			case 2:
				n.Args[i] = number
			case 3:
				n.Args[i] = ^number
			case 4:
				n.Args[i] = number << 48
			}
		}
		if w.s.sockets.count.Load() != 0 {
			w.s.sockets.record(w)
		}
		w.handle(n, t.call)
	}
	w.s.sockets.close()
	w.s.wandered.Store(false)
	if after := openFiles(); after != before {
		return fmt.Errorf("%d descriptors were open before, %d are after", before, after)
	}
	if n := w.s.table.size.Load(); n > maxKept+maxPassing {
		return fmt.Errorf("%d owners are remembered", n)
	}
	return nil
}

func chunks(calls []byte) [][]byte {
	var list [][]byte
	for len(calls) > 0 {
		c := make([]byte, callSize)
		calls = calls[copy(c, calls):]
		list = append(list, c)
	}
	return list
}

func openFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(entries)
}
