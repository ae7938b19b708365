// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"sbx/container"
	"sbx/reference"
	"sbx/store"
)

// Make makes the system and gives it name, a canonical reference. Everything that
// the mirror sends is verified against the archive's keys. The packages are
// unpacked into a layer and configured by their own scripts in a container: what
// that changes is a second layer.
//
// Runs in: the host's namespaces, as the user; foreign programs run in the container.
func (b Bootstrap) Make(ctx context.Context, h *container.Home, name string) (store.Image, error) {
	u, err := b.prepare(ctx, h)
	if err != nil {
		return store.Image{}, err
	}
	defer u.close()
	if err := u.reach(ctx); err != nil {
		return store.Image{}, err
	}
	return u.make(ctx, h, name)
}

// make makes the image of a suite whose index is there.
func (u *unpacked) make(ctx context.Context, h *container.Home, name string) (img store.Image, err error) {
	if err := u.choose(ctx); err != nil {
		return img, err
	}
	draft, err := h.Store.NewDraft(ctx)
	if err != nil {
		return img, err
	}
	defer func() {
		draft.Close()
		if err != nil {
			// What cannot be removed now goes with the next image that is.
			_ = h.Collect(context.WithoutCancel(ctx))
		}
	}()
	u.Progress("Unpacking")
	r, w := io.Pipe()
	defer r.Close()
	go func() { w.CloseWithError(u.writeTar(ctx, w)) }()
	files, err := draft.AddTar(ctx, r, nil, store.PullOptions{})
	if err != nil {
		return store.Image{}, err
	}
	u.Progress("Configuring")
	changes, err := u.configure(ctx, h, draft, files)
	if err != nil {
		return store.Image{}, err
	}
	date := u.date()
	config := dockerspec.DockerOCIImage{Image: ocispec.Image{Created: &date, Platform: ocispec.Platform{OS: "linux", Architecture: goArch(u.Arch), Variant: armVariants[u.Arch]}}}
	config.Config.Cmd = []string{"bash"}
	config.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	config.History = []ocispec.History{
		{Created: &date, CreatedBy: "sbx bootstrap " + u.Suite, Comment: fmt.Sprintf("%d packages of %s", len(u.packages), u.Suite)},
		{Created: &date, CreatedBy: "dpkg --configure -a"},
	}
	return draft.Commit(ctx, store.NewImage{Layers: []store.Layer{files, changes}, Config: config, Names: []string{name}})
}

// architectures are those that Debian and Go call differently.
var architectures = map[string]string{"i386": "386", "armhf": "arm", "armel": "arm", "ppc64el": "ppc64le", "mips64el": "mips64le"}

// armVariants are what images call the machines that are all arm to Go.
var armVariants = map[string]string{"armhf": "v7", "armel": "v5"}

func goArch(arch string) string {
	if name := architectures[arch]; name != "" {
		return name
	}
	return arch
}

// DebianArch is what Debian calls an architecture of Go's.
func DebianArch(arch string) string {
	for debian, name := range architectures {
		if name == arch && debian != "armel" {
			return debian
		}
	}
	return arch
}

// configure runs the script of configuration in a container of the unpacked
// files and makes a layer of what it changes.
func (u *unpacked) configure(ctx context.Context, h *container.Home, draft *store.Draft, files store.Layer) (store.Layer, error) {
	base, err := h.FromImage(ctx, store.Image{Layers: []reference.Digest{files.DiffID}}, "bootstrap")
	if err != nil {
		return store.Layer{}, err
	}
	o := container.Options{Args: []string{"/bin/sh", "/" + configureFile}, Network: container.NetworkNone}
	if !u.Epoch.IsZero() {
		o.Env = []string{fmt.Sprintf("SOURCE_DATE_EPOCH=%d", u.Epoch.Unix())}
	}
	c, err := h.CreateStep(ctx, base, o, container.Step{})
	if err != nil {
		return store.Layer{}, err
	}
	defer func() { _ = c.Remove(context.WithoutCancel(ctx), true) }()
	if err := u.runScript(ctx, c); err != nil {
		return store.Layer{}, err
	}
	return draft.AddChanges(ctx, c.Changes(), store.LayerOptions{Consume: true, Epoch: u.Epoch})
}

// runScript runs the container and reads what the packages' scripts say.
func (u *unpacked) runScript(ctx context.Context, c *container.Container) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	said := make(chan scriptOutput, 1)
	go func() { said <- u.listen(r) }()
	status, err := c.RunStep(ctx, w, w)
	w.Close()
	output := <-said
	if errors.Is(err, unix.ENOEXEC) && goArch(u.Arch) != runtime.GOARCH {
		return &archError{u.Arch}
	}
	if err != nil {
		return fmt.Errorf("configure packages: %w", err)
	}
	if status != 0 {
		return &scriptError{status: status, scriptOutput: output}
	}
	return nil
}

// archError says that the packages' scripts are for another kind of machine.
type archError struct{ arch string }

func (e *archError) Error() string {
	return "configure packages: they are for " + e.arch + ", and this machine, which is " + DebianArch(runtime.GOARCH) + ", does not run its programs"
}

// Hint says what would.
func (e *archError) Hint() string {
	return "make it on a machine of that kind; or the administrator may install qemu-user-static, which registers an emulator with binfmt_misc"
}

// scriptOutput is what is kept of the scripts' output: the package at fault, if
// dpkg names one, and the last lines.
type scriptOutput struct {
	faulty string
	last   []string
}

// keptLines is how much of a failed script's output is shown.
const keptLines = 12

// listen reads output to its end and reports each package that is being set up.
func (u *unpacked) listen(r io.Reader) scriptOutput {
	var o scriptOutput
	lines := bufio.NewReader(io.LimitReader(r, 64<<20))
	for {
		line, err := lines.ReadString('\n')
		if line = strings.TrimRight(line, "\n"); line != "" {
			o.last = append(o.last, line)
			o.last = o.last[max(0, len(o.last)-keptLines):]
		}
		if rest, ok := strings.CutPrefix(line, "Setting up "); ok {
			u.Progress("Configuring " + strings.TrimSuffix(rest, " ..."))
		}
		if rest, ok := strings.CutPrefix(line, "dpkg: error processing package "); ok && o.faulty == "" {
			o.faulty, _, _ = strings.Cut(rest, " ")
		}
		if err != nil {
			_, _ = io.Copy(io.Discard, r) // the scripts must not wait for a reader
			return o
		}
	}
}

// scriptError says that the script of a package failed.
type scriptError struct {
	status int
	scriptOutput
}

func (e *scriptError) Error() string {
	what := "configure packages"
	if e.faulty != "" {
		what = "configure package " + e.faulty
	}
	return fmt.Sprintf("%s: exit status %d", what, e.status)
}

// Output is what was printed last, a line each.
func (e *scriptError) Output() []string { return e.last }

// ScriptOutput returns the last lines of the package script that an error is of,
// or nothing.
func ScriptOutput(err error) []string {
	var failed *scriptError
	if errors.As(err, &failed) {
		return failed.Output()
	}
	return nil
}
