// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Limits bound what a container may use. Zero values are no bound of the user's.
type Limits struct {
	Memory            int64    `json:"memory,omitempty"`     // bytes that all processes together may hold
	MemorySwap        int64    `json:"memorySwap,omitempty"` // with swap; -1: any
	MemoryReservation int64    `json:"memoryReservation,omitempty"`
	NanoCPUs          int64    `json:"nanoCPUs,omitempty"`  // 1e9 is one processor
	CPUPeriod         int64    `json:"cpuPeriod,omitempty"` // microseconds; 0: cpuPeriod
	CPUQuota          int64    `json:"cpuQuota,omitempty"`  // of processor time in each period; negative: any
	CPUShares         int64    `json:"cpuShares,omitempty"`
	CPUSet            string   `json:"cpuSet,omitempty"` // processors: 0-2,4
	Pids              int64    `json:"pids,omitempty"`   // 0: defaultPids; negative: any
	Ulimits           []Ulimit `json:"ulimits,omitempty"`
	ShmSize           int64    `json:"shmSize,omitempty"` // of /dev/shm; 0: 64 MiB
	OOMScoreAdj       int      `json:"oomScoreAdj,omitempty"`
}

// Ulimit is a limit of each process by itself (setrlimit(2)); -1 is none.
type Ulimit struct {
	Name string `json:"name"`
	Soft int64  `json:"soft"`
	Hard int64  `json:"hard"`
}

// defaultPids keeps a fork bomb from taking the machine with it.
const defaultPids = 2048

// How a limit is held.
const (
	Enforced    = "enforced"    // by the kernel, for the container as a whole
	Approximate = "approximate" // nearly: what is said of it in docs/limits.md
	Unenforced  = "none"
)

// LimitSupport says how a limit is held, by the name that inspect has for it.
type LimitSupport struct{ Name, How, By string }

// LimitsSupported are the limits that Docker has control groups for. Without
// those of the user's own each is at best approximate: see docs/limits.md.
func LimitsSupported() []LimitSupport {
	var delegated []string
	if hasGroups() && exists(managerSocket()) {
		uid := os.Getuid()
		delegated = strings.Fields(readLine(fmt.Sprintf("%s/user.slice/user-%d.slice/user@%d.service/cgroup.controllers", groupRoot, uid, uid)))
	}
	return limitsSupported(delegated, lingers())
}

// limitsSupported are the limits where these controllers are the user's.
func limitsSupported(delegated []string, lingering bool) []LimitSupport {
	by := "by a control group that your systemd makes"
	if !lingering {
		by += ", while somebody is attached when it starts (loginctl enable-linger: always)"
	}
	list := limitsWithoutGroups()
	controllers := map[string]string{
		"Memory": "memory", "MemorySwap": "memory", "MemoryReservation": "memory",
		"NanoCpus": "cpu", "CpuQuota": "cpu", "CpuShares": "cpu", "CpusetCpus": "cpuset", "PidsLimit": "pids",
	}
	for i := range list {
		if slices.Contains(delegated, controllers[list[i].Name]) {
			list[i].How, list[i].By = Enforced, by
		}
	}
	return list
}

func limitsWithoutGroups() []LimitSupport {
	return []LimitSupport{
		{"Memory", Approximate, fmt.Sprintf("the container is ended when it holds more; looked at every %v", memoryInterval)},
		{"MemorySwap", Approximate, "counted with memory, and looked at as often"},
		{"MemoryReservation", Unenforced, "nobody but the kernel knows when memory runs short"},
		{"NanoCpus", Approximate, "as many whole processors, by affinity"},
		{"CpuQuota", Approximate, "as many whole processors as it is of CpuPeriod, by affinity"},
		{"CpuShares", Approximate, "by priority, and only below 1024"},
		{"CpusetCpus", Approximate, "by affinity, which a program can change"},
		{"PidsLimit", Approximate, "by RLIMIT_NPROC, for each user of the container"},
	}
}

