// SPDX-License-Identifier: Apache-2.0

package container

import (
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"sbx/userns"
)

// stage mounts a small filesystem of the container's own for what is put
// together before the root is changed: the mount point of the root, the files
// for /etc and an empty directory to mask others with. It covers the directory
// of names, which every home has and no start needs; only in this namespace.
func (r *recipe) makeStage() {
	r.root, r.a, r.b, r.work = r.Reg(), r.Reg(), r.Reg(), r.Reg()
	const guard = unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV
	r.Call("mount stage", unix.SYS_MOUNT, "tmpfs", r.stage, "tmpfs", guard, "size=4m,mode=755")
	for _, dir := range []string{stageRoot, stageEmpty} {
		r.Call("create stage", unix.SYS_MKDIRAT, unix.AT_FDCWD, r.stage+dir, 0o755)
	}
	for _, f := range r.files {
		r.Call("create "+f.name, unix.SYS_OPENAT, unix.AT_FDCWD, r.stage+"/"+f.name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644).Into(r.work)
		r.Call("write "+f.name, unix.SYS_WRITE, r.work, []byte(f.text), len(f.text))
		r.Call("close "+f.name, unix.SYS_CLOSE, r.work)
	}
	r.Call("mount empty directory", unix.SYS_MOUNT, "tmpfs", r.stage+stageEmpty, "tmpfs", guard|unix.MS_RDONLY, "nr_blocks=1,nr_inodes=1")
}

// The directories of the stage.
const (
	stageRoot  = "/root"
	stageEmpty = "/empty"
)

// mountRoot mounts the root filesystem on the stage and enters it. Lower
// directories are named by descriptor: a page is all that the mount options may
// take, and store paths may hold colons and commas.
func (r *recipe) mountRoot() {
	c := r.config
	flags := r.guard()
	r.Call("change directory to "+r.dir, unix.SYS_CHDIR, r.dir)
	switch c.Root {
	case rootOverlay:
		var lower []string
		for i, dir := range c.Lower {
			r.Call("open layer "+dir, unix.SYS_OPENAT, unix.AT_FDCWD, dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).Into(r.work)
			r.place(r.work, slotLower+i)
			lower = append(lower, slot(slotLower+i))
		}
		options := "lowerdir=" + strings.Join(lower, ":") + ",upperdir=upper,workdir=work,userxattr"
		r.Call("mount overlay", unix.SYS_MOUNT, "overlay", r.stage+stageRoot, "overlay", flags, options)
	case rootCopy:
		r.bindRoot(filepath.Join(r.dir, "rootfs"))
	case rootDir:
		r.bindRoot(c.RootDir)
	}
	r.Call("change directory to root", unix.SYS_CHDIR, r.stage+stageRoot)
	r.Call("open root", unix.SYS_OPENAT, unix.AT_FDCWD, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).Into(r.root)
}

// guard is the flags that every mount of foreign files has: no devices, and on
// `single` no setuid, which would be the user's own for anyone (CVE-2021-41091).
func (r *recipe) guard() int {
	if r.config.Rung.IsMapped() {
		return unix.MS_NODEV
	}
	return unix.MS_NODEV | unix.MS_NOSUID
}

// bindRoot makes dir a mount point, which pivot_root needs.
func (r *recipe) bindRoot(dir string) {
	root := r.stage + stageRoot
	r.Call("bind "+dir, unix.SYS_MOUNT, dir, root, nil, unix.MS_BIND|unix.MS_REC, nil)
	r.Call("open root", unix.SYS_OPENAT, unix.AT_FDCWD, root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).Into(r.root)
	r.tighten(r.root, r.guard(), dir)
}

// tighten adds flags to the mount behind a descriptor, and to those below it, of
// which each is a bit of mount(2) and of mount_setattr(2) alike. Kernels before 5.12
// lack that call: there the one mount is remounted, with the flags of the source that
// it shows, which a user namespace may not take away (mount_namespaces(7)).
func (r *recipe) tighten(at userns.Reg, flags int, source string) {
	attr := &unix.MountAttr{Attr_set: uint64(flags)}
	r.Call("set mount attributes", unix.SYS_MOUNT_SETATTR, at, "",
		unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, unsafe.Pointer(attr), unsafe.Sizeof(*attr)).Ignore(unix.ENOSYS).SkipOnSuccess(2)
	r.place(at, slotTarget)
	r.Call("set mount flags", unix.SYS_MOUNT, nil, slot(slotTarget), nil, unix.MS_REMOUNT|unix.MS_BIND|flags|mountFlags(source), nil)
}

