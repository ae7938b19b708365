// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"sbx/fakeroot"
	"sbx/overlay"
	"sbx/store"
)

// Changes is where what the container has changed lies, and what it stands on.
func (c *Container) Changes() store.Changes {
	ch := store.Changes{Dir: filepath.Join(c.dir, "upper"), Owners: filepath.Join(c.dir, "owners.json"), Lower: c.Config.Lower, Stubs: stubs(&c.Config)}
	if c.Config.Root == rootCopy {
		ch.Dir, ch.Owners, ch.Tree, ch.Since = filepath.Join(c.dir, "rootfs"), filepath.Join(c.dir, "rootfs.owners.json"), true, c.Config.Created
	}
	return ch
}

// stubs are the paths on which something is mounted at every start.
func stubs(c *Config) []string {
	paths := []string{"/proc", "/sys", "/dev"}
	for _, f := range []string{"hostname", "hosts", "resolv.conf"} {
		paths = append(paths, "/etc/"+f)
	}
	for _, m := range slices.Concat(c.BaseMounts, c.Mounts) {
		paths = append(paths, m.Target)
	}
	return paths
}

// Tree is the container's files, without what is mounted in it.
func (c *Container) Tree() store.Tree {
	switch ch := c.Changes(); c.Config.Root {
	case rootDir:
		return store.Tree{Dirs: []string{c.Config.RootDir}, Owners: []string{""}, Plain: true}
	case rootCopy:
		return store.Tree{Dirs: []string{ch.Dir}, Owners: []string{ch.Owners}, Plain: true}
	default:
		return c.home.Store.Stack(ch.Dir, ch.Owners, ch.Lower)
	}
}

// Diff lists what the container has changed in its files, sorted by path.
func (c *Container) Diff(ctx context.Context) ([]overlay.Change, error) {
	if err := c.hasBase(); err != nil {
		return nil, fmt.Errorf("diff: %w", err)
	}
	if err := c.saveOwners(ctx); err != nil {
		return nil, fmt.Errorf("diff: %w", err)
	}
	return c.home.Store.ListChanges(ctx, c.Changes())
}

// Export writes the container's files as a tar.
func (c *Container) Export(ctx context.Context, w io.Writer) error {
	if err := c.saveOwners(ctx); err != nil {
		return err
	}
	return c.home.Store.Archive(ctx, w, c.Tree(), store.Part{})
}

// saveOwners has the table of owners written that stands beside the files, if the
// container runs: the monitor knows what has changed since.
func (c *Container) saveOwners(ctx context.Context) error {
	if c.Config.Rung.IsMapped() || !c.State.Status.IsAlive() {
		return nil
	}
	err := c.command(ctx, request{Do: doOwners})
	var gone *NotRunningError
	if errors.As(err, &gone) {
		return nil // it was written at its end
	}
	return err
}

// recordedOwners are the owners of files that cannot carry them, as a file that is
// on no disk; none where the kernel knows them.
func (c *Container) recordedOwners(ctx context.Context) ([]*os.File, error) {
	if c.Config.Rung.IsMapped() {
		return nil, nil
	}
	if err := c.saveOwners(ctx); err != nil {
		return nil, err
	}
	e := layout(&c.Config, c.dir)
	o, err := e.options()
	if err != nil {
		return nil, err
	}
	owners, err := fakeroot.Merged(o)
	if err != nil || len(owners) == 0 {
		return nil, err
	}
	fd, err := unix.MemfdCreate("owners", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "owners")
	if err = owners.Save(f); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return []*os.File{f}, nil
}

// NoBaseError says that a container stands on no image, so that nothing can be
// said about what it has changed.
type NoBaseError struct{ Root string }

func (e *NoBaseError) Error() string {
	return "its root filesystem is " + e.Root + ", and no image"
}

// Hint says what can be done instead.
func (e *NoBaseError) Hint() string {
	return "sbx export writes all its files, and sbx import makes an image of them"
}

