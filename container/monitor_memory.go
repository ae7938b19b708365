// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"maps"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// memoryInterval is how often the memory of a container with a limit is looked
// at. What it holds between two looks is not seen.
const memoryInterval = 50 * time.Millisecond

// watchMemory ends a container that holds more memory than its limit, where no
// control group does: as the kernel would, without a word to the program.
func (m *monitor) watchMemory(ctx context.Context, p *program) {
	dir, err := ownProc()
	if err != nil {
		return // inspect says that the limit is approximate
	}
	defer dir.Close()
	tick := time.NewTicker(memoryInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-p.ended:
			return
		case <-ctx.Done():
			return
		}
		if memoryUse(slot(int(dir.Fd()))) <= m.Memory {
			continue
		}
		_ = m.setState(func(s *State) { s.OOMKilled = true })
		m.record("oom", nil)
		_ = p.signal(unix.SIGKILL)
		return
	}
}

// ownProc is a procfs of this process's pid namespace, in which only the
// container is, mounted nowhere (fsmount(2), Linux 5.2).
func ownProc() (*os.File, error) {
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, os.NewSyscallError("fsconfig", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsmount", err)
	}
	return os.NewFile(uintptr(fd), "proc"), nil
}

// record writes an event of the container down, as it is called now.
func (m *monitor) record(action string, more map[string]string) {
	attributes := map[string]string{}
	maps.Copy(attributes, m.Attributes)
	maps.Copy(attributes, more)
	m.mu.Lock()
	attributes["name"] = m.Name
	m.mu.Unlock()
	(&Home{dir: m.Home}).Record(Event{Type: "container", Action: action, ID: m.ID, Attributes: attributes})
}
