// SPDX-License-Identifier: Apache-2.0

package need

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func probeUserns() error {
	return run("unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt")
}

// probeOverlay removes a lower file through an overlay: this makes a whiteout,
// which older kernels do not allow without privileges.
func probeOverlay() error {
	dir, err := os.MkdirTemp("", "need-overlay-")
	if err != nil {
		return err
	}
	// overlayfs leaves a directory of mode 000 behind.
	defer func() { _ = run("sh", "-c", `chmod -R u+rwx "$1"; rm -rf "$1"`, "sh", dir) }()
	const try = `cd "$1" && mkdir lower lower/d upper work root &&
mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work,userxattr root &&
rmdir root/d && mkdir root/d`
	return run("unshare", "-Urm", "sh", "-c", try, "sh", dir)
}

// probeSubids maps the user's range with the system's own programs, as `mapped`
// does.
func probeSubids() error {
	out, err := Mapped("id", "-u")
	if err != nil {
		return err
	}
	if string(out) != "0\n" {
		return fmt.Errorf("the mapped ID is %q, want 0", out)
	}
	return nil
}

// Mapped runs a program as root of a user namespace with the user's subordinate
// range in it, 1 being its first, and returns what it wrote to standard output.
func Mapped(program string, args ...string) ([]byte, error) {
	uids, err := subordinate("/etc/subuid")
	if err != nil {
		return nil, err
	}
	gids, err := subordinate("/etc/subgid")
	if err != nil {
		return nil, err
	}
	// Capabilities come with the second execve, once the map is there.
	cmd := exec.Command("sh", append([]string{"-c", `read -r go && exec "$@"`, "sh", program}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
	var out, said strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &said
	hold, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	pid := strconv.Itoa(cmd.Process.Pid)
	mapErr := run("newuidmap", append([]string{pid, "0", strconv.Itoa(os.Getuid()), "1", "1"}, uids...)...)
	if mapErr == nil {
		mapErr = run("newgidmap", append([]string{pid, "0", strconv.Itoa(os.Getgid()), "1", "1"}, gids...)...)
	}
	if mapErr == nil {
		_, mapErr = hold.Write([]byte("go\n"))
	}
	hold.Close()
	err = cmd.Wait()
	switch {
	case mapErr != nil:
		return nil, mapErr
	case err != nil:
		return nil, fmt.Errorf("%s: %w: %s", program, err, said.String())
	}
	return []byte(out.String()), nil
}

// subordinate is the range that subuid(5) or subgid(5) gives the user: its
// first ID and how many there are.
func subordinate(path string) ([]string, error) {
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) == 3 && (fields[0] == me.Username || fields[0] == me.Uid) {
			return fields[1:], nil
		}
	}
	return nil, fmt.Errorf("%s has no range for %s", path, me.Username)
}

func probeTUN() error { return openDevice("/dev/net/tun") }

func probeFuse() error { return openDevice("/dev/fuse") }

func openDevice(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// The real images that tests use.
const (
	Alpine  = "alpine-minirootfs-3.20.3-x86_64.tar.gz"
	Busybox = "busybox-musl.oci"
	Debian  = "debian-bookworm-slim-amd64-rootfs.tar.gz"
)

func probeImages() error {
	dir := os.Getenv("SBX_TEST_IMAGES")
	if dir == "" {
		return errors.New("SBX_TEST_IMAGES is not set")
	}
	for _, name := range []string{Alpine, Busybox, Debian} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func probeApps() error {
	dir := os.Getenv("SBX_TEST_APPS")
	if dir == "" {
		return errors.New("SBX_TEST_APPS is not set")
	}
	_, err := os.Stat(filepath.Join(dir, "docker-curriculum", "flask-app", "Dockerfile"))
	return err
}

// mirror is where the Debian image's own sources point.
const mirror = "deb.debian.org:80"

func probeMirror() error {
	c, err := net.DialTimeout("tcp", mirror, 10*time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

func probeRegistry() error { return onPath("docker-registry") }

func probePeers() error { return onPath("skopeo", "bwrap", "podman", "gpg") }

// probeCrun wants no second hierarchy of control groups beside the first: crun refuses
// machines that have both.
func probeCrun() error {
	const unified = "/sys/fs/cgroup/unified"
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	if strings.Contains(string(mounts), " "+unified+" ") {
		return fmt.Errorf("%s is mounted beside version 1", unified)
	}
	return onPath("podman", "crun")
}

func onPath(programs ...string) error {
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			return err
		}
	}
	return nil
}

// run runs a program to its end; the error says what it said.
func run(program string, args ...string) error {
	out, err := exec.Command(program, args...).CombinedOutput()
	if err == nil {
		return nil
	}
	if text := strings.TrimSpace(string(out)); text != "" {
		return fmt.Errorf("%s: %s", program, strings.ReplaceAll(text, "\n", "; "))
	}
	return fmt.Errorf("%s: %w", program, err)
}
