// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"

	"sbx/tests/distribution"
)

// distribution [-tls] [USER:PASSWORD...]: starts the reference registry, with a
// certificate of an authority of its own, or for these users only, and sets DISTRIBUTION to
// its address, DISTRIBUTION_DIR to its folder and DISTRIBUTION_CA to the authority's file.
func distributionCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: distribution [-tls] [USER:PASSWORD...]")
	}
	dir, err := os.MkdirTemp(ts.MkAbs("."), "distribution")
	ts.Check(err)
	secure := len(args) > 0 && args[0] == "-tls"
	if secure {
		args = args[1:]
	}
	r, err := distribution.Start(dir, secure, args...)
	ts.Check(err)
	ts.Defer(r.Stop)
	ts.Setenv("DISTRIBUTION", r.Address)
	ts.Setenv("DISTRIBUTION_DIR", filepath.Dir(r.Data))
	ts.Setenv("DISTRIBUTION_CA", r.CA)
}

// mkconfig FILE: writes a config.toml by which the running registry's authority is trusted.
func mkconfigCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: mkconfig FILE, after distribution -tls")
	}
	text := fmt.Sprintf("[registry.%q]\nca = %q\n", ts.Getenv("DISTRIBUTION"), ts.Getenv("DISTRIBUTION_CA"))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}
