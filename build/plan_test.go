// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestDockerfiles reads every Dockerfile of a folder and compares what it becomes
// with what stands beside it: refused, with the line; or each stage and step.
// Options stand in comments: "#test: target=x", "#test: arg NAME=value".
// SBX_TEST_DOCKERFILES names another folder; SBX_TEST_UPDATE=1 writes the results.
func TestDockerfiles(t *testing.T) {
	dir := os.Getenv("SBX_TEST_DOCKERFILES")
	if dir == "" {
		dir = "testdata/dockerfiles"
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.Dockerfile"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no Dockerfiles in %s: %v", dir, err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".Dockerfile"), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := describePlan(t.Context(), data)
			expected := strings.TrimSuffix(name, ".Dockerfile") + ".expected"
			if os.Getenv("SBX_TEST_UPDATE") == "1" {
				if err := os.WriteFile(expected, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(expected)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", expected, diff)
			}
		})
	}
}

// testImages are the configs of base images.
var testImages = map[string]dockerspec.DockerOCIImageConfig{
	"alpine": {ImageConfig: ocispec.ImageConfig{Env: []string{"PATH=/usr/bin:/bin"}, Cmd: []string{"/bin/sh"}}},
	"golang": {ImageConfig: ocispec.ImageConfig{Env: []string{"PATH=/go/bin:/bin", "GOPATH=/go"}, WorkingDir: "/go", Cmd: []string{"bash"}}},
	"nonroot": {ImageConfig: ocispec.ImageConfig{User: "app", WorkingDir: "/home/app", Entrypoint: []string{"/init"}, Cmd: []string{"serve"},
		Labels: map[string]string{"from": "base"}}},
	"onbuild": {DockerOCIImageConfigExt: dockerspec.DockerOCIImageConfigExt{OnBuild: []string{"COPY . /src", "RUN make", "COPY --from=tools /t /t"}}},
}

var amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}

func testPlan(ctx context.Context, data []byte, o planOptions) (*plan, error) {
	file, err := parse("Dockerfile", data)
	if err != nil {
		return nil, err
	}
	p, err := newPlan(file, o)
	if err != nil {
		return nil, err
	}
	return p, p.resolve(ctx, func(_ context.Context, s *stage) error {
		if err := s.checkName(); err != nil {
			return err
		}
		c, ok := testImages[s.baseName]
		if !ok && !s.implied && !s.replaced {
			return errors.New("no such image: " + s.baseName)
		}
		s.image.Platform = s.wantedPlatform()
		s.image.Config = c
		return nil
	})
}

func describePlan(ctx context.Context, data []byte) string {
	o := planOptions{build: amd64, platform: amd64, args: map[string]string{}, contexts: map[string]bool{}}
	for line := range strings.Lines(string(data)) {
		option, ok := strings.CutPrefix(strings.TrimSpace(line), "#test: ")
		if !ok {
			continue
		}
		name, value, _ := strings.Cut(option, "=")
		switch name, arg, _ := strings.Cut(name, " "); name {
		case "target":
			o.target = value
		case "arg":
			o.args[arg] = value
		case "context":
			o.contexts[value] = true
		case "platform":
			p, _ := parsePlatform(value)
			o.platform = *p
		}
	}
	p, err := testPlan(ctx, data, o)
	if err != nil {
		text := "refused: " + err.Error() + "\n"
		if at := (*SourceError)(nil); errors.As(err, &at) {
			text += at.Quote()
		}
		return text
	}
	var b strings.Builder
	for _, s := range p.stages {
		describeStage(&b, s, s == p.target)
	}
	for _, w := range p.file.warnings {
		fmt.Fprintf(&b, "warning %s line %d: %s\n", w.Rule, w.Source.Line(), w.Text)
	}
	return b.String()
}

func describeStage(b *strings.Builder, s *stage, target bool) {
	switch {
	case !s.needed:
		fmt.Fprintf(b, "stage %d %s: not needed\n", s.index, s.label)
		return
	case s.implied:
		fmt.Fprintf(b, "source %s\n", s.baseName)
		return
	}
	fmt.Fprintf(b, "stage %d %s: FROM %s %s\n", s.index, s.label, s.baseName, platformName(s.wantedPlatform()))
	for _, st := range s.steps {
		first, last := lines(st.location)
		fmt.Fprintf(b, "  %s (%d-%d)\n", st.name, first, last)
		switch {
		case st.run != nil:
			r := st.run
			fmt.Fprintf(b, "    run %q in %s as %q network %q\n    env %q\n", r.args, r.workdir, r.user, r.network, []string(r.env))
			for _, m := range r.mounts {
				fmt.Fprintf(b, "    mount %s from=%q source=%q target=%q id=%q\n", m.Type, m.From, m.Source, m.Target, m.CacheID)
			}
			if r.script != nil {
				fmt.Fprintf(b, "    script %s %q\n", r.script.Name, r.script.Data)
			}
		case st.copy != nil:
			c := st.copy
			fmt.Fprintf(b, "    copy %q to %s", c.sources, c.dest)
			for _, in := range c.inline {
				fmt.Fprintf(b, " <%s %q>", in.Path, in.Data)
			}
			if c.from != nil {
				fmt.Fprintf(b, " from %s", c.from.label)
			}
			fmt.Fprintf(b, " chown=%q chmod=%q add=%v link=%v parents=%v exclude=%q\n", c.chown, c.chmod, c.add, c.link, c.parents, c.excludes)
		case st.mkdir != nil:
			fmt.Fprintf(b, "    mkdir %s as %q\n", st.mkdir.dir, st.mkdir.user)
		}
	}
	if !target {
		return
	}
	c := s.image.Config
	fmt.Fprintf(b, "config: env %q user %q workdir %q cmd %q entrypoint %q shell %q stop %q onbuild %q\n",
		c.Env, c.User, c.WorkingDir, c.Cmd, c.Entrypoint, c.Shell, c.StopSignal, c.OnBuild)
	fmt.Fprintf(b, "        labels %v volumes %v ports %v", c.Labels, c.Volumes, c.ExposedPorts)
	if c.Healthcheck != nil {
		fmt.Fprintf(b, " health %+v", *c.Healthcheck)
	}
	b.WriteString("\n")
	for _, h := range s.history {
		fmt.Fprintf(b, "history %q layer=%v\n", h.createdBy, h.step != nil && slices.Contains(append(s.steps, baseSteps(s)...), h.step))
	}
}

func baseSteps(s *stage) []*step {
	if s.base == nil {
		return nil
	}
	return append(s.base.steps, baseSteps(s.base)...)
}
