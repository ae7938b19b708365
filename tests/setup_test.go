// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"sbx/userns"
)

// startCall is a call of a start program, as `fault` names it.
type startCall struct {
	place  string
	number string
	kind   string // calls of one kind are made for one purpose
}

// outcome is how a command with a fault in it went.
type outcome struct {
	status   int
	out, err string
	facts    facts // what a container said that came to be all the same
	calls    []startCall
	hit      bool
}

// runWithFault has one call fail of what the command forks.
func runWithFault(t *testing.T, cmd *exec.Cmd, place string, errno unix.Errno) outcome {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	faulty := exec.CommandContext(ctx, "fault", append([]string{place, strconv.Itoa(int(errno)), log}, cmd.Args...)...)
	var out, said bytes.Buffer
	faulty.Env, faulty.Dir, faulty.Stdout, faulty.Stderr = cmd.Env, cmd.Dir, &out, &said
	err := faulty.Run()
	var exit *exec.ExitError
	if ctx.Err() != nil || err != nil && !errors.As(err, &exit) {
		t.Fatalf("fault %s %d: %v %s", place, errno, err, said.String())
	}
	o := outcome{status: faulty.ProcessState.ExitCode(), out: out.String(), err: said.String()}
	if o.status == expectBroken {
		t.Fatalf("fault %s: %s", place, o.err)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if f[0] == "hit" {
			o.hit = true
			continue
		}
		if c := (startCall{place: f[0], number: f[1], kind: kindOf(f)}); !slices.Contains(reaping, c.number) {
			o.calls = append(o.calls, c)
		}
	}
	return o
}

// reaping are the calls of one who waits for the program to end: no part of its start,
// and none that could fail.
var reaping = []string{strconv.Itoa(unix.SYS_WAIT4), strconv.Itoa(unix.SYS_RT_SIGTIMEDWAIT), strconv.Itoa(unix.SYS_KILL), strconv.Itoa(unix.SYS_EXIT_GROUP)}

// kindOf tells calls of one number apart by the argument that says what they are for.
func kindOf(fields []string) string {
	process, _, _ := strings.Cut(fields[0], ":")
	kind := process + " " + fields[1]
	number, _ := strconv.Atoi(fields[1])
	switch number {
	case unix.SYS_PRCTL, unix.SYS_SECCOMP, unix.SYS_UNSHARE:
		kind += " " + fields[2]
	case unix.SYS_IOCTL, unix.SYS_FCNTL, unix.SYS_SETNS:
		kind += " " + fields[3]
	case unix.SYS_MOUNT, unix.SYS_MOUNT_SETATTR:
		kind = fields[0]
	}
	return kind
}

// places are those where calls fail: one for each kind of call, and each number once
// more as if the kernel had no such call; all of them where SBX_TEST_HARDEN asks for
// more than CI does.
func places(calls []startCall) (single, missing []string) {
	byKind, numbers := map[string]string{}, map[string]bool{}
	for _, c := range calls {
		byKind[c.kind] = c.place
		if hostileLayers() > hostileInCI {
			byKind[c.place] = c.place
		}
		if c.number != strconv.Itoa(unix.SYS_WRITE) { // by which a failure is told
			numbers[c.number] = true
		}
	}
	distinct := map[string]bool{}
	for _, place := range byKind {
		distinct[place] = true
	}
	return slices.Sorted(maps.Keys(distinct)), slices.Sorted(maps.Keys(numbers))
}

