// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// facts are what the probe's verb posture tells, by name. As what is expected, a
// value that begins with * is one that may begin with anything; "absent" is a fact
// that is not told.
type facts map[string]string

// The tables of this file are written by hand, from what Docker and Podman promise
// and from the ledger of what went wrong with them; the code follows them.

const (
	allCapabilities     = "000001ffffffffff"
	defaultCapabilities = "00000000800405fb"
	noCapabilities      = "0000000000000000"
)

// hiddenPaths show nothing, and take nothing.
var hiddenPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
	"/proc/timer_list", "/proc/timer_stats", "/sys/firmware", "/sys/devices/virtual/powercap", "/sys/fs/selinux", "/sys/dev/block",
	"/sys/devices/system/cpu/cpu0/thermal_throttle",
}

// readOnlyPaths cannot be written, whoever tries.
var readOnlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys/kernel", "/sys/class"}

// usualFacts are those of a container without flags.
func usualFacts(rung string) facts {
	f := facts{
		"CapInh": noCapabilities, "CapPrm": defaultCapabilities, "CapEff": defaultCapabilities, "CapBnd": defaultCapabilities, "CapAmb": noCapabilities,
		"NoNewPrivs": "1", "Seccomp": "2", "umask": "0022", "cwd": "/", "descriptors": "0 1 2", "dumpable": "1", "terminal": "false",
		"AF_ALG": "operation not permitted", "unshare": "operation not permitted",
		"uid_map": fmt.Sprintf("0 %d 1", os.Getuid()), "gid_map": fmt.Sprintf("0 %d 1", os.Getgid()), "setgroups": "deny",

		"mount /": "* rw nosuid nodev", "mount /proc": "proc rw nosuid nodev noexec", "mount /sys": "sysfs ro nosuid nodev noexec",
		"mount /dev": "tmpfs rw nosuid noexec", "mount /dev/pts": "devpts rw nosuid noexec", "mount /dev/shm": "tmpfs rw nosuid nodev noexec",
		"mount /dev/mqueue": "mqueue rw nosuid nodev noexec",

		"/dev/null": "char 1:3", "/dev/zero": "char 1:5", "/dev/full": "char 1:7", "/dev/random": "char 1:8", "/dev/urandom": "char 1:9", "/dev/tty": "char 5:0",
		"/dev/fd": "-> /proc/self/fd", "/dev/stdin": "-> /proc/self/fd/0", "/dev/stdout": "-> /proc/self/fd/1", "/dev/stderr": "-> /proc/self/fd/2",
		"/dev/core": "-> /proc/kcore", "/dev/ptmx": "-> pts/ptmx", "/dev/pts": "dir", "/dev/shm": "dir", "/dev/mqueue": "dir",
	}
	for _, p := range hiddenPaths {
		f[p] = "hidden"
	}
	for _, p := range readOnlyPaths {
		f[p] = "read-only"
		if isMissing(p) {
			f[p] = "hidden"
		}
	}
	if rung == "mapped" {
		// A program with a set-user-ID bit is to work: its users are the kernel's.
		f["NoNewPrivs"], f["setgroups"], f["mount /"] = "0", "allow", "* rw nodev"
		f["uid_map"], f["gid_map"] = f["uid_map"]+" 1 *", f["gid_map"]+" 1 *"
	}
	return f
}

// isMissing reports whether this machine's kernel has no such path.
func isMissing(path string) bool {
	_, err := os.Lstat(path)
	return os.IsNotExist(err)
}

func capabilitiesOf(set string) facts { return facts{"CapPrm": set, "CapEff": set, "CapBnd": set} }

// unmasked are the facts of a container that sees all of /proc and /sys.
func unmasked() facts {
	f := facts{}
	for _, p := range hiddenPaths {
		f[p] = "*"
	}
	for _, p := range readOnlyPaths {
		if strings.HasPrefix(p, "/proc/") && !isMissing(p) {
			f[p] = "writable mount"
		}
	}
	return f
}

// unfiltered are the facts of a container whose calls the kernel alone judges.
var unfiltered = facts{"AF_ALG": "*", "unshare": "*"}

