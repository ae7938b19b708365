// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"time"

	"sbx/container"
)

// graphDriverRecord says where a root filesystem comes from.
type graphDriverRecord struct {
	Data map[string]string
	Name string
}

// healthcheckRecord is a health check as it was asked for, in nanoseconds.
type healthcheckRecord struct {
	Test          []string      `json:",omitempty"`
	Interval      time.Duration `json:",omitempty"`
	Timeout       time.Duration `json:",omitempty"`
	StartPeriod   time.Duration `json:",omitempty"`
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"`
}

// complete fills in what is found by more than copying a field of the record.
func (r *containerRecord) complete(c *container.Container) {
	cfg := &c.Config
	r.GraphDriver.Name, r.GraphDriver.Data = c.GraphDriver()
	r.Config.StopTimeout = cfg.StopTimeout
	if h := cfg.Health; h != nil {
		r.Config.Healthcheck = (*healthcheckRecord)(h)
	}
	for _, port := range cfg.Networking.Exposed {
		if r.Config.ExposedPorts == nil {
			r.Config.ExposedPorts = map[string]struct{}{}
		}
		r.Config.ExposedPorts[port] = struct{}{}
	}
	for _, m := range cfg.Mounts {
		if m.Type != container.Volume || !m.Anonymous {
			continue
		}
		if r.Config.Volumes == nil {
			r.Config.Volumes = map[string]struct{}{}
		}
		r.Config.Volumes[m.Target] = struct{}{}
	}
}
