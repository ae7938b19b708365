// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sbx/reference"
	"sbx/store"
)

var update = flag.Bool("update", false, "rewrite golden files")

// sbx runs a command line with files for its streams.
func sbx(t *testing.T, vars map[string]string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	dir := t.TempDir()
	open := func(name string) *os.File {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	c := &client{in: open("in"), out: open("out"), err: open("err"), lookup: lookupIn(vars)}
	otherwise, err := c.dispatch(t.Context(), args)
	status = c.finish(err, otherwise)
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	return status, read("out"), read("err")
}

func TestCommandLines(t *testing.T) {
	for _, tt := range []struct {
		args   string
		status int
		stdout string // a part of it; none must be none
		stderr string
	}{
		{"", 0, "Usage:  sbx [OPTIONS] COMMAND\n", ""},
		{"--help", 0, "Usage:  sbx [OPTIONS] COMMAND\n", ""},
		{"-h", 0, "Usage:  sbx [OPTIONS] COMMAND\n", ""},
		{"help", 0, "Usage:  sbx [OPTIONS] COMMAND\n", ""},
		{"help ps", 0, "Usage:  sbx ps [OPTIONS]\n", ""},
		{"help image ls", 0, "Usage:  sbx image ls [OPTIONS] [REPOSITORY[:TAG]]\n", ""},
		{"ps --help", 0, "Usage:  sbx ps [OPTIONS]\n", ""},
		{"ps -h", 0, "Usage:  sbx ps [OPTIONS]\n", ""},
		{"container", 0, "Usage:  sbx container COMMAND\n", ""},
		{"container list --help", 0, "Usage:  sbx container ls [OPTIONS]\n", ""},
		{"-v", 0, "sbx version " + release(), ""},
		{"version --format {{.Server.Version}}", 0, release() + "\n", ""},
		{"version --format json", 0, `{"Client":{"Version":"` + release(), ""},
		{"rnu", 125, "", "sbx: unknown command: sbx rnu\nsbx: hint: did you mean run? see sbx --help\n"},
		{"container x", 125, "", "sbx: unknown command: sbx container x\nsbx: hint: see sbx container --help\n"},
		{"--nothing", 125, "", "sbx: unknown flag: --nothing\nsbx: hint: see sbx --help\n"},
		{"run", 125, "", "sbx: \"sbx run\" requires at least 1 argument\nsbx: hint: see sbx run --help\n"},
		{"run --nam x a", 125, "", "sbx: unknown flag: --nam\nsbx: hint: did you mean --name? see sbx run --help\n"},
		{"rm", 125, "", "sbx: \"sbx rm\" requires at least 1 argument\nsbx: hint: see sbx rm --help\n"},
		{"ps x", 125, "", "sbx: \"sbx ps\" accepts no arguments\nsbx: hint: see sbx ps --help\n"},
		{"images a b", 125, "", "sbx: \"sbx images\" requires at most 1 argument\nsbx: hint: see sbx images --help\n"},
		{"pull", 125, "", "sbx: \"sbx pull\" requires 1 argument\nsbx: hint: see sbx pull --help\n"},
		{"pull host", 125, "", "sbx: pull host: this image is made of the machine's own programs\nsbx: hint: there is nothing to pull: sbx run host sh\n"},
		{"pull UPPER", 1, "", "sbx: pull UPPER: parse reference \"UPPER\": the repository name must be lower case\nsbx: hint: try upper\n"},
		{"run -w rel a", 125, "", "sbx: the working directory 'rel' is invalid, it needs to be an absolute path\n"},
		{"run --pull sometimes a", 125, "", "sbx: invalid pull option: 'sometimes': must be one of \"always\", \"missing\" or \"never\"\n"},
		{"run -v a/b:/c a", 125, "", "sbx: invalid volume specification \"a/b:/c\": \"a/b\" is not a volume's name\nsbx: hint: for a directory of this machine write its absolute path, or ./a/b\n"},
		{"run -v /a:/c --tmpfs /c/ a", 125, "", "sbx: duplicate mount point: /c\n"},
		{"run --network x --network host a", 125, "", "sbx: conflicting options: network host cannot be combined with others\n"},
		{"run --network-alias b a", 125, "", "sbx: network-scoped alias is supported only for containers in user defined networks\n"},
		{"run -p 80:90-91 a", 125, "", "sbx: invalid ranges specified for container and host Ports: 90-91 and 80\n"},
		{"run -p 1:2:3:4 a", 125, "", "sbx: invalid publish specification \"1:2:3:4\": too many colons; an IPv6 address stands in brackets\n"},
		{"run -it a", 1, "", "sbx: the input device is not a TTY\nsbx: hint: leave out -t, or run it in a terminal\n"},
		{"run -m 1g --memory-swap 2g --blkio-weight 9 a", 125, "", "sbx: --blkio-weight is accepted but not enforced here\nsbx: run a: choose store: $HOME is not set\nsbx: hint: name a directory of yours for images and containers: SBX_HOME=/path/to/directory\n"},
		{"run --security-opt no-new-privileges --restart no --sig-proxy a", 125, "", "sbx: run a: choose store: $HOME is not set\nsbx: hint: name a directory of yours for images and containers: SBX_HOME=/path/to/directory\n"},
		{"ps --filter x=1", 125, "", "sbx: invalid filter \"x\"\nsbx: hint: there are ancestor, before, exited, expose, health, id, label, name, network, publish, since, status, volume\n"},
		{"ps -n x", 125, "", "sbx: invalid argument \"x\" for \"-n, --last\" flag: want a number\nsbx: hint: see sbx ps --help\n"},
		{"ps", 1, "", "sbx: choose store: $HOME is not set\nsbx: hint: name a directory of yours for images and containers: SBX_HOME=/path/to/directory\n"},
		{"inspect --type plugin x", 125, "", "sbx: unknown type: \"plugin\": must be one of [\"container\" \"image\" \"network\" \"volume\"]\n"},
	} {
		status, stdout, stderr := sbx(t, nil, strings.Fields(tt.args)...)
		if status != tt.status || !strings.Contains(stdout, tt.stdout) || (tt.stdout == "") != (stdout == "") || stderr != tt.stderr {
			t.Errorf("sbx %s: status %d, want %d\nstdout %q\nstderr %q\n  want %q", tt.args, status, tt.status, stdout, stderr, tt.stderr)
		}
	}
}

func TestHelpGolden(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"run", "--help"}, {"ps", "--help"}, {"container", "--help"}} {
		_, got, _ := sbx(t, nil, args...)
		file := filepath.Join("testdata", "help-"+strings.TrimPrefix(args[0], "--")+".txt")
		if *update {
			if err := os.MkdirAll("testdata", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("sbx %v (-want +got):\n%s", args, diff)
		}
		for line := range strings.Lines(got) {
			if len(line) > helpWidth+1 {
				t.Errorf("sbx %v: long line %q", args, line)
			}
		}
	}
}

