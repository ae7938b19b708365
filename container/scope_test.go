// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bufio"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestGroupFiles: what a control group is told of limits. No kernel that holds them
// is needed for that, only a directory with the files of one.
func TestGroupFiles(t *testing.T) {
	all := []string{"memory.max", "memory.swap.max", "memory.low", "cpu.max", "cpu.weight", "cpuset.cpus", "pids.max"}
	for _, tt := range []struct {
		name   string
		limits Limits
		has    []string // files of the group
		want   map[string]string
		held   []string
	}{
		{"none", Limits{Pids: -1}, all, map[string]string{}, nil},
		{"memory", Limits{Memory: 64 << 20}, all, map[string]string{"memory.max": "67108864", "memory.swap.max": "67108864"}, []string{"Memory", "MemorySwap"}},
		{"no swap", Limits{Memory: 64 << 20, MemorySwap: 64 << 20}, all, map[string]string{"memory.max": "67108864", "memory.swap.max": "0"}, []string{"Memory", "MemorySwap"}},
		{"any swap", Limits{Memory: 64 << 20, MemorySwap: -1}, all, map[string]string{"memory.max": "67108864", "memory.swap.max": "max"}, []string{"Memory", "MemorySwap"}},
		{"a kernel that does not count swap", Limits{Memory: 64 << 20}, []string{"memory.max"}, map[string]string{"memory.max": "67108864"}, []string{"Memory"}},
		{"reservation", Limits{MemoryReservation: 1 << 20}, all, map[string]string{"memory.low": "1048576"}, []string{"MemoryReservation"}},
		{"half a processor", Limits{NanoCPUs: 5e8}, all, map[string]string{"cpu.max": "50000 100000"}, []string{"NanoCpus"}},
		{"two and a half", Limits{NanoCPUs: 25e8}, all, map[string]string{"cpu.max": "250000 100000"}, []string{"NanoCpus"}},
		{"nearly nothing", Limits{NanoCPUs: 1}, all, map[string]string{"cpu.max": "1000 100000"}, []string{"NanoCpus"}},
		{"quota", Limits{CPUQuota: 20_000}, all, map[string]string{"cpu.max": "20000 100000"}, []string{"CpuQuota"}},
		{"quota of a period", Limits{CPUQuota: 20_000, CPUPeriod: 10_000}, all, map[string]string{"cpu.max": "20000 10000"}, []string{"CpuQuota"}},
		{"any quota", Limits{CPUQuota: -1, CPUPeriod: 10_000}, all, map[string]string{"cpu.max": "max 10000"}, []string{"CpuQuota"}},
		{"usual shares", Limits{CPUShares: 1024}, all, map[string]string{"cpu.weight": "39"}, []string{"CpuShares"}},
		{"fewest shares", Limits{CPUShares: 2}, all, map[string]string{"cpu.weight": "1"}, []string{"CpuShares"}},
		{"most shares", Limits{CPUShares: 1 << 20}, all, map[string]string{"cpu.weight": "10000"}, []string{"CpuShares"}},
		{"processors and processes", Limits{CPUSet: "0-1", Pids: 10}, all, map[string]string{"cpuset.cpus": "0-1", "pids.max": "10"}, []string{"CpusetCpus", "PidsLimit"}},
		{"no controller of processors", Limits{CPUSet: "0-1", Pids: 10}, []string{"pids.max"}, map[string]string{"pids.max": "10"}, []string{"PidsLimit"}},
	} {
		dir := t.TempDir()
		for _, name := range tt.has {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if held := tt.limits.hold(dir); !slices.Equal(held, tt.held) {
			t.Errorf("%s: held %v, want %v", tt.name, held, tt.held)
		}
		for _, name := range all {
			if got := readLine(filepath.Join(dir, name)); got != tt.want[name] {
				t.Errorf("%s: %s is %q, want %q", tt.name, name, got, tt.want[name])
			}
		}
		if got := tt.limits.Enforcement(tt.held)["Memory"]; tt.limits.Memory > 0 && got != Enforced {
			t.Errorf("%s: memory is %s", tt.name, got)
		}
	}
}

func TestLimitsSupported(t *testing.T) {
	how := func(list []LimitSupport, name string) string {
		for _, l := range list {
			if l.Name == name {
				return l.How
			}
		}
		return ""
	}
	some := limitsSupported([]string{"memory", "pids"}, false)
	for name, want := range map[string]string{"Memory": Enforced, "PidsLimit": Enforced, "NanoCpus": Approximate, "CpusetCpus": Approximate} {
		if got := how(some, name); got != want {
			t.Errorf("with memory and pids delegated, %s is %s, want %s", name, got, want)
		}
	}
	if got := how(limitsSupported(nil, true), "Memory"); got != Approximate {
		t.Errorf("with nothing delegated, memory is %s", got)
	}
}

func TestOOMKills(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "memory.events"), []byte("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := oomKills(dir); got != 2 {
		t.Errorf("%d processes killed, want 2", got)
	}
	if got := oomKills(t.TempDir()); got != 0 {
		t.Errorf("%d processes killed in a group that has gone", got)
	}
}

