// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Process is one process of a container, as the host's procfs shows it (proc(5)).
type Process struct {
	PID, PPID int           // on the host
	UID       uint32        // in the container
	Comm      string        // the program's name, without its path
	Args      []string      // empty for a zombie
	State     string        // R, S, D, T, Z, ..
	TTY       int           // device number; 0: none
	CPU       time.Duration // used so far
	Children  time.Duration // used by children that it has waited for
	Started   time.Time
	VSize     int64 // bytes of address space
	RSS       int64 // bytes in memory
	Nice      int
	Threads   int
	Read      int64 // bytes from disk, where they can be known
	Written   int64

	ticks int64 // when it was started, as the kernel counts
}

// ticks is the kernel's clock for procfs, the same on all machines that Go knows.
const ticks = 100

// Processes lists what runs in the container, the oldest first: the processes in
// its pid namespace, whoever started them. It is empty when the container does
// not run.
func (c *Container) Processes() ([]Process, error) {
	if c.State.PID == 0 {
		return nil, nil
	}
	namespace := "ns/pid"
	if c.Config.pidsOfWhom() != "" {
		namespace = "ns/mnt" // others are in the pid namespace, too
	}
	own, err := os.Readlink(pidPath(c.visible(), namespace))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil // it has just ended
		}
		return nil, fmt.Errorf("list processes of container %s: %w", c.Config.Name, err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	boot := bootTime()
	var list []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == c.State.Monitor.PID {
			continue
		}
		if ns, err := os.Readlink(pidPath(pid, namespace)); pid != c.State.PID && (err != nil || ns != own) {
			continue
		}
		p, err := readProcess(pid, boot)
		if err != nil {
			continue // it has just ended
		}
		p.UID = c.Config.Rung.InsideUID(p.UID)
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b Process) int {
		if d := a.Started.Compare(b.Started); d != 0 {
			return d
		}
		return a.PID - b.PID
	})
	return list, nil
}

// Executed lists the processes that were executed in the container and not
// started by its own: by exec, or as health checks. Each has an identifier of 64
// hexadecimal digits, which is its own as long as it lives.
func (c *Container) Executed() ([]string, error) {
	list, err := c.Processes()
	if err != nil {
		return nil, err
	}
	inside := map[int]bool{}
	for i := range list {
		inside[list[i].PID] = true
	}
	var ids []string
	for i := range list {
		p := &list[i]
		if p.PID == c.State.PID || inside[p.PPID] {
			continue
		}
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", c.ID(), p.PID, p.ticks))
		ids = append(ids, hex.EncodeToString(sum[:]))
	}
	return ids, nil
}

// visible is a process of the container whose namespaces may be looked at: pid 1,
// or the first child of that where it is a mere reaper and hides its memory.
func (c *Container) visible() int {
	pid := c.State.PID
	if !c.Config.Init {
		return pid
	}
	children := strings.Fields(readLine(pidPath(pid, "task/"+strconv.Itoa(pid)+"/children")))
	if len(children) > 0 {
		pid, _ = strconv.Atoi(children[0])
	}
	return pid
}

func pidPath(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }

// bootTime is when the machine was started, which start times count from.
func bootTime() time.Time {
	up := strings.Fields(readLine("/proc/uptime"))
	if len(up) == 0 {
		return time.Time{}
	}
	seconds, _ := strconv.ParseFloat(up[0], 64)
	return time.Now().Add(-time.Duration(seconds * float64(time.Second)))
}

// Places of fields in /proc/PID/stat, counted behind the name.
const (
	statState   = 0
	statPPID    = 1
	statTTY     = 4
	statUTime   = 11
	statSTime   = 12
	statCUTime  = 13
	statCSTime  = 14
	statNice    = 16
	statThreads = 17
	statStart   = 19
	statVSize   = 20
	statRSS     = 21
)

func readProcess(pid int, boot time.Time) (Process, error) {
	p := Process{PID: pid}
	data, err := readFile(pidPath(pid, "stat"))
	if err != nil {
		return p, err
	}
	begin, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if begin < 0 || end < begin {
		return p, errors.New("strange stat")
	}
	f := strings.Fields(string(data[end+1:]))
	if len(f) <= statRSS {
		return p, errors.New("strange stat")
	}
	number := func(i int) int64 {
		n, _ := strconv.ParseInt(f[i], 10, 64)
		return n
	}
	since := func(i int) time.Duration { return time.Duration(number(i)) * time.Second / ticks }
	p.Comm, p.State, p.PPID, p.TTY = string(data[begin+1:end]), f[statState], int(number(statPPID)), int(number(statTTY))
	p.CPU, p.Children = since(statUTime)+since(statSTime), since(statCUTime)+since(statCSTime)
	p.Nice, p.Threads, p.VSize = int(number(statNice)), int(number(statThreads)), number(statVSize)
	p.RSS = number(statRSS) * int64(os.Getpagesize())
	p.ticks = number(statStart)
	if p.Started = boot; !boot.IsZero() {
		p.Started = boot.Add(since(statStart))
	}
	if line, err := readFile(pidPath(pid, "cmdline")); err == nil && len(line) > 0 {
		p.Args = strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")
	}
	p.UID = uint32(statusNumber(pid, "Uid:"))
	p.Read, p.Written = diskBytes(pid)
	return p, nil
}

// statusNumber is the first number of a line of /proc/PID/status.
func statusNumber(pid int, name string) uint64 {
	data, _ := readFile(pidPath(pid, "status"))
	return numberIn(data, name)
}

// numberIn is the first number of the line that begins so.
func numberIn(data []byte, name string) uint64 {
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			if f := strings.Fields(rest); len(f) > 0 {
				n, _ := strconv.ParseUint(f[0], 10, 64)
				return n
			}
		}
	}
	return 0
}

func diskBytes(pid int) (read, written int64) {
	data, err := readFile(pidPath(pid, "io"))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, _ := strconv.ParseInt(value, 10, 64)
		switch name {
		case "read_bytes":
			read = n
		case "write_bytes":
			written = n
		}
	}
	return read, written
}

// Usage is what a container uses at a moment.
type Usage struct {
	At            time.Time
	CPU           time.Duration // in all, as far as it is still known
	Memory        int64
	Processes     int // with threads, as a pids limit counts
	Read, Written int64
	NetIn, NetOut int64 // over the network devices of its own
}

// Usage adds up what the container's processes use. It is zero when the
// container does not run.
func (c *Container) Usage() (Usage, error) {
	u := Usage{At: time.Now()}
	list, err := c.Processes()
	if err != nil {
		return u, err
	}
	for i := range list {
		p := &list[i]
		u.CPU += p.CPU + p.Children
		u.Memory += p.RSS
		u.Processes += p.Threads
		u.Read, u.Written = u.Read+p.Read, u.Written+p.Written
	}
	if len(list) > 0 && c.Config.Network != NetworkHost {
		u.NetIn, u.NetOut = networkBytes(c.visible())
	}
	return u, nil
}

// networkBytes adds up what the devices of a process's network namespace have
// carried, without loopback.
func networkBytes(pid int) (in, out int64) {
	data, err := readFile(pidPath(pid, "net/dev"))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(data)) {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		f := strings.Fields(rest)
		if !ok || name == "lo" || len(f) < 9 {
			continue
		}
		i, _ := strconv.ParseInt(f[0], 10, 64)
		o, _ := strconv.ParseInt(f[8], 10, 64)
		in, out = in+i, out+o
	}
	return in, out
}