// postures are flags, and what is different with them; on one rung only where the
// name of a table says so.
var postures = []struct {
	flags  []string
	change facts
	only   map[string]facts
}{
	{nil, nil, nil},
	{[]string{"-u", "7:8"}, nil, map[string]facts{
		// On `single` the user is emulated, and the kernel's capabilities stay.
		"mapped": {"CapPrm": noCapabilities, "CapEff": noCapabilities},
	}},
	{[]string{"--cap-add", "SYS_PTRACE"}, capabilitiesOf("00000000800c05fb"), nil},
	{[]string{"--cap-drop", "ALL"}, capabilitiesOf(noCapabilities), nil},
	{[]string{"--cap-drop", "ALL", "--cap-add", "NET_BIND_SERVICE"}, capabilitiesOf("0000000000000400"), nil},
	{[]string{"--security-opt", "no-new-privileges"}, facts{"NoNewPrivs": "1"}, nil},
	{[]string{"--security-opt", "seccomp=unconfined"}, unfiltered, map[string]facts{"mapped": {"Seccomp": "0"}}},
	{[]string{"--security-opt", "seccomp=unconfined", "--rung", "single", "--root-emulation", "none"}, merged(unfiltered, facts{"Seccomp": "0"}), nil},
	{[]string{"--security-opt", "systempaths=unconfined"}, unmasked(), nil},
	{[]string{"--privileged"}, merged(unmasked(), unfiltered, capabilitiesOf(allCapabilities)), map[string]facts{"mapped": {"Seccomp": "0"}}},
	{[]string{"--read-only"}, facts{"mount /": "* ro nosuid nodev"}, map[string]facts{"mapped": {"mount /": "* ro nodev"}}},
	{[]string{"-t"}, facts{"terminal": "true", "/dev/console": "char 136:0", "mount /dev/console": "devpts rw nosuid noexec"}, nil},
	{[]string{"--network", "host"}, facts{"mount /sys": "tmpfs rw nosuid nodev noexec", "/sys/kernel": "hidden", "/sys/class": "hidden"}, nil},
	{[]string{"--ipc", "none"}, facts{"/dev/shm": "absent", "mount /dev/shm": "absent"}, nil},
	{[]string{"--ipc", "host"}, facts{"mount /dev/shm": "* nosuid nodev*", "mount /dev/mqueue": "*", "/dev/mqueue": "*"}, nil},
	{[]string{"-v", "data:/v", "--tmpfs", "/t", "-w", "/t"}, facts{"mount /v": "* rw nosuid nodev", "mount /t": "tmpfs rw nosuid nodev noexec", "cwd": "/t"}, nil},
}

func merged(all ...facts) facts {
	f := facts{}
	for _, one := range all {
		maps.Copy(f, one)
	}
	return f
}

// TestPosture compares what a container, what exec adds to it and what a RUN starts
// is kept from with the tables.
func TestPosture(t *testing.T) {
	for _, rung := range []string{"single", "mapped"} {
		t.Run(rung, func(t *testing.T) {
			needRung(t, rung)
			t.Parallel()
			p := newPlayground(t, rung)
			verb := append([]string{"probe", "posture"}, slices.Concat(hiddenPaths, readOnlyPaths)...)
			for _, tt := range postures {
				of := rung
				if slices.Contains(tt.flags, "--rung") {
					of = "single"
				}
				want := merged(usualFacts(of), tt.change, tt.only[of])
				out := p.sbx(slices.Concat([]string{"run", "--rm"}, tt.flags, []string{p.image}, verb)...)
				compareFacts(t, "run "+strings.Join(tt.flags, " "), want, parseFacts(out))
			}
			p.sbx("run", "-d", "--name", "one", p.image, "probe", "sleep")
			compareFacts(t, "exec", usualFacts(rung), parseFacts(p.sbx(append([]string{"exec", "one"}, verb...)...)))
			privileged := merged(usualFacts(rung), capabilitiesOf(allCapabilities))
			compareFacts(t, "exec --privileged", privileged, parseFacts(p.sbx(append([]string{"exec", "--privileged", "one"}, verb...)...)))
			p.sbx("rm", "-f", "one")
			certificates := facts{"mount /run/sbx/ca-certificates.crt": "*"} // where this machine has some of its own
			compareFacts(t, "RUN", merged(usualFacts(rung), certificates), p.build(verb))
		})
	}
}