// TestManager: a manager that answers, refuses, and fails.
func TestManager(t *testing.T) {
	for _, tt := range []struct {
		name, result, refusal, want string
	}{
		{name: "done", result: "done"},
		{name: "failed", result: "failed", want: "start s.scope: failed"},
		{name: "refused", refusal: "Access denied", want: "StartTransientUnit: Access denied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "private")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			served := make(chan error, 1)
			go func() { served <- serveManager(l, tt.result, tt.refusal) }()
			m, err := dialManager(t.Context(), socket)
			if err != nil {
				t.Fatal(err)
			}
			err = m.startScope("s.scope", "a container", 7)
			m.conn.Close()
			if got := errorText(err); got != tt.want {
				t.Errorf("startScope: %q, want %q", got, tt.want)
			}
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// serveManager is the other side: it looks at what comes, and answers a call.
func serveManager(l net.Listener, result, refusal string) error {
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	want := "\x00AUTH EXTERNAL " + hex.EncodeToString([]byte(strconv.Itoa(os.Getuid()))) + "\r\n"
	if err != nil || line != want {
		return errors.Join(err, errors.New("it says "+strconv.Quote(line)))
	}
	if _, err := io.WriteString(conn, "OK 00000000000000000000000000000000\r\n"); err != nil {
		return err
	}
	if line, err = in.ReadString('\n'); err != nil || line != "BEGIN\r\n" {
		return errors.Join(err, errors.New("it says "+strconv.Quote(line)))
	}
	call, err := (&manager{in: in}).receive()
	if err != nil {
		return err
	}
	unit, _, err := busText(call.body)
	if err != nil || call.kind != 1 || call.member != "StartTransientUnit" || unit != "s.scope" || !strings.Contains(string(call.body), "PIDs\x00\x02au\x00") {
		return errors.Join(err, errors.New("strange call of "+call.member))
	}
	const job = "/org/freedesktop/systemd1/job/5"
	var answer, removed busWriter
	if refusal != "" {
		answer.text(refusal)
		_, err = conn.Write(busAnswer(3, "s", answer.data, ""))
		return err
	}
	answer.text(job)
	removed.number(5)
	for _, text := range []string{job, "s.scope", result} {
		removed.text(text)
	}
	// Signals come in between.
	_, err = conn.Write(slices.Concat(busAnswer(4, "s", answer.data, "JobNew"), busAnswer(2, "o", answer.data, ""), busAnswer(4, "uoss", removed.data, "JobRemoved")))
	return err
}

// busAnswer is a message of a kind to the call of serial 1, or a signal.
func busAnswer(kind byte, signature string, body []byte, member string) []byte {
	b := busWriter{data: []byte{'l', kind, 1, 1}}
	b.number(uint32(len(body)))
	b.number(9)
	b.array(8, func() {
		if member != "" {
			b.field(3, "s", func() { b.text(member) })
		} else {
			b.field(5, "u", func() { b.number(1) })
		}
		b.field(8, "g", func() { b.signature(signature) })
	})
	b.align(8)
	return append(b.data, body...)
}
