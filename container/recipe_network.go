// SPDX-License-Identifier: Apache-2.0

package container

import (
	"encoding/binary"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"sbx/slirp"
	"sbx/userns"
)

// The devices of a container's network namespace.
const (
	guestDevice = "eth0"
	farDevice   = "sbx0" // of a veth pair, in a namespace of its own
)

// maxQueues bounds how many loops move packets at once.
const maxQueues = 4

// sentDevice is what the message with the device's descriptors says.
const sentDevice = "device"

// network makes the namespace usable: loopback up, low ports and ping for every
// user, as on Docker; and the device, whose other side is the engine's.
//
// Packets that the program sends before the engine has started wait in the
// device's queue.
func (r *recipe) network() {
	if !r.ownsNetwork() {
		return
	}
	request := ifreq("lo")
	request[16] = unix.IFF_UP
	r.Call("open socket", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0).Into(r.work)
	r.Call("set loopback up", unix.SYS_IOCTL, r.work, unix.SIOCSIFFLAGS, request)
	last := uint64(0) // ranges may name mapped groups only
	for _, g := range r.config.Rung.GIDs {
		last += uint64(g.Count)
	}
	r.sysctl("net/ipv4/ip_unprivileged_port_start", "0")
	r.sysctl("net/ipv4/ping_group_range", "0 "+strconv.FormatUint(last, 10))
	if len(r.net.Places) == 0 {
		return
	}
	r.configure(r.makeDevice())
}

// makeDevice makes the device and returns a netlink socket of its namespace.
func (r *recipe) makeDevice() userns.Reg {
	socket := r.Reg()
	r.Call("open netlink socket", unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE).Into(socket)
	if r.net.Packet {
		r.makeVeth(socket)
	} else {
		r.makeTUN()
	}
	return socket
}

// ownsNetwork reports whether the container has a network namespace of its own.
func (r *recipe) ownsNetwork() bool {
	return r.config.Network != NetworkHost && r.others.net == 0
}

// ifreq is a struct ifreq, netdevice(7).
func ifreq(device string) []byte {
	request := make([]byte, 40)
	copy(request[:unix.IFNAMSIZ-1], device)
	return request
}

// makeTUN makes the device with a descriptor for each loop of the engine, and
// sends them to the monitor. It is persistent, for unregistering a device when
// the last descriptor closes takes 10-40 ms; the end of its namespace removes it.
func (r *recipe) makeTUN() {
	n := max(r.net.Queues, 1)
	request := slirp.TUNRequest(guestDevice, n)
	queues := make([]userns.Reg, n)
	for i := range queues {
		queues[i] = r.Reg()
		r.Call(openTUN, unix.SYS_OPENAT, unix.AT_FDCWD, "/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0).Into(queues[i])
		r.Call(createTUN, unix.SYS_IOCTL, queues[i], unix.TUNSETIFF, request[:])
	}
	r.Call("keep "+guestDevice, unix.SYS_IOCTL, queues[0], unix.TUNSETPERSIST, 1)
	r.send(r.programEnd, `{"what":"`+sentDevice+`"}`, queues...)
	for _, q := range queues {
		r.Call("close", unix.SYS_CLOSE, q)
	}
}

// The steps that fail where there is no tun.
const (
	openTUN   = "open /dev/net/tun"
	createTUN = "create tun device"
)

// farEnd makes a namespace for the other end of the veth pair, with a socket for
// its packets. It comes before the container's own namespaces.
func (r *recipe) farEnd() {
	if !r.net.Packet {
		return
	}
	r.far, r.farLink, r.packets = r.Reg(), r.Reg(), r.Reg()
	r.Call("create namespace of veth pair", unix.SYS_UNSHARE, unix.CLONE_NEWNET)
	r.Call("open own namespace", unix.SYS_OPENAT, unix.AT_FDCWD, "/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0).Into(r.far)
	r.Call("open netlink socket", unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE).Into(r.farLink)
	r.Call("open packet socket", unix.SYS_SOCKET, unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0).Into(r.packets)
}

// makeVeth makes the pair, binds the socket to its far end and sends it to the
// monitor.
func (r *recipe) makeVeth(socket userns.Reg) {
	far := slirp.GatewayMAC
	far[5]++ // the engine speaks as the gateway; the device must not be it
	netlink(r.Prog, socket, r.far, addVeth(guestDevice, farDevice, slirp.GuestMAC, far, slirp.DefaultMTU))
	netlink(r.Prog, r.farLink, r.far, linkUp(farDevice, slirp.DefaultMTU))
	r.Call("close", unix.SYS_CLOSE, r.far)
	r.Call("close", unix.SYS_CLOSE, r.farLink)
	at := r.index(r.packets, farDevice)
	address := make([]byte, unix.SizeofSockaddrLinklayer)
	binary.NativeEndian.PutUint16(address, unix.AF_PACKET)
	binary.BigEndian.PutUint16(address[2:], unix.ETH_P_ALL)
	r.Store((*int32)(unsafe.Pointer(&address[4])), at)
	r.Call("bind packet socket", unix.SYS_BIND, r.packets, address, len(address))
	r.send(r.programEnd, `{"what":"`+sentDevice+`"}`, r.packets)
	r.Call("close", unix.SYS_CLOSE, r.packets)
}

// index looks up a device in the namespace of a socket.
func (r *recipe) index(socket userns.Reg, device string) userns.Reg {
	request := ifreq(device)
	r.Call("find "+device, unix.SYS_IOCTL, socket, unix.SIOCGIFINDEX, request)
	r.Load(r.work, (*int32)(unsafe.Pointer(&request[16])))
	return r.work
}

// configure gives the device its addresses and routes.
func (r *recipe) configure(socket userns.Reg) {
	at := r.index(socket, guestDevice)
	messages := []*netlinkMessage{linkUp(guestDevice, slirp.DefaultMTU)}
	for _, p := range r.net.Places {
		messages = append(messages, p.addresses(guestDevice)...)
	}
	messages = append(messages, defaultRoutes(r.net.Places)...)
	netlink(r.Prog, socket, at, messages...)
	r.Call("close", unix.SYS_CLOSE, socket)
}

func (p Place) addresses(device string) []*netlinkMessage {
	messages := []*netlinkMessage{addAddress(device, p.Address)}
	if p.Address6.IsValid() {
		messages = append(messages, addAddress(device, p.Address6))
	}
	return messages
}

// sysctl writes a value of the new network namespace, where the host shows it.
func (r *recipe) sysctl(name, value string) {
	r.Call("set "+name, unix.SYS_OPENAT, unix.AT_FDCWD, "/proc/sys/"+name, unix.O_WRONLY|unix.O_CLOEXEC, 0).Into(r.work).Any().SkipOnIgnored(1)
	r.Call("set "+name, unix.SYS_WRITE, r.work, []byte(value), len(value)).Any()
}
