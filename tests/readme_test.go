// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sbx/tests/need"
)

// readmeCommands are the lines of README's blocks of shell commands.
func readmeCommands(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(data), -1) {
		lines = append(lines, strings.Split(strings.TrimSpace(block[1]), "\n")...)
	}
	return lines
}

// TestReadme runs what README tells a newcomer to type.
func TestReadme(t *testing.T) {
	need.Need(t, need.Userns)
	commands := readmeCommands(t)
	if len(commands) < 3 {
		t.Fatalf("README has the commands %q", commands)
	}
	home := filepath.Join(t.TempDir(), "store")
	t.Cleanup(func() { removeTree(home) })
	run := func(t *testing.T, command, dir string) string {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "SBX_HOME="+home)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		return string(out)
	}
	t.Run("first", func(t *testing.T) {
		build, command, ok := strings.Cut(commands[0], " && ./bin/")
		if build != "make build" || !ok {
			t.Fatalf("the first command is %q", commands[0])
		}
		if got := run(t, command, "."); !strings.HasPrefix(got, "hello from pid 1, uid 0, on ") {
			t.Errorf("it printed %q", got)
		}
	})
	t.Run("tests", func(t *testing.T) {
		if commands[1] != "make test" {
			t.Errorf("the second command is %q", commands[1])
		}
	})
	t.Run("alpine", func(t *testing.T) {
		need.Need(t, need.Images)
		if got := run(t, commands[2], os.Getenv("SBX_TEST_IMAGES")); !strings.Contains(got, `NAME="Alpine Linux"`) {
			t.Errorf("%s printed %q", commands[2], got)
		}
	})
}

// TestTargets holds the Makefile to what README and the design promise.
func TestTargets(t *testing.T) {
	data, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"help", "build", "test", "script", "lint", "bench", "fuzz", "check", "size", "clean"} {
		if !regexp.MustCompile(`(?m)^` + target + `:.*## `).Match(data) {
			t.Errorf("make %s is not there, or has no help", target)
		}
	}
}
