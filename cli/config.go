// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"sbx/reference"
)

const (
	configName   = "config.toml"
	systemConfig = "/etc/sbx"
	maxConfig    = 1 << 20
)

// config is what config.toml says (docs/config.md). The zero value is what holds without
// one.
type config struct {
	DetachKeys string `toml:"detach-keys"`
	Publish    struct {
		Address string `toml:"address"` // an IP address, or ""
	} `toml:"publish"`
	Network struct {
		Range string `toml:"range"` // an IPv4 prefix, or ""
	} `toml:"network"`
	Bases struct {
		Order   []string            `toml:"order"`   // of "catalog" and "registry"
		Mirrors map[string][]string `toml:"mirrors"` // by distribution; http and https URLs
		Keys    map[string]string   `toml:"keys"`    // by distribution; files of keys that must have signed
	} `toml:"bases"`
	Registries map[string]registryConfig `toml:"registry"` // by host[:port], as in references
	ShortNames struct {
		Default string            `toml:"default"` // the registry of names that name none
		Aliases map[string]string `toml:"aliases"` // name without registry and tag -> repository
	} `toml:"short-names"`
}

// registryConfig is how one registry is reached.
type registryConfig struct {
	Mirrors      []string `toml:"mirrors"` // host[:port][/prefix], asked first, in order
	Insecure     bool     `toml:"insecure"`
	CA           string   `toml:"ca"`            // a PEM file
	TokenServers []string `toml:"token-servers"` // hosts that may see the password, too
}

// config reads config.toml, once: the system's, and over it the user's. What it costs is
// paid by the commands that call it.
func (c *client) config() (*config, error) {
	if c.settings != nil {
		return c.settings, nil
	}
	all := &config{}
	for _, path := range c.configFiles() {
		one, err := c.readConfig(path)
		if err != nil {
			return nil, &configError{path, err}
		}
		all.override(one)
	}
	c.settings = all
	return all, nil
}

// configFiles are the places of config.toml, those that win last.
func (c *client) configFiles() []string {
	files := []string{filepath.Join(systemConfig, configName)}
	// The XDG specification has relative paths ignored.
	if dir := c.variable("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return append(files, filepath.Join(dir, program, configName))
	}
	if home := c.variable("HOME"); filepath.IsAbs(home) {
		files = append(files, filepath.Join(home, ".config", program, configName))
	}
	return files
}

// readConfig reads one file. A missing one is empty; keys that nobody knows are named and
// do no harm.
func (c *client) readConfig(path string) (config, error) {
	var one config
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return one, nil
	}
	if err != nil {
		return one, withoutPath(err)
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxConfig {
		return one, fmt.Errorf("not a file of at most %d MiB", maxConfig>>20)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return one, withoutPath(err)
	}
	err = toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(&one)
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) {
		c.notice("%s: unknown keys: %s", path, strings.Join(unknownKeys(strict), ", "))
		err = nil
	}
	var syntax *toml.DecodeError
	if errors.As(err, &syntax) {
		row, _ := syntax.Position()
		return one, fmt.Errorf("line %d: %s", row, strings.TrimPrefix(syntax.Error(), "toml: "))
	}
	if err != nil {
		return one, err
	}
	return one, one.check()
}