// TestPostureSees has the comparison find what it is there for.
func TestPostureSees(t *testing.T) {
	want := usualFacts("single")
	wrong := facts{"CapEff": allCapabilities, "NoNewPrivs": "0", "descriptors": "0 1 2 9", "mount /host": "ext4 rw", "/dev/sda": "block 8:0", "/proc/kcore": "read-only"}
	for name, value := range wrong {
		got := maps.Clone(want)
		got[name] = value
		if len(differences(want, got)) != 1 {
			t.Errorf("%s: %s is not seen", name, value)
		}
		delete(got, name)
		if _, usual := want[name]; usual && len(differences(want, got)) != 1 {
			t.Errorf("%s is not missed", name)
		}
	}
}

func compareFacts(t *testing.T, what string, want, got facts) {
	t.Helper()
	for _, d := range differences(want, got) {
		t.Errorf("%s: %s", what, d)
	}
}

func differences(want, got facts) []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(merged(want, got))) {
		w, expected := want[name]
		g, told := got[name]
		switch {
		case !expected:
			list = append(list, fmt.Sprintf("%s: %s, which no table has", name, g))
		case w == "absent" && !told, w == "*":
		case !told || !regexp.MustCompile("^"+strings.ReplaceAll(regexp.QuoteMeta(w), `\*`, ".*")+"$").MatchString(g):
			list = append(list, fmt.Sprintf("%s: %q, want %q", name, g, w))
		}
	}
	return list
}

func parseFacts(out string) facts {
	f := facts{}
	for line := range strings.Lines(out) {
		if name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ": "); ok {
			f[name] = value
		}
	}
	return f
}

// playground is a store with an image of the probe.
type playground struct {
	t                 *testing.T
	dir, image, store string
	rung              string
}

func newPlayground(t *testing.T, rung string, layers ...string) *playground {
	t.Helper()
	p := &playground{t: t, dir: t.TempDir(), rung: rung}
	p.image, p.store = filepath.Join(p.dir, "img"), filepath.Join(p.dir, "store")
	t.Cleanup(func() { removeTree(p.dir) })
	if err := (layout{p.image}).write(recipe{layers: append([]string{defaultLayer}, layers...), arch: runtime.GOARCH, compression: "gzip"}); err != nil {
		t.Fatal(err)
	}
	p.sbx("pull", "-q", p.image)
	return p
}

func (p *playground) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(p.t.Context(), sbxBinary, args...)
	cmd.Env = append(os.Environ(), "SBX_HOME="+p.store, "SBX_RUNG="+p.rung)
	return cmd
}

// sbx runs a command that must succeed, and returns what it prints.
func (p *playground) sbx(args ...string) string {
	p.t.Helper()
	cmd := p.command(args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("sbx %.200q: %v\n%s", args, err, said.String())
	}
	return string(out)
}

// build has a RUN start a program, and returns the facts that it prints.
func (p *playground) build(args []string) facts {
	p.t.Helper()
	context := filepath.Join(p.dir, "context")
	if err := os.Mkdir(context, 0o755); err != nil {
		p.t.Fatal(err)
	}
	p.sbx("tag", p.image, "img")
	text := fmt.Sprintf("FROM img\nRUN [\"%s\"]\n", strings.Join(args, `", "`))
	if err := os.WriteFile(filepath.Join(context, "Dockerfile"), []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
	out, err := p.command("build", "--progress", "plain", context).CombinedOutput()
	if err != nil {
		p.t.Fatalf("build: %v\n%s", err, out)
	}
	var printed strings.Builder
	for _, line := range regexp.MustCompile(`(?m)^#\d+ [\d.]+ (.*\n)`).FindAllSubmatch(out, -1) {
		printed.Write(line[1])
	}
	return parseFacts(printed.String())
}
