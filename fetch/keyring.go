// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// hubKey is what Docker calls Docker Hub in its files and to credential helpers.
const hubKey = "https://index.docker.io/v1/"

// Keyring is the files in which Docker and Podman keep credentials, and the helpers that
// those name. It is read anew at each call.
type Keyring struct {
	files  []string // in the order in which they are asked; the first is written
	helper func(ctx context.Context, name, verb, input string) ([]byte, error)
}

// OpenKeyring finds the files by the environment: $REGISTRY_AUTH_FILE and nothing else, or
// $DOCKER_CONFIG/config.json, by default ~/.docker/config.json, and behind it those of
// Podman (containers-auth.json(5)). Nothing is read yet.
func OpenKeyring(lookup func(string) (string, bool)) *Keyring {
	get := func(name string) string { v, _ := lookup(name); return v }
	k := &Keyring{helper: runHelper}
	if file := get("REGISTRY_AUTH_FILE"); file != "" {
		k.files = []string{file}
		return k
	}
	add := func(dir string, parts ...string) {
		if filepath.IsAbs(dir) {
			k.files = append(k.files, filepath.Join(append([]string{dir}, parts...)...))
		}
	}
	home := get("HOME")
	if dir := get("DOCKER_CONFIG"); dir != "" {
		k.files = append(k.files, filepath.Join(dir, "config.json"))
	} else {
		add(home, ".docker", "config.json")
	}
	add(get("XDG_RUNTIME_DIR"), "containers", "auth.json")
	if dir := get("XDG_CONFIG_HOME"); dir != "" {
		add(dir, "containers", "auth.json")
	} else {
		add(home, ".config", "containers", "auth.json")
	}
	return k
}

// Get returns the credential for a repository of the registry that references call host;
// path may be empty. It is zero if there is none.
func (k *Keyring) Get(ctx context.Context, host, path string) (Credential, error) {
	for _, file := range k.files {
		f, err := readAuthFile(file)
		if err != nil {
			return Credential{}, err
		}
		c, err := k.from(ctx, f, host, path)
		if err != nil || !c.isZero() {
			return c, err
		}
	}
	return Credential{}, nil
}

// from looks one file through: the helper of the host, or what stands in the file itself,
// the longest path first.
func (k *Keyring) from(ctx context.Context, f *authFile, host, path string) (Credential, error) {
	if name := f.helperOf(host); name != "" {
		c, err := k.ask(ctx, name, keyOf(host))
		if err != nil || !c.isZero() {
			return c, err
		}
	}
	for at := host + "/" + path; path != "" && at != host; at = at[:strings.LastIndexByte(at, '/')] {
		if a, ok := f.auths[at]; ok {
			if c, err := a.credential(); err != nil || !c.isZero() {
				return c, located(err, f.path, at)
			}
		}
	}
	for _, key := range f.keysOf(host) {
		if c, err := f.auths[key].credential(); err != nil || !c.isZero() {
			return c, located(err, f.path, key)
		}
	}
	return Credential{}, nil
}

// Put keeps a credential where Docker does, and says where: the name of a helper, or a
// file, in which a password stands for everybody to read who can read the file.
func (k *Keyring) Put(ctx context.Context, host string, c Credential) (helper, file string, err error) {
	if len(k.files) == 0 {
		return "", "", errors.New("store credentials: $HOME is not set")
	}
	file = k.files[0]
	f, err := readAuthFile(file)
	if err != nil {
		return "", "", err
	}
	if name := f.helperOf(host); name != "" {
		if err := k.tell(ctx, name, keyOf(host), c); err != nil {
			return "", "", err
		}
		// Docker, too, leaves an empty entry, which says that there is something to ask for.
		return name, file, f.put(keyOf(host), auth{})
	}
	for _, key := range f.keysOf(host) {
		f.drop(key)
	}
	return "", file, f.put(keyOf(host), newAuth(c))
}

// Drop forgets a registry's credential everywhere, and reports whether there was one.
func (k *Keyring) Drop(ctx context.Context, host string) (had bool, err error) {
	var errs []error
	for _, file := range k.files {
		f, err := readAuthFile(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if name := f.helperOf(host); name != "" {
			c, err := k.ask(ctx, name, keyOf(host))
			if err == nil && !c.isZero() {
				had = true
				_, err = k.helper(ctx, name, "erase", keyOf(host))
			}
			errs = append(errs, err)
		}
		keys := f.keysOf(host)
		for _, key := range keys {
			f.drop(key)
		}
		if len(keys) > 0 {
			had = true
			errs = append(errs, f.save())
		}
	}
	return had, errors.Join(errs...)
}

// Exposed returns the files with passwords that others than their owner can read.
func (k *Keyring) Exposed() []string {
	var exposed []string
	for _, file := range k.files {
		fi, err := os.Stat(file)
		if err != nil || fi.Mode().Perm()&0o077 == 0 {
			continue
		}
		f, err := readAuthFile(file)
		if err == nil && f.hasSecrets() {
			exposed = append(exposed, file)
		}
	}
	return exposed
}

// keyOf is how a registry is called in files and to helpers.
func keyOf(host string) string {
	if host == hubDomain {
		return hubKey
	}
	return host
}

// isKeyOf reports whether a key of a file means the registry and nothing but it. Old
// versions of Docker wrote URLs.
func isKeyOf(key, host string) bool {
	name := key
	for _, scheme := range []string{"https://", "http://"} {
		name = strings.TrimPrefix(name, scheme)
	}
	if host == hubDomain && slices.Contains([]string{"index.docker.io/v1/", "index.docker.io/v1", "index.docker.io", "registry-1.docker.io"}, name) {
		return true
	}
	if name != key {
		name = strings.TrimSuffix(name, "/")
		for _, version := range []string{"/v1", "/v2"} {
			name = strings.TrimSuffix(name, version)
		}
	}
	return name == host
}

func located(err error, file, key string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("read %s: %s: %w", file, key, err)
}