func unknownKeys(strict *toml.StrictMissingError) []string {
	var keys []string
	for _, e := range strict.Errors {
		if key := strings.Join(e.Key(), "."); !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// check refuses values that could only fail later, in the middle of something.
func (f *config) check() error {
	if a := f.Publish.Address; a != "" {
		if _, err := netip.ParseAddr(a); err != nil {
			return fmt.Errorf("publish.address: %q is not an IP address", a)
		}
	}
	if r := f.Network.Range; r != "" {
		if p, err := netip.ParsePrefix(r); err != nil || !p.Addr().Is4() {
			return fmt.Errorf("network.range: %q is not an IPv4 range such as 10.0.2.0/24", r)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.Bases.Mirrors)) {
		for _, m := range f.Bases.Mirrors[name] {
			if u, err := url.Parse(m); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
				return fmt.Errorf("bases.mirrors.%s: %q is not an http or https URL", name, m)
			}
		}
	}
	for _, source := range f.Bases.Order {
		if source != fromCatalog && source != fromRegistry {
			return fmt.Errorf("bases.order: %q is neither %s nor %s", source, fromCatalog, fromRegistry)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.Bases.Keys)) {
		if !filepath.IsAbs(f.Bases.Keys[name]) {
			return fmt.Errorf("bases.keys.%s: %q is not an absolute path", name, f.Bases.Keys[name])
		}
	}
	for _, host := range slices.Sorted(maps.Keys(f.Registries)) {
		if err := f.Registries[host].check(host); err != nil {
			return err
		}
	}
	if d := f.ShortNames.Default; d != "" && !isRegistryHost(d) {
		return fmt.Errorf("short-names.default: %q is not a registry", d)
	}
	for _, name := range slices.Sorted(maps.Keys(f.ShortNames.Aliases)) {
		to := f.ShortNames.Aliases[name]
		if ref, err := reference.Parse(to); err != nil || !ref.Digest.IsZero() || ref.Tag != "latest" || strings.HasSuffix(to, ":latest") {
			return fmt.Errorf("short-names.aliases.%s: %q is not a repository", name, to)
		}
	}
	return nil
}

func (r registryConfig) check(host string) error {
	if !isRegistryHost(host) {
		return fmt.Errorf("registry.%q is not a host with an optional port", host)
	}
	for _, m := range r.Mirrors {
		at, prefix, _ := strings.Cut(m, "/")
		if _, err := reference.Parse(at + "/" + apart(prefix, "/") + "x"); err != nil || !isRegistryHost(at) {
			return fmt.Errorf("registry.%q.mirrors: %q is not HOST[:PORT][/PREFIX]", host, m)
		}
	}
	if r.CA != "" && !filepath.IsAbs(r.CA) {
		return fmt.Errorf("registry.%q.ca: %q is not an absolute path", host, r.CA)
	}
	return nil
}

// isRegistryHost reports whether host is what a reference begins with to name a registry.
func isRegistryHost(host string) bool {
	ref, err := reference.Parse(host + "/x")
	return err == nil && ref.Domain == host
}

// override lets what other says win.
func (f *config) override(other config) {
	for _, s := range []struct{ to, from *string }{
		{&f.DetachKeys, &other.DetachKeys},
		{&f.Publish.Address, &other.Publish.Address},
		{&f.Network.Range, &other.Network.Range},
		{&f.ShortNames.Default, &other.ShortNames.Default},
	} {
		if *s.from != "" {
			*s.to = *s.from
		}
	}
	if len(other.Bases.Order) > 0 {
		f.Bases.Order = other.Bases.Order
	}
	f.Bases.Mirrors = merged(f.Bases.Mirrors, other.Bases.Mirrors)
	f.Bases.Keys = merged(f.Bases.Keys, other.Bases.Keys)
	f.Registries = merged(f.Registries, other.Registries)
	f.ShortNames.Aliases = merged(f.ShortNames.Aliases, other.ShortNames.Aliases)
}

func merged[V any](under, over map[string]V) map[string]V {
	if len(under) == 0 {
		return over
	}
	maps.Copy(under, over)
	return under
}

// configError is a config.toml that cannot be used.
type configError struct {
	path  string
	cause error
}

func (e *configError) Error() string { return "read " + e.path + ": " + e.cause.Error() }
func (e *configError) Unwrap() error { return e.cause }

// Hint names what describes the file.
func (e *configError) Hint() string { return "docs/config.md describes the keys" }

// reference reads a reference as the user typed it, by the short-name rules of his
// config.toml: a name without a registry may have one there.
func (c *client) reference(typed string) (reference.Ref, error) {
	ref, err := reference.Parse(typed)
	if err != nil || namesRegistry(typed) {
		return ref, err
	}
	f, err := c.config()
	if err != nil {
		return reference.Ref{}, err
	}
	name := typed
	if i := strings.IndexAny(name, ":@"); i >= 0 {
		name = name[:i]
	}
	rest := typed[len(name):]
	if to, ok := f.ShortNames.Aliases[name]; ok {
		return reference.Parse(to + rest)
	}
	if f.ShortNames.Default != "" {
		return reference.Parse(f.ShortNames.Default + "/" + typed)
	}
	return ref, nil
}

// namesRegistry reports whether a reference that can be parsed begins with a registry.
func namesRegistry(typed string) bool {
	first, _, ok := strings.Cut(typed, "/")
	return ok && (strings.ContainsAny(first, ".:") || first == "localhost" || strings.ToLower(first) != first)
}
