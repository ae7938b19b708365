// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sbx/container"
)

// containerFlags describe a container: the flags that run and create share.
type containerFlags struct {
	name, hostname, domainname string
	user, workdir              string
	stopSignal, cidFile        string
	entrypoint                 given
	env, envFiles              []string
	labels, labelFiles         []string
	volumes, mounts, tmpfs     []string
	volumesFrom                []string
	attach                     []string
	logDriver                  string
	logOpts                    []string
	health                     healthFlags
	restart                    string
	stopTimeout                given
	stdin, tty, rm             bool
	readOnly, init             bool
	image                      imageFlags
	network                    networkFlags
	identity                   identityFlags
	resources                  resourceFlags
	unmet                      unmet
}

// imageFlags say which image a name means, and whether it is fetched.
type imageFlags struct {
	pull, platform, rootfs, rung string
	quiet, overlay               bool
}

func (f *containerFlags) options() []option {
	entrypoint := option{name: "entrypoint", kind: "string", usage: "Overwrite the default ENTRYPOINT of the image", value: &f.entrypoint}
	shown := []option{
		textFlag(&f.cidFile, "cidfile", "", "Write the container ID to the file"),
		textFlag(&f.domainname, "domainname", "", "Container NIS domain name"),
		entrypoint,
		listFlag(&f.env, "env", "e", "Set environment variables"),
		listFlag(&f.envFiles, "env-file", "", "Read in a file of environment variables"),
		textFlag(&f.hostname, "hostname", "h", "Container host name"),
		switchFlag(&f.init, "init", "", "Run an init inside the container that forwards signals and reaps processes"),
		switchFlag(&f.stdin, "interactive", "i", "Keep STDIN open even if not attached"),
		listFlag(&f.labels, "label", "l", "Set meta data on a container"),
		listFlag(&f.labelFiles, "label-file", "", "Read in a line delimited file of labels"),
		textFlag(&f.logDriver, "log-driver", "", `Logging driver for the container ("json-file", "local", "none")`),
		listFlag(&f.logOpts, "log-opt", "", "Log driver options"),
		listFlag(&f.mounts, "mount", "", "Attach a filesystem mount to the container"),
		textFlag(&f.name, "name", "", "Assign a name to the container"),
		textFlag(&f.image.platform, "platform", "", "Choose the image of this platform (os/architecture[/variant])"),
		textFlag(&f.image.pull, "pull", "", `Pull image before running ("always", "missing", "never") (default "missing")`),
		switchFlag(&f.image.quiet, "quiet", "q", "Suppress the pull output"),
		switchFlag(&f.image.overlay, "overlay", "", "With --rootfs: leave the directory as it is, and keep changes in the container"),
		switchFlag(&f.readOnly, "read-only", "", "Mount the container's root filesystem as read only"),
		switchFlag(&f.rm, "rm", "", "Automatically remove the container and its associated anonymous volumes when it exits"),
		textFlag(&f.image.rootfs, "rootfs", "", "Use this directory as the root filesystem, in place of an image"),
		textFlag(&f.restart, "restart", "", `Restart policy to apply when a container exits (default "no")`),
		rungFlag(&f.image.rung),
		textFlag(&f.stopSignal, "stop-signal", "", "Signal to stop the container"),
		{name: "stop-timeout", kind: "int", usage: "Timeout (in seconds) to stop a container", value: &f.stopTimeout},
		listFlag(&f.tmpfs, "tmpfs", "", "Mount a tmpfs directory"),
		switchFlag(&f.tty, "tty", "t", "Allocate a pseudo-TTY"),
		textFlag(&f.user, "user", "u", "Username or UID (format: <name|uid>[:<group|gid>])"),
		listFlag(&f.volumes, "volume", "v", "Bind mount a volume"),
		listFlag(&f.volumesFrom, "volumes-from", "", "Mount volumes from the specified container(s)"),
		textFlag(&f.workdir, "workdir", "w", "Working directory inside the container"),
	}
	shown = append(shown, f.network.options()...)
	shown = append(shown, f.identity.options()...)
	shown = append(shown, f.resources.options()...)
	shown = append(shown, f.health.options()...)
	slices.SortStableFunc(shown, func(a, b option) int { return strings.Compare(a.name, b.name) })
	return append(shown, f.unmet.options()...)
}

