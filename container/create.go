// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sbx/overlay"
	"sbx/store"
)

// makingPrefix begins the name of a container's directory until its record is
// whole; trashPrefix, once it is to be removed. Neither is ever listed.
const (
	makingPrefix = ".making-"
	trashPrefix  = ".trash-"
)

// FromImage makes a base of an image, whose layers are unpacked for the rung if
// they are not yet. typed is what the user called it.
func (h *Home) FromImage(ctx context.Context, img store.Image, typed string) (Base, error) {
	dirs, err := h.Store.LayerDirs(ctx, img)
	if err != nil {
		return Base{}, err
	}
	slices.Reverse(dirs)
	return Base{Name: typed, Image: img, Lower: dirs, Config: img.Config.Config.ImageConfig, Health: healthOfImage(img.Config.Config.Healthcheck)}, nil
}

// OverDir makes a base of a directory with a root filesystem in it, which is only
// read: what the container changes is its own.
func OverDir(dir string) (Base, error) {
	b, err := FromDir(dir)
	b.Dir = ""
	return b, err
}

// FromDir makes a base of a directory with a root filesystem in it. The
// container works on that directory itself.
func FromDir(dir string) (Base, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Base{}, err
	}
	fi, err := os.Stat(abs)
	if err == nil && !fi.IsDir() {
		err = errors.New("not a directory")
	}
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		return Base{}, fmt.Errorf("use root filesystem %s: %w", dir, err)
	}
	return Base{Name: dir, Dir: abs, Lower: []string{abs}}, nil
}

// Create makes the record and the directories of a new container. Once it
// returns, the container is listed; until then nothing of it can be seen.
func (h *Home) Create(ctx context.Context, b Base, o Options) (*Container, error) {
	config, err := h.configure(b, o)
	if err != nil {
		return nil, err
	}
	release, err := h.useVolumes(ctx, config, b.Config.Volumes, o.VolumesFrom)
	if err != nil {
		return nil, err
	}
	defer release()
	c := &Container{Config: *config, home: h, dir: filepath.Join(h.dir, config.ID), State: State{Status: Created}, fresh: true}
	making := filepath.Join(h.dir, makingPrefix+config.ID)
	if err := c.make(ctx, making, b); err != nil {
		_ = h.Store.RemoveTree(context.WithoutCancel(ctx), making)
		_ = h.dropName(c.Config.Name, c.Config.ID)
		release()
		_ = h.RemoveAnonymous(context.WithoutCancel(ctx), c.Config.Mounts)
		return nil, err
	}
	c.record("create", nil)
	return c, nil
}

// make fills the directory and gives it its name. The name of the container is
// taken before the directory, so that a container is never without one.
func (c *Container) make(ctx context.Context, making string, b Base) error {
	lock, err := c.home.makeLocked(making)
	if err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	defer unix.Close(lock)
	for _, dir := range []string{"/upper", "/work"} {
		if err := os.Mkdir(making+dir, 0o700); err != nil {
			return fmt.Errorf("create container: %w", err)
		}
	}
	// The upper directory is the root of the container: everyone in it may look.
	if err := likeRoot(b, making+"/upper"); err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	if err := c.name(); err != nil {
		return err
	}
	if c.Config.Root == rootCopy {
		if err := c.home.Store.Flatten(ctx, c.Config.Lower, making+"/rootfs"); err != nil {
			return fmt.Errorf("copy root filesystem: %w", err)
		}
	}
	record, err := json.Marshal(c.Config)
	if err == nil {
		err = writeFile(making+"/config.json", record)
	}
	if err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	if err := unix.Rename(making, c.dir); err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	return nil
}

// makeLocked makes a directory and holds it: as long as the lock is held, nobody
// takes it for what a dead process has left.
func (h *Home) makeLocked(dir string) (int, error) {
	home, err := lockDir(h.dir, unix.LOCK_SH)
	if err != nil {
		return -1, err
	}
	defer unix.Close(home)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return -1, err
	}
	return lockDir(dir, unix.LOCK_EX|unix.LOCK_NB)
}

// lockDir opens a directory and takes a lock on it, which ends with the
// descriptor. With LOCK_NB a lock that another holds is EWOULDBLOCK.
func lockDir(dir string, how int) (int, error) {
	fd, err := open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	for {
		err := unix.Flock(fd, how)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			unix.Close(fd)
			return -1, &os.PathError{Op: "lock", Path: dir, Err: err}
		}
		return fd, nil
	}
}