func TestEscape(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"plain ünïcode ✓", "plain ünïcode ✓"},
		{"\x1b[31mred\x07", `\x1b[31mred\x07`},
		{"two\nsbx: hint: lines\r", `two\nsbx: hint: lines\x0d`},
		{"\u202eabc\u200b", `\u202eabc\u200b`},
		{"\u009b31m", `\u009b31m`},
		{"\xff\xfe", `\xff\xfe`},
	} {
		if got := printable(tt.in); got != tt.want {
			t.Errorf("printable(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
	if got := escape("a\tb\n\x1b", "\n\t"); got != "a\tb\n"+`\x1b` {
		t.Errorf("escape = %q", got)
	}
}

type hinted struct{ error }

func (hinted) Hint() string { return "do\x1b this" }

func TestStatus(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("x"), 1},
		{exited(3), 3},
		{exited(0), 0},
		{interrupted(2), 130},
		{fmt.Errorf("run x: %w", &usageError{text: "x"}), 125},
		{fmt.Errorf("run x: %w", &statusError{status: 126, err: errors.New("x")}), 126},
	} {
		if got := status(tt.err, 1); got != tt.want {
			t.Errorf("status(%v) = %d, want %d", tt.err, got, tt.want)
		}
	}
	text, hint := describe(fmt.Errorf("run: %w", hinted{errors.New("boom")}))
	if text != "run: boom" || hint != "do\x1b this" {
		t.Errorf("describe: %q, %q", text, hint)
	}
	if text, hint := describe(&statusError{status: 1, hint: "h"}); text != "" || hint != "h" {
		t.Errorf("describe: %q, %q", text, hint)
	}
}

func TestHomeDir(t *testing.T) {
	mine := t.TempDir()
	for _, tt := range []struct {
		vars map[string]string
		want string
	}{
		{map[string]string{"SBX_HOME": "/s", "XDG_DATA_HOME": "/x", "HOME": mine}, "/s"},
		{map[string]string{"XDG_DATA_HOME": "/x", "HOME": mine}, "/x/sbx"},
		{map[string]string{"XDG_DATA_HOME": "relative", "HOME": mine}, mine + "/.local/share/sbx"},
		{map[string]string{"HOME": mine}, mine + "/.local/share/sbx"},
	} {
		c := &client{lookup: lookupIn(tt.vars)}
		if got, err := c.homeDir(); got != tt.want || err != nil {
			t.Errorf("%v: %q, %v; want %q", tt.vars, got, err, tt.want)
		}
	}
	for _, home := range []string{"", "relative", "/does/not/exist", "/proc/1"} {
		c := &client{lookup: lookupIn(map[string]string{"HOME": home})}
		if home == "/proc/1" && os.Getuid() == 0 {
			continue
		}
		if _, err := c.homeDir(); err == nil {
			t.Errorf("HOME=%q: no error", home)
		}
	}
}

