// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/build"
	"sbx/container"
	"sbx/fetch"
	"sbx/reference"
	"sbx/store"
)

func buildCommand() command {
	return command{
		name: "build", summary: "Build an image from a Dockerfile",
		usage: "[OPTIONS] PATH | URL | -", forms: []string{"sbx image build", "sbx build", "sbx buildx build"},
		min: 1, max: 1,
		bind: func() ([]option, action) {
			o := &buildOptions{}
			return o.flags(), o.run
		},
	}
}

// buildxGroup is the plugin's name for the same command, which many scripts use.
func buildxGroup() command {
	return command{name: "buildx", summary: "Docker Buildx", commands: []command{buildCommand()}}
}

type buildOptions struct {
	tags, args, labels, secrets, ssh, hosts []string
	contexts, outputs, noCacheFilter        []string
	cacheFrom, cacheTo, ulimits             []string
	file, target, network, progress         string
	idFile, metadataFile, shm               string
	platforms                               []string
	pull, noCache, quiet                    bool
	push, load, check, remove               bool
	rung                                    string
	unmet                                   unmet
}

func (o *buildOptions) flags() []option {
	options := []option{
		listFlag(&o.hosts, "add-host", "", "Add a custom host-to-IP mapping (format: \"host:ip\")"),
		listFlag(&o.args, "build-arg", "", "Set build-time variables"),
		listFlag(&o.contexts, "build-context", "", "Additional build contexts (e.g., name=path)"),
		listFlag(&o.cacheFrom, "cache-from", "", "External cache sources (e.g., \"type=local,src=path/to/dir\")"),
		listFlag(&o.cacheTo, "cache-to", "", "Cache export destinations (e.g., \"type=local,dest=path/to/dir\")"),
		switchFlag(&o.check, "check", "", "Check the Dockerfile, and build nothing"),
		textFlag(&o.file, "file", "f", "Name of the Dockerfile (default: \"PATH/Dockerfile\")"),
		textFlag(&o.idFile, "iidfile", "", "Write the image ID to a file"),
		listFlag(&o.labels, "label", "", "Set metadata for an image"),
		switchFlag(&o.load, "load", "", "Shorthand for \"--output=type=docker\""),
		textFlag(&o.metadataFile, "metadata-file", "", "Write build result metadata to a file"),
		textFlag(&o.network, "network", "", "Set the networking mode for the RUN instructions during build"),
		switchFlag(&o.noCache, "no-cache", "", "Do not use cache when building the image"),
		listFlag(&o.noCacheFilter, "no-cache-filter", "", "Do not cache specified stages"),
		listFlag(&o.outputs, "output", "o", "Output destination (format: \"type=local,dest=path\")"),
		listFlag(&o.platforms, "platform", "", "Set target platform for build"),
		textFlag(&o.progress, "progress", "", "Set type of progress output (\"auto\", \"plain\", \"tty\", \"quiet\", \"rawjson\")"),
		switchFlag(&o.pull, "pull", "", "Always attempt to pull all referenced images"),
		switchFlag(&o.push, "push", "", "Shorthand for \"--output=type=registry\""),
		switchFlag(&o.quiet, "quiet", "q", "Suppress the build output and print image ID on success"),
		rungFlag(&o.rung),
		listFlag(&o.secrets, "secret", "", "Secret to expose to the build (format: \"id=mysecret[,src=/local/secret]\")"),
		textFlag(&o.shm, "shm-size", "", "Shared memory size for build containers"),
		listFlag(&o.ssh, "ssh", "", "SSH agent socket to expose to the build (format: \"default|<id>[=<socket>]\")"),
		listFlag(&o.tags, "tag", "t", "Name and optionally a tag (format: \"name:tag\")"),
		textFlag(&o.target, "target", "", "Set the target build stage to build"),
		listFlag(&o.ulimits, "ulimit", "", "Ulimit options"),
	}
	return append(options, o.accepted()...)
}

