// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"sbx/container"
	"sbx/store"
)

// Options say what is built, and how.
type Options struct {
	Context    Context            // what COPY reads
	Contexts   map[string]Context // --build-context, by lower-case name
	Dockerfile []byte
	Name       string // of the Dockerfile, for messages

	Target        string
	Args          map[string]string
	Labels        map[string]string
	Platform      ocispec.Platform // zero: this machine's
	NoCache       bool
	NoCacheFilter []string // stages that are built anew
	Network       string   // of RUN; "" is the default
	Hosts         []string // NAME:IP lines for RUN's /etc/hosts
	ShmSize       int64    // bytes of /dev/shm; 0: the default
	Ulimits       []container.Ulimit
	Secrets       map[string]Secret
	SSH           map[string]string // sockets of agents, by ID
	HostEnv       []string          // proxies of this machine, for RUN; neither recorded nor part of a key
	Certificates  []byte            // this machine's authorities, in PEM, for RUN
	Names         []string          // canonical references that the image gets
	CacheFrom     []Cache           // steps of other machines' builds

	// Image brings the image of a name for a platform.
	Image func(ctx context.Context, name string, platform ocispec.Platform) (store.Image, error)
	// Download opens a URL of ADD.
	Download func(ctx context.Context, url string) (io.ReadCloser, Download, error)
	// Report takes what happens, one event at a time.
	Report func(Event)
}

// Secret is what --secret brings.
type Secret struct {
	Data []byte
}

// Download is what is known of a URL's content.
type Download struct {
	Modified time.Time // zero if the server did not say
}

// Result is what a build made.
type Result struct {
	Image    store.Image
	Warnings []Warning
	// Layers are the unpacked directories of the result, topmost first.
	Layers []string
	// Steps are all that were made, or found to be made.
	Steps []CachedStep
}

// builder holds what one build needs.
type builder struct {
	*Options
	home    *container.Home
	plan    *plan
	draft   *store.Draft
	started time.Time
	report  *reporter
	temp    *tempDir

	mu   sync.Mutex
	used []CachedStep

	heal sync.Once // removing what killed builds have left, with the first RUN
}

// Check reads a Dockerfile and plans it, and returns what BuildKit's checks say.
// Nothing is built, and no image looked at.
func Check(ctx context.Context, o Options) ([]Warning, error) {
	b := &builder{Options: &o}
	if err := b.parse(); err != nil {
		return nil, err
	}
	err := b.plan.resolve(ctx, func(_ context.Context, s *stage) error {
		s.image, s.unknown = emptyImage(b.plan.wanted), true
		return nil
	})
	return b.plan.file.warnings, err
}

func (b *builder) parse() error {
	file, err := parse(b.Name, b.Dockerfile)
	if err != nil {
		return err
	}
	if b.Platform.Architecture == "" {
		b.Platform = machine()
	}
	names := map[string]bool{}
	for name := range b.Contexts {
		names[name] = true
	}
	b.plan, err = newPlan(file, planOptions{target: b.Target, args: b.Args, build: machine(), platform: b.Platform, contexts: names, ignore: b.Context.tree.Ignore})
	return err
}

// Build builds an image and gives it its names. When it returns without an error,
// the image is complete and durable. When ctx ends, so do the steps that run, and
// nothing of them stays.
//
// Runs in: the host's namespaces, as the user.
func Build(ctx context.Context, home *container.Home, o Options) (Result, error) {
	b := &builder{Options: &o, home: home, started: time.Now()}
	b.report = newReporter(o.Report)
	load := b.report.begin("[internal] load build definition from " + o.Name)
	err := b.parse()
	if err == nil {
		load.status(fmt.Sprintf("transferring dockerfile: %s done", size(int64(len(o.Dockerfile)))))
	}
	load.end(err)
	if err != nil {
		return Result{}, err
	}
	b.temp = newTempDir(home.Store)
	defer b.temp.remove()
	if b.draft, err = home.Store.NewDraft(ctx); err != nil {
		return Result{}, err
	}
	defer b.draft.Close()
	if err := b.plan.resolve(ctx, b.loadBase); err != nil {
		return Result{}, err
	}
	if err := b.plan.file.violations(); err != nil {
		return Result{}, err
	}
	if err := b.evaluate(ctx); err != nil {
		return Result{}, err
	}
	return b.finish(ctx)
}

