// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"encoding/binary"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// peerCredentials is getsockopt(2) for SO_PEERCRED: who is at the other end of a
// local socket. The kernel says root of every process; the process itself tells
// who it is now. When it is gone, the kernel's answer stands.
func (w *worker) peerCredentials(n *notification, fd int32, to, size uint64) answer {
	var room uint32
	if readMemory(n.PID, size, bytesOf(&room)) != 0 {
		return natively
	}
	peer, ok := w.peer(n, fd)
	if !ok {
		return natively
	}
	theirs, errno := w.s.interned.of(uint32(peer.Pid))
	if errno != 0 {
		return natively
	}
	pid, ok := asSeenBy(n.PID, uint32(peer.Pid))
	if !ok {
		return natively
	}
	answer := unix.Ucred{Pid: pid, Uid: theirs.EUID, Gid: theirs.EGID}
	data := bytesOf(&answer)
	data = data[:min(len(data), int(room))]
	if errno := writeMemory(n.PID, to, data); errno != 0 {
		return failure(errno)
	}
	room = uint32(len(data))
	return outcome(writeMemory(n.PID, size, bytesOf(&room)))
}

// peer asks the kernel about a socket of the process. The pid that it says is one
// of our own pid namespace.
func (w *worker) peer(n *notification, fd int32) (*unix.Ucred, bool) {
	status, err := os.ReadFile(pidPath(n.PID, "/status"))
	if err != nil {
		return nil, false
	}
	leader, err := strconv.Atoi(field(status, "Tgid"))
	if err != nil {
		return nil, false
	}
	pidfd, err := unix.PidfdOpen(leader, 0)
	if err != nil {
		return nil, false
	}
	defer unix.Close(pidfd)
	socket, err := unix.PidfdGetfd(pidfd, int(fd), 0)
	if err != nil {
		return nil, false
	}
	defer unix.Close(socket)
	cred, err := unix.GetsockoptUcred(socket, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || cred.Pid <= 0 {
		return nil, false
	}
	return cred, true
}

// asSeenBy translates a pid of ours into the pid namespace of a process. The line
// NSpid of proc(5) has one number for each namespace from the procfs's down.
func asSeenBy(viewer, pid uint32) (int32, bool) {
	theirs, err := os.ReadFile(pidPath(viewer, "/status"))
	if err != nil {
		return 0, false
	}
	peers, err := os.ReadFile(pidPath(pid, "/status"))
	if err != nil {
		return 0, false
	}
	depth := len(strings.Fields(field(theirs, "NSpid")))
	numbers := strings.Fields(field(peers, "NSpid"))
	if depth == 0 || len(numbers) < depth {
		return 0, false
	}
	n, err := strconv.ParseInt(numbers[depth-1], 10, 32)
	return int32(n), err == nil
}

// field is the value of a line of /proc/PID/status.
func field(status []byte, name string) string {
	_, rest, _ := strings.Cut("\n"+string(status), "\n"+name+":")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

// limitOfLocks is prlimit(2) and getrlimit(2) for RLIMIT_LOCKS, in which
// credentials are kept: it shows as unlimited, and what is set is forgotten.
func (w *worker) limitOfLocks(n *notification, to uint64) answer {
	if to == 0 {
		return success
	}
	var data [16]byte
	binary.NativeEndian.PutUint64(data[:8], unix.RLIM_INFINITY)
	binary.NativeEndian.PutUint64(data[8:], unix.RLIM_INFINITY)
	return outcome(writeMemory(n.PID, to, data[:]))
}
