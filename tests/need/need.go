// SPDX-License-Identifier: Apache-2.0

package need

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The words, and all that may keep a test from running.
const (
	Userns   = "userns"   // an unprivileged user namespace that can mount
	Subids   = "subids"   // newuidmap, newgidmap and a subordinate range
	Overlay  = "overlay"  // overlayfs in a user namespace, with its attributes
	TUN      = "tun"      // /dev/net/tun
	Images   = "images"   // real distributions in SBX_TEST_IMAGES
	Apps     = "apps"     // the tutorial's Dockerfiles in SBX_TEST_APPS
	Registry = "registry" // the reference registry, a program
	Mirror   = "mirror"   // Debian packages, over the network
	Fuse     = "fuse"     // /dev/fuse
	Compat   = "compat"   // system calls of 32-bit programs, on amd64
	Peers    = "peers"    // other container programs, to compare with
	Crun     = "crun"     // podman can run containers here
)

// word is one need: its probe runs once.
type word struct {
	name  string
	probe func() error
}

var words = []word{
	{Userns, sync.OnceValue(probeUserns)},
	{Subids, sync.OnceValue(probeSubids)},
	{Overlay, sync.OnceValue(probeOverlay)},
	{TUN, sync.OnceValue(probeTUN)},
	{Images, sync.OnceValue(probeImages)},
	{Apps, sync.OnceValue(probeApps)},
	{Registry, sync.OnceValue(probeRegistry)},
	{Mirror, sync.OnceValue(probeMirror)},
	{Fuse, sync.OnceValue(probeFuse)},
	{Compat, sync.OnceValue(probeCompat)},
	{Peers, sync.OnceValue(probePeers)},
	{Crun, sync.OnceValue(probeCrun)},
}

// Words lists the words.
func Words() []string {
	var names []string
	for _, w := range words {
		names = append(names, w.name)
	}
	return names
}

// Missing says why this machine does not have what the word stands for, or nil.
func Missing(name string) error {
	for _, w := range words {
		if w.name == name {
			return w.probe()
		}
	}
	return fmt.Errorf("no such word; there are %s", strings.Join(Words(), ", "))
}

// Need skips the test where one of the words is missing. Where SBX_TEST_REQUIRE
// lists that word, the test fails.
func Need(t testing.TB, names ...string) {
	t.Helper()
	if reason, failure := Verdict(t.Name(), names...); failure != nil {
		t.Fatal(failure)
	} else if reason != "" {
		t.Skip(reason)
	}
}

// Verdict is Need for a runner of its own: the error fails the test of that
// name, else the reason skips it, else it runs.
func Verdict(test string, names ...string) (reason string, failure error) {
	required, err := Required()
	if err != nil {
		return "", err
	}
	for _, name := range names {
		err := Missing(name)
		switch {
		case err == nil:
		case !slices.Contains(Words(), name):
			return "", fmt.Errorf("need %q: %w", name, err)
		case slices.Contains(required, name):
			return "", fmt.Errorf("need %s, which SBX_TEST_REQUIRE lists: %w", name, err)
		default:
			reason := fmt.Sprintf("needs %s: %v", name, err)
			return reason, record(test, reason)
		}
	}
	return "", nil
}

// Required are the words of SBX_TEST_REQUIRE, which must all be known.
func Required() ([]string, error) {
	list := os.Getenv("SBX_TEST_REQUIRE")
	if list == "" {
		return nil, nil
	}
	names := strings.Split(list, ",")
	for _, name := range names {
		if !slices.Contains(Words(), name) {
			return nil, fmt.Errorf("SBX_TEST_REQUIRE lists %q: there are %s", name, strings.Join(Words(), ", "))
		}
	}
	return names, nil
}

// record appends a skip to the file that `make test` prints at its end.
func record(test, reason string) error {
	path := os.Getenv("SBX_TEST_SKIPPED")
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintf(f, "%s %s\n", test, reason)
	return err
}
