// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"time"

	"sbx/container"
)

// healthFlags are those of run and create on the health check.
type healthFlags struct {
	command                                       string
	interval, timeout, startPeriod, startInterval duration
	retries                                       int
	off                                           bool
}

func (f *healthFlags) options() []option {
	between := func(p *duration, name, usage string) option {
		return option{name: name, kind: "duration", usage: usage, value: p}
	}
	return []option{
		textFlag(&f.command, "health-cmd", "", "Command to run to check health"),
		between(&f.interval, "health-interval", "Time between running the check (ms|s|m|h) (default 30s)"),
		numberFlag(&f.retries, "health-retries", "", "Consecutive failures needed to report unhealthy"),
		between(&f.startInterval, "health-start-interval", "Time between running the check during the start period (ms|s|m|h) (default 5s)"),
		between(&f.startPeriod, "health-start-period", "Start period for the container to initialize (ms|s|m|h) (default 0s)"),
		between(&f.timeout, "health-timeout", "Maximum time to allow one check to run (ms|s|m|h) (default 30s)"),
		switchFlag(&f.off, "no-healthcheck", "", "Disable any container-specified HEALTHCHECK"),
	}
}

// check is what the flags say; nil leaves all to the image.
func (f *healthFlags) check() (*container.HealthCheck, error) {
	h := &container.HealthCheck{
		Interval: time.Duration(f.interval), Timeout: time.Duration(f.timeout), StartPeriod: time.Duration(f.startPeriod),
		StartInterval: time.Duration(f.startInterval), Retries: f.retries,
	}
	given := f.command != "" || h.Interval != 0 || h.Timeout != 0 || h.StartPeriod != 0 || h.StartInterval != 0 || h.Retries != 0
	switch {
	case f.off && given:
		return nil, errors.New("--no-healthcheck conflicts with --health-* options")
	case f.off:
		return &container.HealthCheck{Test: []string{"NONE"}}, nil
	case !given:
		return nil, nil //nolint:nilnil // nothing was said
	case h.Retries < 0:
		return nil, errors.New("--health-retries cannot be negative")
	}
	for name, d := range map[string]time.Duration{
		"health-interval": h.Interval, "health-timeout": h.Timeout, "health-start-period": h.StartPeriod, "health-start-interval": h.StartInterval,
	} {
		if d != 0 && d < time.Millisecond {
			return nil, fmt.Errorf("--%s cannot be less than 1ms", name)
		}
	}
	if f.command != "" {
		h.Test = []string{"CMD-SHELL", f.command}
	}
	return h, nil
}

// duration is a time span as Go and Docker write it.
type duration time.Duration

func (v *duration) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil {
		return errors.New("want a duration, like 1m30s")
	}
	*v = duration(d)
	return nil
}
