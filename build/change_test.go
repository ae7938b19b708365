// SPDX-License-Identifier: Apache-2.0

package build

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestChange(t *testing.T) {
	base := dockerspec.DockerOCIImage{}
	base.Config.Env, base.Config.Cmd, base.Config.WorkingDir = []string{"A=1", "B=2"}, []string{"sh"}, "/srv"
	image := cloneImage(base)
	err := Change(&image, []string{
		`CMD ["a", "b"]`, `ENTRYPOINT /bin/x --y`, "ENV A=3 C=$B", "EXPOSE 80 53/udp", `LABEL k="v w"`, "ONBUILD RUN true",
		"STOPSIGNAL SIGINT", "USER 1:2", "VOLUME /v", "WORKDIR sub", "HEALTHCHECK NONE", "# nothing",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := dockerspec.DockerOCIImage{Config: dockerspec.DockerOCIImageConfig{
		ImageConfig: ocispec.ImageConfig{
			User: "1:2", ExposedPorts: map[string]struct{}{"80/tcp": {}, "53/udp": {}}, Env: []string{"A=3", "B=2", "C=2"},
			Entrypoint: []string{"/bin/sh", "-c", "/bin/x --y"}, Cmd: nil, Volumes: map[string]struct{}{"/v": {}}, WorkingDir: "/srv/sub",
			Labels: map[string]string{"k": "v w"}, StopSignal: "SIGINT",
		},
	}}
	got := image
	if got.Config.Healthcheck == nil || got.Config.Healthcheck.Test[0] != "NONE" || !cmp.Equal(got.Config.OnBuild, []string{"RUN true"}) {
		t.Errorf("%+v", got.Config)
	}
	got.Config.Healthcheck, got.Config.OnBuild = nil, nil
	got.Config.Cmd, got.Config.ArgsEscaped = nil, false //nolint:staticcheck // whether it is set is BuildKit's matter
	if d := cmp.Diff(got, want); d != "" {
		t.Error(d)
	}
	if !cmp.Equal(base.Config.Env, []string{"A=1", "B=2"}) {
		t.Error("the image that it was copied from has changed")
	}
	for text, want := range map[string]string{
		"RUN true":          `change "RUN true": RUN is not a valid change command`,
		"FROM x":            `change "FROM x": FROM is not a valid change command`,
		"COPY a b":          `change "COPY a b": COPY is not a valid change command`,
		"NONSENSE x":        `unknown instruction: NONSENSE`,
		"STOPSIGNAL nosuch": `nosuch`,
		"EXPOSE 99999999":   `99999999`,
		"ENV":               `ENV requires at least one argument`,
	} {
		err := Change(&image, []string{text})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %s", text, err, want)
		}
	}
}
