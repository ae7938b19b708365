// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"golang.org/x/sys/unix"

	"sbx/seccomp"
)

// call names a system call that the filter hands over, whatever its number.
type call uint8

const (
	callNone call = iota
	callStat
	callLstat
	callFstat
	callNewfstatat
	callStatx
	callOpen
	callOpenat
	callOpenat2
	callCreat
	callGetuid
	callGeteuid
	callGetgid
	callGetegid
	callGetresuid
	callGetresgid
	callGetgroups
	callSetuid
	callSetgid
	callSetreuid
	callSetregid
	callSetresuid
	callSetresgid
	callSetfsuid
	callSetfsgid
	callSetgroups
	callChown
	callLchown
	callFchown
	callFchownat
	callChmod
	callFchmod
	callFchmodat
	callFchmodat2
	callExecve
	callExecveat
	callMkdir
	callMkdirat
	callSymlink
	callSymlinkat
	callMknod
	callMknodat
	callSetxattr
	callLsetxattr
	callFsetxattr
	callSetxattrat
	callRemovexattr
	callLremovexattr
	callFremovexattr
	callRemovexattrat
	callGetsockopt
	callBind
	callPrctl
	callPrlimit
	callGetrlimit
	callSetrlimit
	callClone3
	callNewRoot // chroot, pivot_root, setns, unshare and clone of a mount namespace
	callCount
)

// group is what a call is trapped for; a mode takes some of them.
type group uint8

const (
	looks   group = 1 << iota // show owners by path: stat
	looksAt                   // show owners by descriptor, too: fstat
	skims                     // tell the two apart
	keeps                     // keep owners: chown, chmod, creation
	ids                       // show and change identities
)

// groups are those of a mode with a listener.
func (m Mode) groups() group {
	switch m {
	case Notify:
		return looks | looksAt | keeps | ids
	case NotifyFast:
		return looks | skims | keeps | ids
	case IDs:
		return keeps | ids
	}
	return 0
}

// trap is one row of the table: a system call by its name, and what must hold of
// its arguments for the filter to hand it over.
type trap struct {
	call  call
	group group
	name  string
	when  []seccomp.Test
}

// isValue and hasBits look at an argument's low half, as the kernel does where it
// declares an int.
func isValue(arg int, value uint32) seccomp.Test {
	return seccomp.Test{Arg: arg, Mask: seccomp.Low32, Op: seccomp.Equal, Value: uint64(value)}
}

func hasBits(arg int, bits uint32) seccomp.Test {
	return seccomp.Test{Arg: arg, Mask: uint64(bits), Op: seccomp.NotEqual}
}

func lacksBits(arg int, bits uint32) seccomp.Test {
	return seccomp.Test{Arg: arg, Mask: uint64(bits), Op: seccomp.Equal}
}

const (
	// creating are the flags of open(2) by which a file may come to be. The bit
	// of O_TMPFILE beside O_DIRECTORY is the same on every architecture of ours.
	creating = unix.O_CREAT | 0o20000000

	// deviceBit is in S_IFCHR and S_IFBLK, and in no other type that mknod(2) takes.
	deviceBit = unix.S_IFCHR
)

