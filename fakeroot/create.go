// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"bytes"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sbx/overlay"
)

// A creation is a new file before it is made: where, and what is to be remembered
// of it.
//
// The kernel makes what needs no record. The rest is made here, beneath the
// directory that was opened once, and only if there is nothing of that name: so
// nothing that exists is ever opened, and whatever fails is left to the kernel,
// which finds the error itself. A file that is made and not recorded shows as
// root's, no more.
type creation struct {
	w      *worker
	dir    int    // the directory, O_PATH
	name   string // a single component
	owner  overlay.Owner
	setgid bool // the directory hands its group on
	own    bool // the directory is the container's, see mounts
}

func (c *creation) close() { unix.Close(c.dir) }

// create opens the directory of a place for a process with these credentials. It
// reports false when the kernel's own way leads to the same.
func (w *worker) create(p *place, have *Credentials, kind overlay.Kind, mode uint32) (*creation, bool) {
	path := p.path[:len(p.path)-1]
	if kind == overlay.Dir {
		path = bytes.TrimRight(path, "/")
	}
	slash := bytes.LastIndexByte(path, '/')
	name := string(path[slash+1:])
	if slash < 0 || slash+1 < p.name || name == "" || name == "." || name == ".." {
		return nil, false
	}
	directory := []byte("/\x00")
	if slash > 0 {
		directory = append(path[:slash:slash], 0)
	}
	setgid := w.handsOnGroup(directory)
	if have.isFileRoot() && !setgid && !needsMode(mode, kind == overlay.Dir) && kind != overlay.Char && kind != overlay.Block {
		return nil, false
	}
	fd, errno := openPlace(directory, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, false
	}
	c := &creation{w: w, dir: fd, name: name, setgid: setgid}
	c.owner = overlay.Owner{UID: have.FSUID, GID: have.FSGID, Kind: kind, Mode: mode}
	return c, true
}

// handsOnGroup reports whether files in a directory get its group (inode(7),
// S_ISGID). Such a bit is always in a record.
func (w *worker) handsOnGroup(directory []byte) bool {
	n, errno := getxattr(directory, false, recordName, w.value[:maxRecord])
	if errno != 0 {
		return false
	}
	o, err := overlay.ParseRecord(string(w.value[:n]))
	return err == nil && o.Mode&unix.S_ISGID != 0
}

// settle finds out what depends on the process and on the directory: the umask,
// and the group that is handed on.
func (c *creation) settle(pid uint32) bool {
	mask, ok := umaskOf(pid)
	if !ok {
		return false
	}
	if c.owner.Kind != overlay.Symlink {
		c.owner.Mode &^= mask
	}
	var st unix.Statx_t
	if unix.Statx(c.dir, "", unix.AT_EMPTY_PATH, statxMask, &st) != nil {
		return false
	}
	c.own = c.w.s.mounts.has(&st, func() string { return c.w.fdinfo(c.dir) })
	if !c.setgid {
		return true
	}
	name := string(recordName[:len(recordName)-1])
	n, err := unix.Getxattr(c.w.fdPath(c.dir), name, c.w.value[:maxRecord])
	if err != nil {
		return false
	}
	parent, err := overlay.ParseRecord(string(c.w.value[:n]))
	if err != nil {
		return false
	}
	c.owner.GID = parent.GID
	if c.owner.Kind == overlay.Dir {
		c.owner.Mode |= unix.S_ISGID
	}
	return true
}

// record remembers the owner of what was made, which is open as fd. The
// descriptor stays the caller's.
func (c *creation) record(fd int) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return
	}
	f, errno := c.w.describe(own)
	if errno != 0 {
		unix.Close(own)
		return
	}
	defer f.close()
	if errno := c.w.write(f, c.owner); errno != 0 {
		c.w.s.log.Debug("record owner of new file", "name", c.name, "errno", errno)
	}
}

// recordByName is record for what is not open yet.
func (c *creation) recordByName() {
	fd, errno := openAt(c.dir, c.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errno != 0 {
		return
	}
	defer unix.Close(fd)
	c.record(fd)
}

// disk is the mode to make the file with.
func (c *creation) disk() uint32 {
	if !c.own {
		return c.owner.Mode &^ setIDBits
	}
	return diskMode(c.owner.Mode, c.owner.Kind == overlay.Dir)
}

// umaskOf reads the umask of a thread (proc(5), status). There is no call for it.
func umaskOf(pid uint32) (uint32, bool) {
	data, err := os.ReadFile(pidPath(pid, "/status"))
	if err != nil {
		return 0, false
	}
	_, rest, ok := strings.Cut(string(data), "\nUmask:")
	line, _, _ := strings.Cut(rest, "\n")
	mask, err := strconv.ParseUint(strings.TrimSpace(line), 8, 32)
	return uint32(mask) & permBits, ok && err == nil
}