// evaluate evaluates the needed stages, each as soon as what it needs is there.
func (b *builder) evaluate(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range b.plan.stages {
		if !s.needed {
			continue
		}
		g.Go(func() error {
			defer close(s.done)
			s.err = b.evaluateStage(ctx, s)
			return s.err
		})
	}
	return g.Wait()
}

// await returns the result of another stage.
func (s *stage) await(ctx context.Context) (snapshot, error) {
	select {
	case <-s.done:
		if s.err != nil {
			return snapshot{}, errNeeded
		}
		return s.result, nil
	case <-ctx.Done():
		return snapshot{}, ctx.Err()
	}
}

// errNeeded says that another stage has failed, whose error is the build's.
var errNeeded = errors.New("a stage that is needed could not be built")

func (b *builder) evaluateStage(ctx context.Context, s *stage) error {
	var err error
	if s.base != nil {
		if s.result, err = s.base.await(ctx); err != nil {
			return err
		}
	}
	if s.context != nil && s.replaced {
		if err := b.contextLayer(ctx, s); err != nil {
			return err
		}
	}
	if s.fromText != "" {
		v := b.report.begin(s.fromName(s.fromText))
		v.end(nil)
	}
	for _, st := range s.steps {
		if s.result, err = b.step(ctx, s.result, st); err != nil {
			return b.plan.file.at(err, st.location)
		}
	}
	return nil
}

// finish makes the image of the target.
func (b *builder) finish(ctx context.Context) (Result, error) {
	s := b.plan.target
	v := b.report.begin("exporting to image")
	img, err := b.commit(ctx, s)
	if err == nil {
		v.status("exporting layers done")
		v.status("writing image " + img.ID.String() + " done")
		for _, name := range b.Names {
			v.status("naming to " + name + " done")
		}
	}
	v.end(err)
	if err != nil {
		return Result{}, err
	}
	r := Result{Image: img, Warnings: b.plan.file.warnings, Steps: b.used}
	r.Layers, err = b.dirs(ctx, s.result)
	return r, err
}

func (b *builder) commit(ctx context.Context, s *stage) (store.Image, error) {
	config := cloneImage(s.image)
	if len(b.Labels) > 0 && config.Config.Labels == nil {
		config.Config.Labels = map[string]string{}
	}
	maps.Copy(config.Config.Labels, b.Labels)
	// The image is as old as its last step: who builds it again gets the same.
	created := b.started.UTC()
	if config.Created != nil {
		created = *config.Created
	}
	config.History = nil
	config.RootFS = ocispec.RootFS{}
	for _, h := range s.history {
		if h.step != nil {
			created = h.step.created
		}
		if b.plan.epoch != nil {
			created = *b.plan.epoch
		}
		at := created
		config.History = append(config.History, ocispec.History{
			Created: &at, CreatedBy: h.createdBy, Comment: historyComment, EmptyLayer: h.step == nil || h.step.empty,
		})
	}
	if b.plan.epoch != nil {
		created = *b.plan.epoch
	}
	config.Created = &created
	if config.OS == "" || config.Architecture == "" {
		config.Platform = s.wantedPlatform()
	}
	return b.draft.Commit(ctx, store.NewImage{Base: s.result.base, Layers: s.result.layers, Config: config, Names: b.Names})
}

// historyComment is what BuildKit writes too: tools tell by it how to read the entry.
const historyComment = "buildkit.dockerfile.v0"
