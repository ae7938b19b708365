// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"sbx/tests/need"
)

// TestScript runs the scripts on each rung: what a user types, and what he sees.
// With SBX_NO_OVERLAY=1 in the environment they run on the copying fallback.
func TestScript(t *testing.T) {
	for _, rung := range []string{"single", "mapped"} {
		t.Run(rung, func(t *testing.T) {
			needRung(t, rung)
			testscript.Run(t, scripts("script", rung))
		})
	}
}

// TestAlone runs, one after the other, the scripts that look at everything this
// process has started, or that are slowed down by a neighbour.
func TestAlone(t *testing.T) {
	for _, rung := range []string{"single", "mapped"} {
		t.Run(rung, func(t *testing.T) {
			needRung(t, rung)
			files, err := filepath.Glob("script/alone/*.txtar")
			if err != nil || len(files) == 0 {
				t.Fatal("no scripts in script/alone", err)
			}
			for _, f := range files {
				p := scripts("", rung)
				p.Files = []string{f}
				t.Run("one", func(t *testing.T) { testscript.Run(t, p) })
			}
		})
	}
}

func needRung(t *testing.T, rung string) {
	t.Helper()
	need.Need(t, need.Userns)
	if rung == "mapped" {
		need.Need(t, need.Subids)
	}
}

// scripts are the rules of every script: a home, a store and a run directory of
// its own below $WORK, and nothing from the user's environment but PATH.
func scripts(dir, rung string) testscript.Params {
	return testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("SBX_TEST_UPDATE") == "1",
		Setup: func(env *testscript.Env) error {
			work := env.WorkDir
			env.Setenv("SBX_RUNG", rung)
			env.Setenv("SBX_HOME", filepath.Join(work, "store"))
			env.Setenv("HOME", filepath.Join(work, "home"))
			env.Setenv("XDG_RUNTIME_DIR", filepath.Join(work, "run"))
			env.Setenv("UID", strconv.Itoa(os.Getuid()))
			env.Setenv("GID", strconv.Itoa(os.Getgid()))
			env.Setenv("SBX", sbxBinary)
			env.Setenv("PROBE", probeBinary)
			for _, name := range []string{"SBX_NO_OVERLAY", "SBX_TEST_ARTIFACTS", "SBX_TEST_IMAGES", "SBX_TEST_APPS"} {
				env.Setenv(name, os.Getenv(name))
			}
			for _, name := range []string{"home", "run"} {
				if err := os.Mkdir(filepath.Join(work, name), 0o700); err != nil {
					return err
				}
			}
			env.Values[runner{}] = env.T()
			env.Defer(func() { endScript(env, work) })
			return nil
		},
		Condition: func(word string) (bool, error) {
			switch word {
			case "single", "mapped":
				return word == rung, nil
			case "overlay":
				return os.Getenv("SBX_NO_OVERLAY") != "1" && need.Missing(need.Overlay) == nil, nil
			}
			return false, fmt.Errorf("no condition %q; what a machine must have is said with `need`", word)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"crane":        craneCommand,
			"distribution": distributionCommand,
			"exits":        exitsCommand,
			"leaks":        leaksCommand,
			"mkconfig":     mkconfigCommand,
			"mkimage":      mkimageCommand,
			"mktar":        mktarCommand,
			"need":         needCommand,
			"push":         pushCommand,
			"registry":     registryCommand,
			"requests":     requestsCommand,
			"serve":        serveCommand,
			"skip":         skipCommand,
			"upstream":     upstreamCommand,
		},
	}
}

// runner is the key under which a script finds its testscript.T.
type runner struct{}

// need WORD...: skips the script on a machine that lacks one of the words.
func needCommand(ts *testscript.TestScript, neg bool, words []string) {
	if neg || len(words) == 0 {
		ts.Fatalf("usage: need WORD...")
	}
	reason, failure := need.Verdict(ts.Name(), words...)
	ts.Check(failure)
	if reason != "" {
		ts.Value(runner{}).(testscript.T).Skip(reason)
	}
}

// skip stands in for testscript's own: every skip has its word.
func skipCommand(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Fatalf("skip has no word: use `need WORD`")
}

// exits STATUS PROGRAM ARGS...: runs a program, which ends with just that status.
func exitsCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS PROGRAM ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// removeTree removes a script's directory, with what subordinate IDs own in it.
func removeTree(dir string) {
	if os.RemoveAll(dir) == nil {
		return
	}
	_ = exec.Command("chmod", "-R", "u+rwX", dir).Run()
	if os.RemoveAll(dir) == nil {
		return
	}
	_, _ = need.Mapped("rm", "-rf", dir)
}

// TestScriptNames holds the scripts to their names: COMMAND_BEHAVIOUR.
func TestScriptNames(t *testing.T) {
	commands := []string{"hint", "host", "store", "manifest", "search", "docker"}
	out, err := exec.CommandContext(t.Context(), sbxBinary, "help").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		// Commands and groups stand indented by two.
		if name, ok := strings.CutPrefix(line, "  "); ok && !strings.HasPrefix(name, " ") && !strings.HasPrefix(name, "-") {
			commands = append(commands, strings.Fields(name)[0])
		}
	}
	commands = append(commands, "help")
	for _, dir := range []string{"script", "script/alone"} {
		files, err := filepath.Glob(dir + "/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			name := filepath.Base(f)
			if name == "alone" {
				continue
			}
			if filepath.Ext(name) != ".txtar" || !slices.ContainsFunc(commands, func(c string) bool {
				return len(name) > len(c)+1 && name[:len(c)+1] == c+"_"
			}) {
				t.Errorf("%s: want COMMAND_BEHAVIOUR.txtar, COMMAND one of %v", f, commands)
			}
		}
	}
}
