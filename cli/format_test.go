// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/container"
	"sbx/reference"
	"sbx/store"
)

const testID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func testContainers(now time.Time) []*container.Container {
	return []*container.Container{
		{
			Config: container.Config{ID: testID, Name: "web", Image: "alpine:3.20", Created: now.Add(-3 * time.Second), Entrypoint: []string{"/bin/sh", "-c"},
				Cmd: []string{"sleep 1000000"}, Network: "none", Labels: map[string]string{"b": "2", "a": "1"},
				Mounts: []container.Mount{{Type: container.Volume, Source: "/s/volumes/data/_data", Target: "/d"}, {Type: container.Bind, Source: "/home/user/projects", Target: "/p"}}},
			State: container.State{Status: container.Running, StartedAt: now.Add(-2 * time.Second)},
		},
		{
			Config: container.Config{ID: "f" + testID[1:], Name: "old_one", Image: "sha256:" + testID, Created: now.Add(-50 * time.Hour), Cmd: []string{"true"}, Network: "host"},
			State:  container.State{Status: container.Exited, ExitCode: 137, FinishedAt: now.Add(-49 * time.Hour)},
		},
		{
			Config: container.Config{ID: "e" + testID[1:], Name: "new", Image: "host", Created: now.Add(-60 * time.Hour), Cmd: []string{"sh"}, Network: "none"},
			State:  container.State{Status: container.Created},
		},
	}
}

