// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"sbx/container"
)

// identityFlags say what the user's one ID is in a container of rung `single`.
type identityFlags struct {
	rootEmulation string
	userns        usernsMode
}

func (f *identityFlags) options() []option {
	return []option{
		textFlag(&f.rootEmulation, "root-emulation", "", `How to emulate root on rung single ("auto", "notify", "notify-fast", "ids", "zero", "none")`),
		{name: "userns", kind: "string", usage: `User namespace ("host", or "keep-id[:uid=N,gid=N]": the container's user is you)`, value: &f.userns},
	}
}

// apply puts them in the options of a container. rung is the one that was asked
// for: keep-id is for `single`.
func (f *identityFlags) apply(o *container.Options, rung *string) error {
	if err := o.RootEmulation.UnmarshalText([]byte(f.rootEmulation)); err != nil {
		return &statusError{status: statusSbx, err: fmt.Errorf("--root-emulation: %w", err)}
	}
	if !f.userns.keep {
		return nil
	}
	o.KeepID = true
	if *rung == "" {
		*rung = container.RungSingle
	}
	switch {
	case f.userns.user == "" && o.User == "":
		o.User = fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())
	case f.userns.user != "" && o.User != "":
		return &statusError{status: statusSbx, err: errors.New("--userns keep-id with uid, and --user: two users"), hint: "leave one of them out"}
	case f.userns.user != "":
		o.User = f.userns.user
	}
	return nil
}

// usernsMode is the value of --userns. Podman has the same words.
type usernsMode struct {
	keep bool
	user string // UID[:GID]
}

func (v *usernsMode) Set(s string) error {
	mode, list, hasList := strings.Cut(s, ":")
	*v = usernsMode{keep: mode == "keep-id"}
	switch {
	case (mode == "" || mode == "host") && !hasList:
		return nil
	case !v.keep:
		return errors.New(`want "host" or "keep-id[:uid=N,gid=N]"`)
	case !hasList:
		return nil
	}
	var uid, gid string
	for pair := range strings.SplitSeq(list, ",") {
		name, value, _ := strings.Cut(pair, "=")
		if _, err := strconv.ParseUint(value, 10, 31); err != nil {
			return fmt.Errorf("%s: want a number", name)
		}
		switch name {
		case "uid":
			uid = value
		case "gid":
			gid = value
		default:
			return fmt.Errorf("unknown option %q: there are uid and gid", name)
		}
	}
	if uid == "" {
		return errors.New("gid alone: want uid, too")
	}
	v.user = uid
	if gid != "" {
		v.user += ":" + gid
	}
	return nil
}
