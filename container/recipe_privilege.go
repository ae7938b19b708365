// SPDX-License-Identifier: Apache-2.0

package container

import (
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"sbx/fakeroot"
	"sbx/userns"
)

// keptCapabilities are what a container's root has by default: Docker's without
// MKNOD, NET_RAW and AUDIT_WRITE, as rootless engines have settled on. All are
// relative to the container's user namespace.
var keptCapabilities = []struct {
	name string
	n    int
}{
	{"CAP_CHOWN", unix.CAP_CHOWN},
	{"CAP_DAC_OVERRIDE", unix.CAP_DAC_OVERRIDE},
	{"CAP_FOWNER", unix.CAP_FOWNER},
	{"CAP_FSETID", unix.CAP_FSETID},
	{"CAP_KILL", unix.CAP_KILL},
	{"CAP_NET_BIND_SERVICE", unix.CAP_NET_BIND_SERVICE},
	{"CAP_SETFCAP", unix.CAP_SETFCAP},
	{"CAP_SETGID", unix.CAP_SETGID},
	{"CAP_SETPCAP", unix.CAP_SETPCAP},
	{"CAP_SETUID", unix.CAP_SETUID},
	{"CAP_SYS_CHROOT", unix.CAP_SYS_CHROOT},
}

// giveUp turns mapped root into the user that the container was asked to run
// as, with the default capabilities at most.
//
// On `single` no_new_privs is set: a setuid bit has no effect there anyway, and
// it lets the filter come last. On `mapped` it would break sudo and su, so the
// filter is installed while CAP_SYS_ADMIN is still there, and must let the calls
// after it through, as Docker's profile does.
func (r *recipe) giveUp() {
	c, id := r.config, r.run.identity
	noNewPrivs := !c.Rung.IsMapped() || c.Privileges.NoNewPrivs
	r.limit()
	if !r.filterLast() {
		r.installFilter()
	}
	kept, err := c.Privileges.capabilities()
	if err != nil {
		kept = 0 // Create has checked them
	}
	if r.run.privileged {
		kept = 1<<(unix.CAP_LAST_CAP+1) - 1
	}
	for n := 0; n <= unix.CAP_LAST_CAP; n++ {
		if kept&(1<<n) == 0 {
			// A kernel that knows fewer capabilities says EINVAL.
			r.Call("drop capability from bounding set", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, n, 0, 0, 0).Ignore(unix.EINVAL)
		}
	}
	if c.Rung.IsMapped() {
		r.becomeMapped(id)
	} else if r.isForeign() && !r.run.beside { // see joinProgram
		r.becomeOnly(id)
	}
	if id.UID != 0 && !r.emulatesUsers() {
		kept = 0 // execve would clear them; nothing should see them before
	}
	r.setCapabilities(kept)
	if noNewPrivs {
		r.Call("set no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
}

// becomeMapped takes on IDs that the map holds.
func (r *recipe) becomeMapped(id Identity) {
	if len(id.Groups) > 0 && !id.KeepGroups {
		list := make([]uint32, len(id.Groups))
		copy(list, id.Groups)
		r.Keep(list)
		r.Call("set supplementary groups", unix.SYS_SETGROUPS, len(list), unsafe.Pointer(&list[0]))
	}
	r.Call("set group ID", unix.SYS_SETRESGID, id.GID, id.GID, id.GID)
	r.Call("set user ID", unix.SYS_SETRESUID, id.UID, id.UID, id.UID)
}

// becomeOnly makes the one real ID look like the asked for: a user namespace
// inside the container's, whose map holds just that. All files are then its own.
func (r *recipe) becomeOnly(id Identity) {
	r.Call("create user namespace", unix.SYS_UNSHARE, unix.CLONE_NEWUSER)
	r.shown(func() { userns.MapOne(r.Prog, int(id.UID), 0, int(id.GID), 0) })
}

func (r *recipe) setCapabilities(set uint64) {
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := &[2]unix.CapUserData{}
	for i := range data {
		word := uint32(set >> (32 * i))
		data[i].Effective, data[i].Permitted = word, word
	}
	r.Keep(data)
	r.Call("clear ambient capabilities", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	r.Call("set capabilities", unix.SYS_CAPSET, unsafe.Pointer(header), unsafe.Pointer(data))
}

// filterLast reports whether the filter is installed right before the program,
// which takes no_new_privs.
func (r *recipe) filterLast() bool {
	return !r.config.Rung.IsMapped() || r.config.Privileges.NoNewPrivs
}

// leaves reports whether the process may cease to be this binary before it executes
// the program: a filter from a file that is there by then need not let it.
func (r *recipe) leaves() bool {
	return r.filter.Allows(unix.SYS_FCNTL, unix.SYS_EXECVEAT, unix.SYS_RECVFROM)
}

func (r *recipe) installLastFilter() {
	if r.filterLast() {
		r.installFilter()
	}
}

func (r *recipe) installFilter() {
	if r.filter != nil {
		r.Call("install seccomp filter", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, r.filter.Flags(), r.filter.Fprog())
	}
}

// execute closes what is not the program's and becomes it: one attempt for each
// directory of PATH, as execvp(3) does. It comes to that in a process that is not
// this binary any more.
func (r *recipe) execute() {
	argv := r.run.args
	r.ResetSignals()
	r.CloseFrom(3)
	r.emulateRoot()
	r.EmptyMask()
	var keep []int
	if !r.run.beside {
		r.dieWithMonitor()
		r.closeMonitorsEnd()
		keep = append(keep, r.programEnd)
	}
	// What is not this binary any more can be traced by the container's other
	// processes: it is filtered by then.
	leaves := r.leaves()
	if leaves {
		r.installLastFilter()
		r.Leave(fakeroot.PassMark, keep...)
	}
	if !r.run.beside {
		r.awaitMonitor(leaves)
	}
	if !leaves {
		r.installLastFilter()
	}
	env := r.emulation.environment(r.run.env)
	paths := candidates(argv[0], env)
	for _, path := range paths {
		if len(paths) > 1 && !r.run.beside {
			// Root emulation answers every execve, and most directories have no such
			// file. For a program beside another it counts the attempts, see paths.
			r.Call(executeStep(argv[0]), unix.SYS_FACCESSAT, unix.AT_FDCWD, path, unix.F_OK).
				Ignore(unix.ENOENT, unix.EACCES, unix.ENOTDIR).Attempt().SkipOnIgnored(1)
		}
		r.Call(executeStep(argv[0]), unix.SYS_EXECVE, path, argv, env).
			Ignore(unix.ENOENT, unix.EACCES, unix.ENOTDIR).Attempt()
	}
	r.FailAttempts(executeStep(argv[0]))
}

// paths are those that execute tries, from the root.
func (e *execution) paths() []string {
	list := candidates(e.args[0], e.env)
	for i, path := range list {
		if !strings.HasPrefix(path, "/") {
			list[i] = e.dir + "/" + path
		}
	}
	return list
}

func executeStep(program string) string { return "execute " + program }

// candidates are the paths to try for a program's name.
func candidates(name string, env []string) []string {
	if strings.Contains(name, "/") {
		return []string{name}
	}
	path := defaultPath
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	var list []string
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		list = append(list, dir+"/"+name)
	}
	return list
}

// defaultPath is Docker's.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
