// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
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
	look, err := m.lookAtMemory(p)
	if err != nil {
		return // inspect says that the limit is approximate
	}
	defer look.close()
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
		held, swapped := memoryUse(look.dir, look.names(), m.MemorySwap > 0)
		if held <= m.Memory && (m.MemorySwap <= 0 || held+swapped <= m.MemorySwap) {
			continue
		}
		_ = m.setState(func(s *State) { s.OOMKilled = true })
		m.record("oom", nil)
		_ = p.signal(unix.SIGKILL)
		return
	}
}

// memoryLook is where the processes of a container are found, and which they are.
type memoryLook struct {
	dir   string // a procfs
	names func() []string
	close func()
}

// lookAtMemory finds the program's processes in a procfs of this monitor's pid
// namespace, in which only the container is; or, where that is another's, in the host's.
func (m *monitor) lookAtMemory(p *program) (memoryLook, error) {
	if m.PIDsOf != "" {
		all := func() []string {
			list, _ := p.members().list()
			return list
		}
		return memoryLook{hostProc, all, func() {}}, nil
	}
	f, err := ownProc()
	if err != nil {
		return memoryLook{}, err
	}
	dir := slot(int(f.Fd()))
	all := func() []string {
		list, _ := processNames(dir)
		return slices.DeleteFunc(list, func(name string) bool { return name == "1" }) // that is the monitor
	}
	return memoryLook{dir, all, func() { f.Close() }}, nil
}

// memoryUse adds up what the processes of these names below dir, a procfs, hold in
// memory that is theirs, without files that others could have mapped, too; and what
// of them is swapped out, if that is wanted.
func memoryUse(dir string, names []string, withSwap bool) (held, swapped int64) {
	for _, name := range names {
		data, err := readFile(filepath.Join(dir, name, "statm"))
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
			status, _ := readFile(filepath.Join(dir, name, "status"))
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