func rungFlag(p *string) option {
	return textFlag(p, "rung", "", `Map user IDs so and no other way ("mapped", "single")`)
}

// container reads the values as far as they need no image. args follow the image.
func (f *containerFlags) container(c *client, args []string) (container.Options, error) {
	o := container.Options{
		Name: strings.TrimPrefix(f.name, "/"), Hostname: f.hostname, Domainname: f.domainname, User: f.user, WorkingDir: f.workdir,
		StopSignal: f.stopSignal, Args: args, VolumesFrom: f.volumesFrom,
		TTY: f.tty, OpenStdin: f.stdin, ReadOnly: f.readOnly, Init: f.init, AutoRemove: f.rm,
	}
	if err := f.identity.apply(&o, &f.image.rung); err != nil {
		return o, err
	}
	if f.workdir != "" && !filepath.IsAbs(f.workdir) {
		return o, fmt.Errorf("the working directory '%s' is invalid, it needs to be an absolute path", f.workdir)
	}
	if f.entrypoint.ok {
		o.Entrypoint = &[]string{}
		if f.entrypoint.text != "" {
			o.Entrypoint = &[]string{f.entrypoint.text}
		}
	}
	switch f.image.pull {
	case "", pullAlways, pullMissing, pullNever:
	default:
		return o, fmt.Errorf("invalid pull option: '%s': must be one of %q, %q or %q", f.image.pull, pullAlways, pullMissing, pullNever)
	}
	var err error
	if err = f.network.apply(c, &o); err != nil {
		return o, err
	}
	if err = f.life(&o); err != nil {
		return o, err
	}
	if o.Env, err = environment(f.envFiles, f.env, c.lookup); err != nil {
		return o, err
	}
	if o.Labels, err = labels(f.labelFiles, f.labels); err != nil {
		return o, err
	}
	if o.Mounts, err = f.allMounts(); err != nil {
		return o, err
	}
	return o, f.resources.apply(c, &o, &f.unmet)
}

// life reads what becomes of the container once it runs: its end, and what is
// kept of its output.
func (f *containerFlags) life(o *container.Options) (err error) {
	if o.Log, err = f.logConfig(); err != nil {
		return err
	}
	if o.Health, err = f.health.check(); err != nil {
		return err
	}
	if o.Restart, err = container.ParseRestart(f.restart); err != nil {
		return err
	}
	if f.rm && f.restart != "" && o.Restart.Name != container.RestartNo {
		return errors.New("conflicting options: cannot specify both --restart and --rm")
	}
	if f.stopSignal != "" {
		if _, err := container.ParseSignal(f.stopSignal); err != nil {
			return err
		}
	}
	if f.stopTimeout.ok {
		n, err := strconv.Atoi(f.stopTimeout.text)
		if err != nil {
			return &usageError{text: fmt.Sprintf("invalid argument %q for \"--stop-timeout\" flag: want a number", f.stopTimeout.text)}
		}
		o.StopTimeout = &n
	}
	return nil
}

// allMounts reads -v, --mount and --tmpfs. Two mounts on one target are an error,
// as on Docker.
func (f *containerFlags) allMounts() ([]container.Mount, error) {
	var all []container.Mount
	for _, spec := range f.volumes {
		m, err := parseVolume(spec)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	for _, spec := range f.mounts {
		m, without, err := parseMount(spec)
		if err != nil {
			return nil, err
		}
		for _, o := range without {
			f.unmet.add("--mount option " + o)
		}
		all = append(all, m)
	}
	for _, spec := range f.tmpfs {
		m, err := parseTmpfs(spec)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	seen := map[string]bool{}
	for _, m := range all {
		if seen[m.Target] {
			return nil, fmt.Errorf("duplicate mount point: %s", m.Target)
		}
		seen[m.Target] = true
	}
	return all, nil
}

// checkTerminal refuses a terminal for a program whose input is none, as Docker
// does.
func (f *containerFlags) checkTerminal(c *client, a container.Attach) error {
	if f.tty && a.Input && !isTerminal(c.in) {
		return errNoTerminal
	}
	return nil
}
