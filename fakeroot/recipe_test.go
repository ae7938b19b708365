// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"sbx/userns"
)

// program is the start of the container: a short form of what package container
// does, in the same order.
func (w *world) program(null, out, channel int, argv []string) *userns.Prog {
	b := &userns.Prog{}
	flags := unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	if !w.hostNetwork {
		flags |= unix.CLONE_NEWNET
	}
	b.Call("unshare", unix.SYS_UNSHARE, flags)
	b.Call("die with monitor", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
	b.Call("setsid", unix.SYS_SETSID)
	b.Call("umask", unix.SYS_UMASK, 0)
	b.Call("private", unix.SYS_MOUNT, nil, "/", nil, unix.MS_REC|unix.MS_PRIVATE, nil)
	b.Call("chdir world", unix.SYS_CHDIR, w.dir)
	b.Call("overlay", unix.SYS_MOUNT, "overlay", "merged", "overlay", unix.MS_NODEV|unix.MS_NOSUID,
		"lowerdir="+w.lower+",upperdir=upper,workdir=work,userxattr")
	b.Call("chdir root", unix.SYS_CHDIR, "merged")
	b.Call("proc", unix.SYS_MOUNT, "proc", "proc", "proc", 0, nil)
	b.Call("dev", unix.SYS_MOUNT, "tmpfs", "dev", "tmpfs", unix.MS_NOSUID, "mode=755")
	r := b.Reg()
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty", "fuse"} {
		b.Call("create node", unix.SYS_OPENAT, unix.AT_FDCWD, "dev/"+name, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o666).Into(r)
		b.Call("close", unix.SYS_CLOSE, r)
		b.Call("bind node", unix.SYS_MOUNT, "/dev/"+name, "dev/"+name, nil, unix.MS_BIND, nil).Ignore(unix.ENOENT)
	}
	for _, l := range [][2]string{{"/proc/self/fd", "dev/fd"}, {"/proc/self/fd/0", "dev/stdin"}, {"/proc/self/fd/1", "dev/stdout"}, {"/proc/self/fd/2", "dev/stderr"}, {"pts/ptmx", "dev/ptmx"}} {
		b.Call("link", unix.SYS_SYMLINKAT, l[0], unix.AT_FDCWD, l[1])
	}
	for _, m := range [][3]string{{"dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=0620"}, {"dev/shm", "tmpfs", "mode=1777"}} {
		b.Call("mkdir", unix.SYS_MKDIRAT, unix.AT_FDCWD, m[0], 0o755)
		b.Call("mount "+m[0], unix.SYS_MOUNT, m[1], m[0], m[1], unix.MS_NOSUID, m[2])
	}
	for _, bind := range w.binds {
		b.Call("mkdir", unix.SYS_MKDIRAT, unix.AT_FDCWD, strings.TrimPrefix(bind[1], "/"), 0o755).Ignore(unix.EEXIST)
		b.Call("bind", unix.SYS_MOUNT, bind[0], strings.TrimPrefix(bind[1], "/"), nil, unix.MS_BIND, nil)
	}
	b.Call("pivot", unix.SYS_PIVOT_ROOT, ".", ".")
	b.Call("detach", unix.SYS_UMOUNT2, ".", unix.MNT_DETACH)
	b.Call("chdir /", unix.SYS_CHDIR, "/")
	b.Call("hostname", unix.SYS_SETHOSTNAME, []byte("world"), 5)
	b.Call("umask", unix.SYS_UMASK, 0o022)
	if w.softLocks != 0 {
		b.Call("limit", unix.SYS_PRLIMIT64, 0, unix.RLIMIT_LOCKS, unsafe.Pointer(&unix.Rlimit{Cur: w.softLocks, Max: unix.RLIM_INFINITY}), nil)
	}
	for fd, from := range []int{null, out, out} {
		b.Call("stdio", unix.SYS_DUP3, from, fd, 0)
	}
	w.giveUp(b)
	w.finish(b, channel, argv)
	return b
}

func (w *world) giveUp(b *userns.Prog) {
	if w.keepCaps != 0 {
		for n := 0; n <= unix.CAP_LAST_CAP; n++ {
			if w.keepCaps&(1<<n) == 0 {
				b.Call("drop", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, n, 0, 0, 0).Ignore(unix.EINVAL)
			}
		}
		data := &[2]unix.CapUserData{}
		for i := range data {
			data[i].Effective = uint32(w.keepCaps >> (32 * i))
			data[i].Permitted = data[i].Effective
		}
		b.Keep(data)
		b.Call("capset", unix.SYS_CAPSET, unsafe.Pointer(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}), unsafe.Pointer(data))
	}
	b.Call("no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	b.ResetSignals()
	b.CloseFrom(3)
}

// finish installs the filter, sends its listener and executes.
func (w *world) finish(b *userns.Prog, channel int, argv []string) {
	program, err := Filter(w.mode)
	w.must(err)
	if program != nil {
		fprog := program.Fprog()
		b.Keep(program)
		if w.mode.Listens() {
			l := b.Reg()
			b.Call("install filter", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, w.features.FilterFlags(), unsafe.Pointer(fprog)).Into(l)
			sendDescriptor(b, channel, `{"what":"listener"}`, l)
			b.Call("close listener", unix.SYS_CLOSE, l)
		} else {
			b.Call("install filter", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, unsafe.Pointer(fprog))
		}
	}
	b.EmptyMask()
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	if w.mode == Zero {
		env = append(env, "APT_CONFIG=/etc/apt-zero.conf")
	}
	b.Call("execute "+argv[0], unix.SYS_EXECVE, argv[0], argv, env)
}

// sendDescriptor is recipe.send of package container.
func sendDescriptor(b *userns.Prog, socket int, message string, fd userns.Reg) {
	text := []byte(message)
	iov := &unix.Iovec{Base: &text[0]}
	iov.SetLen(len(text))
	control := make([]byte, unix.CmsgSpace(4))
	header := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	header.Level, header.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
	header.SetLen(unix.CmsgLen(4))
	msg := &unix.Msghdr{Iov: iov, Control: &control[0]}
	msg.SetIovlen(1)
	msg.SetControllen(len(control))
	b.Keep(text)
	b.Keep(iov)
	b.Store((*int32)(unsafe.Pointer(&control[unix.CmsgLen(0)])), fd)
	b.Call("send descriptor", unix.SYS_SENDMSG, socket, unsafe.Pointer(msg), unix.MSG_NOSIGNAL)
}
