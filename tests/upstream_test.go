// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"sbx/tests/upstream"
)

// upstream KIND=TARBALL...: starts a web server on a port of 127.0.0.1 that plays
// the servers of distributions, and sets UPSTREAM to its URL. KIND is alpine,
// ubuntu, archlinux, debian (of which the tarball is that of a busybox) or the name of
// one that Linux Containers builds. The file
// upstream.gpg is the key that signs, other.gpg one that does not.
func upstreamCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: upstream KIND=TARBALL...")
	}
	site := upstream.NewSite(upstream.NewSigner(1))
	ts.Defer(site.Close)
	var builds []upstream.Build
	for _, arg := range args {
		kind, file, _ := strings.Cut(arg, "=")
		if kind == "debian" {
			ts.Check(smallDebian(site, ts.MkAbs(file)))
			continue
		}
		data, err := os.ReadFile(ts.MkAbs(file))
		ts.Check(err)
		switch kind {
		case "alpine":
			for _, branch := range []string{"latest-stable", "v3.20"} {
				site.Alpine(branch, "3.20.3", data)
			}
		case "ubuntu":
			site.Ubuntu("24.04", "24.04.2", nil)
			site.Ubuntu("24.04", "24.04.3", data)
		case "archlinux":
			site.Arch("2024.12.01", data)
		default:
			builds = append(builds, upstream.Build{OS: kind, Release: "41", Variant: "default", Date: "20241201_20:33", Tarball: data})
		}
	}
	site.Streams(builds...)
	for name, signer := range map[string]*upstream.Signer{"upstream.gpg": site.Signer, "other.gpg": upstream.NewSigner(2)} {
		ts.Check(os.WriteFile(ts.MkAbs(name), signer.Packet, 0o600))
	}
	ts.Setenv("UPSTREAM", site.URL)
}