// traps is the table for programs of the machine's own architecture. A name that
// an architecture lacks is left out there.
var traps = []trap{
	{callOpenat, keeps, "openat", []seccomp.Test{hasBits(2, creating)}},
	{callNewfstatat, looksAt, "newfstatat", nil},
	{callFstat, looksAt, "fstat", nil},
	{callStatx, looksAt, "statx", nil},
	{callLstat, looks, "lstat", nil},
	{callStat, looks, "stat", nil},
	{callGeteuid, ids, "geteuid", nil},
	{callGetuid, ids, "getuid", nil},
	{callGetegid, ids, "getegid", nil},
	{callGetgid, ids, "getgid", nil},
	{callOpen, keeps, "open", []seccomp.Test{hasBits(1, creating)}},
	{callNewRoot, looks | keeps, "clone", []seccomp.Test{hasBits(0, unix.CLONE_NEWNS)}},
	{callClone3, looks | keeps, "clone3", nil},
	{callPrlimit, ids, "prlimit64", []seccomp.Test{isValue(1, unix.RLIMIT_LOCKS)}},
	{callGetsockopt, ids, "getsockopt", []seccomp.Test{isValue(1, unix.SOL_SOCKET), isValue(2, unix.SO_PEERCRED)}},
	{callBind, keeps, "bind", []seccomp.Test{{Arg: 2, Mask: seccomp.Low32, Op: seccomp.LessOrEqual, Value: 110}}},
	{callPrctl, ids, "prctl", []seccomp.Test{isValue(0, unix.PR_SET_KEEPCAPS)}},
	{callExecve, ids, "execve", nil},
	{callFchownat, keeps, "fchownat", nil},
	{callFchown, keeps, "fchown", nil},
	{callChown, keeps, "chown", nil},
	{callLchown, keeps, "lchown", nil},
	{callChmod, keeps, "chmod", nil},
	{callFchmod, keeps, "fchmod", nil},
	{callFchmodat, keeps, "fchmodat", nil},
	{callFchmodat2, keeps, "fchmodat2", nil},
	{callMkdir, keeps, "mkdir", nil},
	{callMkdirat, keeps, "mkdirat", nil},
	{callSymlink, keeps, "symlink", nil},
	{callSymlinkat, keeps, "symlinkat", nil},
	{callMknod, keeps, "mknod", nil},
	{callMknodat, keeps, "mknodat", nil},
	{callCreat, keeps, "creat", nil},
	{callOpenat2, keeps, "openat2", nil},
	{callSetxattr, keeps, "setxattr", nil},
	{callLsetxattr, keeps, "lsetxattr", nil},
	{callFsetxattr, keeps, "fsetxattr", nil},
	{callSetxattrat, keeps, "setxattrat", nil},
	{callRemovexattr, keeps, "removexattr", nil},
	{callLremovexattr, keeps, "lremovexattr", nil},
	{callFremovexattr, keeps, "fremovexattr", nil},
	{callRemovexattrat, keeps, "removexattrat", nil},
	{callGetresuid, ids, "getresuid", nil},
	{callGetresgid, ids, "getresgid", nil},
	{callGetgroups, ids, "getgroups", nil},
	{callSetuid, ids, "setuid", nil},
	{callSetgid, ids, "setgid", nil},
	{callSetreuid, ids, "setreuid", nil},
	{callSetregid, ids, "setregid", nil},
	{callSetresuid, ids, "setresuid", nil},
	{callSetresgid, ids, "setresgid", nil},
	{callSetfsuid, ids, "setfsuid", nil},
	{callSetfsgid, ids, "setfsgid", nil},
	{callSetgroups, ids, "setgroups", nil},
	{callExecveat, ids, "execveat", []seccomp.Test{{Arg: 5, Mask: seccomp.Low32, Op: seccomp.NotEqual, Value: PassMark}}},
	{callGetrlimit, ids, "getrlimit", []seccomp.Test{isValue(0, unix.RLIMIT_LOCKS)}},
	{callSetrlimit, ids, "setrlimit", []seccomp.Test{isValue(0, unix.RLIMIT_LOCKS)}},
	{callNewRoot, looks | keeps, "chroot", nil},
	{callNewRoot, looks | keeps, "pivot_root", nil},
	{callNewRoot, looks | keeps, "setns", nil},
	{callNewRoot, looks | keeps, "unshare", []seccomp.Test{hasBits(0, unix.CLONE_NEWNS)}},
	{callNewfstatat, skims, "newfstatat", []seccomp.Test{lacksBits(3, unix.AT_EMPTY_PATH)}},
	{callStatx, skims, "statx", []seccomp.Test{lacksBits(2, unix.AT_EMPTY_PATH)}},
}

// compatTrap is a row for programs of the machine's 32-bit architecture. Their
// calls differ in sizes of structures and IDs; those that would fail are said to
// have succeeded, and those whose arguments read alike are handed over.
type compatTrap struct {
	name string
	call call // callNone: success is faked
	when []seccomp.Test
}

var compatTraps = []compatTrap{
	{"execve", callExecve, nil},
	{"execveat", callExecveat, nil},
	{"chmod", callChmod, nil},
	{"fchmod", callFchmod, nil},
	{"fchmodat", callFchmodat, nil},
	{"fchmodat2", callFchmodat2, nil},
	{"chroot", callNewRoot, nil},
	{"pivot_root", callNewRoot, nil},
	{"setns", callNewRoot, nil},
	{"unshare", callNewRoot, []seccomp.Test{hasBits(0, unix.CLONE_NEWNS)}},
	{"setrlimit", callNone, []seccomp.Test{isValue(0, unix.RLIMIT_LOCKS)}},
	{"prlimit64", callNone, []seccomp.Test{isValue(1, unix.RLIMIT_LOCKS), hasBits(2, ^uint32(0))}},
}

// zeroNames are the calls that mode Zero says have succeeded; a 32-bit program has
// them in every mode. Each has a twin for IDs of 32 bits there.
var zeroNames = []string{
	"chown", "lchown", "fchown", "fchownat",
	"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups",
}

// deviceTraps are mknod(2) of a device. Type and number are tested: the device 0:0
// is a whiteout of overlayfs, which can be made.
var deviceTraps = []compatTrap{
	{"mknod", callNone, []seccomp.Test{hasBits(1, deviceBit), hasBits(2, ^uint32(0))}},
	{"mknodat", callNone, []seccomp.Test{hasBits(2, deviceBit), hasBits(3, ^uint32(0))}},
}
