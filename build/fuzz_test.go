// SPDX-License-Identifier: Apache-2.0

package build

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// fuzzOptions are those of a plan for whatever comes.
func fuzzOptions() planOptions {
	return planOptions{build: amd64, platform: amd64, args: map[string]string{}, contexts: map[string]bool{}}
}

// FuzzDockerfile plans whatever comes as a Dockerfile. One that is refused is refused with
// an error that can be shown, and one that is taken has a target: B08.
func FuzzDockerfile(f *testing.F) {
	files, err := filepath.Glob("testdata/dockerfiles/*.Dockerfile")
	if err != nil || len(files) == 0 {
		f.Fatal("no Dockerfiles", err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := testPlan(t.Context(), data, fuzzOptions())
		if err == nil {
			if p.target == nil || len(p.stages) == 0 {
				t.Fatalf("%q has no target", data)
			}
			return
		}
		if err.Error() == "" {
			t.Fatalf("%q is refused without a word", data)
		}
		if at := (*SourceError)(nil); errors.As(err, &at) {
			_ = at.Quote()
		}
	})
}

// FuzzExpand has words of ENV and of a heredoc expanded. What is quoted with ' stays as it
// is, and what is given as an argument is never looked at a second time.
func FuzzExpand(f *testing.F) {
	for _, s := range []string{"a", "$B", "${B:-x}", "${B+y}", `"$B"`, "${B", "$", "${B#a}", "${B//a/b}", "a\\ b", "$$B", "${$B}", "<<EOF"} {
		f.Add(s, "value $B ${A}")
	}
	f.Fuzz(func(t *testing.T, word, value string) {
		if strings.ContainsAny(word+value, "\r\n\x00") || !utf8.ValidString(word+value) {
			return
		}
		text := "FROM scratch\nARG B\nENV A=" + word + " C=$B D='$B'\nCOPY <<E /e\n" + word + "\nE\n"
		o := fuzzOptions()
		o.args["B"] = value
		p, err := testPlan(t.Context(), []byte(text), o)
		if err != nil {
			return
		}
		env := p.target.image.Config.Env
		if slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, "C=") }) && strings.HasPrefix(word, "a") && !strings.ContainsAny(word, "\\\"'= \t") && !slices.Contains(env, "C="+value) {
			t.Fatalf("%q with %q: %q, want C=%s", word, value, env, value)
		}
	})
}

// FuzzExecForm compares how a RUN in brackets is read with JSON: a list of words that is one is
// executed as it is, and everything else is the shell's.
func FuzzExecForm(f *testing.F) {
	for _, s := range []string{`["a", "b"]`, `["a"`, `['a']`, `[1]`, `["\u0024A"]`, `[]`, `["a",]`, `["a"] x`, `["a\\nb"]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, form string) {
		if strings.ContainsAny(form, "\\\r\n\x00$<#`") || !utf8.ValidString(form) || !strings.HasPrefix(form, "[") {
			return
		}
		p, err := testPlan(t.Context(), []byte("FROM scratch\nENV PATH=/bin\nRUN "+form+"\n"), fuzzOptions())
		if err != nil || len(p.target.steps) != 1 || p.target.steps[0].run == nil {
			return
		}
		var words []string
		args := p.target.steps[0].run.args
		if json.Unmarshal([]byte(form), &words) == nil && len(words) > 0 && !slices.Equal(args, words) {
			t.Fatalf("%s: %q, want %q", form, args, words)
		}
	})
}

// FuzzIgnore has patterns of a .dockerignore leave out paths: however they are asked for,
// by way of their directories or not, the answer is one.
func FuzzIgnore(f *testing.F) {
	for _, s := range []string{"*", "**/a", "!a\nb", "a/b/../c", "[", "# no\n\\#yes", "/a", "!", "a\\", "**\n!**/a", "\uFEFFa"} {
		f.Add([]byte(s), "a/b/c")
	}
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		if name != filepath.Clean(name) || strings.HasPrefix(name, "/") || strings.HasPrefix(name, "..") || !utf8.ValidString(name) {
			return
		}
		patterns, err := readIgnore(data)
		if err != nil {
			return
		}
		ignore, err := newFilter(patterns)
		if err != nil || ignore == nil {
			return
		}
		state, err := ignore.stateOf(filepath.Dir(name))
		if err != nil {
			return
		}
		if filepath.Dir(name) == "." {
			state = filterState{}
		}
		walked, _, err := ignore.drops(name, state)
		if err != nil {
			return
		}
		if asked, err := ignore.dropsPath(name); err != nil || asked != walked {
			t.Fatalf("%q of %q: %v by way of its directories, %v alone (%v)", name, patterns, walked, asked, err)
		}
	})
}
