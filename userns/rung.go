// SPDX-License-Identifier: Apache-2.0

package userns

import (
	"fmt"
	"strconv"
)

// The rungs of the ladder that this package can climb, highest first.
const (
	Mapped = "mapped" // 0 is the user, 1.. are his subordinate range
	Single = "single" // 0 is the user, and there is nobody else
)

// Rung says how IDs are mapped into a user namespace. It is plain data and
// travels in messages. The zero Rung is no rung.
type Rung struct {
	Name string  `json:"name"`
	UID  int     `json:"uid"` // the user's own, outside
	GID  int     `json:"gid"`
	UIDs []Range `json:"uids,omitempty"` // subordinate user IDs, mapped from 1 up
	GIDs []Range `json:"gids,omitempty"`
}

// Range is a run of subordinate IDs: First, First+1, .. of the host.
type Range struct {
	First int `json:"first"`
	Count int `json:"count"`
}

// IsMapped reports whether the rung has subordinate IDs.
func (r Rung) IsMapped() bool { return r.Name == Mapped }

// Key names the rung and its ranges in a file name: "single", or
// "mapped-100000-65536". Files unpacked under one key are wrong under another.
func (r Rung) Key() string {
	if !r.IsMapped() || len(r.UIDs) == 0 {
		return Single
	}
	key := fmt.Sprintf("mapped-%d-%d", r.UIDs[0].First, total(r.UIDs))
	if len(r.GIDs) > 0 && (r.GIDs[0] != r.UIDs[0] || len(r.GIDs) > 1) {
		key += fmt.Sprintf("-%d-%d", r.GIDs[0].First, total(r.GIDs))
	}
	return key
}

func total(ranges []Range) int {
	n := 0
	for _, r := range ranges {
		n += r.Count
	}
	return n
}

// mapArgs are the arguments of newuidmap and newgidmap after the pid: triples of
// inside, outside, count (newuidmap(1)).
func mapArgs(own int, ranges []Range) []string {
	args := []string{"0", strconv.Itoa(own), "1"}
	inside := 1
	for _, r := range ranges {
		args = append(args, strconv.Itoa(inside), strconv.Itoa(r.First), strconv.Itoa(r.Count))
		inside += r.Count
	}
	return args
}

// InsideUID is what a user ID of the host is in a namespace of this rung: 0 for
// the user's own, and 65534, as for the kernel, for one that is not mapped.
func (r Rung) InsideUID(outside uint32) uint32 { return inside(outside, r.UID, r.UIDs) }

// InsideGID is InsideUID for groups.
func (r Rung) InsideGID(outside uint32) uint32 { return inside(outside, r.GID, r.GIDs) }

const overflowID = 65534

func inside(outside uint32, own int, ranges []Range) uint32 {
	if int(outside) == own {
		return 0
	}
	first := 1
	for _, r := range ranges {
		if n := int(outside) - r.First; n >= 0 && n < r.Count {
			return uint32(first + n)
		}
		first += r.Count
	}
	return overflowID
}
