// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"sbx/fakeroot"
	"sbx/userns"
)

// HealthCheck says how a container's health is found: by a program that is
// executed in it from time to time. Zero values are Docker's defaults.
type HealthCheck struct {
	Test          []string      `json:"test,omitempty"`          // NONE; CMD and arguments; CMD-SHELL and a line
	Interval      time.Duration `json:"interval,omitempty"`      // between two checks: 30 s
	Timeout       time.Duration `json:"timeout,omitempty"`       // of one: 30 s
	StartPeriod   time.Duration `json:"startPeriod,omitempty"`   // in which failures do not count: 0
	StartInterval time.Duration `json:"startInterval,omitempty"` // between two checks in that: 5 s
	Retries       int           `json:"retries,omitempty"`       // failures in a row until it is unhealthy: 3
}

// isOn reports whether there is anything to check.
func (h *HealthCheck) isOn() bool { return h != nil && len(h.Test) > 0 && h.Test[0] != "NONE" }

// Health states, by Docker's names.
const (
	HealthStarting  = "starting"
	HealthHealthy   = "healthy"
	HealthUnhealthy = "unhealthy"
)

// Health is what the checks have found.
type Health struct {
	Status        string        `json:"status"`
	FailingStreak int           `json:"failingStreak"`
	Log           []HealthEntry `json:"log,omitempty"` // the last five
}

// HealthEntry is one check.
type HealthEntry struct {
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	ExitCode int       `json:"exitCode"` // -1 when it took too long
	Output   string    `json:"output"`
}

const (
	healthEntries = 5
	healthOutput  = 4096 // bytes that are kept of what a check says
)

// healthOfImage is the check that an image's config has.
func healthOfImage(h *dockerspec.HealthcheckConfig) *HealthCheck {
	if h == nil {
		return nil
	}
	return &HealthCheck{
		Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
	}
}

// healthOf joins the image's check and the user's: what the user leaves open is
// the image's.
func healthOf(image, user *HealthCheck) *HealthCheck {
	if user == nil || image == nil {
		if user == nil {
			return image
		}
		return user
	}
	h := *user
	if len(h.Test) == 0 {
		h.Test = image.Test
	}
	orDuration(&h.Interval, image.Interval)
	orDuration(&h.Timeout, image.Timeout)
	orDuration(&h.StartPeriod, image.StartPeriod)
	orDuration(&h.StartInterval, image.StartInterval)
	if h.Retries == 0 {
		h.Retries = image.Retries
	}
	return &h
}

func orDuration(d *time.Duration, other time.Duration) {
	if *d == 0 {
		*d = other
	}
}

// checkHealth looks after the health of a program until it ends.
func (m *monitor) checkHealth(ctx context.Context, p *program) {
	config, err := m.config()
	if err != nil || !config.Health.isOn() {
		return
	}
	h := *config.Health
	orDuration(&h.Interval, 30*time.Second)
	orDuration(&h.Timeout, 30*time.Second)
	orDuration(&h.StartInterval, 5*time.Second)
	if h.Retries == 0 {
		h.Retries = 3
	}
	// A program that is being started has not got all of its mounts, and who answers
	// its system calls needs those first of all.
	p.receiver.Wait()
	begun := time.Now()
	health := &Health{Status: HealthStarting}
	for {
		wait := h.Interval
		starting := health.Status == HealthStarting && time.Since(begun) < h.StartPeriod
		if starting {
			wait = h.StartInterval
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-p.ended:
			timer.Stop()
			return
		case <-ctx.Done():
			timer.Stop()
			return
		}
		m.mu.Lock()
		paused := m.paused
		m.mu.Unlock()
		if paused {
			continue
		}
		entry := m.check(ctx, p, config, h.Test, h.Timeout)
		select {
		case <-p.ended:
			return // it says nothing of the program any more
		default:
		}
		starting = health.Status == HealthStarting && entry.Start.Sub(begun) < h.StartPeriod
		before := health.Status
		health = health.after(entry, h.Retries, starting)
		_ = m.setState(func(s *State) { s.Health = health })
		if health.Status != before {
			m.record("health_status: "+health.Status, nil)
		}
	}
}

// after is the health after a check. A failure while the program may still be
// starting is none.
func (h *Health) after(entry HealthEntry, retries int, starting bool) *Health {
	next := &Health{Status: h.Status, FailingStreak: h.FailingStreak}
	next.Log = append(slices.Clone(h.Log), entry)
	if n := len(next.Log); n > healthEntries {
		next.Log = next.Log[n-healthEntries:]
	}
	switch {
	case entry.ExitCode == 0:
		next.Status, next.FailingStreak = HealthHealthy, 0
	case starting:
	default:
		if next.FailingStreak++; next.FailingStreak >= retries {
			next.Status = HealthUnhealthy
		}
	}
	return next
}

