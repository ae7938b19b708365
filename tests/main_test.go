// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// The programs that tests run, as absolute paths.
var (
	sbxBinary   string
	probeBinary string
)

func TestMain(m *testing.M) {
	testscript.Main(&suite{m}, map[string]func(){
		"careless":  carelessMain,
		"expect":    expectMain,
		"fault":     faultMain,
		"forbid":    forbidMain,
		"intrude":   intrudeMain,
		"layertree": layertreeMain,
	})
}

// suite builds what the tests run before it runs them. testscript starts this
// very program again as one of the commands above; those build nothing.
type suite struct{ *testing.M }

func (s *suite) Run() int {
	dir, err := os.MkdirTemp("", "sbx-tests-")
	if err != nil {
		return fail(err)
	}
	defer removeTree(dir)
	// A container outlives its client. As the one who adopts orphans, this
	// process finds whatever its tests have left: leaks asks who its
	// descendants are.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fail(err)
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	go func() {
		for range children {
			reapMonitors()
		}
	}()
	// Below the user's own directory, so that a umask of 077 hides nothing else.
	if err := os.Chmod(dir, 0o755); err != nil {
		return fail(err)
	}
	sbxBinary = filepath.Join(dir, "sbx")
	if given := os.Getenv("SBX_TEST_BINARY"); given != "" {
		if given, err = filepath.Abs(given); err == nil {
			err = os.Symlink(given, sbxBinary)
		}
	} else {
		err = build("sbx", sbxBinary)
	}
	if err != nil {
		return fail(err)
	}
	probeBinary = filepath.Join(dir, "probe")
	if err := build("sbx/tests/probe", probeBinary); err != nil {
		return fail(err)
	}
	os.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
	// testscript removes its own directory after the last of all scripts, and so not
	// when only some were asked for.
	os.Setenv("GOTMPDIR", dir)
	for _, name := range []string{"SBX_HOME", "SBX_RUNG", "XDG_DATA_HOME", "XDG_CONFIG_HOME"} {
		os.Unsetenv(name)
	}
	return s.M.Run()
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "tests:", err)
	return 1
}

// build makes a static program as `make build` does.
func build(pkg, to string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", to, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}
