// SPDX-License-Identifier: Apache-2.0

package userns

import (
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Retitle adds a change of what ps(1) shows of the process that runs the program:
// its arguments, and its name. Its memory is a copy of this process's, whose
// arguments the kernel reads where it put them at the execve (proc(5), cmdline).
// What is longer than there is room for is cut.
func (p *Prog) Retitle(name string, args []string) {
	own := contiguous(os.Args)
	// The runtime has copied the environment from behind the arguments, and nobody here
	// makes it longer.
	environment := 0
	for _, v := range os.Environ() {
		environment += len(v) + 1
	}
	p.Call("change name", unix.SYS_PRCTL, unix.PR_SET_NAME, name, 0, 0, 0).Any()
	text := title(args, own, environment)
	if len(text) == 0 {
		return
	}
	// Written as another process would: the memory of this one is not the program's to name.
	from := &unix.Iovec{Base: &text[0]}
	from.SetLen(len(text))
	to := &unix.Iovec{Base: unsafe.StringData(os.Args[0])}
	to.SetLen(len(text))
	p.Keep(text)
	p.Keep(from)
	p.Keep(to)
	self := p.Reg()
	p.Call("find own process", unix.SYS_GETPID).Into(self)
	p.Call("change arguments", unix.SYS_PROCESS_VM_WRITEV, self, unsafe.Pointer(from), 1, unsafe.Pointer(to), 1, 0).Any()
}

// contiguous is how many bytes these strings have, each with its NUL, as long as
// they stand one behind the other.
func contiguous(list []string) int {
	n := 0
	for _, s := range list {
		if len(s) == 0 || unsafe.Pointer(unsafe.StringData(s)) != unsafe.Add(unsafe.Pointer(unsafe.StringData(list[0])), n) {
			break
		}
		n += len(s) + 1
	}
	return n
}

// title is what to write over arguments of so many bytes, which the environment
// follows. The kernel takes arguments that end in no NUL for one text, which goes on
// over the environment (setproctitle(3)).
func title(args []string, own, environment int) []byte {
	text := strings.Join(args, "\x00") + "\x00"
	if len(text) > own {
		text = strings.Join(args, " ")
		text = text[:min(len(text), max(own+environment-1, 0))] + "\x00"
	}
	if own == 0 {
		return nil
	}
	return append([]byte(text), make([]byte, max(own-len(text), 0))...)
}
