// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options steer Registry and Open. The zero value is ready for use.
type Options struct {
	Platform  ocispec.Platform // zero: DefaultPlatform
	TempDir   string           // for compressed archives while they are open; "": os.TempDir
	UserAgent string           // "": "sbx"

	hooks hooks
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
