// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"slices"

	"sbx/container"
)

func updateCommand() command {
	return command{
		name: "update", summary: "Update configuration of one or more containers",
		usage: "[OPTIONS] CONTAINER [CONTAINER...]", forms: []string{"sbx container update", "sbx update"}, min: 1, max: -1,
		bind: func() ([]option, action) {
			o := &updateOptions{}
			return o.flags(), o.run
		},
	}
}

type updateOptions struct {
	restart   string
	resources resourceFlags
	unmet     unmet
}

func (o *updateOptions) flags() []option {
	var options []option
	for _, opt := range o.resources.options() {
		if slices.Contains(limitNames, opt.name) {
			options = append(options, opt)
		}
	}
	for _, opt := range o.unmet.options() {
		if slices.Contains(unmetLimits, opt.name) {
			options = append(options, opt)
		}
	}
	return append(options, textFlag(&o.restart, "restart", "", "Restart policy to apply when a container exits"))
}

// unmetLimits are flags of docker update that have no effect here, as with run.
var unmetLimits = []string{"blkio-weight", "cpu-rt-period", "cpu-rt-runtime", "cpuset-mems", "kernel-memory"}

func (o *updateOptions) run(ctx context.Context, c *client, operands []string) error {
	o.unmet.tell(c)
	policy, err := container.ParseRestart(o.restart)
	if err != nil {
		return err
	}
	asked := o.resources.limits
	return c.containers(ctx, operands, func(ctx context.Context, ctr *container.Container) error {
		running := false
		err := ctr.Update(ctx, func(cfg *container.Config) error {
			l := cfg.Limits
			limited := mergeLimits(&l, &asked)
			if _, err := l.Check(); err != nil {
				return err
			}
			cfg.Limits = l
			if o.restart != "" {
				cfg.Restart = policy
			}
			// A control group has its new limits at once, but for those that none holds here.
			running = limited && ctr.State.Status.IsAlive() && (ctr.State.Group == "" || asked.CPUSet != "" && !slices.Contains(ctr.State.Held, "CpusetCpus"))
			return nil
		})
		if err == nil && running {
			c.notice("the limits of %s hold from its next start on", ctr.Config.Name)
		}
		return err
	})
}

// mergeLimits takes over the limits that were asked for, and reports whether any was.
func mergeLimits(l, asked *container.Limits) bool {
	changed := asked.CPUSet != ""
	if changed {
		l.CPUSet = asked.CPUSet
	}
	for _, f := range []struct{ to, from *int64 }{
		{&l.Memory, &asked.Memory}, {&l.MemorySwap, &asked.MemorySwap},
		{&l.NanoCPUs, &asked.NanoCPUs}, {&l.CPUPeriod, &asked.CPUPeriod}, {&l.CPUQuota, &asked.CPUQuota}, {&l.CPUShares, &asked.CPUShares},
		{&l.Pids, &asked.Pids},
	} {
		if *f.from != 0 {
			*f.to = *f.from
			changed = true
		}
	}
	if asked.MemoryReservation != 0 {
		l.MemoryReservation = asked.MemoryReservation // which only a control group holds, and that at once
	}
	return changed
}
