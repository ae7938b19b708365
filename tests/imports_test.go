// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// graph is which of our packages each may import, and why. What is not in the
// table may import none.
var graph = []struct {
	from string
	to   []string
	why  string
}{
	{"sbx", []string{"sbx/build", "sbx/cli", "sbx/container", "sbx/store", "sbx/userns"}, "main has the role table and calls cli.Main; nothing else"},
	{"sbx/cli", []string{"sbx/bases", "sbx/build", "sbx/container", "sbx/fetch", "sbx/reference", "sbx/store", "sbx/userns"}, "a command calls one function and prints; it hands what fetch brings to store"},
	{"sbx/build", []string{"sbx/container", "sbx/overlay", "sbx/reference", "sbx/store", "sbx/userns"}, "steps run in containers and become layers of the store; what has a URL is brought by cli"},
	{"sbx/bases", []string{"sbx/container", "sbx/fetch", "sbx/overlay", "sbx/reference", "sbx/store"}, "a base is made for a container, out of this machine or of a download, and becomes an image"},
	{"sbx/container", []string{"sbx/fakeroot", "sbx/overlay", "sbx/reference", "sbx/seccomp", "sbx/slirp", "sbx/store", "sbx/userns"}, "a container stacks what store has unpacked, in namespaces, behind a filter"},
	{"sbx/store", []string{"sbx/overlay", "sbx/reference", "sbx/userns"}, "layers are unpacked by overlay, as mapped root in a role"},
	{"sbx/fetch", []string{"sbx/reference"}, "fetch brings bytes; where they go is store's"},
	{"sbx/fakeroot", []string{"sbx/overlay", "sbx/seccomp"}, "it answers notifications from the records that overlay writes"},
	{"sbx/reference", nil, "a leaf: text in, text out"},
	{"sbx/overlay", nil, "a leaf: a tar, a directory, and no image"},
	{"sbx/userns", nil, "a leaf: it starts roles and knows none"},
	{"sbx/seccomp", nil, "a leaf: filters"},
	{"sbx/slirp", nil, "a leaf: packets and sockets, and no container"},
	{"sbx/tests/need", nil, "a leaf: the words of tests"},
	{"sbx/tests/probe", nil, "it is an image's only file"},
	{"sbx/tests/bench", []string{"sbx/slirp", "sbx/tests/distribution", "sbx/tests/need"}, "it measures the binary from outside, and the network engine by itself"},
	{"sbx/tests/distribution", nil, "a leaf: it starts a peer"},
	{"sbx/tests/upstream", nil, "a leaf: it plays the servers of distributions"},
}

// banned are packages that only some of ours may import themselves.
var banned = []struct {
	path string // a package, or all below it with /...
	only []string
	why  string
}{
	{"net/http", []string{"sbx/fetch", "sbx/tests/upstream"}, "connections are fetch's"},
	{"os/exec", []string{"sbx/userns", "sbx/build", "sbx/fetch", "sbx/tests/..."}, "sbx runs newuidmap, newgidmap and getsubids, git for a git context, docker-credential-* for a registry, and no other program"},
	{"github.com/google/go-containerregistry/...", nil, "for tests: fetch asks registries itself"},
	{"github.com/moby/buildkit/...", []string{"sbx/build"}, "Dockerfiles are read in one place"},
	{"github.com/moby/patternmatcher/...", []string{"sbx/build"}, "so are ignore files"},
	{"github.com/rootless-containers/...", []string{"sbx/userns"}, "subordinate IDs are read in one place"},
	{"github.com/moby/profiles/...", []string{"sbx/seccomp"}, "the profile is seccomp's"},
	{"github.com/urfave/...", nil, "the command line is read as Docker reads it, by cli itself"},
	{"github.com/distribution/reference", nil, "it costs a millisecond at every start; reference's tests compare with it"},
	{"github.com/creack/pty", nil, "for tests: a container's terminal is its own, not the host's"},
	{"github.com/google/go-cmp/...", nil, "for tests"},
	{"github.com/rogpeppe/...", nil, "for tests"},
	{"testing", []string{"sbx/tests/need"}, "for tests"},
	{"sbx/tests/need", []string{"sbx/tests/..."}, "for tests"},
	{"os/user", []string{"sbx/userns", "sbx/tests/need"}, "the host's users matter for subordinate IDs only; the image's are read by container"},
	{"plugin", nil, "one static binary"},
}

// unreachable are packages that must not even be reached through others.
var unreachable = []struct {
	from, to, why string
}{
	{"sbx/store", "net/http", "store never opens a connection"},
	{"sbx/overlay", "net", "unpacking needs no network"},
	{"sbx/userns", "net/http", "the process that joins namespaces stays small"},
	{"sbx/container", "net/http", "a container owns no connections"},
	{"sbx/build", "net/http", "what a Dockerfile has of URLs is brought by fetch"},
	{"sbx/build", "google.golang.org/protobuf/internal/impl", "it would cost every command a millisecond, see ADR 0005"},
	{"sbx/reference", "os/exec", "names are text"},
	{"sbx/fetch", "sbx/store", "cli hands one to the other"},
}

// listed is a package as `go list -json` shows it.
type listed struct {
	ImportPath string
	Imports    []string
	CgoFiles   []string
	Standard   bool
	Module     *struct{ Path string }
}

func listPackages(t *testing.T) map[string]listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Imports,CgoFiles,Standard,Module", "./...")
	cmd.Dir = ".."
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, said.String())
	}
	all := map[string]listed{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
}

func ours(path string) bool { return path == "sbx" || strings.HasPrefix(path, "sbx/") }

func matches(pattern, path string) bool {
	if below, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == below || strings.HasPrefix(path, below+"/")
	}
	return pattern == path
}

func TestImports(t *testing.T) {
	all := listPackages(t)
	for path, p := range all {
		if !ours(path) {
			continue
		}
		row := slices.IndexFunc(graph, func(g struct {
			from string
			to   []string
			why  string
		}) bool {
			return g.from == path
		})
		for _, to := range p.Imports {
			if ours(to) && (row < 0 || !slices.Contains(graph[row].to, to)) {
				why := "it is not in the graph"
				if row >= 0 {
					why = graph[row].why
				}
				t.Errorf("%s imports %s: %s\n\t%s", path, to, why, chain(all, "sbx", path)+" -> "+to)
			}
			for _, b := range banned {
				if matches(b.path, to) && !slices.ContainsFunc(b.only, func(o string) bool { return matches(o, path) }) {
					t.Errorf("%s imports %s: %s", path, to, b.why)
				}
			}
		}
	}
	for _, u := range unreachable {
		if c := chain(all, u.from, u.to); c != "" {
			t.Errorf("%s reaches %s: %s\n\t%s", u.from, u.to, u.why, c)
		}
	}
}

func TestNoCgo(t *testing.T) {
	for path, p := range listPackages(t) {
		if len(p.CgoFiles) > 0 || slices.Contains(p.Imports, "C") {
			t.Errorf("%s uses cgo: the binary would not be static", path)
		}
	}
}

// chain is the shortest way from one package to another, or "" if there is none.
func chain(all map[string]listed, from, to string) string {
	before := map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if at == to {
			text := at
			for at = before[at]; at != ""; at = before[at] {
				text = at + " -> " + text
			}
			return text
		}
		for _, next := range all[at].Imports {
			if _, seen := before[next]; !seen {
				before[next] = at
				queue = append(queue, next)
			}
		}
	}
	return ""
}