// Enforcement says how each limit that is set is held in a container whose control
// group holds these.
func (l *Limits) Enforcement(held []string) map[string]string {
	set := map[string]bool{
		"Memory": l.Memory > 0, "MemorySwap": l.MemorySwap != 0, "MemoryReservation": l.MemoryReservation > 0,
		"NanoCpus": l.NanoCPUs > 0, "CpuQuota": l.CPUQuota > 0, "CpuShares": l.CPUShares > 0, "CpusetCpus": l.CPUSet != "", "PidsLimit": l.Pids >= 0,
	}
	how := map[string]string{}
	for _, s := range limitsWithoutGroups() {
		switch {
		case !set[s.Name]:
		case slices.Contains(held, s.Name):
			how[s.Name] = Enforced
		default:
			how[s.Name] = s.How
		}
	}
	return how
}

// PidsLimit is how many processes and threads there may be; 0: any.
func (l *Limits) PidsLimit() int64 {
	switch {
	case l.Pids == 0:
		return defaultPids
	case l.Pids < 0:
		return 0
	}
	return l.Pids
}

// minMemory is Docker's: less starts nothing.
const minMemory = 6 << 20

// Check refuses what cannot be, and cuts what this user may not have: notices
// say what was cut.
func (l *Limits) Check() (notices []string, err error) {
	switch {
	case l.Memory < 0 || l.Memory > 0 && l.Memory < minMemory:
		return nil, errors.New("minimum memory limit allowed is 6MB")
	case l.Memory > 0 && l.MemorySwap > 0 && l.MemorySwap < l.Memory:
		return nil, errors.New("minimum memoryswap limit should be larger than already set memory limit")
	case l.MemorySwap > 0 && l.Memory == 0:
		return nil, errors.New("you should always set the memory limit when using memory-swap limit")
	case l.Memory > 0 && l.MemoryReservation > l.Memory:
		return nil, errors.New("minimum memory limit can not be less than memory reservation limit")
	case l.OOMScoreAdj < -1000 || l.OOMScoreAdj > 1000:
		return nil, fmt.Errorf("invalid value %d, range for oom score adj is [-1000, 1000]", l.OOMScoreAdj)
	}
	if err := l.checkCPUs(); err != nil {
		return nil, err
	}
	for i := range l.Ulimits {
		notice, err := l.Ulimits[i].cut()
		if err != nil {
			return nil, err
		}
		if notice != "" {
			notices = append(notices, notice)
		}
	}
	if l.OOMScoreAdj == 0 {
		return notices, nil
	}
	if own, _ := strconv.Atoi(readLine("/proc/self/oom_score_adj")); l.OOMScoreAdj < own {
		notices = append(notices, fmt.Sprintf("--oom-score-adj %d: a user can only raise it; it stays %d", l.OOMScoreAdj, own))
		l.OOMScoreAdj = 0
	}
	return notices, nil
}

// cpuPeriod is the kernel's own, in microseconds.
const cpuPeriod = 100_000

// period is the time in which the quota of processor time is counted anew.
func (l *Limits) period() int64 {
	if l.CPUPeriod == 0 {
		return cpuPeriod
	}
	return l.CPUPeriod
}

// processors is how many the container may keep busy, in billionths; 0: any.
func (l *Limits) processors() int64 {
	if l.CPUQuota <= 0 {
		return l.NanoCPUs
	}
	// Rounded up, so that a little is not none; what no machine has is any.
	return int64(min(math.Ceil(float64(l.CPUQuota)*1e9/float64(l.period())), maxCPUs*1e9))
}

