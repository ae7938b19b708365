// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// types tries to type text into every terminal that it can name or has open: what it
// has, what other processes have, and what is in /dev.
func types(args []string) error {
	var names []string
	for _, pattern := range []string{"/proc/self/fd/*", "/dev/tty", "/dev/console", "/dev/tty[0-9]*", "/dev/pts/*", "/proc/[0-9]*/fd/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		names = append(names, found...)
	}
	for _, name := range names {
		// A fifo would be waited for; only a terminal has a use for this.
		fd, err := unix.Open(name, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		typeInto(name, fd, args[0])
		unix.Close(fd)
	}
	for fd := range 3 {
		typeInto(fmt.Sprint("descriptor ", fd), fd, args[0])
	}
	_, err := fmt.Fprintln(os.Stdout, "tried", len(names))
	return err
}

// typeInto types by each of the requests that do that, with bits that the kernel does
// not look at, too.
func typeInto(name string, fd int, text string) {
	for _, request := range []uintptr{unix.TIOCSTI, unix.TIOCSTI | 1<<32} {
		done := 0
		for i := range []byte(text) {
			b := text[i]
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&b))); errno == 0 {
				done++
			}
		}
		if done > 0 {
			fmt.Printf("%s, request %x: done %d\n", name, request, done)
		}
	}
	const paste = 3 // of TIOCLINUX, ioctl_console(2)
	sub := [2]byte{paste}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCLINUX, uintptr(unsafe.Pointer(&sub))); errno == 0 {
		fmt.Println(name + ", paste: done")
	}
}
