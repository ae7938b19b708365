// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"bytes"
	"strconv"

	"golang.org/x/sys/unix"
)

// A place is where a system call's arguments point, as a path for the supervisor's
// own calls.
//
// An absolute path is what the process said: the supervisor's root is the
// container's, and so is the process's as long as nobody wandered (roots.go). A
// relative one stands behind PID/cwd or PID/fd/N in the procfs that is the
// supervisor's working directory. So no path leads anywhere but where the process
// could go itself.
type place struct {
	path     []byte // with a NUL at its end
	name     int    // where in path what the process said begins; len(path)-1 when that is nothing
	nofollow bool   // the last component is not to be followed if it is a link
	held     int    // a descriptor that path leads through, or noFD
}

const noFD = -1

func (p *place) close() {
	if p.held != noFD {
		unix.Close(p.held)
		p.held = noFD
	}
}

// verdict is what comes of looking for a place.
type verdict uint8

const (
	found   verdict = iota
	outside         // below /proc or /sys, where nothing is recorded
	unclear         // not readable, too long, not there: the kernel shall say
)

// prefixMax is room for "4194304/fd/2147483647/" before the path in the buffer.
const prefixMax = 32

// room is a buffer for a place: the path of the process is read to a fixed
// offset, and what must stand before it is written backwards from there.
type room [prefixMax + pathMax]byte

// locate finds the place that a directory descriptor and the address of a path
// mean. With empty, an empty path means the descriptor itself (AT_EMPTY_PATH).
func (w *worker) locate(at *room, pid uint32, dir int32, address uint64, nofollow, empty bool) (place, verdict) {
	if empty && address == 0 {
		return at.descriptor(pid, dir), found
	}
	n, errno := readString(pid, address, at[prefixMax:])
	if errno != 0 {
		return place{held: noFD}, unclear
	}
	if n == 0 {
		if !empty {
			return place{held: noFD}, unclear
		}
		return at.descriptor(pid, dir), found
	}
	return w.locateRead(at, pid, dir, n, nofollow)
}

// locateRead is locate for a path of n bytes that is in the buffer already.
func (w *worker) locateRead(at *room, pid uint32, dir int32, n int, nofollow bool) (place, verdict) {
	said := at[prefixMax : prefixMax+n]
	if said[0] == '/' {
		switch fd, v := wellKnown(said, nofollow); {
		case v != found:
			return place{held: noFD}, v
		case fd >= 0:
			return at.descriptor(pid, fd), found
		}
	}
	if w.s.wandered.Load() && w.elsewhere(pid) {
		return w.locateInRoot(at, pid, dir, said, nofollow)
	}
	if said[0] == '/' {
		return place{path: at[prefixMax : prefixMax+n+1], nofollow: nofollow, held: noFD}, found
	}
	start := at.prefix(pid, dir)
	p := place{path: at[start : prefixMax+n+1], name: prefixMax - start, nofollow: nofollow, held: noFD}
	if len(p.path) > pathMax {
		return w.shorten(at, p, said)
	}
	return p, found
}

// descriptor is the place of an open descriptor, or of the working directory.
// The magic link there must be followed whatever the flags.
func (at *room) descriptor(pid uint32, dir int32) place {
	at[prefixMax] = 0
	start := at.prefix(pid, dir)
	// The slash before the path would ask for a directory.
	at[prefixMax-1] = 0
	return place{path: at[start:prefixMax], name: prefixMax - 1 - start, held: noFD}
}

// prefix writes what stands before a relative path, and returns where it starts.
func (at *room) prefix(pid uint32, dir int32) int {
	i := prefixMax
	if dir == unix.AT_FDCWD {
		i -= copy(at[i-5:], "/cwd/")
	} else {
		i--
		at[i] = '/'
		i = decimal(at[:i], uint32(dir))
		i -= 4
		copy(at[i:], "/fd/")
	}
	return decimal(at[:i], pid)
}

// decimal writes n at the end of buf and returns where it starts. A negative
// descriptor becomes a number that no process has.
func decimal(buf []byte, n uint32) int {
	i := len(buf)
	for {
		i--
		buf[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return i
		}
	}
}

// wellKnown judges absolute paths into /proc, /sys and /dev/fd. "self" in the
// container's procfs is not there for the supervisor, which is no process of
// that pid namespace; a descriptor that a path names so is found by its number.
func wellKnown(path []byte, nofollow bool) (fd int32, v verdict) {
	const noDescriptor = -1
	for _, prefix := range []string{"/proc/self/fd/", "/dev/fd/"} {
		if rest, ok := bytes.CutPrefix(path, []byte(prefix)); ok {
			if n, err := strconv.ParseUint(string(rest), 10, 31); err == nil && !nofollow {
				return int32(n), found
			}
			return noDescriptor, outside
		}
	}
	if !nofollow {
		switch string(path) {
		case "/dev/stdin":
			return 0, found
		case "/dev/stdout":
			return 1, found
		case "/dev/stderr":
			return 2, found
		}
	}
	if within(path, "/proc") || within(path, "/sys") {
		return noDescriptor, outside
	}
	return noDescriptor, found
}

// within reports whether a path is dir or below it, by whole components.
func within(path []byte, dir string) bool {
	rest, ok := bytes.CutPrefix(path, []byte(dir))
	return ok && (len(rest) == 0 || rest[0] == '/')
}

// shorten serves a relative path that is too long with what must stand before it:
// its directory is opened first, and the place leads through that descriptor.
func (w *worker) shorten(at *room, p place, said []byte) (place, verdict) {
	held, errno := openAt(unix.AT_FDCWD, string(p.path[:p.name]), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errno != 0 {
		return place{held: noFD}, unclear
	}
	directory, last := splitPath(string(said))
	below, errno := openAt(held, directory, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	unix.Close(held)
	if errno != 0 {
		return place{held: noFD}, unclear
	}
	return w.through(at, below, last, p.nofollow), found
}

// through is the place of a name below a directory that we hold open.
func (w *worker) through(at *room, held int, name string, nofollow bool) place {
	path := w.fdPath(held) + "/" + name
	n := copy(at[:], path)
	at[n] = 0
	return place{path: at[:n+1], name: n - len(name), nofollow: nofollow, held: held}
}

// fdPath names a descriptor of this process in the procfs that is the working
// directory.
func (w *worker) fdPath(fd int) string { return w.s.self + "/fd/" + strconv.Itoa(fd) }