func TestForeignProgram(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	if err := os.WriteFile(first+"/sbx", []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(second+"/sbx", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	own := t.TempDir()
	if err := os.Symlink(self, own+"/sbx"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ path, want string }{
		{first + ":" + own, first + "/sbx"},
		{own + ":" + first, ""},
		{second + ":" + own, ""},
		{"", ""},
	} {
		c := &client{lookup: lookupIn(map[string]string{"PATH": tt.path})}
		if got := c.foreignProgram(); got != tt.want {
			t.Errorf("PATH=%s: %q, want %q", tt.path, got, tt.want)
		}
	}
}

func TestIDFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cid")
	f, err := newIDFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newIDFile(path); err == nil || !strings.Contains(err.Error(), "container ID file found") {
		t.Errorf("second: %v", err)
	}
	f.close()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file of no container stays: %v", err)
	}
	f, err = newIDFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.write(testID); err != nil {
		t.Fatal(err)
	}
	f.close()
	if data, err := os.ReadFile(path); string(data) != testID || err != nil {
		t.Errorf("%q, %v", data, err)
	}
}

func testDigest(t *testing.T, digit string) reference.Digest {
	t.Helper()
	d, err := reference.ParseDigest("sha256:" + strings.Repeat(digit, 64))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestProgressLines(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p := newProgress(file, false)
	a, b := testDigest(t, "a"), testDigest(t, "b")
	p.line("latest: Pulling from %s", "library/\x1balpine")
	for _, e := range []store.Event{
		{Digest: a, Status: store.StatusWaiting}, {Digest: b, Status: store.StatusExists},
		{Digest: a, Status: store.StatusDownloading, Current: 1, Total: 10}, {Digest: a, Status: store.StatusDownloading, Current: 5, Total: 10},
		{Digest: a, Status: store.StatusDownloaded}, {Digest: a, Status: store.StatusExtracting, Current: 5, Total: 10}, {Digest: a, Status: store.StatusDone},
	} {
		p.event(e)
	}
	p.end()
	got, err := os.ReadFile(file.Name())
	want := `latest: Pulling from library/\x1balpine
aaaaaaaaaaaa: Pulling fs layer
bbbbbbbbbbbb: Already exists
aaaaaaaaaaaa: Download complete
aaaaaaaaaaaa: Pull complete
`
	if diff := cmp.Diff(want, string(got)); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestProgressInPlace(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	now := time.Now()
	p := newProgress(file, false)
	p.width, p.rows, p.now = 50, 10, func() time.Time { return now }
	a, b := testDigest(t, "a"), testDigest(t, "b")
	p.event(store.Event{Digest: a, Status: store.StatusDownloading, Current: 0, Total: 1000})
	p.event(store.Event{Digest: a, Status: store.StatusDownloading, Current: 100, Total: 1000}) // too soon
	now = now.Add(time.Second)
	p.event(store.Event{Digest: a, Status: store.StatusDownloading, Current: 500, Total: 1000})
	p.event(store.Event{Digest: b, Status: store.StatusExists})
	p.end()
	got, err := os.ReadFile(file.Name())
	want := "\raaaaaaaaaaaa: Downloading [>           ]  0B/1kB\x1b[K\n" +
		"\x1b[1A\raaaaaaaaaaaa: Downloading [=====>    ]  500B/1kB\x1b[K\n" +
		"\x1b[1A\raaaaaaaaaaaa: Downloading [=====>    ]  500B/1kB\x1b[K\n\rbbbbbbbbbbbb: Already exists\x1b[K\n" +
		"\x1b[2A\raaaaaaaaaaaa: Downloading [=====>    ]  500B/1kB\x1b[K\n\rbbbbbbbbbbbb: Already exists\x1b[K\n"
	if diff := cmp.Diff(want, string(got)); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for width := 0; width < 120; width++ {
		if line := p.text(store.Event{Digest: a, Status: store.StatusExtracting, Current: 1 << 40, Total: 1 << 41}, width); width > 20 && len([]rune(line)) >= width {
			t.Errorf("width %d: %q", width, line)
		}
	}
}

// A line goes below what is drawn, and what is drawn later below the line: nothing that
// was said is drawn over.
func TestProgressSaysInPlace(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p := newProgress(file, false)
	p.width, p.rows, p.now = 40, 10, func() time.Time { return time.Time{} }
	p.event(store.Event{Status: store.StatusDownloading, Current: 1, Total: 2})
	p.event(store.Event{Status: store.StatusDownloading, Current: 2, Total: 2}) // too soon
	p.line("Verified")
	p.event(store.Event{Status: store.StatusDone})
	got, err := os.ReadFile(file.Name())
	want := "\rrootfs: Downloading [====>    ]  1B/2B\x1b[K\n" +
		"\x1b[1A\rrootfs: Downloading [=========]  2B/2B\x1b[K\nVerified\n" +
		"\rrootfs: Pull complete\x1b[K\n"
	if diff := cmp.Diff(want, string(got)); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
