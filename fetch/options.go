// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options steer Registry and Open. The zero value is ready for use.
type Options struct {
	Platform  ocispec.Platform // zero: DefaultPlatform
	TempDir   string           // for compressed archives while they are open; "": os.TempDir
	UserAgent string           // "": "sbx"

	// Registries are how certain registries are reached, by the host[:port] that references
	// call them.
	Registries map[string]Reach
	// CADirs hold, for each host[:port], a directory of that name with authorities (*.crt).
	CADirs []string
	// Credentials returns what convinces the registry that references call host, for one of
	// its repositories; zero if there is nothing. nil: always nothing.
	Credentials func(ctx context.Context, host, path string) (Credential, error)

	// Waiting is told when a server asks for more than a moment of patience, which it gets.
	// It may be nil; it is called by several at once.
	Waiting func(host, cause string, wait time.Duration)

	reach Reach // of the registry at hand
	hooks hooks
}

// Reach is how one registry is reached. The zero value is https with the system's
// authorities.
type Reach struct {
	Mirrors      []string // host[:port][/prefix], asked before it for what is pulled
	Insecure     bool     // plain http and certificates that prove nothing will do
	CAFiles      []string // PEM; trusted beside the system's authorities
	TokenServers []string // hosts that may be sent its password, beside the usual ones
}

// at returns o with the way to one registry chosen.
func (o Options) at(domain string) Options {
	o.reach = o.Registries[domain]
	return o
}

// hooks replace what tests cannot have: time, name resolution, a trusted authority.
type hooks struct {
	clock clock
	tls   *tls.Config
	proxy func(*http.Request) (*url.URL, error)
	dial  func(ctx context.Context, network, address string) (net.Conn, error)
}

func (o Options) withDefaults() Options {
	if o.Platform.OS == "" && o.Platform.Architecture == "" {
		o.Platform = DefaultPlatform()
	}
	if o.TempDir == "" {
		o.TempDir = os.TempDir()
	}
	if o.UserAgent == "" {
		o.UserAgent = "sbx"
	}
	if o.hooks.clock == nil {
		o.hooks.clock = realClock{}
	}
	if o.hooks.proxy == nil {
		o.hooks.proxy = http.ProxyFromEnvironment
	}
	return o
}
