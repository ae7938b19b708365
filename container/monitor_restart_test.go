// SPDX-License-Identifier: Apache-2.0

package container

import (
	"testing"
	"time"
)

func TestParseRestart(t *testing.T) {
	for text, want := range map[string]RestartPolicy{
		"": {}, "no": {Name: "no"}, "always": {Name: "always"}, "unless-stopped": {Name: "unless-stopped"},
		"on-failure": {Name: "on-failure"}, "on-failure:0": {Name: "on-failure"}, "on-failure:5": {Name: "on-failure", Retries: 5},
	} {
		if got, err := ParseRestart(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"No", "sometimes", "always:3", "no:1", "on-failure:", "on-failure:x", "on-failure:-1", "on-failure:1:2", ":", "unless-stopped:"} {
		if got, err := ParseRestart(text); err == nil {
			t.Errorf("%q: %+v, want an error", text, got)
		}
	}
}

func TestRestartAgain(t *testing.T) {
	for _, test := range []struct {
		policy        RestartPolicy
		status, tries int
		want          bool
	}{
		{RestartPolicy{}, 1, 0, false},
		{RestartPolicy{Name: RestartNo}, 1, 0, false},
		{RestartPolicy{Name: RestartAlways}, 0, 1000, true},
		{RestartPolicy{Name: RestartUnlessStopped}, 137, 0, true},
		{RestartPolicy{Name: RestartOnFailure}, 0, 0, false},
		{RestartPolicy{Name: RestartOnFailure}, 1, 1000, true},
		{RestartPolicy{Name: RestartOnFailure, Retries: 2}, 1, 1, true},
		{RestartPolicy{Name: RestartOnFailure, Retries: 2}, 1, 2, false},
		{RestartPolicy{Name: RestartOnFailure, Retries: 2}, 0, 1, false},
	} {
		if got := test.policy.again(test.status, test.tries); got != test.want {
			t.Errorf("%+v after status %d and %d restarts: %v", test.policy, test.status, test.tries, got)
		}
	}
}

func TestBackoff(t *testing.T) {
	var b backoff
	for i, test := range []struct{ ran, want time.Duration }{
		{0, 100 * time.Millisecond}, {0, 200 * time.Millisecond}, {time.Second, 400 * time.Millisecond},
		{settled, 100 * time.Millisecond}, {0, 200 * time.Millisecond},
	} {
		if got := b.next(test.ran); got != test.want {
			t.Errorf("%d: %v, want %v", i, got, test.want)
		}
	}
	for range 100 {
		b.next(0)
	}
	if got := b.next(0); got != lastBackoff {
		t.Errorf("after many: %v, want %v", got, lastBackoff)
	}
}

func TestHealthAfter(t *testing.T) {
	failed, good := HealthEntry{ExitCode: 1}, HealthEntry{}
	for _, test := range []struct {
		name     string
		before   Health
		entry    HealthEntry
		starting bool
		want     string
		streak   int
	}{
		{"the first good one", Health{Status: HealthStarting}, good, true, HealthHealthy, 0},
		{"a failure while it starts does not count", Health{Status: HealthStarting}, failed, true, HealthStarting, 0},
		{"a failure", Health{Status: HealthHealthy}, failed, false, HealthHealthy, 1},
		{"one too many", Health{Status: HealthHealthy, FailingStreak: 2}, failed, false, HealthUnhealthy, 3},
		{"it recovers", Health{Status: HealthUnhealthy, FailingStreak: 7}, good, false, HealthHealthy, 0},
	} {
		got := test.before.after(test.entry, 3, test.starting)
		if got.Status != test.want || got.FailingStreak != test.streak || len(got.Log) != 1 {
			t.Errorf("%s: %+v", test.name, got)
		}
	}
	h := &Health{}
	for range 2 * healthEntries {
		h = h.after(good, 3, false)
	}
	if len(h.Log) != healthEntries {
		t.Errorf("%d entries are kept, want %d", len(h.Log), healthEntries)
	}
}
