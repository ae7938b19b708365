// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strings"

	"sbx/userns"
)

func doctorCommand() command {
	return command{
		name: "doctor", summary: "Check what this machine allows, and say what would help", usage: "[OPTIONS]",
		bind: func() ([]option, action) {
			o := &doctorOptions{}
			return o.flags(), o.run
		},
	}
}

type doctorOptions struct {
	rung string
}

func (o *doctorOptions) flags() []option { return []option{rungFlag(&o.rung)} }

// finding is one line of the doctor's.
type finding struct {
	ok     bool
	what   string
	why    string
	remedy string
}

func (o *doctorOptions) run(ctx context.Context, c *client, _ []string) error {
	r, failure := c.examine(ctx, o.rung)
	var b strings.Builder
	for _, f := range diagnose(r, failure) {
		word := "ok"
		if !f.ok {
			word = "no"
		}
		fmt.Fprintf(&b, "%s  %s", word, f.what)
		if f.why != "" {
			fmt.Fprintf(&b, ": %s", printable(f.why))
		}
		b.WriteByte('\n')
		if f.remedy != "" {
			fmt.Fprintf(&b, "    %s\n", printable(f.remedy))
		}
	}
	c.document(b.String())
	if failure != nil {
		return exited(statusFailed)
	}
	return nil
}

// diagnose says of each thing that matters whether this machine has it.
func diagnose(r *infoReport, failure error) []finding {
	var list []finding
	if failure != nil {
		text, hint := describe(failure)
		list = append(list, finding{false, "containers can run", text, hint})
	} else {
		list = append(list, finding{ok: true, what: "containers can run, on the rung " + r.Rung})
		list = append(list, finding{r.Rung == userns.Mapped, "subordinate user IDs", r.RungReason, r.RungHint})
		overlay := finding{ok: r.Driver == "overlay", what: "overlay filesystem", why: r.DriverReason}
		if !overlay.ok {
			overlay.remedy = "root filesystems are copied, which takes longer and more room; Linux 5.11 and later have overlayfs for every user"
		}
		list = append(list, overlay)
	}
	for _, g := range r.Gates {
		if g.Name == "/dev/net/tun" {
			list = append(list, finding{ok: g.State == "can be opened", what: g.Name, why: strings.TrimPrefix(g.State, "can be opened")})
		}
	}
	path := finding{ok: r.ForeignProgram == "", what: "this sbx is first on PATH"}
	if !path.ok {
		path.why, path.remedy = r.ForeignProgram+" comes before it", "Docker has a product of that name; start this one by its full path, or put its directory first"
	}
	return append(list, path)
}