// started are commands that start a program, each in its own way, and what is
// different with them.
var started = []struct {
	name    string
	command func(p *playground, verb []string) *exec.Cmd
	change  facts
}{
	{"run", func(p *playground, verb []string) *exec.Cmd {
		flags := []string{"run", "--rm", "--network", "none", "-v", "data:/v", "-v", p.image + ":/r:ro", "--tmpfs", "/t"}
		return p.command(slices.Concat(flags, []string{p.image}, verb)...)
	}, facts{"mount /v": "* rw nosuid nodev", "mount /r": "* ro nosuid nodev*", "mount /t": "tmpfs rw nosuid nodev noexec"}},
	{"exec", func(p *playground, verb []string) *exec.Cmd {
		return p.command(slices.Concat([]string{"exec", "one"}, verb)...)
	}, nil},
	{"RUN", func(p *playground, verb []string) *exec.Cmd {
		return p.command("build", "--no-cache", "--network", "none", "--progress", "plain", "--secret", "id=s,src="+p.image+"/oci-layout", filepath.Join(p.dir, "context"))
	}, facts{"mount /run/secrets/s": "tmpfs ro nosuid nodev noexec", "mount /m": "* ro nosuid nodev*", "mount /run/sbx/ca-certificates.crt": "*"}},
}

// TestStartsForced has the calls of a start fail, one after the other. Each ends the
// start with a line that says which it was, or it is one that the container is as well
// protected without.
func TestStartsForced(t *testing.T) {
	for _, rung := range []string{"single", "mapped"} {
		t.Run(rung, func(t *testing.T) {
			needRung(t, rung)
			for _, s := range started {
				t.Run(s.name, func(t *testing.T) {
					t.Parallel()
					p := newPlayground(t, rung)
					verb := append([]string{"probe", "posture"}, slices.Concat(hiddenPaths, readOnlyPaths)...)
					p.context(verb)
					p.sbx("run", "-d", "--name", "one", "--network", "none", p.image, "probe", "sleep")
					defer p.sbx("rm", "-f", "one")
					force(t, p, merged(usualFacts(rung), s.change), func() *exec.Cmd { return s.command(p, verb) })
				})
			}
		})
	}
}

// context is a build's whose RUN is the verb, with a secret and a tree mounted.
func (p *playground) context(verb []string) {
	p.t.Helper()
	p.sbx("tag", p.image, "img")
	dir := filepath.Join(p.dir, "context")
	text := fmt.Sprintf("FROM img\nRUN --mount=type=secret,id=s --mount=type=bind,target=/m [\"%s\"]\n", strings.Join(verb, `", "`))
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644)); err != nil {
		p.t.Fatal(err)
	}
}

// force has the calls of a command fail, one kind after the other.
func force(t *testing.T, p *playground, want facts, command func() *exec.Cmd) {
	t.Helper()
	whole := look(runWithFault(t, command(), "none", 0))
	if faults := faultsOf(want, whole); len(faults) > 0 || whole.facts == nil {
		t.Fatalf("without any fault: %s\n%s", strings.Join(faults, "\n"), whole.err)
	}
	refused, same := 0, 0
	try := func(place string, errno unix.Errno) {
		o := look(runWithFault(t, command(), place, errno))
		for _, f := range faultsOf(want, o) {
			t.Errorf("%v at %s: %s", errno, place, f)
		}
		if left := p.sbx("ps", "-aq"); strings.Count(left, "\n") != 1 {
			t.Fatalf("%v at %s: containers are left, beside the one that was there: %s%s", errno, place, p.sbx("ps", "-a"), o.err)
		}
		switch {
		case !o.hit:
			t.Errorf("%s was not reached", place)
		case o.facts == nil:
			refused++
		default:
			same++
		}
	}
	single, missing := places(whole.calls)
	for _, place := range single {
		try(place, unix.EPERM)
	}
	for _, number := range missing {
		try(number, unix.ENOSYS)
	}
	t.Logf("%d calls; %d of them failed, and %d numbers: %d starts refused, %d as protected as without", len(whole.calls), len(single), len(missing), refused, same)
}

// look finds the facts in what a command has printed, as it is or as steps of a build.
func look(o outcome) outcome {
	lines := o.out
	for _, step := range regexp.MustCompile(`(?m)^#\d+ [\d.]+ (.*\n)`).FindAllStringSubmatch(o.err+o.out, -1) {
		lines += step[1]
	}
	if found := parseFacts(lines); found["CapEff"] != "" {
		o.facts = found
	}
	return o
}

