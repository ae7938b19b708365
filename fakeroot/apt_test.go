// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"os"
	"path/filepath"
	"testing"

	"sbx/tests/need"
)

// aptWorld is a Debian that reaches the package mirror of this machine.
func aptWorld(t testing.TB) *world {
	t.Helper()
	need.Need(t, need.Mirror)
	w := newWorld(t, debian)
	w.hostNetwork = true
	for _, name := range []string{"etc/resolv.conf", "etc/hosts"} {
		if data, err := os.ReadFile("/" + name); err == nil {
			to := filepath.Join(w.dir, "upper", name)
			w.must(os.MkdirAll(filepath.Dir(to), 0o755))
			w.must(os.WriteFile(to, data, 0o644))
		}
	}
	return w
}

// In mode Zero the same packages install with apt's own user switched off.
func TestZeroInstall(t *testing.T) {
	w := aptWorld(t)
	w.mode = Zero
	w.must(os.MkdirAll(filepath.Join(w.dir, "upper", "etc"), 0o755))
	w.must(os.WriteFile(filepath.Join(w.dir, "upper", "etc", "apt-zero.conf"), []byte(APTConfig), 0o644))
	got := w.sh(`printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d
apt-get update -qq; apt-get install -y -qq --no-install-recommends openssh-server nginx-light >/tmp/log 2>&1 || { tail -20 /tmp/log; exit 1; }; dpkg --audit`)
	if got != "" {
		t.Error(got)
	}
}
