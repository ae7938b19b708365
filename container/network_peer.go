// SPDX-License-Identifier: Apache-2.0

package container

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// sameUser reports whether the other end of a connection on this machine belongs
// to a process of this process's user, by asking the kernel whose socket it is,
// sock_diag(7). It answers no where it cannot tell.
//
// Runs in: any user namespace; the kernel gives IDs as that sees them.
func sameUser(proto uint8, local, remote netip.AddrPort) bool {
	uid, err := socketOwner(proto, remote, local)
	return err == nil && uid == uint32(os.Getuid())
}

// socketOwner is the user whose socket is bound to local and connected to remote.
func socketOwner(proto uint8, local, remote netip.AddrPort) (uint32, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	request := ownerRequest(proto, local, remote)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, os.NewSyscallError("sendto", err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return 0, os.NewSyscallError("recvfrom", err)
	}
	return parseOwner(answer[:n])
}

// The layout of sock_diag's messages, linux/inet_diag.h.
const (
	sockDiagByFamily = 20
	sizeofDiagReq    = 56 // struct inet_diag_req_v2
	diagUID          = 4 + 48 + 4*3
)

// ownerRequest asks for the one socket of a pair of addresses.
func ownerRequest(proto uint8, local, remote netip.AddrPort) []byte {
	b := make([]byte, unix.SizeofNlMsghdr+sizeofDiagReq)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
	r := b[unix.SizeofNlMsghdr:]
	r[0], r[1] = family(local.Addr().Unmap()), proto
	binary.NativeEndian.PutUint32(r[4:], ^uint32(0)) // in any state
	id := r[8:]
	binary.BigEndian.PutUint16(id, local.Port())
	binary.BigEndian.PutUint16(id[2:], remote.Port())
	copy(id[4:20], local.Addr().Unmap().AsSlice())
	copy(id[20:36], remote.Addr().Unmap().AsSlice())
	for i := 40; i < 48; i++ {
		id[i] = 0xff // no cookie
	}
	return b
}

// parseOwner reads struct inet_diag_msg.
func parseOwner(answer []byte) (uint32, error) {
	if len(answer) < unix.SizeofNlMsghdr+4 {
		return 0, unix.EBADMSG
	}
	body := answer[unix.SizeofNlMsghdr:]
	switch kind := binary.NativeEndian.Uint16(answer[4:]); {
	case kind == unix.NLMSG_ERROR:
		return 0, fmt.Errorf("ask for socket: %w", unix.Errno(-int32(binary.NativeEndian.Uint32(body))))
	case kind != sockDiagByFamily || len(body) < diagUID+4:
		return 0, unix.EBADMSG
	}
	return binary.NativeEndian.Uint32(body[diagUID:]), nil
}
