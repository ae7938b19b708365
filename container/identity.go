// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"sbx/overlay"
)

// Identity is the user that the program starts as, in the container's IDs.
type Identity struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"` // supplementary
	Home   string   `json:"home"`
	Name   string   `json:"name,omitempty"`
	// KeepGroups leaves the user's own supplementary groups as they are.
	KeepGroups bool `json:"keepGroups,omitempty"`
}

// maxID is the largest ID: 2^32-1 means "none" to the system calls.
const maxID = 1<<32 - 2

// maxGroups bounds the supplementary groups of a user.
const maxGroups = 256

// Limits on what is read of an image's user databases (CVE-2026-47262).
const (
	maxDatabase = 4 << 20
	maxLine     = 64 << 10
)

// lookUpUser turns USER[:GROUP] into IDs, by the passwd and group files of the
// image whose unpacked directories are lower (topmost first). A decimal number
// is an ID, never a name, and one that is too large is an error: reading it as a
// name would fall back to root (CVE-2016-3697, CVE-2026-46680).
func lookUpUser(spec string, lower []string) (Identity, error) {
	user, group, hasGroup := strings.Cut(spec, ":")
	if user == "" {
		user = "0"
	}
	id := Identity{Home: "/"}
	number, isNumber, err := parseID(user)
	if err != nil {
		return id, fmt.Errorf("look up user %q: %w", user, err)
	}
	found, err := scanDatabase(lower, "etc/passwd", 7, func(f []string) bool {
		if !matches(f, user, number, isNumber) {
			return false
		}
		uid, uidIsNumber, uidErr := parseID(f[2])
		gid, gidIsNumber, gidErr := parseID(f[3])
		if !uidIsNumber || !gidIsNumber || uidErr != nil || gidErr != nil {
			return false
		}
		id.Name, id.UID, id.GID, id.Home = f[0], uid, gid, f[5]
		return true
	})
	if err != nil {
		return id, fmt.Errorf("look up user %q: %w", user, err)
	}
	if !found {
		if !isNumber {
			return id, fmt.Errorf("look up user %q: not in the image's /etc/passwd", user)
		}
		id.UID = number
	}
	if id.Home == "" {
		id.Home = "/"
	}
	if id.UID == 0 && !found {
		id.Home = "/root"
	}
	if hasGroup && group != "" {
		id.GID, err = lookUpGroup(group, lower)
		return id, err
	}
	if id.Name != "" {
		id.Groups, err = memberships(id.Name, lower)
	}
	return id, err
}

func lookUpGroup(group string, lower []string) (uint32, error) {
	number, isNumber, err := parseID(group)
	if err != nil {
		return 0, fmt.Errorf("look up group %q: %w", group, err)
	}
	if isNumber {
		return number, nil
	}
	var gid uint32
	found, err := scanDatabase(lower, "etc/group", 3, func(f []string) bool {
		if f[0] != group {
			return false
		}
		n, ok, err := parseID(f[2])
		gid = n
		return ok && err == nil
	})
	if err == nil && !found {
		err = errors.New("not in the image's /etc/group")
	}
	if err != nil {
		return 0, fmt.Errorf("look up group %q: %w", group, err)
	}
	return gid, nil
}

// memberships lists the groups whose line in the group file names the user.
func memberships(name string, lower []string) ([]uint32, error) {
	var groups []uint32
	_, err := scanDatabase(lower, "etc/group", 4, func(f []string) bool {
		gid, ok, err := parseID(f[2])
		if !ok || err != nil || len(groups) >= maxGroups {
			return false
		}
		for member := range strings.SplitSeq(f[3], ",") {
			if member == name {
				groups = append(groups, gid)
				break
			}
		}
		return false
	})
	if err != nil {
		return nil, fmt.Errorf("look up groups of %q: %w", name, err)
	}
	return groups, nil
}

func matches(fields []string, name string, number uint32, isNumber bool) bool {
	if !isNumber {
		return fields[0] == name
	}
	uid, ok, err := parseID(fields[2])
	return ok && err == nil && uid == number
}

// parseID reads a decimal ID. What consists of digits is a number.
func parseID(s string) (id uint32, isNumber bool, err error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > maxID {
		return 0, true, fmt.Errorf("%s is no ID: the largest is %d", s, uint64(maxID))
	}
	return uint32(n), true, nil
}

// scanDatabase hands the colon-separated lines of a file of the image to visit
// until that returns true. A file that is missing, or no regular file, is empty.
func scanDatabase(lower []string, path string, fields int, visit func([]string) bool) (bool, error) {
	f, err := overlay.OpenMerged(lower, path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxDatabase))
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		parts := strings.Split(lines.Text(), ":")
		if len(parts) >= fields && visit(parts) {
			return true, nil
		}
	}
	if err := lines.Err(); err != nil {
		return false, fmt.Errorf("read /%s of the image: %w", path, err)
	}
	return false, nil
}

// addGroups adds groups, by name or ID, to those of the user.
func (id *Identity) addGroups(groups []string, lower []string) error {
	for _, g := range groups {
		if g == KeepGroups {
			id.KeepGroups = true
			continue
		}
		gid, err := lookUpGroup(g, lower)
		if err != nil {
			return err
		}
		if !slices.Contains(id.Groups, gid) {
			id.Groups = append(id.Groups, gid)
		}
	}
	if id.KeepGroups && len(groups) > 1 {
		return errors.New("the group keep-groups goes with no other: all groups are kept, or all are set")
	}
	return nil
}
