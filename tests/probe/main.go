// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// verb is something that probe can do; what it returns is its exit status.
type verb func(args []string) (status int, err error)

// fact is a verb that only tells something.
func fact(f func(args []string) error) verb {
	return func(args []string) (int, error) { return 0, f(args) }
}

var verbs map[string]verb

func main() {
	verbs = map[string]verb{
		"all":        all,
		"caps":       fact(caps),
		"cat":        fact(cat),
		"chown":      fact(chown),
		"count":      fact(count),
		"cwd":        fact(cwd),
		"dial":       fact(dial),
		"echo":       fact(echo),
		"env":        fact(environment),
		"false":      func([]string) (int, error) { return 1, nil },
		"fds":        fact(descriptors),
		"hold":       fact(hold),
		"hostname":   fact(hostname),
		"id":         fact(identity),
		"kill":       fact(kill),
		"link":       fact(func(args []string) error { return os.Symlink(args[0], args[1]) }),
		"links":      fact(interfaces),
		"ls":         fact(list),
		"lookup":     fact(lookup),
		"lure":       fact(lure),
		"mkdir":      fact(mkdir),
		"mounts":     fact(mounts),
		"mv":         fact(func(args []string) error { return os.Rename(args[0], args[1]) }),
		"owned":      fact(owned),
		"namespaces": fact(namespaces),
		"orphan":     fact(orphan),
		"orphaned":   fact(orphaned),
		"posture":    fact(posture),
		"ps":         fact(processes),
		"rm":         fact(remove),
		"say":        fact(say),
		"serve":      fact(serve),
		"sleep":      fact(sleep),
		"spy":        fact(spy),
		"stat":       fact(stat),
		"status":     exit,
		"exit":       exit,
		"time":       fact(timeCalls),
		"trap":       fact(trap),
		"true":       func([]string) (int, error) { return 0, nil },
		"tty":        fact(terminal),
		"types":      fact(types),
		"winsize":    fact(winsize),
		"write":      fact(write),
		"ready":      ready,
	}
	args := os.Args
	if verbs[filepath.Base(args[0])] == nil {
		args = args[1:] // called by its own name
	}
	status, err := do(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		if status == 0 {
			status = 1
		}
	}
	os.Exit(status)
}

// do runs the verb that args begin with.
func do(args []string) (int, error) {
	if len(args) == 0 {
		fmt.Println("probe")
		return 0, nil
	}
	v := verbs[filepath.Base(args[0])]
	if v == nil {
		var names []string
		for name := range verbs {
			names = append(names, name)
		}
		slices.Sort(names)
		return 64, fmt.Errorf("no verb %q: there are %v", args[0], names)
	}
	return v(args[1:])
}

// ready writes a line to a fifo, which opens once somebody reads it, and goes on
// with the verb that follows: "ready FIFO VERB ARGS".
func ready(args []string) (int, error) {
	f, err := os.OpenFile(args[0], os.O_WRONLY, 0)
	if err != nil {
		return 1, err
	}
	if _, err := f.WriteString("ready\n"); err != nil {
		return 1, err
	}
	if err := f.Close(); err != nil {
		return 1, err
	}
	return do(args[1:])
}

// all does several verbs, one after the other, until one fails: "all rm A + mkdir A".
func all(args []string) (int, error) {
	for len(args) > 0 {
		n := slices.Index(args, "+")
		if n < 0 {
			return do(args)
		}
		if status, err := do(args[:n]); status != 0 || err != nil {
			return status, err
		}
		args = args[n+1:]
	}
	return 0, nil
}

func exit(args []string) (int, error) { return strconv.Atoi(args[0]) }

// sleep sleeps for a duration, or for ever.
func sleep(args []string) error {
	d := time.Duration(1<<63 - 1)
	if len(args) > 0 {
		var err error
		if d, err = time.ParseDuration(args[0]); err != nil {
			return err
		}
	}
	time.Sleep(d)
	return nil
}