func (c *Container) hasBase() error {
	switch {
	case c.Config.Root == rootDir:
		return &NoBaseError{"the directory " + c.Config.RootDir}
	case c.Config.ImageID == "" && len(c.Config.BaseMounts) == 0:
		return &NoBaseError{"laid over the directory " + strings.Join(c.Config.Lower, ":")}
	case c.Config.ImageID == "":
		return &NoBaseError{"made of this machine's programs"}
	}
	return nil
}

// Commit says how an image is made of a container.
type Commit struct {
	Author  string
	Message string
	Names   []string // canonical
	Pause   bool     // one that runs stands still while it is read
	// Change is applied to the configuration that the image gets.
	Change func(*dockerspec.DockerOCIImage) error
}

// Commit makes an image of the container's image and what it has changed. Its
// configuration is the container's.
func (c *Container) Commit(ctx context.Context, o Commit) (store.Image, error) {
	if err := c.hasBase(); err != nil {
		return store.Image{}, fmt.Errorf("commit: %w", err)
	}
	st := c.home.Store
	base, err := st.Image(c.Config.ImageID)
	if err != nil {
		return store.Image{}, fmt.Errorf("commit: %w", err)
	}
	now := time.Now().UTC()
	image := c.imageConfig(base.Config)
	image.Created = &now
	if o.Author != "" {
		image.Author = o.Author
	}
	if o.Change != nil {
		if err := o.Change(&image); err != nil {
			return store.Image{}, err
		}
	}
	image.History = []ocispec.History{{Created: &now, CreatedBy: strings.Join(c.Config.Cmd, " "), Author: o.Author, Comment: o.Message}}
	d, err := st.NewDraft(ctx)
	if err != nil {
		return store.Image{}, err
	}
	defer d.Close()
	layer, err := c.addChanges(ctx, d, o.Pause)
	if err != nil {
		return store.Image{}, err
	}
	img, err := d.Commit(ctx, store.NewImage{Base: base, Layers: []store.Layer{layer}, Config: image, Names: o.Names})
	if err == nil {
		c.record("commit", map[string]string{"comment": o.Message})
	}
	return img, err
}

// addChanges makes a layer of what the container has changed. One that runs is to
// stand still meanwhile, so that its files fit together.
func (c *Container) addChanges(ctx context.Context, d *store.Draft, pause bool) (store.Layer, error) {
	if pause && c.State.Status == Running {
		if err := c.Pause(ctx); err != nil {
			return store.Layer{}, err
		}
		defer c.command(context.WithoutCancel(ctx), request{Do: doUnpause}) //nolint:errcheck // it may have been killed
	}
	if err := c.saveOwners(ctx); err != nil {
		return store.Layer{}, err
	}
	return d.AddChanges(ctx, c.Changes(), store.LayerOptions{})
}

// givesEnv reports whether a variable is one that a container has without being asked.
func (c *Config) givesEnv(e string) bool {
	return e == "HOSTNAME="+c.Hostname || e == "TERM=xterm" && c.TTY || e == "HOME="+c.Identity.Home
}

// AskedEnv is the environment that the image and the user have asked for.
func (c *Config) AskedEnv() []string { return slices.DeleteFunc(slices.Clone(c.Env), c.givesEnv) }

// imageConfig is the configuration of an image that starts as the container did.
func (c *Container) imageConfig(base dockerspec.DockerOCIImage) dockerspec.DockerOCIImage {
	image, cfg := base, &c.Config
	config := &image.Config
	config.Env = slices.DeleteFunc(slices.Clone(cfg.Env), func(e string) bool {
		return cfg.givesEnv(e) && !slices.Contains(base.Config.Env, e)
	})
	config.Entrypoint, config.Cmd = cfg.Entrypoint, cfg.Cmd
	config.User, config.Labels, config.OnBuild = cfg.User, cfg.Labels, nil
	if cfg.WorkingDir != "/" || base.Config.WorkingDir != "" {
		config.WorkingDir = cfg.WorkingDir
	}
	if cfg.StopSignal != "SIGTERM" || base.Config.StopSignal != "" {
		config.StopSignal = cfg.StopSignal
	}
	return image
}
