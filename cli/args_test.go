// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// parsed is what a command line of run came to.
type parsed struct {
	Env, Volumes, Operands []string
	Name, User, Workdir    string
	Hostname               string
	Stdin, TTY, Rm         bool
	Entrypoint             string
	EntrypointGiven        bool
}

func parseRun(args []string) (parsed, error) {
	var f containerFlags
	operands, err := parseArgs(args, f.options(), true)
	return parsed{
		Env: f.env, Volumes: f.volumes, Operands: operands, Name: f.name, User: f.user, Workdir: f.workdir, Hostname: f.hostname,
		Stdin: f.stdin, TTY: f.tty, Rm: f.rm, Entrypoint: f.entrypoint.text, EntrypointGiven: f.entrypoint.ok,
	}, err
}

func TestParseArgs(t *testing.T) {
	for _, tt := range []struct {
		in   string // fields
		want parsed
	}{
		{"alpine", parsed{Operands: []string{"alpine"}}},
		{"-it alpine sh", parsed{Stdin: true, TTY: true, Operands: []string{"alpine", "sh"}}},
		{"-i -t alpine", parsed{Stdin: true, TTY: true, Operands: []string{"alpine"}}},
		{"-tiv /a:/b alpine", parsed{Stdin: true, TTY: true, Volumes: []string{"/a:/b"}, Operands: []string{"alpine"}}},
		{"-itv/a:/b alpine", parsed{Stdin: true, TTY: true, Volumes: []string{"/a:/b"}, Operands: []string{"alpine"}}},
		{"-e A=1,2 alpine", parsed{Env: []string{"A=1,2"}, Operands: []string{"alpine"}}},
		{"-eA=1 alpine", parsed{Env: []string{"A=1"}, Operands: []string{"alpine"}}},
		{"-e=A=1 alpine", parsed{Env: []string{"A=1"}, Operands: []string{"alpine"}}},
		{"--env=A=1 --env B=2 -eC alpine", parsed{Env: []string{"A=1", "B=2", "C"}, Operands: []string{"alpine"}}},
		{"-e --rm alpine", parsed{Env: []string{"--rm"}, Operands: []string{"alpine"}}},
		{"--rm=false alpine", parsed{Operands: []string{"alpine"}}},
		{"--rm=1 alpine", parsed{Rm: true, Operands: []string{"alpine"}}},
		{"--rm false alpine", parsed{Rm: true, Operands: []string{"false", "alpine"}}},
		{"-i=false -t=true alpine", parsed{TTY: true, Operands: []string{"alpine"}}},
		{"-ti=false alpine", parsed{TTY: true, Operands: []string{"alpine"}}},
		{"--name=x alpine", parsed{Name: "x", Operands: []string{"alpine"}}},
		{"--name x alpine", parsed{Name: "x", Operands: []string{"alpine"}}},
		{"--name= alpine", parsed{Operands: []string{"alpine"}}},
		{"-uroot -w/srv alpine", parsed{User: "root", Workdir: "/srv", Operands: []string{"alpine"}}},
		{"-h 1 alpine", parsed{Hostname: "1", Operands: []string{"alpine"}}},
		{"--entrypoint= alpine", parsed{EntrypointGiven: true, Operands: []string{"alpine"}}},
		{"--entrypoint sh alpine", parsed{Entrypoint: "sh", EntrypointGiven: true, Operands: []string{"alpine"}}},
		{"alpine sh -c x -t --rm", parsed{Operands: []string{"alpine", "sh", "-c", "x", "-t", "--rm"}}},
		{"alpine --help", parsed{Operands: []string{"alpine", "--help"}}},
		{"alpine -- x", parsed{Operands: []string{"alpine", "--", "x"}}},
		{"--rm -- alpine -t", parsed{Rm: true, Operands: []string{"alpine", "-t"}}},
		{"- x", parsed{Operands: []string{"-", "x"}}},
		{"", parsed{}},
	} {
		got, err := parseRun(strings.Fields(tt.in))
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.in, diff)
		}
	}
}