func psText(t *testing.T, format string, trunc bool) string {
	t.Helper()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var rows []psRow
	for _, c := range testContainers(now) {
		rows = append(rows, newPsRow(c, now, trunc))
	}
	text, err := formatRows(format, psTable, psHeader(), rows)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestPsTable(t *testing.T) {
	want := `CONTAINER ID   IMAGE          COMMAND                  CREATED         STATUS                    PORTS     NAMES
0123456789ab   alpine:3.20    "/bin/sh -c sleep 10…"   3 seconds ago   Up 2 seconds                        web
f123456789ab   0123456789ab   "true"                   2 days ago      Exited (137) 2 days ago             old_one
e123456789ab   host           "sh"                     2 days ago      Created                             new
`
	if diff := cmp.Diff(want, psText(t, "", true)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPsFormat(t *testing.T) {
	for _, tt := range []struct{ format, want string }{
		{"{{.ID}}", "0123456789ab\nf123456789ab\ne123456789ab\n"},
		{`{{.Names}}\t{{.State}}`, "web\trunning\nold_one\texited\nnew\tcreated\n"},
		{"table {{.Names}}\t{{.Networks}}", "NAMES     NETWORKS\nweb       none\nold_one   host\nnew       none\n"},
		{`table {{.Names}}\t{{.Label "com.x.my-a"}}`, "NAMES     MY A\nweb       \nold_one   \nnew       \n"},
		{`{{.Label "a"}}|{{.Labels}}`, "1|a=1,b=2\n|\n|\n"},
		{`{{.Mounts}} {{.LocalVolumes}}`, "data,/home/user/pro… 1\n 0\n 0\n"},
		{`{{upper .Names}} {{json .Status}} {{truncate .ID 3}}`, "WEB \"Up 2 seconds\" 012\nOLD_ONE \"Exited (137) 2 days ago\" f12\nNEW \"Created\" e12\n"},
		{"table {{upper .Names}}", "NAMES\nWEB\nOLD_ONE\nNEW\n"},
		{`{{if eq .State "running"}}{{.Names}}{{end}}`, "web\n\n\n"},
	} {
		if got := psText(t, tt.format, true); got != tt.want {
			t.Errorf("%s:\n got %q\nwant %q", tt.format, got, tt.want)
		}
	}
	json, _, _ := strings.Cut(psText(t, "json", false), "\n")
	for _, part := range []string{`{"Command":"\"/bin/sh -c sleep 1000000\"","CreatedAt":"`, `"ID":"` + testID + `"`, `"LocalVolumes":"1"`, `"RunningFor":"3 seconds ago"`, `"Status":"Up 2 seconds"}`} {
		if !strings.Contains(json, part) {
			t.Errorf("json has no %s:\n%s", part, json)
		}
	}
	for _, bad := range []string{"{{.Nothing}}", "{{", "{{.ID | frob}}"} {
		if _, err := formatRows(bad, psTable, psHeader(), []psRow{{}}); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}

func TestPsChoose(t *testing.T) {
	now := time.Now()
	names := func(o psOptions) string {
		list, err := o.choose(testContainers(now))
		if err != nil {
			return err.Error()
		}
		var out []string
		for _, c := range list {
			out = append(out, c.Config.Name)
		}
		return strings.Join(out, " ")
	}
	filter := func(pairs ...string) filters {
		f := filters{}
		for _, p := range pairs {
			if err := f.Set(p); err != nil {
				t.Fatal(err)
			}
		}
		return f
	}
	for _, tt := range []struct {
		o    psOptions
		want string
	}{
		{psOptions{last: -1}, "web"},
		{psOptions{last: -1, all: true}, "web old_one new"},
		{psOptions{last: -1, latest: true}, "web"},
		{psOptions{last: 2}, "web old_one"},
		{psOptions{last: -1, filter: filter("status=exited")}, "old_one"},
		{psOptions{last: -1, filter: filter("status=exited", "status=created")}, "old_one new"},
		{psOptions{last: -1, filter: filter("exited=137")}, "old_one"},
		{psOptions{last: -1, all: true, filter: filter("exited=0")}, ""},
		{psOptions{last: -1, all: true, filter: filter("name=o")}, "old_one"},
		{psOptions{last: -1, all: true, filter: filter("name=^o.*e$")}, "old_one"},
		{psOptions{last: -1, all: true, filter: filter("name=^/web$")}, "web"},
		{psOptions{last: -1, all: true, filter: filter("name=web", "name=new")}, "web new"},
		{psOptions{last: -1, all: true, filter: filter("name=(")}, "invalid filter 'name=('"},
		{psOptions{last: -1, all: true, filter: filter("status=up")}, "invalid filter 'status=up'"},
		{psOptions{last: -1, all: true, filter: filter("health=none")}, "web old_one new"},
		{psOptions{last: -1, all: true, filter: filter("health=healthy")}, ""},
		{psOptions{last: -1, all: true, filter: filter("health=well")}, "invalid filter 'health=well'"},
		{psOptions{last: -1, all: true, filter: filter("expose=99999")}, "invalid filter 'expose=99999'"},
		{psOptions{last: -1, all: true, filter: filter("publish=2-1")}, "invalid filter 'publish=2-1'"},
		{psOptions{last: -1, all: true, filter: filter("id=f123")}, "old_one"},
		{psOptions{last: -1, all: true, filter: filter("label=a")}, "web"},
		{psOptions{last: -1, all: true, filter: filter("label=a=1", "label=b")}, "web"},
		{psOptions{last: -1, all: true, filter: filter("label=a=2")}, ""},
		{psOptions{last: -1, all: true, filter: filter("ancestor=alpine:3.20")}, "web"},
		{psOptions{last: -1, all: true, filter: filter("network=none")}, "web new"},
		{psOptions{last: -1, all: true, filter: filter("volume=data")}, "web"},
		{psOptions{last: -1, all: true, filter: filter("volume=/p")}, "web"},
		{psOptions{last: -1, all: true, filter: filter("since=old_one")}, "web"},
		{psOptions{last: -1, all: true, filter: filter("before=web")}, "old_one new"},
		{psOptions{last: -1, filter: filter("since=nobody")}, "no such container: nobody"},
	} {
		if got := names(tt.o); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.o, got, tt.want)
		}
	}
}

func testImage(t *testing.T, name string) store.Image {
	t.Helper()
	id, err := reference.ParseDigest("sha256:" + testID)
	if err != nil {
		t.Fatal(err)
	}
	made := time.Date(2025, 12, 12, 0, 0, 0, 0, time.UTC)
	return store.Image{Name: name, ID: id, Size: 7785472, Config: dockerspec.DockerOCIImage{Image: ocispec.Image{Created: &made}}, Manifest: ocispec.Descriptor{Digest: "sha256:ff23456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}}
}

func TestImagesTable(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var rows []imageRow
	for _, name := range []string{"docker.io/library/alpine:latest", "docker.io/u/app:v1", "localhost:5000/x/y:2", "/home/u/rootfs.tar.gz", "https://example.org/a.tar", "", "quay.io/a/b@sha256:" + testID} {
		rows = append(rows, newImageRow(testImage(t, name), now, true))
	}
	got, err := formatRows("", imagesTable, imageHeader(), rows)
	want := `REPOSITORY                  TAG       IMAGE ID       CREATED       SIZE
alpine                      latest    0123456789ab   3 weeks ago   7.79MB
u/app                       v1        0123456789ab   3 weeks ago   7.79MB
localhost:5000/x/y          2         0123456789ab   3 weeks ago   7.79MB
/home/u/rootfs.tar.gz       <none>    0123456789ab   3 weeks ago   7.79MB
https://example.org/a.tar   <none>    0123456789ab   3 weeks ago   7.79MB
<none>                      <none>    0123456789ab   3 weeks ago   7.79MB
quay.io/a/b                 <none>    0123456789ab   3 weeks ago   7.79MB
`
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestMatchesReference(t *testing.T) {
	for _, tt := range []struct {
		name, pattern string
		want          bool
	}{
		{"docker.io/library/alpine:latest", "alpine", true},
		{"docker.io/library/alpine:latest", "alpine:latest", true},
		{"docker.io/library/alpine:latest", "alpine:3", false},
		{"docker.io/library/alpine:latest", "al*", true},
		{"docker.io/library/alpine:latest", "docker.io/library/alpine", true},
		{"docker.io/u/app:v1", "u/*", true},
		{"docker.io/u/app:v1", "*:v1", false},
		{"docker.io/u/app:v1", "*/*:v1", true},
		{"/tmp/a.tar", "/tmp/a.tar", true},
		{"/tmp/a.tar", "a.tar", false},
		{"", "alpine", false},
		{"docker.io/library/alpine:latest", "[", false},
	} {
		if got := matchesReference(tt.name, tt.pattern); got != tt.want {
			t.Errorf("matchesReference(%q, %q) = %v", tt.name, tt.pattern, got)
		}
	}
}

func TestTemplates(t *testing.T) {
	v := map[string]any{"a": []string{"x", "y"}, "m": map[string]int{"k": 1}, "s": "<&>", "e": ""}
	for _, tt := range []struct{ format, want string }{
		{"{{json .}}", `{"a":["x","y"],"e":"","m":{"k":1},"s":"<&>"}`},
		{"json", `{"a":["x","y"],"e":"","m":{"k":1},"s":"<&>"}`},
		{`{{join .a ","}} {{join .m ","}}`, "x,y 1"},
		{`{{index (split "a:b" ":") 1}}`, "b"},
		{`[{{pad .s 1 2}}][{{pad .e 1 2}}]`, "[ <&>  ][]"},
		{`{{println .s}}`, "<&>\n"},
	} {
		if got, err := formatOne(tt.format, v); got != tt.want+"\n" || err != nil {
			t.Errorf("%s: %q, %v; want %q", tt.format, got, err, tt.want)
		}
	}
}

func TestInspectRecord(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := newContainerRecord(testContainers(now)[0])
	for _, tt := range []struct{ format, want string }{
		{"{{.Id}}", testID}, // the name in the JSON, where the template's type has another
		{"{{.ID}} {{.Name}}", testID + " /web"},
		{"{{.State.Status}} {{.State.Running}} {{.State.ExitCode}} {{.State.StartedAt}}", "running true 0 2026-01-02T03:04:03Z"},
		{"{{.State.FinishedAt}}", "0001-01-01T00:00:00Z"},
		{"{{.Path}} {{json .Args}}", `/bin/sh ["-c","sleep 1000000"]`},
		{"{{.HostConfig.NetworkMode}} {{.HostConfig.AutoRemove}}", "none false"},
		{"{{json .Config.Cmd}} {{.Config.Labels.a}} {{index .Config.Labels \"b\"}}", `["sleep 1000000"] 1 2`},
		{"{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}};{{end}}", "volume data /d true;bind  /p true;"},
		{"{{range $k, $v := .NetworkSettings.Networks}}{{$k}}{{end}}", "none"},
	} {
		if got, err := formatRecord(tt.format, r); got != tt.want+"\n" || err != nil {
			t.Errorf("%s: %q, %v; want %q", tt.format, got, err, tt.want)
		}
	}
	if _, err := formatRecord("{{.Nothing}}", r); err == nil {
		t.Error("a field that is not there is no error")
	}
	text, err := (&inspectOptions{}).render([]any{r})
	if err != nil || !strings.HasPrefix(text, "[\n    {\n        \"Id\": \""+testID) || !strings.HasSuffix(text, "\n]\n") {
		t.Errorf("%v\n%s", err, text)
	}
	if text, err := (&inspectOptions{}).render([]any{}); text != "[]\n" || err != nil {
		t.Errorf("nothing found: %q, %v", text, err)
	}
}
