// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mounts tells the container's own files from the user's.
//
// A file is the container's when it is on the mount that is its root, or on one
// of the mounts that the supervisor was told of (volumes, its tmpfs): there
// ownership is written down with the file. Everything else that is mounted when
// the container starts is a bind mount of the host, where it is remembered
// in memory only. A mount that a program made itself is told by its device: an
// overlay or a tmpfs of the container has one that no other filesystem shares.
type mounts struct {
	own     map[uint64]bool // mount IDs
	devices map[uint64]bool // devices of own mounts that nothing else is on
}

// parseMounts reads /proc/PID/mountinfo (proc(5)) of the container's first
// process before it runs any program of the container.
func parseMounts(text string, o *Options) *mounts {
	own := map[string]bool{"/": !o.ForeignRoot}
	for _, target := range o.Own {
		own[target] = true
	}
	m := &mounts{own: map[uint64]bool{}, devices: map[uint64]bool{}}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 7 || !own[unescapeMount(f[4])] {
			continue
		}
		id, err := strconv.ParseUint(f[0], 10, 64)
		if err != nil {
			continue
		}
		m.own[id] = true
		_, rest, _ := strings.Cut(line, " - ")
		if kind, _, _ := strings.Cut(rest, " "); kind != "overlay" && !(kind == "tmpfs" && f[4] != "/") {
			continue
		}
		major, minor, _ := strings.Cut(f[2], ":")
		ma, err1 := strconv.ParseUint(major, 10, 32)
		mi, err2 := strconv.ParseUint(minor, 10, 32)
		if err1 == nil && err2 == nil {
			m.devices[unix.Mkdev(uint32(ma), uint32(mi))] = true
		}
	}
	return m
}

// unescapeMount undoes the octal escapes of mountinfo: space, tab, newline and
// backslash.
func unescapeMount(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// has reports whether a file is the container's own. The descriptor of the file
// is asked for its mount where statx(2) does not tell (before Linux 5.8).
func (m *mounts) has(st *unix.Statx_t, fdinfo func() string) bool {
	if m.devices[unix.Mkdev(st.Dev_major, st.Dev_minor)] {
		return true
	}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		return m.own[st.Mnt_id]
	}
	for line := range strings.Lines(fdinfo()) {
		if v, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			id, err := strconv.ParseUint(strings.TrimSpace(v), 10, 64)
			return err == nil && m.own[id]
		}
	}
	return false
}
