// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// settleTime is how long a monitor has nobody to serve until it gives back what
// only that needed. A container that is short pays nothing for it.
const settleTime = time.Second

// settle gives back this process's share of the binary's pages, most of which only
// a start or a request has touched: they are in the page cache, and those that are
// needed again come from there. The kernel maps sixteen at a time, so that they are
// the greater part of what a monitor is counted for.
func settle() {
	mappings, err := readFile("/proc/self/smaps")
	if err != nil {
		return
	}
	for _, r := range cleanRanges(mappings) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, r.start, r.end-r.start, unix.MADV_DONTNEED)
	}
}

// addresses are a range of this process's memory.
type addresses struct{ start, end uintptr }

// cleanRanges are the mappings in a file of the form of /proc/PID/smaps (proc(5))
// that can be read from their file again: none of their pages has ever been
// written, and none can be now.
func cleanRanges(smaps []byte) []addresses {
	var list []addresses
	var current addresses
	for line := range bytes.Lines(smaps) {
		f := bytes.Fields(line)
		switch {
		case len(f) == 3 && string(f[0]) == "Anonymous:":
			if current.end != 0 && string(f[1]) == "0" {
				list = append(list, current)
			}
			current = addresses{}
		case len(f) == 6 && f[5][0] == '/' && !bytes.ContainsRune(f[1], 'w'): // range, permissions, offset, device, inode, path
			current = parseAddresses(f[0])
		case len(f) >= 5 && bytes.ContainsRune(f[0], '-'):
			current = addresses{}
		}
	}
	return list
}

// parseAddresses reads START-END; it is empty where that does not parse.
func parseAddresses(text []byte) addresses {
	low, high, _ := bytes.Cut(text, []byte("-"))
	start, errStart := strconv.ParseUint(string(low), 16, strconv.IntSize)
	end, errEnd := strconv.ParseUint(string(high), 16, strconv.IntSize)
	if errStart != nil || errEnd != nil || start >= end {
		return addresses{}
	}
	return addresses{uintptr(start), uintptr(end)}
}