// accepted are flags of Docker's that change nothing here.
func (o *buildOptions) accepted() []option {
	var hidden []option
	for _, f := range []struct{ name, kind string }{
		{"allow", "list"}, {"annotation", "list"}, {"attest", "list"}, {"builder", "string"}, {"cgroup-parent", "string"}, {"provenance", "string"}, {"sbom", "string"},
		{"compress", ""}, {"squash", ""}, {"disable-content-trust", ""}, {"isolation", "string"}, {"memory", "bytes"}, {"memory-swap", "bytes"},
		{"cpu-period", "int"}, {"cpu-quota", "int"}, {"cpu-shares", "int"}, {"cpuset-cpus", "string"}, {"cpuset-mems", "string"}, {"security-opt", "list"},
	} {
		a := &accepted{name: f.name, kind: f.kind, met: []string{"false", "default"}}
		hidden = append(hidden, option{name: f.name, kind: f.kind, hidden: true, value: &acceptedValue{a, &o.unmet}})
	}
	keep := switchFlag(&o.remove, "rm", "", "")
	keep.hidden = true
	force := switchFlag(&o.remove, "force-rm", "", "")
	force.hidden = true
	return append(hidden, keep, force)
}

func (o *buildOptions) run(ctx context.Context, c *client, operands []string) error {
	if o.quiet {
		o.progress = "quiet"
	}
	caches, err := o.parseCaches()
	if err != nil {
		return inContext("build", operands[0], err)
	}
	if !o.quiet {
		o.unmet.tell(c)
	}
	printer, err := newBuildPrinter(c, o.progress)
	if err != nil {
		return err
	}
	err = interruptible(ctx, func(ctx context.Context) error { return o.build(ctx, c, operands[0], caches, printer) })
	printer.close()
	var source *build.SourceError
	if errors.As(err, &source) && o.progress != "rawjson" {
		fmt.Fprint(c.err, escape(printer.failure()+source.Quote(), "\n\t"))
	}
	if err == nil {
		return nil
	}
	err = inContext("build", operands[0], err)
	var process *build.ProcessError
	if errors.As(err, &process) {
		return &statusError{status: statusFailed, err: err} // whatever that of the program was
	}
	return err
}

func (o *buildOptions) build(ctx context.Context, c *client, where string, caches buildCaches, printer *buildPrinter) error {
	home, err := c.open(ctx, o.rung)
	if err != nil {
		return err
	}
	b, err := o.options(ctx, c, home)
	if err != nil {
		return err
	}
	b.Report = printer.event
	platforms, err := o.readPlatforms(c)
	if err != nil {
		return err
	}
	outputs, err := o.parseOutputs(len(platforms) > 1)
	if err != nil {
		return err
	}
	closing, err := o.openContexts(ctx, c, home, where, &b)
	defer closing()
	if err != nil {
		return err
	}
	b.Platform = platforms[0]
	if o.check {
		return o.runCheck(ctx, c, b)
	}
	closeCaches := caches.open(ctx, c, &b)
	defer closeCaches()
	results, err := buildEach(ctx, home, b, platforms, printer)
	if err != nil {
		return err
	}
	if o.progress != "quiet" && o.progress != "rawjson" {
		printer.warnings(results[0].Warnings)
	}
	if err := o.deliver(ctx, c, home, results, outputs, printer); err != nil {
		return err
	}
	if err := caches.write(ctx, c, home, results, printer); err != nil {
		return err
	}
	return o.finish(c, results)
}

// finish writes what was asked for of the result.
func (o *buildOptions) finish(c *client, results []build.Result) error {
	id, top := results[0].Image.ID.String(), results[0].Image.Manifest
	meta := map[string]any{"containerimage.config.digest": id}
	if len(results) > 1 {
		var err error
		if top, _, err = build.Index(results); err != nil {
			return err
		}
		id = top.Digest.String()
		delete(meta, "containerimage.config.digest")
	}
	if o.idFile != "" {
		if err := os.WriteFile(o.idFile, []byte(id), 0o644); err != nil {
			return fmt.Errorf("write image ID file: %w", err)
		}
	}
	if o.metadataFile != "" {
		meta["containerimage.digest"], meta["containerimage.descriptor"] = top.Digest, top
		if names := o.familiar(); len(names) > 0 {
			meta["image.name"] = strings.Join(names, ",")
		}
		data, err := json.MarshalIndent(meta, "", "  ")
		if err == nil {
			err = os.WriteFile(o.metadataFile, append(data, '\n'), 0o644)
		}
		if err != nil {
			return fmt.Errorf("write metadata file: %w", err)
		}
	}
	if o.progress == "quiet" {
		c.print("%s\n", id)
	}
	return nil
}

func (o *buildOptions) familiar() []string {
	var names []string
	for _, t := range o.tags {
		if ref, err := reference.Parse(t); err == nil {
			names = append(names, ref.String())
		}
	}
	return names
}

