// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"path/filepath"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/fetch"
	"sbx/reference"
)

const hub = "docker.io"

// fetchOptions is how registries are talked to: as config.toml says, with the credentials
// that Docker and Podman would use.
func (c *client) fetchOptions(platform ocispec.Platform) (fetch.Options, error) {
	f, err := c.config()
	if err != nil {
		return fetch.Options{}, err
	}
	o := fetch.Options{
		Platform: platform, UserAgent: program + "/" + release(),
		Credentials: fetch.OpenKeyring(c.lookup).Get, CADirs: []string{"/etc/docker/certs.d", "/etc/containers/certs.d"},
		Registries: map[string]fetch.Reach{},
		Waiting: func(host, cause string, wait time.Duration) {
			c.notice("%s: %s: trying again in %s", host, cause, wait.Round(time.Second))
		},
	}
	if home := c.variable("HOME"); filepath.IsAbs(home) {
		o.CADirs = append(o.CADirs, filepath.Join(home, ".config", "containers", "certs.d"))
	}
	for host, r := range f.Registries {
		reach := fetch.Reach{Mirrors: r.Mirrors, Insecure: r.Insecure, TokenServers: r.TokenServers}
		if r.CA != "" {
			reach.CAFiles = []string{r.CA}
		}
		o.Registries[host] = reach
	}
	return o, nil
}

// registryArgument reads the operand of login and logout: a host, or a URL of one, or
// nothing for Docker Hub.
func registryArgument(operands []string) (string, error) {
	if len(operands) == 0 {
		return hub, nil
	}
	host := operands[0]
	for _, scheme := range []string{"https://", "http://"} {
		host = strings.TrimPrefix(host, scheme)
	}
	host, _, _ = strings.Cut(host, "/")
	switch host {
	case "", hub, "index.docker.io", "registry-1.docker.io":
		return hub, nil
	}
	ref, err := reference.Parse(host + "/x")
	if err != nil || ref.Domain != host {
		return "", &usageError{text: "not a registry: " + operands[0], hint: "want HOST[:PORT], such as registry.example.com"}
	}
	return host, nil
}
