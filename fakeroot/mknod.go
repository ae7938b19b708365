// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"golang.org/x/sys/unix"

	"sbx/overlay"
)

// mkdir is mkdir(2) and mkdirat(2).
func (w *worker) mkdir(n *notification, dir int32, path, mode uint64) answer {
	c, ok := w.created(n, dir, path, overlay.Dir, uint32(mode)&(permBits|unix.S_ISVTX))
	if !ok {
		return natively
	}
	defer c.close()
	if unix.Mkdirat(c.dir, c.name, c.disk()) != nil {
		return natively
	}
	c.recordByName()
	return success
}

// symlink is symlink(2) and symlinkat(2).
func (w *worker) symlink(n *notification, target uint64, dir int32, path uint64) answer {
	c, ok := w.created(n, dir, path, overlay.Symlink, 0)
	if !ok {
		return natively
	}
	defer c.close()
	size, errno := readString(n.PID, target, w.other[:pathMax])
	if errno != 0 {
		return natively
	}
	if unix.Symlinkat(string(w.other[:size]), c.dir, c.name) != nil {
		return natively
	}
	c.recordByName()
	return success
}

// mknod is mknod(2) and mknodat(2). A device becomes an empty file whose record
// says which it is: a user namespace can make none, and the layer that is made of
// the directory has it. The device 0:0 is overlayfs's whiteout, which it can make.
func (w *worker) mknod(n *notification, dir int32, path, mode, device uint64) answer {
	kind, disk := overlay.File, uint32(mode)&unix.S_IFMT
	switch disk {
	case unix.S_IFCHR, unix.S_IFBLK:
		kind = kindOf(uint16(disk))
		disk = unix.S_IFREG
		if uint32(device) == 0 && kind == overlay.Char {
			return natively
		}
		have, errno := w.s.interned.of(n.PID)
		if errno != 0 || have.EUID != 0 {
			return natively // EPERM
		}
	case unix.S_IFIFO:
		kind = overlay.Pipe
	case unix.S_IFSOCK:
		kind = overlay.Socket
	case unix.S_IFREG, 0:
	default:
		return natively
	}
	c, ok := w.created(n, dir, path, kind, uint32(mode)&modeBits)
	if !ok {
		return natively
	}
	defer c.close()
	if kind == overlay.Char || kind == overlay.Block {
		number := uint64(uint32(device))
		c.owner.Major, c.owner.Minor = unix.Major(number), unix.Minor(number)
	}
	if unix.Mknodat(c.dir, c.name, disk|c.disk(), 0) != nil {
		return natively
	}
	c.recordByName()
	return success
}

// created finds out how a process makes a file.
func (w *worker) created(n *notification, dir int32, path uint64, kind overlay.Kind, mode uint32) (*creation, bool) {
	have, errno := w.s.interned.of(n.PID)
	if errno != 0 {
		return nil, false
	}
	p, v := w.locate(&w.at, n.PID, dir, path, true, false)
	defer p.close()
	if v != found {
		return nil, false
	}
	c, ok := w.create(&p, have, kind, mode)
	if !ok {
		return nil, false
	}
	if !c.settle(n.PID) {
		c.close()
		return nil, false
	}
	return c, true
}
