// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sbx/overlay"
	"sbx/userns"
)

// start is what the monitor of a test is told.
type monitorStart struct {
	Options  Options
	Owners   overlay.Owners
	Layers   overlay.Owners
	Lower    string
	User     Credentials
	Mode     Mode
	Features Features
	Save     string
}

type monitorRequest struct {
	What string
	User Credentials
}

// monitorEnd is its last word.
type monitorEnd struct {
	Status  int
	Threads int
	Files   int
	CPU     time.Duration
	RSS     int64 // of the monitor at its largest, in KiB
	Errors  []string
	Save    string
}

const monitorChannel = 4

// testMonitor does what the monitor of a container does for root emulation.
func testMonitor(ctx context.Context, c *userns.Conn) error {
	var m monitorStart
	if _, err := c.Receive(ctx, &m); err != nil {
		return err
	}
	channel, err := userns.Inherited(monitorChannel)
	if err != nil {
		return err
	}
	const pidfd = monitorChannel + 1
	unix.CloseOnExec(pidfd)
	var end monitorEnd
	var mu sync.Mutex
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		end.Errors = append(end.Errors, err.Error())
	}
	var s *Supervisor
	if m.Mode.Listens() {
		procfs, err := OpenProcfs()
		if err != nil {
			return err
		}
		o := m.Options
		o.Owners, o.Features = m.Owners, m.Features
		o.Layers = []Layer{{Dir: m.Lower, Owners: m.Layers}}
		if s, err = New(o); err != nil {
			fail(err)
			return c.Send(end)
		}
		serve := func(file *os.File, user Credentials) {
			if err := s.Serve(ctx, Listener{File: file, Mounts: pidfd, Procfs: procfs, User: user}); err != nil {
				fail(err)
			}
		}
		go func() {
			var message struct{ What string }
			files, err := channel.Receive(ctx, &message)
			if err != nil || len(files) != 1 || message.What != "listener" {
				fail(fmt.Errorf("receive listener: %v", err))
				return
			}
			serve(files[0], m.User)
		}()
		go func() {
			for {
				var r monitorRequest
				files, err := c.Receive(ctx, &r)
				if err != nil {
					return
				}
				switch r.What {
				case "listener":
					go serve(files[0], r.User)
				case "figures":
					c.Send(figures(s))
				}
			}
		}()
	}
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if pid != 2 {
			continue
		}
		end.Status = ws.ExitStatus()
		if ws.Signaled() {
			end.Status = 128 + int(ws.Signal())
		}
		break
	}
	if s != nil {
		if err := s.Save(ctx, m.Save); err != nil {
			fail(err)
		}
		s.Close()
	}
	mu.Lock()
	defer mu.Unlock()
	end.RSS = figures(&Supervisor{}).RSS
	return c.Send(end)
}

func figures(s *Supervisor) monitorEnd {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	files, _ := os.ReadDir("/proc/self/fd")
	// Not ru_maxrss, which knows what the process was before its execve.
	status, _ := os.ReadFile("/proc/self/status")
	rss, _ := strconv.ParseInt(strings.TrimSuffix(field(status, "VmHWM"), " kB"), 10, 64)
	return monitorEnd{Threads: s.Threads(), Files: len(files), RSS: rss, CPU: time.Duration(u.Utime.Nano() + u.Stime.Nano())}
}
