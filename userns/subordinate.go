// SPDX-License-Identifier: Apache-2.0

package userns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"

	"github.com/rootless-containers/rootlesskit/v3/pkg/parent/dynidtools"
	"github.com/rootless-containers/rootlesskit/v3/pkg/parent/idtools"
)

// needIDs is how many subordinate IDs an image may count on: with the user's own
// as 0 they cover 0..65535.
const needIDs = 65535

// SingleRung is the rung that needs nothing but a user namespace.
func SingleRung() Rung {
	return Rung{Name: Single, UID: os.Getuid(), GID: os.Getgid()}
}

// MappedRung reads the user's subordinate ranges, from getsubids (which knows
// of directory services) or else /etc/subuid and /etc/subgid. It does not try
// them. The error is a *SetupError that says which part is missing.
func MappedRung() (Rung, error) {
	r := Rung{Name: Mapped, UID: os.Getuid(), GID: os.Getgid()}
	name := LoginName(r.UID)
	for _, program := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(program); err != nil {
			return Rung{}, &SetupError{Op: "find " + program, Err: errors.New("no such program"),
				Gate: "the package that holds newuidmap (uidmap on Debian, shadow-utils elsewhere) is not installed"}
		}
	}
	uids, gids, err := idtools.GetSubIDRanges(r.UID, name)
	if err != nil || enough(uids) != nil || enough(gids) != nil {
		if u, g, dynErr := dynidtools.GetSubIDRanges(r.UID, name); dynErr == nil {
			uids, gids, err = u, g, nil
		}
	}
	if err == nil {
		err = errors.Join(enough(uids), enough(gids))
	}
	if err != nil {
		return Rung{}, &SetupError{Op: "read subordinate IDs of " + name, Err: err,
			Gate: "an administrator can add a range: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 " + name}
	}
	r.UIDs, r.GIDs = take(uids), take(gids)
	return r, nil
}

func enough(ranges []idtools.SubIDRange) error {
	n := 0
	for _, r := range ranges {
		n += r.Length
	}
	if n < needIDs {
		return fmt.Errorf("%d of %d needed", n, needIDs+1)
	}
	return nil
}

// take keeps as many IDs of the ranges as the kernel's 340 map lines and common
// sense allow.
func take(ranges []idtools.SubIDRange) []Range {
	const maxRanges = 32
	var out []Range
	for _, r := range ranges {
		if r.Length > 0 && r.Start > 0 && len(out) < maxRanges {
			out = append(out, Range{First: r.Start, Count: r.Length})
		}
	}
	return out
}

// LoginName is the login name of uid. Users of directory services are not in
// /etc/passwd, which is all that a static binary reads.
func LoginName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	for _, key := range []string{"USER", "LOGNAME"} {
		if name := os.Getenv(key); name != "" {
			return name
		}
	}
	return strconv.Itoa(uid)
}