// place duplicates a descriptor to a fixed number.
func (r *recipe) place(from userns.Reg, to int) {
	r.Call("place descriptor", unix.SYS_DUP3, from, to, unix.O_CLOEXEC)
}

func how(flags, resolve uint64) unsafe.Pointer {
	return unsafe.Pointer(&unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve})
}

const howSize = int(unsafe.Sizeof(unix.OpenHow{}))

const (
	inRoot   = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	noLinks  = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	pathOnly = unix.O_PATH
	dirOnly  = unix.O_PATH | unix.O_DIRECTORY
)

func (r *recipe) openIn(name, file string, flags, resolve uint64) userns.Step {
	return r.Call(name, unix.SYS_OPENAT2, r.root, file, how(flags, resolve), howSize)
}

// directory opens the directory at a path of the container into register a, and
// makes what is missing of it, all within the root.
func (r *recipe) directory(target, name string) {
	parts := split(target)
	whole := strings.Join(parts, "/")
	if whole == "" {
		whole = "."
	}
	n := len(parts)
	r.openIn(name, whole, dirOnly, inRoot).Into(r.a).Ignore(unix.ENOENT).SkipOnSuccess(1 + 4*n)
	r.openIn(name, ".", dirOnly, inRoot).Into(r.b)
	for i := range parts {
		prefix := strings.Join(parts[:i+1], "/")
		r.openIn(name, prefix, dirOnly, inRoot).Into(r.a).Ignore(unix.ENOENT).SkipOnSuccess(2)
		r.Call(name, unix.SYS_MKDIRAT, r.b, parts[i], 0o755).Ignore(unix.EEXIST)
		r.openIn(name, prefix, dirOnly, inRoot).Into(r.a)
		r.Call(name, unix.SYS_FCNTL, r.a, unix.F_DUPFD_CLOEXEC, 20).Into(r.b)
	}
}

// file opens the file at a path of the container into register a, and makes an
// empty one where there is nothing.
func (r *recipe) file(target, name string) {
	parts := split(target)
	if len(parts) == 0 {
		parts = []string{"."}
	}
	whole := strings.Join(parts, "/")
	parents := len(parts) - 1
	r.openIn(name, whole, pathOnly, inRoot).Into(r.a).Ignore(unix.ENOENT).SkipOnSuccess(2 + 4*parents + 2)
	r.directory(path.Join(parts[:parents]...), name)
	// A dangling link is left alone, and the open below says so. An open file
	// would keep the root from becoming read-only.
	r.Call(name, unix.SYS_MKNODAT, r.a, parts[parents], unix.S_IFREG|0o644, 0).Ignore(unix.EEXIST)
	r.openIn(name, whole, pathOnly, inRoot).Into(r.a)
}

func split(p string) []string {
	return strings.FieldsFunc(path.Clean("/"+p), func(c rune) bool { return c == '/' })
}

// mount mounts m. The target is opened in the root and mounted on by descriptor:
// an image's links lead nowhere but inside (CVE-2021-30465).
func (r *recipe) mount(m Mount) {
	name := "mount " + m.Target
	switch {
	case m.Type == Tmpfs:
		r.directory(m.Target, name)
		r.place(r.a, slotTarget)
		options, flags := tmpfsOptions(m)
		r.Call(name, unix.SYS_MOUNT, "tmpfs", slot(slotTarget), "tmpfs", flags, options)
	case m.isDirectory():
		r.directory(m.Target, name)
		r.bind(m, name)
	default:
		r.file(m.Target, name)
		r.bind(m, name)
	}
}

// isDirectory reports whether a directory is to be bound. A part of a volume that
// only the container's users may look at is taken for one.
func (m Mount) isDirectory() bool {
	if m.Subpath == "" {
		return isDirectory(m.Source)
	}
	var st unix.Stat_t
	err := unix.Stat(filepath.Join(m.Source, m.Subpath), &st)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR || err == unix.EACCES
}

