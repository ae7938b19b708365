// SPDX-License-Identifier: Apache-2.0

package container

import (
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseSignal(t *testing.T) {
	for text, want := range map[string]unix.Signal{
		"15": unix.SIGTERM, "TERM": unix.SIGTERM, "SIGTERM": unix.SIGTERM, "sigterm": unix.SIGTERM, "term": unix.SIGTERM, "HUP": unix.SIGHUP,
		"9": unix.SIGKILL, "USR1": unix.SIGUSR1, "WINCH": unix.SIGWINCH, "1": unix.SIGHUP, "64": 64,
		"RTMIN": 34, "SIGRTMIN": 34, "RTMIN+3": 37, "sigrtmin+30": 64, "RTMAX": 64, "RTMAX-2": 62,
	} {
		if got, err := ParseSignal(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "-1", "65", "SIG", "SIGSIGTERM", "NOSUCH", "RTMIN+31", "RTMIN-1", "RTMAX+1", "RTMINX", "15x", " 15", "99999999999999999999"} {
		if got, err := ParseSignal(text); err == nil {
			t.Errorf("%q: %d, want an error", text, got)
		}
	}
}

func FuzzParseSignal(f *testing.F) {
	for _, s := range []string{"15", "SIGTERM", "RTMIN+1", "RTMAX-9223372036854775808"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseSignal(s)
		if (err == nil) != (n >= 1 && n <= 64) {
			t.Errorf("%q: %d, %v", s, n, err)
		}
		if again, err := ParseSignal(strconv.Itoa(int(n))); n != 0 && (err != nil || again != n) {
			t.Errorf("%q: %d, and that %d, %v", s, n, again, err)
		}
	})
}