// likeRoot gives the upper directory the mode of the base's own root directory, and
// the record of it: a root that looks different would be a change.
func likeRoot(b Base, upper string) error {
	mode := os.FileMode(0o755)
	if len(b.Lower) > 0 {
		if fi, err := os.Stat(b.Lower[0]); err == nil {
			mode = fi.Mode().Perm()
		}
		record := make([]byte, 128)
		if n, err := unix.Getxattr(b.Lower[0], overlay.RecordXattr, record); err == nil {
			_ = unix.Setxattr(upper, overlay.RecordXattr, record[:n], 0) // where there are none, the disk says all there is
		}
	}
	return os.Chmod(upper, mode)
}

// name takes the asked name, or a free one of our own.
func (c *Container) name() error {
	if c.Config.Name != "" {
		return c.home.takeName(c.Config.Name, c.Config.ID)
	}
	for range 50 {
		name := randomName()
		err := c.home.takeName(name, c.Config.ID)
		var taken *NameInUseError
		if errors.As(err, &taken) {
			continue
		}
		c.Config.Name = name
		return err
	}
	c.Config.Name = randomName() + "_" + c.Config.ID[:6]
	return c.home.takeName(c.Config.Name, c.Config.ID)
}

// configure joins the image's defaults and the user's wishes, as Docker does.
func (h *Home) configure(b Base, o Options) (*Config, error) {
	image := b.Config
	c := &Config{
		ID: newID(), Name: o.Name, Created: time.Now().UTC(),
		Image: b.Name, ImageName: b.Image.Name, Rung: h.Features.Rung,
		RootDir: b.Dir, Lower: b.Lower, BaseMounts: b.Mounts, Mounts: o.Mounts,
		Hostname: o.Hostname, Domainname: o.Domainname,
		User: or(o.User, image.User), WorkingDir: or(o.WorkingDir, image.WorkingDir, "/"), StopSignal: or(o.StopSignal, image.StopSignal, "SIGTERM"),
		Network: o.Network, Networking: o.Networking, TTY: o.TTY, OpenStdin: o.OpenStdin, StdinOnce: o.StdinOnce, ReadOnly: o.ReadOnly, Init: o.Init, AutoRemove: o.AutoRemove, Step: o.step,
		Refused: b.Refused, Advice: b.Advice, Log: o.Log, Restart: o.Restart, StopTimeout: o.StopTimeout,
		Health:        healthOf(b.Health, o.Health),
		RootEmulation: o.RootEmulation, KeepID: o.KeepID,
	}
	if err := checkEmulation(c); err != nil {
		return nil, err
	}
	if !b.Image.ID.IsZero() {
		c.ImageID = b.Image.ID.String()
		for _, l := range b.Image.Layers {
			c.Layers = append(c.Layers, l.String())
		}
	}
	switch {
	case b.Dir != "":
		c.Root = rootDir
	case h.Features.Overlay:
		c.Root = rootOverlay
	default:
		c.Root = rootCopy
	}
	c.Hostname = or(c.Hostname, c.ID[:shortID])
	if !filepath.IsAbs(c.WorkingDir) {
		return nil, fmt.Errorf("working directory %q: not an absolute path", c.WorkingDir)
	}
	// An entrypoint of the user's takes the image's command away with it.
	c.Entrypoint, c.Cmd = image.Entrypoint, image.Cmd
	if o.Entrypoint != nil {
		c.Entrypoint, c.Cmd = *o.Entrypoint, nil
	}
	if len(o.Args) > 0 {
		c.Cmd = o.Args
	}
	if len(c.Command()) == 0 || c.Command()[0] == "" {
		return nil, &NoCommandError{Image: b.Name}
	}
	var err error
	if c.Identity, err = lookUpUser(c.User, b.Lower); err != nil {
		return nil, err
	}
	if err = c.Identity.addGroups(o.Privileges.GroupAdd, b.Lower); err != nil {
		return nil, err
	}
	c.Limits, c.Privileges, c.Annotations = o.Limits, o.Privileges, o.Annotations
	if err = errors.Join(h.shareIPC(c), h.sharePID(c)); err != nil {
		return nil, err
	}
	if err = c.Privileges.check(c); err != nil {
		return nil, err
	}
	if err = h.networkSettings(c, &o, image.ExposedPorts); err != nil {
		return nil, err
	}
	c.Labels = join(image.Labels, o.Labels)
	c.Env = environment(c, image.Env, o.Env)
	return c, checkMounts(c)
}

