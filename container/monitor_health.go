// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"time"
)

// HealthCheck says how a container's health is found: by a program that is
// executed in it from time to time.
type HealthCheck struct {
	Test          []string      `json:"test,omitempty"` // as Docker has it: NONE; CMD and arguments; CMD-SHELL and a line
	Interval      time.Duration `json:"interval,omitempty"`
	Timeout       time.Duration `json:"timeout,omitempty"`
	StartPeriod   time.Duration `json:"startPeriod,omitempty"`
	StartInterval time.Duration `json:"startInterval,omitempty"`
	Retries       int           `json:"retries,omitempty"`
}

// isOn reports whether there is anything to check.
func (h *HealthCheck) isOn() bool { return h != nil && len(h.Test) > 0 && h.Test[0] != "NONE" }

// Health is what the checks have found.
type Health struct {
	Status        string        `json:"status"` // starting, healthy or unhealthy
	FailingStreak int           `json:"failingStreak"`
	Log           []HealthEntry `json:"log,omitempty"`
}

// HealthEntry is one check.
type HealthEntry struct {
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	ExitCode int       `json:"exitCode"`
	Output   string    `json:"output"`
}

func (m *monitor) checkHealth(context.Context, *program) {}
