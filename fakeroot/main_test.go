// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"sbx/userns"
)

// The test binary is three programs: the tests, the monitor of their containers
// (a role), and the probe that runs inside of these.
func TestMain(m *testing.M) {
	userns.Dispatch(map[string]userns.Role{"testmonitor": testMonitor, "testfuzz": fuzzRole})
	if len(os.Args) > 1 && filepath.Base(os.Args[0]) == "probe" {
		if err := probeMain(os.Args[1], os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "probe "+os.Args[1]+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	status := m.Run()
	removeTrees()
	os.Exit(status)
}