func TestParseArgsErrors(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"--nam x", "unknown flag: --nam"},
		{"--foo=1", "unknown flag: --foo"},
		{"-Z alpine", "unknown shorthand flag: 'Z' in -Z"},
		{"-itZ alpine", "unknown shorthand flag: 'Z' in -itZ"},
		{"--name", "flag needs an argument: --name"},
		{"-e", "flag needs an argument: 'e' in -e"},
		{"-ite", "flag needs an argument: 'e' in -ite"},
		{"--=x", "bad flag syntax: --=x"},
		{"---rm", "bad flag syntax: ---rm"},
		{"--rm=maybe", `invalid argument "maybe" for "--rm" flag: want true or false`},
		{"-t=maybe", `invalid argument "maybe" for "-t, --tty" flag: want true or false`},
	} {
		_, err := parseRun(strings.Fields(tt.in))
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s:\n got %v\nwant %s", tt.in, err, tt.want)
		}
		if status(err, 7) != statusSbx {
			t.Errorf("%s: status %d, want %d", tt.in, status(err, 7), statusSbx)
		}
	}
	for _, in := range []string{"--help", "--rm --help alpine"} {
		if _, err := parseRun(strings.Fields(in)); !errors.Is(err, errHelp) {
			t.Errorf("%s: %v, want help", in, err)
		}
	}
	// -h is help where it is nothing else.
	if _, err := parseArgs([]string{"-h"}, (&rmOptions{}).flags(), false); !errors.Is(err, errHelp) {
		t.Errorf("rm -h: %v, want help", err)
	}
}

func TestParseArgsInterspersed(t *testing.T) {
	o := &rmOptions{}
	operands, err := parseArgs([]string{"a", "-f", "b", "--volumes", "--", "-c"}, o.flags(), false)
	if err != nil || !o.force || !o.volumes || !slices.Equal(operands, []string{"a", "b", "-c"}) {
		t.Errorf("operands %q, options %+v, %v", operands, *o, err)
	}
}

// Two options of one name or letter would hide each other.
func TestOptionsAreDistinct(t *testing.T) {
	var walk func(path string, list []command)
	walk = func(path string, list []command) {
		for _, cmd := range list {
			name := path + " " + cmd.name
			walk(name, cmd.commands)
			if cmd.bind == nil {
				continue
			}
			options, run := cmd.bind()
			if run == nil {
				t.Errorf("%s does nothing", name)
			}
			seen := map[string]bool{}
			for _, o := range options {
				for _, n := range []string{o.name, o.alias, "-" + o.short} {
					if seen[n] && n != "" && n != "-" {
						t.Errorf("%s: two flags %s", name, n)
					}
					seen[n] = true
				}
				if o.name == "" || len(o.short) > 1 || o.value == nil || !o.hidden && o.usage == "" {
					t.Errorf("%s: incomplete flag %+v", name, o)
				}
			}
		}
	}
	walk(program, commands())
}

func TestNearest(t *testing.T) {
	names := []string{"run", "ps", "pull", "images", "inspect", "rm", "rmi"}
	for _, tt := range []struct{ typed, want string }{
		{"rnu", "run"}, {"image", "images"}, {"inspct", "inspect"}, {"pul", "pull"}, {"sp", "ps"}, {"xyz", ""}, {"", ""}, {"kubernetes", ""},
	} {
		if got := nearest(tt.typed, names); got != tt.want {
			t.Errorf("nearest(%q) = %q, want %q", tt.typed, got, tt.want)
		}
	}
}

func FuzzParseArgs(f *testing.F) {
	for _, s := range []string{"-it\x00alpine\x00sh", "-eA=1\x00--\x00x", "--name=\x00a", "-p8080:80\x00x", "--=\x00-", "-\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		args := strings.Split(s, "\x00")
		got, err := parseRun(args)
		if err != nil {
			return
		}
		// What follows the image is handed on as it is, and flags come first.
		if !slices.Equal(got.Operands, args[len(args)-len(got.Operands):]) {
			t.Errorf("%q: operands %q", args, got.Operands)
		}
		again, err := parseRun(append(slices.Clone(args), "--rm", "-Z"))
		if err == nil && len(got.Operands) > 0 && len(again.Operands) != len(got.Operands)+2 {
			t.Errorf("%q: flags after the image were read: %q", args, again.Operands)
		}
	})
}