// source is the path to bind. What lies in a volume was put there by containers,
// so it is opened beneath the volume: a link in it leads nowhere else.
func (r *recipe) source(m Mount, name string) string {
	if m.Subpath == "" {
		return m.Source
	}
	r.Call(name, unix.SYS_OPENAT, unix.AT_FDCWD, m.Source, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).Into(r.work)
	r.Call(name, unix.SYS_OPENAT2, r.work, m.Subpath, how(pathOnly, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_MAGICLINKS), howSize).Into(r.work)
	r.place(r.work, slotSource)
	return slot(slotSource)
}

func (r *recipe) bind(m Mount, name string) {
	r.place(r.a, slotTarget)
	r.Call(name, unix.SYS_MOUNT, r.source(m, name), slot(slotTarget), nil, unix.MS_BIND|unix.MS_REC, nil)
	// The descriptor still names what lies below the new mount.
	r.openIn(name, strings.Join(split(m.Target), "/"), pathOnly, inRoot).Into(r.a)
	flags := unix.MS_NOSUID | unix.MS_NODEV
	if m.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	r.tighten(r.a, flags, m.Source)
}

// remountReadOnly makes one mount read-only. Flags that the source has must be
// given again: a user namespace may not take them away (mount_namespaces(7)).
func (r *recipe) remountReadOnly(target string, flags int) {
	r.Call("remount "+target+" read-only", unix.SYS_MOUNT, nil, target, nil,
		unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|r.guard()|flags, nil)
}

// mountFlags are the flags of the mount that holds a path, as mount(2) takes them.
func mountFlags(name string) int {
	var st unix.Statfs_t
	if unix.Statfs(name, &st) != nil {
		return 0
	}
	// ST_* of statfs(2) and MS_* agree for these (linux/statfs.h).
	return int(st.Flags) & (unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_RELATIME)
}

func isDirectory(name string) bool {
	var st unix.Stat_t
	return unix.Stat(name, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// sorted puts mounts whose target lies in another's after it.
func sorted(mounts []Mount) []Mount {
	out := slices.Clone(mounts)
	slices.SortStableFunc(out, func(a, b Mount) int { return len(split(a.Target)) - len(split(b.Target)) })
	return out
}

// tmpfsOptions parts mount options into flags and the filesystem's own.
func tmpfsOptions(m Mount) (string, int) {
	flags := unix.MS_NOSUID | unix.MS_NODEV
	if m.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	var own []string
	mode := false
	for o := range strings.SplitSeq(m.Options, ",") {
		switch o {
		case "", "rw", "nosuid", "nodev", "suid", "dev", "exec", "defaults":
		case "ro":
			flags |= unix.MS_RDONLY
		case "noexec":
			flags |= unix.MS_NOEXEC
		case "noatime":
			flags |= unix.MS_NOATIME
		default:
			mode = mode || strings.HasPrefix(o, "mode=")
			own = append(own, o)
		}
	}
	if !mode {
		own = append(own, "mode=1777")
	}
	return strings.Join(own, ","), flags
}

// bindFiles mounts the files that every container gets, see hostFiles. One that the image makes impossible (a link
// that leads nowhere, a directory in its place) is left out.
func (r *recipe) bindFiles() {
	if r.config.Root == rootDir && r.config.ReadOnly {
		return // nothing may be made in the user's directory
	}
	for _, f := range r.files {
		name := f.name
		what := "mount /etc/" + name
		r.openIn(what, "etc", dirOnly, inRoot).Into(r.b).Ignore(unix.ENOENT).SkipOnSuccess(2)
		r.Call(what, unix.SYS_MKDIRAT, r.root, "etc", 0o755).Any()
		r.openIn(what, "etc", dirOnly, inRoot).Into(r.b).Any().SkipOnIgnored(5)
		r.openIn(what, "etc/"+name, pathOnly, inRoot).Into(r.a).Any().SkipOnSuccess(2)
		r.Call(what, unix.SYS_MKNODAT, r.b, name, unix.S_IFREG|0o644, 0).Any()
		r.openIn(what, "etc/"+name, pathOnly, inRoot).Into(r.a).Any().SkipOnIgnored(2)
		r.place(r.a, slotTarget)
		r.Call(what, unix.SYS_MOUNT, r.stage+"/"+name, slot(slotTarget), nil, unix.MS_BIND, nil).Any()
	}
}
