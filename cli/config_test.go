// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// configClient reads text as the user's config.toml; what it is told stands in said.
func configClient(t *testing.T, text string) (c *client, said func() string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sbx"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sbx", "config.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(dir, "err"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	c = &client{in: os.Stdin, out: out, err: out, lookup: func(name string) (string, bool) {
		if name == "XDG_CONFIG_HOME" {
			return dir, true
		}
		return "", false
	}}
	return c, func() string {
		b, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

func TestConfig(t *testing.T) {
	c, said := configClient(t, `
detach-keys = "ctrl-a"
colour = "green"
[publish]
address = "127.0.0.1"
[registry."docker.io"]
mirrors = ["mirror.test:5000/hub"]
speed = 3
`)
	f, err := c.config()
	if err != nil {
		t.Fatal(err)
	}
	if f.DetachKeys != "ctrl-a" || f.Publish.Address != "127.0.0.1" || f.Registries["docker.io"].Mirrors[0] != "mirror.test:5000/hub" {
		t.Errorf("%+v", f)
	}
	if got := said(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "unknown keys: colour, registry.docker.io.speed") {
		t.Errorf("said %q", got)
	}
	if again, err := c.config(); again != f || err != nil {
		t.Errorf("read twice: %v", err)
	}
}

func TestConfigRefused(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"[publish]\naddress = \"here\"", `publish.address: "here" is not an IP address`},
		{"[network]\nrange = \"10.0.2.0\"", "network.range: "},
		{"[registry.\"a/b.example\"]\ninsecure = true", "is not a host"},
		{"[registry.\"a.example\"]\nca = \"ca.pem\"", "is not an absolute path"},
		{"[registry.\"a.example\"]\nmirrors = [\"https://b.example\"]", "is not HOST[:PORT][/PREFIX]"},
		{"[short-names]\ndefault = \"lab\"", `short-names.default: "lab" is not a registry`},
		{"[short-names.aliases]\na = \"b.example/c:3\"", "is not a repository"},
		{"[bases.mirrors]\ndebian = [\"ftp://deb.example\"]", "is not an http or https URL"},
		{"detach-keys = 3", "line 1: "},
		{"detach-keys = \"", "line 1: "},
	} {
		c, _ := configClient(t, tt.text)
		_, err := c.config()
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "config.toml: ") {
			t.Errorf("%q: got %v, want %q", tt.text, err, tt.want)
		}
	}
}

func TestConfigOverride(t *testing.T) {
	under := config{Registries: map[string]registryConfig{"a.test": {Insecure: true}, "b.test": {Insecure: true}}, DetachKeys: "ctrl-a"}
	over := config{Registries: map[string]registryConfig{"b.test": {CA: "/b"}}}
	over.Network.Range = "10.9.0.0/24"
	under.override(over)
	if !under.Registries["a.test"].Insecure || under.Registries["b.test"].Insecure || under.Network.Range == "" || under.DetachKeys == "" {
		t.Errorf("%+v", under)
	}
}

func TestShortNames(t *testing.T) {
	c, _ := configClient(t, "[short-names]\ndefault = \"lab.test\"\n[short-names.aliases]\nalpine = \"lab.test/base/alpine\"\n")
	for typed, want := range map[string]string{
		"alpine":            "lab.test/base/alpine:latest",
		"alpine:3":          "lab.test/base/alpine:3",
		"team/app":          "lab.test/team/app:latest",
		"docker.io/alpine":  "docker.io/library/alpine:latest",
		"localhost:5000/a":  "localhost:5000/a:latest",
		"localhost/alpine":  "localhost/alpine:latest",
		"other.test/a/b:v1": "other.test/a/b:v1",
	} {
		ref, err := c.reference(typed)
		if err != nil || ref.String() != want {
			t.Errorf("%s: got %v, %v, want %s", typed, ref, err, want)
		}
	}
	if _, err := c.reference("Alpine"); err == nil {
		t.Error("an invalid name was accepted")
	}
}
