// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// enter makes an empty directory and works there.
func enter(name string) error {
	if err := os.MkdirAll(name, 0o755); err != nil {
		return err
	}
	return os.Chdir(name)
}

func touch(name string) error {
	return os.WriteFile(name, []byte("x"), 0o644)
}

func statxOwner(path string, flags int) string {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, flags, unix.STATX_BASIC_STATS, &st); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d:%d:%o", st.Uid, st.Gid, st.Mode&0o7777)
}

func probeOwners([]string) error {
	dir := "/owners"
	if err := first(enter(dir), touch("f"), os.Mkdir("d", 0o755), os.Symlink("nowhere", "l"), unix.Mkfifo("p", 0o644), touch("g")); err != nil {
		return err
	}
	if _, err := listenUnix("s"); err != nil {
		return err
	}
	f, err := os.Open("f")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := first(
		os.Chown("f", 1000, 1001), expect("file", ownerOf("f"), "1000:1001:644"),
		os.Chown("f", -1, 5), expect("group only", ownerOf("f"), "1000:5:644"),
		os.Chown("f", 7, -1), expect("user only", ownerOf("f"), "7:5:644"),
		expect("statx", statxOwner("f", 0), "7:5:644"),
		f.Chown(8, 9), expect("fchown", ownerOf("f"), "8:9:644"),
		unix.Fchownat(int(f.Fd()), "", 10, 11, unix.AT_EMPTY_PATH), expect("empty path", ownerOf("f"), "10:11:644"),
		os.Link("f", "hard"), expect("hard link", ownerOf("hard"), "10:11:644"),
		os.Rename("f", "f2"), expect("renamed", ownerOf("f2"), "10:11:644"),
		os.Chown("f2", 0, 0), expect("back to root", ownerOf("hard"), "0:0:644"),
		os.Chown("d", 1, 2), expect("directory", ownerOf("d"), "1:2:755"),
		os.Lchown("l", 3, 4), expect("dangling link", ownerOf("l"), "3:4:777"),
		os.Rename("l", "l2"), expect("renamed link", ownerOf("l2"), "3:4:777"),
		os.Lchown("p", 5, 6), expect("pipe", ownerOf("p"), "5:6:644"),
		os.Chmod("p", 0o600), expect("pipe's mode", ownerOf("p"), "5:6:600"),
		os.Lchown("s", 7, 8), expect("socket", ownerOf("s")[:4], "7:8:"),
		os.Chmod("g", 0o755|os.ModeSetuid|os.ModeSetgid), os.Chown("g", 1, 1), expect("bits go", ownerOf("g"), "1:1:755"),
		os.WriteFile("/dev/shm/f", nil, 0o644), os.Chown("/dev/shm/f", 21, 22), expect("tmpfs", ownerOf("/dev/shm/f"), "21:22:644"),
	); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := first(os.Chown("hard", 1, 1), unix.Fstat(int(f.Fd()), &st), expect("fstat", st.Uid, 1)); err != nil {
		return err
	}
	// A file that comes later may get the number of one that went.
	for i := range 50 {
		name := "link" + strconv.Itoa(i)
		if err := first(os.Symlink("x", name), expect("new link", ownerOf(name), "0:0:777"), os.Lchown(name, 9, 9), os.Remove(name)); err != nil {
			return err
		}
	}
	if err := os.Chown("missing", 1, 1); !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("chown of nothing: %v", err)
	}
	if err := unix.Fchownat(unix.AT_FDCWD, "f2", 1, 1, 0x8000); err != unix.EINVAL {
		return fmt.Errorf("chown with unknown flags: %v", err)
	}
	return os.Chown("/proc/self/fd/1", 5, 5)
}

func probeModes([]string) error {
	if err := first(enter("/modes"), touch("f"), touch("owned"), os.Mkdir("d", 0o755), os.Mkdir("shut", 0o500), os.Symlink("f", "l")); err != nil {
		return err
	}
	f, err := os.Open("f")
	if err != nil {
		return err
	}
	defer f.Close()
	return first(
		unix.Chmod("f", 0o4755), expect("setuid", ownerOf("f"), "0:0:4755"),
		unix.Fchmod(int(f.Fd()), 0o2711), expect("setgid by descriptor", ownerOf("f"), "0:0:2711"),
		unix.Chmod("l", 0o640), expect("through link", ownerOf("f"), "0:0:640"),
		unix.Chmod("d", 0o000), expect("shut directory", ownerOf("d"), "0:0:0"),
		unix.Chmod("d", 0o3777), expect("open directory", ownerOf("d"), "0:0:3777"),
		unix.Chmod("d", 0o1777), expect("sticky directory", ownerOf("d"), "0:0:1777"),
		expect("made shut", ownerOf("shut"), "0:0:500"),
		unix.Chown("owned", 1000, 1000), unix.Chmod("owned", 0o600), expect("recorded", ownerOf("owned"), "1000:1000:600"),
		unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), 0o4700), expect("by /proc/self/fd", ownerOf("f"), "0:0:4700"),
	)
}

