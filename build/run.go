// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"sync"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/container"
	"sbx/store"
)

// runLayer finds the layer of a RUN, or runs it in a container whose upper
// directory becomes the layer.
func (b *builder) runLayer(ctx context.Context, v *vertex, below snapshot, st *step) (store.StepLayer, bool, error) {
	r := st.run
	if r.security == instructions.SecurityInsecure {
		return store.StepLayer{}, false, errors.New("security.insecure is not allowed")
	}
	mounts := &stepMounts{b: b, stage: st.stage, run: r}
	bound, err := mounts.digests(ctx)
	if err != nil {
		return store.StepLayer{}, false, err
	}
	key := b.runKey(below, r, bound)
	if l, ok := b.cached(ctx, st.stage, below, key); ok {
		return l, true, nil
	}
	lower, err := b.dirs(ctx, below)
	if err != nil {
		return store.StepLayer{}, false, err
	}
	defer mounts.close()
	if err := mounts.prepare(ctx, lower); err != nil {
		return store.StepLayer{}, false, err
	}
	l, err := b.run(ctx, v, lower, r, mounts)
	return b.made(l, err, key)
}

// run runs the program. Its failure is a *ProcessError.
func (b *builder) run(ctx context.Context, v *vertex, lower []string, r *runStep, mounts *stepMounts) (l store.Layer, err error) {
	options := container.Options{
		Entrypoint: &[]string{}, Args: r.args, WorkingDir: r.workdir, User: r.user, Mounts: mounts.mounts,
		Network: b.networkOf(r), Limits: container.Limits{Ulimits: b.Ulimits},
	}
	base := container.Base{Name: "build", Lower: lower, Config: ocispec.ImageConfig{Env: append(mounts.environ(r.env), r.env...)}}
	c, err := b.home.CreateStep(ctx, base, options, container.Step{Trees: mounts.trees, Files: mounts.files, Env: mounts.env, Hosts: b.Hosts})
	if err != nil {
		return l, err
	}
	defer func() {
		err = errors.Join(err, c.Remove(context.WithoutCancel(ctx), true))
		b.heal.Do(func() { b.home.Heal(ctx) })
	}()
	status, err := b.attend(ctx, v, c)
	if err != nil {
		return l, err
	}
	if status != 0 {
		return l, &ProcessError{Args: r.args, Status: status}
	}
	ch := c.Changes()
	for _, t := range mounts.trees {
		ch.Stubs = append(ch.Stubs, t.Target)
	}
	for _, f := range mounts.files {
		ch.Stubs = append(ch.Stubs, f.Target)
	}
	o := store.LayerOptions{Consume: true}
	if b.plan.epoch != nil {
		o.Epoch = *b.plan.epoch
	}
	return b.draft.AddChanges(ctx, ch, o)
}

func (b *builder) networkOf(r *runStep) string {
	network := r.network
	if network == "" || network == "default" {
		network = b.Network
	}
	if network == "default" {
		network = ""
	}
	return network
}

// attend runs the container and reports what it writes.
func (b *builder) attend(ctx context.Context, v *vertex, c *container.Container) (int, error) {
	var ends [2]*os.File
	var readers sync.WaitGroup
	for i := range ends {
		r, w, err := os.Pipe()
		if err != nil {
			return 0, err
		}
		ends[i] = w
		readers.Go(func() {
			defer r.Close()
			buf := make([]byte, 32<<10)
			for {
				n, err := r.Read(buf)
				if n > 0 {
					v.output(i+1, append([]byte(nil), buf[:n]...))
				}
				if err != nil {
					return
				}
			}
		})
	}
	status, err := c.RunStep(ctx, ends[0], ends[1])
	for _, w := range ends {
		w.Close()
	}
	readers.Wait()
	var start *container.StartError
	if errors.As(err, &start) && status != 0 && status != 125 {
		return status, fmt.Errorf("%w: %w", &ProcessError{Args: c.Config.Cmd, Status: status}, err)
	}
	return status, err
}

// environ is what every RUN gets of this machine: its proxies, and where its
// certificates are. The image's own variables come after it.
func (m *stepMounts) environ(own variables) []string {
	var env []string
	for _, e := range m.b.HostEnv {
		name, _, _ := strings.Cut(e, "=")
		if _, ok := own.Get(name); !ok {
			env = append(env, e)
		}
	}
	if m.certificates {
		for _, name := range certificateVariables {
			if _, ok := own.Get(name); !ok {
				env = append(env, name+"="+certificatesFile)
			}
		}
	}
	return env
}

// certificatesFile is where this machine's authorities are in a RUN.
const certificatesFile = "/run/sbx/ca-certificates.crt"

// certificateVariables are what OpenSSL and Go, curl, Python's requests and pip,
// Node, git, cargo, and Nix read.
var certificateVariables = []string{
	"SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO", "CARGO_HTTP_CAINFO", "NIX_SSL_CERT_FILE",
}

// absolute is a mount's target from the root.
func (r *runStep) absolute(target string) string {
	if !path.IsAbs(target) {
		target = path.Join("/", r.workdir, target)
	}
	return path.Clean(target)
}
