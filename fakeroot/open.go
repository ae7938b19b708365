// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"sbx/overlay"
)

// openArgs are the arguments of the open family behind the path.
type openArgs struct {
	flags, mode uint64
}

const tmpfile = unix.O_TMPFILE &^ unix.O_DIRECTORY

// open is open(2), openat(2) and creat(2) with flags by which a file may come to
// be. What exists is opened by the kernel; what does not is made here, recorded,
// and handed to the process as its new descriptor.
func (w *worker) open(n *notification, dir int32, path uint64, a openArgs) answer {
	have, errno := w.s.interned.of(n.PID)
	if errno != 0 {
		return natively
	}
	p, v := w.locate(&w.at, n.PID, dir, path, false, false)
	defer p.close()
	if v != found {
		return natively
	}
	flags := int(a.flags)
	if flags&unix.O_PATH != 0 {
		return natively // which creates nothing
	}
	mode := uint32(a.mode) & modeBits
	if flags&tmpfile != 0 {
		return w.openUnnamed(n, &p, have, flags, mode)
	}
	c, ok := w.create(&p, have, overlay.File, mode)
	if !ok {
		return natively
	}
	defer c.close()
	if !c.settle(n.PID) {
		return natively
	}
	if !w.s.options.Features.AddFD {
		if flags&unix.O_EXCL == 0 && unix.Mknodat(c.dir, c.name, unix.S_IFREG|c.disk(), 0) == nil {
			c.recordByName()
		}
		return natively
	}
	fd, errno := openAt(c.dir, c.name, flags|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, c.disk())
	if errno != 0 {
		return natively
	}
	defer unix.Close(fd)
	c.record(fd)
	return w.install(n, fd, uint32(flags))
}

// openUnnamed makes a file without a name (O_TMPFILE).
func (w *worker) openUnnamed(n *notification, p *place, have *Credentials, flags int, mode uint32) answer {
	setgid := w.handsOnGroup(p.path)
	if flags&unix.O_DIRECTORY == 0 || !w.s.options.Features.AddFD || have.isFileRoot() && !setgid && !needsMode(mode, false) {
		return natively
	}
	dir, errno := openPlace(p.path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if errno != 0 {
		return natively
	}
	c := &creation{w: w, dir: dir, name: ".", setgid: setgid}
	c.owner = overlay.Owner{UID: have.FSUID, GID: have.FSGID, Kind: overlay.File, Mode: mode}
	defer c.close()
	if !c.settle(n.PID) {
		return natively
	}
	fd, errno := openAt(dir, ".", flags&^unix.O_CREAT|unix.O_CLOEXEC, c.disk())
	if errno != 0 {
		return natively
	}
	defer unix.Close(fd)
	c.record(fd)
	return w.install(n, fd, uint32(flags))
}

// installNow hands a descriptor to the waiting process.
func (w *worker) installNow(n *notification, fd int, flags uint32) answer {
	got, sent, errno := w.v.listener.install(n.ID, fd, flags)
	if errno != 0 {
		if errno != unix.ENOENT { // that one died
			w.s.log.Warn("hand over descriptor", "errno", errno)
		}
		return failure(errno)
	}
	return answer{value: got, sent: sent}
}

// openat2 is openat2(2), whose flags are in memory. How the path may be resolved
// is the kernel's to judge: what asks for more than plain resolution is opened
// here only where it leads through no link, which all of them allow.
func (w *worker) openat2(n *notification, dir int32, path, how, size uint64) answer {
	var h unix.OpenHow
	if size < uint64(unsafe.Sizeof(h)) || size > pageSize {
		return natively
	}
	if readMemory(n.PID, how, bytesOf(&h)) != 0 {
		return natively
	}
	if h.Flags&creating == 0 || h.Flags>>32 != 0 || h.Resolve&^(unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS|unix.RESOLVE_IN_ROOT) != 0 {
		return natively
	}
	if h.Resolve != 0 && !w.leadsThroughNoLink(n, dir, path) {
		return natively
	}
	return w.open(n, dir, path, openArgs{flags: h.Flags, mode: h.Mode})
}

// leadsThroughNoLink reports whether a relative path has no "..", and no symbolic
// link in its directories.
func (w *worker) leadsThroughNoLink(n *notification, dir int32, path uint64) bool {
	p, v := w.locate(&w.other, n.PID, dir, path, true, false)
	defer p.close()
	if v != found || p.held != noFD {
		return false
	}
	said := string(p.path[p.name : len(p.path)-1])
	if said == "" || said[0] == '/' {
		return false
	}
	base, errno := openAt(unix.AT_FDCWD, string(p.path[:p.name]), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errno != 0 {
		return false
	}
	defer unix.Close(base)
	directory, last := splitPath(said)
	fd, err := openLiterally(base, directory)
	if err != nil || last == ".." {
		return false
	}
	unix.Close(fd)
	return true
}
