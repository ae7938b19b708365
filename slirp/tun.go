// SPDX-License-Identifier: Apache-2.0

package slirp

import "golang.org/x/sys/unix"

// TUNRequest is the struct ifreq for TUNSETIFF that makes a device, or adds a
// queue to it, as Link wants it. Each queue is a descriptor of its own of
// /dev/net/tun, opened inside the container's network namespace.
func TUNRequest(name string, queues int) [40]byte {
	var ifreq [40]byte
	copy(ifreq[:unix.IFNAMSIZ-1], name)
	flags := uint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if queues > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	ifreq[16], ifreq[17] = byte(flags), byte(flags>>8)
	return ifreq
}
