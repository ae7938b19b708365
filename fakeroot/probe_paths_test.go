// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

func probePaths([]string) error {
	if err := first(enter("/paths/sub"), touch("f"), os.Chown("f", 5, 6), os.Symlink("/paths/sub/f", "abs"), os.Symlink("f", "rel")); err != nil {
		return err
	}
	dir, err := os.Open("/paths")
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := os.Open("f")
	if err != nil {
		return err
	}
	defer f.Close()
	at := func(dir int, path string, flags int) string {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, path, &st, flags); err != nil {
			return err.Error()
		}
		return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
	}
	if err := os.MkdirAll("/devel/null", 0o755); err != nil {
		return err
	}
	long := "/paths"
	for len(long)+len("/./sub/f") < 4095 {
		long += "/."
	}
	long += "/sub/f"
	for len(long) < 4095 {
		long = long[:6] + "/" + long[6:]
	}
	deep := ""
	for len(deep) < 4000 {
		deep += "sub/../"
	}
	deep += "sub/f"
	return first(
		expect("relative", at(unix.AT_FDCWD, "f", 0), "5:6"),
		expect("dirfd", at(int(dir.Fd()), "sub/f", 0), "5:6"),
		expect("empty path", at(int(f.Fd()), "", unix.AT_EMPTY_PATH), "5:6"),
		expect("empty path of cwd", at(unix.AT_FDCWD, "", unix.AT_EMPTY_PATH), "0:0"),
		expect("empty path without flag", at(int(f.Fd()), "", 0), "no such file or directory"),
		expect("bad dirfd", at(99, "f", 0), "bad file descriptor"),
		expect("bad fd", at(-1, "", unix.AT_EMPTY_PATH), "bad file descriptor"),
		expect("absolute link", at(unix.AT_FDCWD, "abs", 0), "5:6"),
		expect("relative link", at(unix.AT_FDCWD, "rel", 0), "5:6"),
		expect("link itself", at(unix.AT_FDCWD, "abs", unix.AT_SYMLINK_NOFOLLOW), "0:0"),
		expect("/proc/self/fd", at(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(f.Fd())), 0), "5:6"),
		expect("/dev/fd", at(unix.AT_FDCWD, "/dev/fd/"+strconv.Itoa(int(f.Fd())), 0), "5:6"),
		os.Chown("/devel/null", 7, 7), expect("/devel", at(unix.AT_FDCWD, "/devel/null", 0), "7:7"),
		expect("4095 bytes", len(long), 4095), expect("long path", at(unix.AT_FDCWD, long, 0), "5:6"),
		expect("too long path", at(unix.AT_FDCWD, "/"+long, 0), "file name too long"),
		expect("long relative path", at(int(dir.Fd()), deep, 0), "5:6"),
		expect("not a directory", at(unix.AT_FDCWD, "f/x", 0), "not a directory"),
		expect("above the root", at(unix.AT_FDCWD, "/../../../paths/sub/f", 0), "5:6"),
		probeMemory(),
	)
}

// probeMemory hands over addresses that are not memory, and strings that end
// where memory does.
func probeMemory() error {
	page := os.Getpagesize()
	mem, err := unix.Mmap(-1, 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	if err := unix.Mprotect(mem[page:], unix.PROT_NONE); err != nil {
		return err
	}
	name := "/paths/sub/f\x00"
	border := mem[page-len(name) : page]
	copy(border, name)
	var st unix.Stat_t
	stat := func(path, to uintptr) unix.Errno {
		cwd := unix.AT_FDCWD
		_, _, errno := unix.RawSyscall6(sysNewfstatat, uintptr(cwd), path, to, 0, 0, 0)
		return errno
	}
	addr := func(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }
	out := uintptr(unsafe.Pointer(&st))
	if err := first(expect("border", stat(addr(border), out), 0), expect("border", st.Uid, 5)); err != nil {
		return err
	}
	border[len(border)-1] = 'x' // now it runs into the page that is not there
	if err := expect("no end", stat(addr(border), out), unix.EFAULT); err != nil {
		return err
	}
	border[len(border)-1] = 0
	for what, errno := range map[string]unix.Errno{
		"bad path":          stat(1, out),
		"null path":         stat(0, out),
		"kernel path":       stat(^uintptr(0)-4096, out),
		"bad buffer":        stat(addr(border), 8),
		"unreadable buffer": stat(addr(border), addr(mem)+uintptr(page)),
	} {
		if errno != unix.EFAULT {
			return fmt.Errorf("%s: %v", what, errno)
		}
	}
	// The last, as it writes over the path.
	if errno := stat(addr(border), addr(mem)+uintptr(page)-16); errno != unix.EFAULT {
		return fmt.Errorf("buffer at border: %v", errno)
	}
	_, _, errno := unix.RawSyscall(unix.SYS_GETRESUID, 1, 2, 3)
	_, _, errno2 := unix.RawSyscall(unix.SYS_SETGROUPS, 5, 1, 0)
	return first(expect("getresuid", errno, unix.EFAULT), expect("setgroups", errno2, unix.EFAULT))
}

func probeRoots([]string) error {
	if err := first(enter("/jail/etc"), os.WriteFile("/jail/etc/f", nil, 0o644), os.Chown("/jail/etc/f", 5, 6), os.Symlink("/etc/f", "/jail/l"),
		os.MkdirAll("/etc", 0o755), os.WriteFile("/etc/f", nil, 0o644), os.Chown("/etc/f", 7, 8), os.Mkdir("/jail/new", 0o755)); err != nil {
		return err
	}
	follow := func(path string) string { return statxOwner(path, 0)[:3] }
	if err := first(
		expect("outside", follow("/etc/f"), "7:8"), expect("link outside", follow("/jail/l"), "7:8"),
		// A mount namespace of its own with another file under the same name.
		unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS), unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("tmpfs", "/etc", "tmpfs", 0, ""), os.WriteFile("/etc/f", nil, 0o644), os.Chown("/etc/f", 11, 12),
		expect("own mount", follow("/etc/f"), "11:"), expect("link to own mount", follow("/jail/l"), "11:"),
		os.Chown("/jail/etc/f", 9, 6), expect("root in own namespace", follow("/jail/etc/f"), "9:6"),
		unix.Chroot("/jail"),
		expect("relative cwd", follow("f"), "9:6"), os.Chdir("/"),
		expect("in the jail", follow("/etc/f"), "9:6"), expect("link in the jail", follow("/l"), "9:6"), expect("relative", follow("l"), "9:6"),
		expect("dots", follow("/../../etc/f"), "9:6"),
		os.Chown("/l", 1, 1), expect("chown through link", follow("/etc/f"), "1:1"),
		os.Lchown("/l", 2, 2), expect("link's own", ownerOf("/l"), "2:2:777"),
		os.Mkdir("/new/d", 0o2755), os.Chown("/new/d", 3, 3), expect("made", follow("/new/d"), "3:3"),
	); err != nil {
		return err
	}
	if err := unix.Setresuid(1000, 1000, 1000); err != nil {
		return err
	}
	return first(os.WriteFile("/new/mine", nil, 0o644), expect("made by a user", ownerOf("/new/mine")[:5], "1000:"),
		os.WriteFile("/new/mine", nil, 0o644), os.Mkdir("/new/dir", 0o755), expect("by a user", ownerOf("/new/dir")[:5], "1000:"))
}