// probeCreate runs as user 1000:1001.
func probeCreate([]string) error {
	if err := enter("/dev/shm"); err != nil {
		return err
	}
	unix.Umask(0o027)
	if err := first(probeCreateIn("tmpfs"), enter("/tmp")); err != nil {
		return err
	}
	return probeCreateIn("overlay")
}

func probeCreateIn(where string) error {
	make := func(name string, err error) error {
		return first(err, expect(where+" "+name, ownerOf(name)[:10], "1000:1001:"))
	}
	fd, err := unix.Open("file", unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o666)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err = first(err, expect("close-on-exec", flags, unix.FD_CLOEXEC)); err != nil {
		return err
	}
	if _, err := unix.Write(fd, []byte("hello")); err != nil {
		return err
	}
	fd2, err := unix.Openat2(unix.AT_FDCWD, "file2", &unix.OpenHow{Flags: unix.O_CREAT | unix.O_WRONLY, Mode: 0o600, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return err
	}
	unix.Close(fd2)
	unnamed, err := unix.Open(".", unix.O_TMPFILE|unix.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer unix.Close(unnamed)
	if err := first(
		expect(where+" file", ownerOf("file"), "1000:1001:640"),
		make("file2", nil),
		make("named", unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(unnamed), unix.AT_FDCWD, "named", unix.AT_SYMLINK_FOLLOW)),
		make("dir", unix.Mkdir("dir", 0o777)), expect("umask", ownerOf("dir"), "1000:1001:750"),
		make("shut", unix.Mkdir("shut", 0o100)), expect("shut", ownerOf("shut"), "1000:1001:100"),
		make("link", os.Symlink("x", "link")),
		make("pipe", unix.Mkfifo("pipe", 0o644)),
		make("slash", unix.Mkdir("slash/", 0o777)),
		second(listenUnix("socket")), make("socket", os.Chmod("socket", 0o700)), expect("socket", ownerOf("socket"), "1000:1001:700"),
		expect("bound twice", second(listenUnix("file")), error(unix.EADDRINUSE)), make("file", nil),
	); err != nil {
		return err
	}
	for what, got := range map[string]error{
		"mkdir that exists":   unix.Mkdir("dir", 0o777),
		"exclusive open":      second(unix.Open("file", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o666)),
		"symlink that exists": unix.Symlink("x", "link"),
		"mkdir .":             unix.Mkdir(".", 0o777),
	} {
		if got != unix.EEXIST {
			return fmt.Errorf("%s %s: %v", where, what, got)
		}
	}
	if err := unix.Mknod("device", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != unix.EPERM {
		return fmt.Errorf("mknod by a user: %v", err)
	}
	if err := unix.Chown("file", 0, 0); err != unix.EPERM {
		return fmt.Errorf("giving away: %v", err)
	}
	if err := unix.Chmod("/probe", 0o755); err != unix.EPERM {
		return fmt.Errorf("chmod of root's file: %v", err)
	}
	return first(unix.Chown("file", -1, 1001), unix.Chmod("file", 0o600), expect("own file", ownerOf("file"), "1000:1001:600"))
}

func second[T any](_ T, err error) error { return err }

// probeInherit checks what directories with S_ISGID do, for root.
func probeInherit([]string) error {
	if err := first(enter("/inherit"), os.Mkdir("d", 0o755), os.Chown("d", 0, 50), unix.Chmod("d", 0o2775)); err != nil {
		return err
	}
	return first(
		touch("d/f"), expect("file", ownerOf("d/f"), "0:50:644"),
		os.Mkdir("d/sub", 0o755), expect("directory", ownerOf("d/sub"), "0:50:2755"),
		os.Symlink("x", "d/l"), expect("link", ownerOf("d/l"), "0:50:777"),
		touch("d/sub/f"), expect("below", ownerOf("d/sub/f"), "0:50:644"),
	)
}

func probeDevices([]string) error {
	if err := enter("/devices"); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := first(
		unix.Mknod("n", unix.S_IFCHR|0o640, int(unix.Mkdev(1, 3))), unix.Stat("n", &st),
		expect("type", st.Mode, unix.S_IFCHR|0o640), expect("number", uint64(st.Rdev), unix.Mkdev(1, 3)),
		unix.Chown("n", 1, 6), expect("owner", ownerOf("n"), "1:6:640"),
		unix.Stat("n", &st), expect("type", st.Mode, unix.S_IFCHR|0o640),
		unix.Mknod("b", unix.S_IFBLK|0o600, int(unix.Mkdev(8, 300))), unix.Lstat("b", &st),
		expect("block", st.Mode, unix.S_IFBLK|0o600), expect("number", uint64(st.Rdev), unix.Mkdev(8, 300)),
		unix.Mknod("plain", unix.S_IFREG|0o4755, 0), expect("plain", ownerOf("plain"), "0:0:4755"),
	); err != nil {
		return err
	}
	var stx unix.Statx_t
	return first(unix.Statx(unix.AT_FDCWD, "n", 0, unix.STATX_BASIC_STATS, &stx), expect("statx", stx.Mode, unix.S_IFCHR|0o640), expect("statx", stx.Rdev_minor, 3))
}

func probeXattrs([]string) error {
	if err := first(enter("/xattrs"), touch("f"), os.Chmod("f", 0o755), os.Chown("f", 1, 1)); err != nil {
		return err
	}
	capability := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // revision 2, effective, cap_net_bind_service
	acl := []byte{2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 6, 0, 33, 0, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 6, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255}
	buf := make([]byte, 100)
	if err := first(
		unix.Setxattr("f", "user.containers.override_stat", []byte("9:9:0777:file"), 0), expect("record", ownerOf("f"), "1:1:755"),
		unix.Setxattr("f", "trusted.x", []byte("1"), 0),
		unix.Setxattr("f", "security.selinux", []byte("1"), 0),
		unix.Setxattr("f", "user.mine", []byte("1"), 0),
		unix.Setxattr("f", "system.posix_acl_access", acl, 0),
		unix.Setxattr("f", "security.capability", capability, 0),
		second(unix.Getxattr("f", "security.capability", buf)),
		second(unix.Getxattr("f", "user.mine", buf)),
		unix.Removexattr("f", "user.mine"),
	); err != nil {
		return err
	}
	if err := unix.Removexattr("f", "user.containers.override_stat"); err != unix.ENODATA {
		return fmt.Errorf("removing a record: %v", err)
	}
	if err := os.Chown("f", 2, 2); err != nil {
		return err
	}
	if _, err := unix.Getxattr("f", "security.capability", buf); err != unix.ENODATA {
		return fmt.Errorf("capability after chown: %v", err)
	}
	return nil
}

func probeRestart(args []string) error {
	if args[0] == "write" {
		return first(enter("/kept"), touch("f"), os.Chown("f", 1, 2), os.Symlink("x", "l"), os.Lchown("l", 3, 4),
			os.Mkdir("d", 0o755), os.Symlink("x", "d/moved"), os.Lchown("d/moved", 5, 6), os.Rename("d", "e"),
			os.Symlink("x", "gone"), os.Lchown("gone", 7, 8), os.Remove("gone"),
			os.Chown("/mnt/f", 9, 9), unix.Chmod("/mnt/f", 0o4755), expect("bind", ownerOf("/mnt/f"), "9:9:4755"),
			touch("/mnt/made"), os.Chown("/mnt/made", 10, 10), os.Symlink("x", "/mnt/l"), os.Lchown("/mnt/l", 11, 11), expect("bind", ownerOf("/mnt/l"), "11:11:777"),
			os.Rename("/mnt/made", "/mnt/other"), expect("bind", ownerOf("/mnt/other"), "10:10:644"), os.Rename("/mnt/other", "/mnt/made"))
	}
	if err := os.Chdir("/kept"); err != nil {
		return err
	}
	return first(expect("file", ownerOf("f"), "1:2:644"), expect("link", ownerOf("l"), "3:4:777"),
		expect("moved link", ownerOf("e/moved"), "5:6:777"), expect("bind", ownerOf("/mnt/f"), "0:0:755"), expect("bind", ownerOf("/mnt/l"), "0:0:777"))
}

func probeLayerTable(args []string) error {
	if args[0] == "first" {
		now := []unix.Timespec{{Sec: 1}, {Sec: 1}}
		return first(
			expect("kept", ownerOf("/kept"), "5:6:777"), expect("touched", ownerOf("/touched"), "5:6:777"),
			unix.UtimesNanoAt(unix.AT_FDCWD, "/touched", now, unix.AT_SYMLINK_NOFOLLOW), expect("touched", ownerOf("/touched"), "5:6:777"),
			os.Lchown("/changed", 7, 8), expect("changed", ownerOf("/changed"), "7:8:777"),
			os.Remove("/removed"), os.Symlink("x", "/removed"), expect("new", ownerOf("/removed"), "0:0:777"))
	}
	return first(expect("kept", ownerOf("/kept"), "5:6:777"), expect("touched", ownerOf("/touched"), "5:6:777"),
		expect("changed", ownerOf("/changed"), "7:8:777"), expect("new", ownerOf("/removed"), "0:0:777"))
}