// NoCommandError says that neither the image nor the user names a program.
type NoCommandError struct{ Image string }

func (e *NoCommandError) Error() string { return "no command given, and the image has none" }

// Hint shows the form.
func (e *NoCommandError) Hint() string {
	return "name a program of the image: sbx run " + e.Image + " PROGRAM"
}

func or(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func join(a, b map[string]string) map[string]string {
	if len(a)+len(b) == 0 {
		return nil
	}
	out := make(map[string]string, len(a)+len(b))
	for k, v := range a {
		out[k] = v
	}
	for k, v := range b {
		out[k] = v
	}
	return out
}

// environment is what the program starts with: PATH, HOSTNAME, TERM with a
// terminal, then the image's, then the user's.
func environment(c *Config, image, user []string) []string {
	env := []string{"PATH=" + defaultPath, "HOSTNAME=" + c.Hostname}
	if c.TTY {
		env = append(env, "TERM=xterm")
	}
	return overlayEnv(env, slices.Concat(image, user))
}

// overlayEnv puts variables over others of the same name. NAME without a value
// takes one away.
func overlayEnv(env, over []string) []string {
	env = slices.Clone(env)
	at := map[string]int{}
	for i, e := range env {
		name, _, _ := strings.Cut(e, "=")
		at[name] = i
	}
	for _, e := range over {
		name, _, ok := strings.Cut(e, "=")
		i, known := at[name]
		switch {
		case !ok && known: // -e NAME without a value in the caller's environment
			env[i] = ""
			delete(at, name)
		case !ok:
		case known:
			env[i] = e
		default:
			at[name] = len(env)
			env = append(env, e)
		}
	}
	return slices.DeleteFunc(env, func(e string) bool { return e == "" })
}

// environmentOf adds what depends on the user that a program starts as: HOME, if
// nobody gave one.
func environmentOf(env []string, id Identity) []string {
	if slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		return env
	}
	return append(slices.Clone(env), "HOME="+id.Home)
}

// checkMounts settles the mounts: sources exist, targets are absolute and named once.
func checkMounts(c *Config) error {
	seen := map[string]bool{}
	for i := range c.Mounts {
		m := &c.Mounts[i]
		if !filepath.IsAbs(m.Target) || filepath.Clean(m.Target) == "/" {
			return fmt.Errorf("mount %q: the target must be an absolute path and not /", m.Target)
		}
		m.Target = filepath.Clean(m.Target)
		if seen[m.Target] {
			return fmt.Errorf("mount %s: two mounts have this target", m.Target)
		}
		seen[m.Target] = true
		if err := checkTarget(m.Target); err != nil {
			return err
		}
		switch m.Type {
		case Tmpfs, Volume: // useVolumes finds those
		case Bind:
			if err := checkBind(m); err != nil {
				return err
			}
		default:
			return fmt.Errorf("mount %s: unknown type %q", m.Target, m.Type)
		}
	}
	return nil
}

// overProc are the files of /proc that others may show something else for, as runc
// has them.
var overProc = []string{
	"cpuinfo", "diskstats", "loadavg", "meminfo", "net/dev", "slabinfo", "stat", "swaps", "sys/crypto/fips_enabled", "sys/kernel/ns_last_pid", "uptime",
}

// checkTarget refuses to have anything mounted over /proc, or in it: what a program
// says of itself there is believed (CVE-2019-16884, CVE-2023-28642).
func checkTarget(target string) error {
	inside, ok := strings.CutPrefix(target+"/", "/proc/")
	if !ok || slices.Contains(overProc, strings.TrimSuffix(inside, "/")) {
		return nil
	}
	return fmt.Errorf("mount %s: nothing may be mounted in /proc", target)
}

func checkBind(m *Mount) error {
	if !filepath.IsAbs(m.Source) {
		return fmt.Errorf("mount %s: the source %q is not an absolute path", m.Target, m.Source)
	}
	_, err := os.Stat(m.Source)
	if errors.Is(err, os.ErrNotExist) && m.Create {
		err = os.MkdirAll(m.Source, 0o755)
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w", m.Target, err)
	}
	return nil
}