// runCheck prints what is said against a Dockerfile. Its exit status is 1 if that
// is anything.
func (o *buildOptions) runCheck(ctx context.Context, c *client, b build.Options) error {
	warnings, err := build.Check(ctx, b)
	if err != nil {
		return err
	}
	if len(warnings) == 0 {
		c.print("Check complete, no warnings found.\n")
		return nil
	}
	text := fmt.Sprintf("Check complete, %d %s been found!\n", len(warnings), plural(len(warnings), "warning has", "warnings have"))
	for _, w := range warnings {
		text += fmt.Sprintf("\nWARNING: %s - %s\n%s\n%s", w.Rule, w.URL, w.Text, w.Source.Quote())
	}
	c.document(text)
	return exited(statusFailed)
}

func plural(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

// options reads the flags as far as they need no context.
func (o *buildOptions) options(ctx context.Context, c *client, home *container.Home) (build.Options, error) {
	b := build.Options{Target: o.target, NoCache: o.noCache, NoCacheFilter: split(o.noCacheFilter), Network: o.network, Args: map[string]string{}}
	switch o.network {
	case "", "default", container.NetworkNone, container.NetworkHost:
	default:
		return b, fmt.Errorf("network mode %q not supported by buildkit", o.network)
	}
	for _, a := range o.args {
		name, value, given := strings.Cut(a, "=")
		if !given {
			var set bool
			if value, set = c.lookup(name); !set {
				continue
			}
		}
		b.Args[name] = value
	}
	if epoch, ok := c.lookup("SOURCE_DATE_EPOCH"); ok {
		if _, given := b.Args["SOURCE_DATE_EPOCH"]; !given {
			b.Args["SOURCE_DATE_EPOCH"] = epoch
		}
	}
	var err error
	if b.Labels, err = labels(nil, o.labels); err != nil {
		return b, err
	}
	for _, t := range o.tags {
		ref, err := reference.Parse(t)
		if err != nil {
			return b, fmt.Errorf("invalid tag %q: %w", t, err)
		}
		if !ref.Digest.IsZero() {
			return b, fmt.Errorf("invalid tag %q: a digest is no name to give", t)
		}
		b.Names = append(b.Names, ref.String())
	}
	if o.shm != "" {
		if b.ShmSize, err = parseSize(o.shm); err != nil {
			return b, fmt.Errorf("invalid shm-size %q: %w", o.shm, err)
		}
	}
	if b.Ulimits, err = readUlimits(c, o.ulimits); err != nil {
		return b, err
	}
	if b.Secrets, err = o.readSecrets(c); err != nil {
		return b, err
	}
	if b.SSH, err = o.readSSH(c); err != nil {
		return b, err
	}
	if b.Hosts, err = o.readHosts(); err != nil {
		return b, err
	}
	b.HostEnv = c.proxies()
	b.Certificates = c.authorities()
	b.Image = o.images(c, home)
	b.Download = func(ctx context.Context, url string) (io.ReadCloser, build.Download, error) {
		f, err := c.openFile(ctx, url)
		if err != nil {
			return nil, build.Download{}, err
		}
		return f, build.Download{Modified: f.Modified}, nil
	}
	return b, ctx.Err()
}

func (c *client) openFile(ctx context.Context, url string) (*fetch.File, error) {
	options, err := c.fetchOptions(ocispec.Platform{})
	if err != nil {
		return nil, err
	}
	return fetch.OpenFile(ctx, url, 0, options)
}

// images finds or fetches base images.
func (o *buildOptions) images(c *client, home *container.Home) func(context.Context, string, ocispec.Platform) (store.Image, error) {
	return func(ctx context.Context, name string, platform ocispec.Platform) (store.Image, error) {
		flags := imageFlags{quiet: true, rung: o.rung, platform: platformName(platform)}
		if o.pull {
			flags.pull = pullAlways
		}
		r, err := newResolver(c, home, flags, c.err)
		if err != nil {
			return store.Image{}, err
		}
		return r.image(ctx, name)
	}
}

// openContexts opens the build context and those with names, and reads the
// Dockerfile. What it returns closes them, on failure too.
func (o *buildOptions) openContexts(ctx context.Context, c *client, home *container.Home, where string, b *build.Options) (closing func(), err error) {
	var opened []build.Context
	closing = func() {
		for i := range opened {
			opened[i].Close()
		}
	}
	var dockerfile []byte
	b.Context, dockerfile, err = o.openContext(ctx, c, home, where)
	if err != nil {
		return closing, err
	}
	opened = append(opened, b.Context)
	b.Contexts = map[string]build.Context{}
	for _, spec := range o.contexts {
		name, value, ok := strings.Cut(spec, "=")
		if !ok || name == "" || value == "" {
			return closing, fmt.Errorf("invalid context value: %s, expected key=value", spec)
		}
		var named build.Context
		if image, isImage := strings.CutPrefix(value, "docker-image://"); isImage {
			named = build.Context{Image: image}
		} else if layout, isLayout := strings.CutPrefix(value, "oci-layout://"); isLayout {
			abs, err := filepath.Abs(layout)
			if err != nil {
				return closing, err
			}
			named = build.Context{Image: abs}
		} else {
			if named, _, err = o.openContext(ctx, c, home, value); err != nil {
				return closing, err
			}
			if data, err := named.ReadFile(".dockerignore"); err == nil {
				if err := named.Ignore(data); err != nil {
					return closing, err
				}
			}
		}
		opened = append(opened, named)
		b.Contexts[strings.ToLower(name)] = named
	}
	return closing, o.readDockerfile(ctx, c, where, dockerfile, b)
}

// openContext opens a directory, a git repository, a URL, or standard input.
func (o *buildOptions) openContext(ctx context.Context, c *client, home *container.Home, where string) (build.Context, []byte, error) {
	if where == "-" {
		if o.file == "-" {
			return build.Context{}, nil, errors.New("invalid argument: can't use stdin for both build context and dockerfile")
		}
		return build.StreamContext(ctx, home.Store, c.input(ctx))
	}
	if fi, err := os.Stat(where); err == nil && fi.IsDir() {
		named, err := build.DirContext(where)
		return named, nil, err
	}
	if build.IsGit(where) {
		named, err := build.GitContext(ctx, home.Store, where)
		return named, nil, err
	}
	if location, ok := fetch.Locate(where); ok && strings.Contains(location, "://") {
		f, err := c.openFile(ctx, location)
		if err != nil {
			return build.Context{}, nil, err
		}
		defer f.Close()
		return build.StreamContext(ctx, home.Store, f)
	}
	named, err := build.DirContext(where)
	return named, nil, err
}

// readDockerfile finds the Dockerfile: that of -f, on this machine or in the
// context, or what came in the context's place. Its own ignore file goes before
// the context's.
func (o *buildOptions) readDockerfile(ctx context.Context, c *client, where string, given []byte, b *build.Options) error {
	b.Name = "Dockerfile"
	if o.file != "" && o.file != "-" {
		b.Name = filepath.Base(o.file)
	}
	var ignore []byte
	var err error
	local := false
	if fi, statErr := os.Stat(where); statErr == nil && fi.IsDir() && where != "-" {
		local = true
	}
	switch {
	case given != nil:
		b.Dockerfile = given
		return nil
	case o.file == "-":
		b.Dockerfile, err = io.ReadAll(io.LimitReader(c.input(ctx), 32<<20))
	case o.file != "" && local:
		b.Dockerfile, err = readLimited(o.file)
		if err == nil {
			ignore, _ = readLimited(o.file + ".dockerignore")
		}
	default:
		name := o.file
		if name == "" {
			name = "Dockerfile"
		}
		b.Dockerfile, err = b.Context.ReadFile(name)
		if o.file == "" && errors.Is(err, fs.ErrNotExist) {
			b.Dockerfile, err = b.Context.ReadFile("dockerfile")
		}
		if err == nil {
			ignore, _ = b.Context.ReadFile(name + ".dockerignore")
		}
	}
	if err != nil {
		return &dockerfileError{name: or(o.file, "Dockerfile"), err: withoutPath(err)}
	}
	if ignore == nil {
		if ignore, err = b.Context.ReadFile(".dockerignore"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read .dockerignore: %w", withoutPath(err))
		}
	}
	return b.Context.Ignore(ignore)
}

func readLimited(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 32<<20))
}

// dockerfileError says that there is no Dockerfile.
type dockerfileError struct {
	name string
	err  error
}

func (e *dockerfileError) Error() string {
	return fmt.Sprintf("failed to read dockerfile: open %s: %v", e.name, e.err)
}

func (e *dockerfileError) Unwrap() error { return e.err }

// Hint says how to name one.
func (e *dockerfileError) Hint() string { return "name it with -f" }

// split takes lists apart whose entries may be lists with commas.
func split(entries []string) []string {
	var all []string
	for _, e := range entries {
		all = append(all, strings.Split(e, ",")...)
	}
	return all
}
