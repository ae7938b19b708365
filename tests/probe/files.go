// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func cat(args []string) error {
	if len(args) == 0 {
		_, err := io.Copy(os.Stdout, os.Stdin)
		return err
	}
	for _, name := range args {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(os.Stdout, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// hold reads a file to its end: of a fifo, until its writers are gone.
func hold(args []string) error {
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, f)
	return err
}

// write writes text to a file: "write PATH TEXT". What is there is replaced.
func write(args []string) error {
	return os.WriteFile(args[0], []byte(strings.Join(args[1:], " ")+"\n"), 0o666)
}

// chown gives paths to a user and a group: "chown UID GID PATH...". Links are
// not followed.
func chown(args []string) error {
	uid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	for _, name := range args[2:] {
		if err := os.Lchown(name, uid, gid); err != nil {
			return err
		}
	}
	return nil
}

// owned makes a directory with one file of each kind in it, all of 5:6 and the
// plain one set-user-ID.
func owned(args []string) error {
	dir := args[0]
	in := func(name string) string { return filepath.Join(dir, name) }
	return errors.Join(
		os.Mkdir(dir, 0o750), os.WriteFile(in("file"), nil, 0o644), os.Symlink("nowhere", in("link")), unix.Mkfifo(in("pipe"), 0o600),
		chown([]string{"5", "6", dir, in("file"), in("link"), in("pipe")}), unix.Chmod(in("file"), 0o4755), unix.Chmod(dir, 0o2550),
	)
}

func mkdir(args []string) error { return os.Mkdir(args[0], 0o777) }

func remove(args []string) error { return os.RemoveAll(args[0]) }

// lure has a directory /into ready for what is copied, with what a hostile program
// would have there: "lure DECOY" makes a directory of the decoy's path in the container,
// "lure DECOY LINK" also a link to it in /into.
func lure(args []string) error {
	decoy := args[0]
	err := errors.Join(os.RemoveAll("/into"), os.RemoveAll(decoy), os.Mkdir("/into", 0o777), os.MkdirAll(decoy+"/sub", 0o777),
		os.WriteFile(decoy+"/secret", []byte("bait"), 0o666))
	if len(args) > 1 {
		err = errors.Join(err, os.Symlink(decoy, "/into/"+args[1]))
	}
	return err
}

// list prints the paths below a directory.
func list(args []string) error {
	root := "/"
	if len(args) > 0 {
		root = args[0]
	}
	entries, err := os.ReadDir(root)
	for _, e := range entries {
		fmt.Println(e.Name())
	}
	return err
}

// stat prints what a path is: type, mode, owner, size and where a link leads.
func stat(args []string) error {
	for _, name := range args {
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		link, _ := os.Readlink(name)
		fmt.Println(strings.TrimSpace(fmt.Sprintf("%s type=%s mode=%04o owner=%d:%d size=%d device=%d:%d links=%d %s", name, kind(st.Mode),
			st.Mode&0o7777, st.Uid, st.Gid, st.Size, unix.Major(st.Rdev), unix.Minor(st.Rdev), st.Nlink, link)))
	}
	return nil
}

func kind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "file"
	case unix.S_IFDIR:
		return "dir"
	case unix.S_IFLNK:
		return "link"
	case unix.S_IFCHR:
		return "char"
	case unix.S_IFBLK:
		return "block"
	case unix.S_IFIFO:
		return "fifo"
	}
	return "socket"
}

// descriptors lists what is open, but for what listing them opens.
func descriptors([]string) error {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		link, err := os.Readlink(filepath.Join("/proc/self/fd", n))
		// The runtime's own poller and the directory are this program's.
		if err != nil || strings.HasPrefix(link, "anon_inode:[event") || strings.HasSuffix(link, "/fd") {
			continue
		}
		fmt.Println(n, link)
	}
	return nil
}

// mounts prints a line for each mount: target, type, options.
func mounts([]string) error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		left, right, _ := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		fmt.Println(l[4], r[0], l[5], strings.Join(l[6:], ","))
	}
	return nil
}
