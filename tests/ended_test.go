// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// endScript takes away what a script leaves: containers, the processes that it has
// started, and its directory. One that has passed must have left nothing that runs.
func endScript(env *testscript.Env, work string) {
	left := errors.Join(removeContainers(env.Vars, work), endProcesses(work))
	removeTree(work)
	t := env.T()
	failed, ok := t.(interface{ Failed() bool })
	switch {
	case left == nil:
	case !ok || failed.Failed():
		t.Log(left)
	default:
		t.Fatal(left)
	}
}

// removeContainers removes the containers of every home below work. That one runs
// is an error; a home that cannot be read has none.
func removeContainers(vars []string, work string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var errs []error
	for _, pattern := range []string{"*/containers", "*/.local/share/sbx/containers"} {
		homes, _ := filepath.Glob(filepath.Join(work, pattern))
		for _, containers := range homes {
			sbx := func(args ...string) string {
				cmd := exec.CommandContext(ctx, sbxBinary, args...)
				cmd.Env = append(slices.Clone(vars), "SBX_HOME="+filepath.Dir(containers))
				out, _ := cmd.Output()
				return string(out)
			}
			if running := sbx("ps", "--format", "{{.Names}} ({{.Command}})"); running != "" {
				errs = append(errs, fmt.Errorf("left running: %s", strings.TrimSpace(running)))
			}
			if ids := strings.Fields(sbx("ps", "-aq", "--no-trunc")); len(ids) > 0 {
				sbx(append([]string{"rm", "-f"}, ids...)...)
			}
		}
	}
	return errors.Join(errs...)
}

// grace is how long the last processes of a script may take to end.
const grace = 10 * time.Second

// endProcesses waits for the end of the processes that have work for their $WORK,
// and ends those who do not by themselves: a shell that waits for a fifo would do
// so for ever. That one had to be ended is an error.
func endProcesses(work string) error {
	var errs []error
	mark := []byte("\x00WORK=" + work + "\x00")
	for {
		now, err := descendants()
		if err != nil {
			return err
		}
		var mine []int
		for pid := range now {
			environment, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
			if bytes.Contains(append([]byte{0}, environment...), mark) {
				mine = append(mine, pid)
			}
		}
		if len(mine) == 0 {
			return errors.Join(errs...)
		}
		if waitForEnd(mine[0], grace) == nil {
			continue
		}
		errs = append(errs, fmt.Errorf("left running: process %d: %s", mine[0], now[mine[0]]))
		_ = unix.Kill(mine[0], unix.SIGKILL)
		if err := waitForEnd(mine[0], patience); err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
}
