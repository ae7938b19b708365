// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"crypto/rand"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// CheckXattr finds out whether files in dir can have user attributes, by giving
// one to a file. Records need them.
func CheckXattr(dir *os.File) error {
	defer runtime.KeepAlive(dir)
	fd := int(dir.Fd())
	name := ".sbx-check-" + rand.Text()
	file, err := openat(fd, name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return named("create "+dir.Name()+"/"+name, err)
	}
	defer func() {
		unix.Close(file)
		_ = unix.Unlinkat(fd, name, 0)
	}()
	err = unix.Fsetxattr(file, RecordXattr, []byte((Owner{UID: 1, Mode: 0o644}).Record()), 0)
	if err == nil {
		return nil
	}
	return &FeatureError{
		Feature: "user attributes", Where: dir.Name(), Err: err,
		Remedy: "put SBX_HOME on a filesystem with user attributes: ext4, xfs, btrfs, or tmpfs since Linux 6.6",
	}
}

// CheckWhiteout finds out whether dir can hold the whiteouts of overlayfs, by
// making one.
func CheckWhiteout(dir *os.File) error {
	defer runtime.KeepAlive(dir)
	fd := int(dir.Fd())
	name := ".sbx-check-" + rand.Text()
	err := unix.Mknodat(fd, name, unix.S_IFCHR, 0)
	if err == nil {
		return named("remove "+dir.Name()+"/"+name, unix.Unlinkat(fd, name, 0))
	}
	return &FeatureError{
		Feature: "whiteouts", Where: dir.Name(), Err: err,
		Remedy: "whiteouts need Linux 5.8 and a filesystem with device nodes; without them images are copied",
	}
}
