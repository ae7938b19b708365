// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
		held, swapped := memoryUse(slot(int(dir.Fd())), m.MemorySwap > 0)
		if held <= m.Memory && (m.MemorySwap <= 0 || held+swapped <= m.MemorySwap) {
			continue
		}
		_ = m.setState(func(s *State) { s.OOMKilled = true })
		m.record("oom", nil)
		_ = p.signal(unix.SIGKILL)
		return
	}
}

// memoryUse adds up what the processes below dir, a procfs, hold in memory that
// is theirs, without files that others could have mapped, too; and what of them
// is swapped out, if that is wanted.
func memoryUse(dir string, withSwap bool) (held, swapped int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, 0
	}
	for _, e := range entries {
		if e.Name()[0] < '0' || e.Name()[0] > '9' || e.Name() == "1" { // 1 is the monitor
			continue
		}
		data, err := readFile(filepath.Join(dir, e.Name(), "statm"))
		if err != nil {
			continue
		}
		f := strings.Fields(string(data)) // size resident shared ..
		if len(f) < 3 {
			continue
		}
		resident, _ := strconv.ParseInt(f[1], 10, 64)
		shared, _ := strconv.ParseInt(f[2], 10, 64)
		held += (resident - shared) * int64(os.Getpagesize())
		if withSwap {
			status, _ := readFile(filepath.Join(dir, e.Name(), "status"))
			swapped += int64(numberIn(status, "VmSwap:")) << 10
		}
	}
	return held, swapped
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