func (l *Limits) checkCPUs() error {
	switch {
	case l.NanoCPUs > 0 && l.CPUPeriod > 0:
		return errors.New("conflicting options: Nano CPUs and CPU Period cannot both be set")
	case l.NanoCPUs > 0 && l.CPUQuota > 0:
		return errors.New("conflicting options: Nano CPUs and CPU Quota cannot both be set")
	case l.CPUPeriod != 0 && (l.CPUPeriod < 1000 || l.CPUPeriod > 1_000_000):
		return errors.New("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case l.CPUQuota > 0 && l.CPUQuota < 1000:
		return errors.New("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	}
	if l.NanoCPUs == 0 && l.CPUSet == "" {
		return nil
	}
	online, err := usableCPUs()
	if err != nil {
		return err
	}
	if n := int64(online.Count()); l.NanoCPUs < 0 || l.NanoCPUs > n*1e9 {
		return fmt.Errorf("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", n, n)
	}
	if l.CPUSet != "" {
		_, err = parseCPUSet(l.CPUSet, online)
	}
	return err
}

// rlimits are the names of limits, as --ulimit has them.
var rlimits = map[string]int{
	"core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA, "fsize": unix.RLIMIT_FSIZE, "locks": rlimitLocks,
	"memlock": unix.RLIMIT_MEMLOCK, "msgqueue": rlimitMsgqueue, "nice": rlimitNice, "nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC,
	"rss": unix.RLIMIT_RSS, "rtprio": rlimitRtprio, "rttime": rlimitRttime, "sigpending": rlimitSigpending, "stack": unix.RLIMIT_STACK,
}

// Limits that the unix package has no names for (linux/resource.h).
const (
	rlimitLocks      = 10
	rlimitSigpending = 11
	rlimitMsgqueue   = 12
	rlimitNice       = 13
	rlimitRtprio     = 14
	rlimitRttime     = 15
)

// ParseUlimit reads NAME=SOFT[:HARD].
func ParseUlimit(s string) (Ulimit, error) {
	name, value, ok := strings.Cut(s, "=")
	if _, known := rlimits[name]; !ok || !known {
		return Ulimit{}, fmt.Errorf("invalid ulimit type: %s", name)
	}
	if name == "locks" {
		return Ulimit{}, errors.New("the ulimit locks has no effect on Linux")
	}
	soft, hard, two := strings.Cut(value, ":")
	u := Ulimit{Name: name}
	var err error
	if u.Soft, err = strconv.ParseInt(soft, 10, 64); err != nil || u.Soft < -1 {
		return u, fmt.Errorf("invalid ulimit %q: %q is no number", s, soft)
	}
	if u.Hard = u.Soft; two {
		if u.Hard, err = strconv.ParseInt(hard, 10, 64); err != nil || u.Hard < -1 {
			return u, fmt.Errorf("invalid ulimit %q: %q is no number", s, hard)
		}
	}
	if u.Hard >= 0 && (u.Soft > u.Hard || u.Soft < 0) {
		return u, fmt.Errorf("ulimit soft limit must be less than or equal to hard limit: %d > %d", u.Soft, u.Hard)
	}
	return u, nil
}

func (u Ulimit) String() string { return fmt.Sprintf("%s=%d:%d", u.Name, u.Soft, u.Hard) }

func (u Ulimit) rlimit() unix.Rlimit {
	// -1 is RLIM_INFINITY, as an unsigned number.
	return unix.Rlimit{Cur: uint64(u.Soft), Max: uint64(u.Hard)}
}

// cut lowers a limit to the user's own hard one, over which only root gets.
func (u *Ulimit) cut() (notice string, err error) {
	number, ok := rlimits[u.Name]
	if !ok {
		return "", fmt.Errorf("invalid ulimit type: %s", u.Name)
	}
	var own unix.Rlimit
	if err := unix.Getrlimit(number, &own); err != nil {
		return "", os.NewSyscallError("getrlimit", err)
	}
	r := u.rlimit()
	if r.Max <= own.Max && r.Cur <= own.Max {
		return "", nil
	}
	asked := *u
	u.Hard = int64(min(r.Max, own.Max))
	u.Soft = int64(min(r.Cur, own.Max))
	return fmt.Sprintf("--ulimit %s: your own hard limit is lower, and it is %s", asked, u), nil
}

// usableCPUs are the processors that this process may run on.
func usableCPUs() (unix.CPUSet, error) {
	var set unix.CPUSet
	err := unix.SchedGetaffinity(0, &set)
	return set, os.NewSyscallError("sched_getaffinity", err)
}

// maxCPUs is how many a unix.CPUSet holds.
const maxCPUs = 1024

// parseCPUSet reads a list of processors, 0-2,4, all of which must be usable.
func parseCPUSet(s string, usable unix.CPUSet) (unix.CPUSet, error) {
	var set unix.CPUSet
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, errA := strconv.Atoi(first)
		b, errB := strconv.Atoi(last)
		if errA != nil || errB != nil || a < 0 || b < a || b >= maxCPUs {
			return set, fmt.Errorf("invalid value %s for cpuset cpus", s)
		}
		for n := a; n <= b; n++ {
			if !usable.IsSet(n) {
				return set, fmt.Errorf("requested CPUs are not available - requested %s, available: %s", s, formatCPUSet(usable))
			}
			set.Set(n)
		}
	}
	return set, nil
}

func formatCPUSet(set unix.CPUSet) string {
	var parts []string
	for n := 0; n < maxCPUs; n++ {
		if !set.IsSet(n) {
			continue
		}
		first := n
		for n+1 < maxCPUs && set.IsSet(n+1) {
			n++
		}
		if first == n {
			parts = append(parts, strconv.Itoa(n))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", first, n))
		}
	}
	return strings.Join(parts, ",")
}

// affinity is which processors the container runs on, or nil for all: those of
// the set, and of them as many as processors says, rounded up. Which, depends
// on the ID, so that several containers spread.
func (c *Config) affinity() *unix.CPUSet {
	l := &c.Limits
	if l.CPUSet == "" && l.processors() == 0 {
		return nil
	}
	usable, err := usableCPUs()
	if err != nil {
		return nil
	}
	set := usable
	if l.CPUSet != "" {
		if set, err = parseCPUSet(l.CPUSet, usable); err != nil {
			return nil // the machine has changed; Check refused it when it was asked for
		}
	}
	want, have := int((l.processors()+1e9-1)/1e9), set.Count()
	if want == 0 || want >= have {
		return &set
	}
	var all []int
	for n := 0; n < maxCPUs; n++ {
		if set.IsSet(n) {
			all = append(all, n)
		}
	}
	h := fnv.New32a()
	h.Write([]byte(c.ID))
	first := int(h.Sum32() % uint32(have))
	var some unix.CPUSet
	for i := range want {
		some.Set(all[(first+i)%have])
	}
	return &some
}

// niceness is a priority for shares of less than the usual 1024: each step of
// nice(2) is a quarter more or less.
func (l *Limits) niceness() int {
	if l.CPUShares <= 0 || l.CPUShares >= 1024 {
		return 0
	}
	return min(19, int(math.Round(math.Log(1024/float64(l.CPUShares))/math.Log(1.25))))
}

// limit bounds the process that becomes the program. Limits of the user's own
// that are lower hold.
func (r *recipe) limit() {
	l := &r.config.Limits
	if pids := l.PidsLimit(); pids > 0 && !slices.ContainsFunc(l.Ulimits, func(u Ulimit) bool { return u.Name == "nproc" }) {
		// Counted by the user namespace for each of its users, over processes that
		// entered later, too. Its first user also has the monitor's threads.
		var own unix.Rlimit
		if unix.Getrlimit(unix.RLIMIT_NPROC, &own) == nil {
			r.setLimit("pids", unix.RLIMIT_NPROC, unix.Rlimit{Cur: min(uint64(pids), own.Max), Max: min(uint64(pids), own.Max)})
		}
	}
	for _, u := range l.Ulimits {
		r.setLimit(u.Name, rlimits[u.Name], u.rlimit())
	}
	if set := r.config.affinity(); set != nil {
		r.Keep(set)
		r.Call("set processors", unix.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(*set), unsafe.Pointer(set))
	}
	if n := l.niceness(); n > 0 {
		r.Call("set priority", unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, n).Any()
	}
	if l.OOMScoreAdj != 0 {
		text := []byte(strconv.Itoa(l.OOMScoreAdj))
		r.shown(func() {
			r.Call("set OOM score", unix.SYS_OPENAT, unix.AT_FDCWD, "/proc/self/oom_score_adj", unix.O_WRONLY|unix.O_CLOEXEC, 0).Into(r.work).Any().SkipOnIgnored(1)
			r.Call("set OOM score", unix.SYS_WRITE, r.work, text, len(text)).Any()
		})
	}
}

func (r *recipe) setLimit(name string, number int, value unix.Rlimit) {
	v := &value
	r.Keep(v)
	r.Call("set limit "+name, unix.SYS_PRLIMIT64, 0, number, unsafe.Pointer(v), nil)
}
