// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkCalls measures single calls inside of a container, without and with
// emulation, one after the other; the figure is the best of five rounds.
func BenchmarkCalls(b *testing.B) {
	w := newWorld(b, "")
	for _, c := range []string{"getppid", "geteuid", "lstat", "relative", "recorded", "missing", "fstat", "open", "creat", "chown"} {
		for _, mode := range []Mode{None, Notify} {
			b.Run(c+"/"+mode.String(), func(b *testing.B) {
				w.mode = mode
				for b.Loop() {
				}
				ns, err := strconv.ParseFloat(strings.Fields(w.probe("bench", c, "5000"))[0], 64)
				w.must(err)
				b.ReportMetric(ns, "ns/call")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// workloads are root-emulation.md, §3, as far as Debian slim has the programs. The
// ratios to no emulation that they must stay below are those of the issue; on a
// shared machine they are a figure, not a test.
var workloads = []struct{ name, script string }{
	{"find", `find / -xdev -ls >/dev/null`},
	{"tar", `tar c --one-file-system / | cat >/dev/null`},
	{"cp", `mkdir /root/c; cp -a /usr/share /usr/lib/x86_64-linux-gnu /etc /root/c; rm -rf /root/c`},
	{"true", `i=0; while [ $i -lt 500 ]; do /bin/true; i=$((i+1)); done`},
	{"dpkg", `dpkg -S /bin/ls >/dev/null; dpkg -l >/dev/null; dpkg --verify >/dev/null`},
}

// BenchmarkWorkloads runs each without and with emulation in turns, and says the
// medians and their ratio.
func BenchmarkWorkloads(b *testing.B) {
	w := newWorld(b, debian)
	for _, l := range workloads {
		compare(b, w, l.name, l.script)
	}
}

// BenchmarkPackages does the same with packages from this machine's mirror.
func BenchmarkPackages(b *testing.B) {
	w := aptWorld(b)
	const packages = "libcap2-bin acl attr netbase openssl"
	w.mode = Notify
	w.sh(`apt-get update -qq; apt-get install -y -qq --no-install-recommends python3-flask ` + packages + ` >/dev/null 2>&1; apt-get install -qq -d --reinstall ` + packages + ` >/dev/null 2>&1`)
	compare(b, w, "reinstall", `apt-get -o APT::Sandbox::User=root install -y -qq --reinstall -o APT::Keep-Downloaded-Packages=true `+packages+` >/dev/null 2>&1`)
	compare(b, w, "python", `for i in 1 2 3 4 5 6 7 8; do python3 -c 'import flask, asyncio'; done`)
}

func compare(b *testing.B, w *world, name, script string) {
	b.Run(name, func(b *testing.B) {
		for b.Loop() {
		}
		w.t = b
		const rounds = 5
		var took [2][]float64
		for range rounds {
			for i, mode := range []Mode{None, Notify} {
				w.mode = mode
				start := time.Now()
				w.sh(script)
				took[i] = append(took[i], time.Since(start).Seconds())
			}
		}
		slices.Sort(took[0])
		slices.Sort(took[1])
		none, notify := took[0][rounds/2], took[1][rounds/2]
		b.ReportMetric(none, "s/none")
		b.ReportMetric(notify, "s/notify")
		b.ReportMetric(notify/none, "ratio")
		b.ReportMetric(took[1][0]/took[0][0], "best-ratio")
		b.ReportMetric(0, "ns/op")
	})
}