// faultsOf says what is wrong with an outcome: a container with less protection than
// it should have, or an end without a word.
func faultsOf(want facts, o outcome) []string {
	if o.facts != nil {
		return differences(want, o.facts)
	}
	said := regexp.MustCompile(`(?m)^sbx: .*: .*$`).FindAllString(o.err, -1)
	said = slices.DeleteFunc(said, func(line string) bool { return strings.HasPrefix(line, "sbx: hint: ") })
	switch {
	case o.status == 0:
		return []string{"it says that all is well, and no program has run: " + o.err}
	case len(said) != 1 || strings.Contains(o.err, "panic:"):
		return []string{fmt.Sprintf("not one clear line (status %d): %s", o.status, o.err)}
	}
	return nil
}

// carelessMain is the command `careless PROGRAM ARGS...`: a start as it must not be,
// which goes on whatever fails.
func carelessMain() {
	if err := careless(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "careless:", err)
		os.Exit(1)
	}
}

func careless(command []string) error {
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	none := &[2]unix.CapUserData{}
	rule := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}}
	filter := &unix.SockFprog{Len: 1, Filter: &rule[0]}
	p := &userns.Prog{}
	p.Keep(rule)
	p.Call("make mounts private", unix.SYS_MOUNT, nil, "/", nil, unix.MS_REC|unix.MS_PRIVATE, nil).Any()
	p.Call("mount over /mnt", unix.SYS_MOUNT, "tmpfs", "/mnt", "tmpfs", unix.MS_NOSUID, nil).Any()
	p.Call("set umask", unix.SYS_UMASK, 0o022).Any()
	p.Call("change directory", unix.SYS_CHDIR, "/").Any()
	p.Call("drop capability", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, unix.CAP_SYS_ADMIN, 0, 0, 0).Any()
	p.Call("set no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).Any()
	p.Call("install filter", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, unsafe.Pointer(filter)).Any()
	p.Call("set capabilities", unix.SYS_CAPSET, unsafe.Pointer(header), unsafe.Pointer(none)).Any()
	p.EmptyMask()
	p.Call("execute", unix.SYS_EXECVE, command[0], command, os.Environ())
	child, err := userns.Fork(inNamespaces(p))
	if err != nil {
		return err
	}
	if err := child.Started(context.Background()); err != nil {
		return err
	}
	_, err = child.Wait()
	return err
}

// inNamespaces has a program run in a user and a mount namespace of its own.
func inNamespaces(p *userns.Prog) *userns.Prog {
	outer := &userns.Prog{}
	child := outer.Reg()
	outer.Call("create namespaces", unix.SYS_UNSHARE, unix.CLONE_NEWUSER|unix.CLONE_NEWNS)
	outer.Fork("clone program", 0, nil, p).Into(child)
	outer.Reap(child)
	return outer
}

// TestStartsForcedSeen has the forced faults catch a start that goes on whatever fails.
func TestStartsForcedSeen(t *testing.T) {
	needRung(t, "single")
	command := func() *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "careless", probeBinary, "posture")
		cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
		return cmd
	}
	whole := look(runWithFault(t, command(), "none", 0))
	if whole.facts == nil {
		t.Fatal(whole.err)
	}
	seen := map[string]bool{}
	single, _ := places(whole.calls)
	for _, place := range single {
		if o := look(runWithFault(t, command(), place, unix.EPERM)); len(faultsOf(whole.facts, o)) > 0 {
			seen[place] = true
		}
	}
	t.Logf("%d of %d faults were seen: %v", len(seen), len(single), slices.Sorted(maps.Keys(seen)))
	if len(seen) < 7 { // mounts, the umask, the directory, and five that keep privileges away
		t.Errorf("hardly any fault was seen: %v", seen)
	}
}