// check executes the test once.
func (m *monitor) check(ctx context.Context, p *program, c *Config, test []string, timeout time.Duration) HealthEntry {
	entry := HealthEntry{Start: time.Now().UTC()}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	status, output, err := m.runCheck(ctx, p, c, test)
	entry.End, entry.ExitCode, entry.Output = time.Now().UTC(), status, strings.ToValidUTF8(string(output), "?")
	switch {
	case ctx.Err() != nil:
		entry.ExitCode, entry.Output = -1, fmt.Sprintf("Health check exceeded timeout (%v)", timeout)
	case err != nil:
		entry.ExitCode, entry.Output = statusNoExecute, err.Error()
	}
	return entry
}

// runCheck executes the test in the container and waits for it. What runs it is
// a copy of this process, whose memory belongs to the container's user namespace:
// it gives up its descriptors before it enters, has an empty environment, and
// there are no secrets in here (process-tree.md, pitfall 9).
func (m *monitor) runCheck(ctx context.Context, p *program, c *Config, test []string) (int, []byte, error) {
	args := test[1:]
	if test[0] == "CMD-SHELL" {
		args = append([]string{"/bin/sh", "-c"}, args...)
	}
	if len(args) == 0 {
		return statusFailed, nil, fmt.Errorf("health check %q names no program", test)
	}
	filter, err := c.filter()
	if err != nil {
		return statusFailed, nil, err
	}
	r, w, err := pipe()
	if err != nil {
		return statusFailed, nil, err
	}
	out := pollable(r)
	defer out.Close()
	conn, theirs, err := userns.Pair()
	if err != nil {
		w.Close()
		return statusFailed, nil, err
	}
	defer conn.Close()
	high, err := openHighFiles(theirs, theirs, [3]*os.File{1: w, 2: w}, p.gate())
	theirs.Close()
	w.Close()
	if err != nil {
		return statusFailed, nil, err
	}
	st := &start{
		config: c, filter: filter, descriptors: high.descriptors(),
		run: execution{args: args, env: environmentOf(c.Env, c.Identity), identity: c.Identity, dir: or(c.WorkingDir, "/"), beside: true},
	}
	if st.emulation, err = m.Emulation.compiled(); err != nil {
		high.close()
		return statusFailed, nil, err
	}
	if st.admission, err = newAdmission(m.Group != ""); err != nil {
		high.close()
		return statusFailed, nil, err
	}
	defer st.admission.close()
	process, err := userns.Fork(st.joinProgram(gate{pidfd: high.other(0), user: -1}))
	high.close()
	if err != nil {
		return statusFailed, nil, err
	}
	if err := st.admission.admit(ctx, m.Group, process.PID); err != nil {
		process.Kill()
		process.Wait()
		return statusFailed, nil, err
	}
	return m.awaitCheck(ctx, p, process, conn, out, args[0])
}

// awaitCheck waits for the end of a check, and kills it when ctx ends first.
func (m *monitor) awaitCheck(ctx context.Context, p *program, process *userns.Process, conn *userns.Conn, out *os.File, program string) (int, []byte, error) {
	// Whoever runs the check tells which process that is, in time or not: who is
	// not known cannot be killed. The process itself sends its listener.
	var pidfds []*os.File
	for {
		var message struct{ What string }
		files, err := conn.Receive(context.WithoutCancel(ctx), &message)
		if err != nil {
			break
		}
		if message.What == doListener && len(files) == 1 {
			m.supervise(ctx, p, fakeroot.Listener{File: files[0], User: m.Emulation.user()})
			continue
		}
		pidfds = append(pidfds, files...)
	}
	err := process.Started(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		for _, f := range pidfds {
			_ = unix.PidfdSendSignal(int(f.Fd()), unix.SIGKILL, nil, 0)
		}
	})
	defer stop()
	said := make(chan []byte, 1)
	go func() { said <- beginning(out, healthOutput) }()
	ws, waitErr := process.Wait()
	_ = out.SetReadDeadline(time.Unix(1, 0))
	output := <-said
	closeAll(pidfds)
	switch {
	case err != nil && ctx.Err() == nil:
		_, err = startFailure(err, program, "")
		return statusFailed, output, err
	case waitErr != nil:
		return statusFailed, output, waitErr
	case ws.Signaled():
		return statusSignalBase + int(ws.Signal()), output, nil
	}
	return ws.ExitStatus(), output, nil
}

// beginning reads a file to its end and returns the first n bytes.
func beginning(f *os.File, n int) []byte {
	var kept []byte
	buf := make([]byte, 4096)
	for {
		got, err := read(f, buf)
		kept = append(kept, buf[:min(got, n-len(kept))]...)
		if err != nil {
			return kept
		}
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
