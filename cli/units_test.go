// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"testing"
	"time"
)

func TestHumanDuration(t *testing.T) {
	const day = 24 * time.Hour
	for _, tt := range []struct {
		d    time.Duration
		want string
	}{
		{-time.Second, "Less than a second"},
		{450 * time.Millisecond, "Less than a second"},
		{time.Second, "1 second"},
		{3 * time.Second, "3 seconds"},
		{59 * time.Second, "59 seconds"},
		{time.Minute, "About a minute"},
		{2 * time.Minute, "2 minutes"},
		{59 * time.Minute, "59 minutes"},
		{time.Hour, "About an hour"},
		{90 * time.Minute, "2 hours"},
		{47 * time.Hour, "47 hours"},
		{2 * day, "2 days"},
		{13 * day, "13 days"},
		{14 * day, "2 weeks"},
		{21 * day, "3 weeks"},
		{59 * day, "8 weeks"},
		{60 * day, "2 months"},
		{300 * day, "10 months"},
		{729 * day, "24 months"},
		{730 * day, "2 years"},
		{3660 * day, "10 years"},
	} {
		if got := humanDuration(tt.d); got != tt.want {
			t.Errorf("humanDuration(%v) = %q, want %q", tt.d, got, tt.want)
		}
	}
	now := time.Now()
	if got := ago(time.Time{}, now); got != "N/A" {
		t.Errorf("ago(zero) = %q", got)
	}
	if got := ago(now.Add(-2*time.Minute), now); got != "2 minutes ago" {
		t.Errorf("ago = %q", got)
	}
}

func TestHumanSize(t *testing.T) {
	for _, tt := range []struct {
		n    int64
		want string
	}{
		{0, "0B"}, {999, "999B"}, {1000, "1kB"}, {7785472, "7.79MB"}, {74835000, "74.8MB"}, {1234567890, "1.23GB"}, {999999, "1MB"}, {999499, "999kB"},
	} {
		if got := humanSize(tt.n); got != tt.want {
			t.Errorf("humanSize(%d) = %q, want %q", tt.n, got, tt.want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want int64
	}{
		{"0", 0}, {"512", 512}, {"1k", 1024}, {"64m", 64 << 20}, {"64M", 64 << 20}, {"64MB", 64 << 20}, {"1GiB", 1 << 30}, {"1.5g", 3 << 29}, {"32b", 32}, {"2 k", 2048},
	} {
		if got, err := parseSize(tt.in); got != tt.want || err != nil {
			t.Errorf("parseSize(%q) = %d, %v; want %d", tt.in, got, err, tt.want)
		}
	}
	for _, in := range []string{"", "x", "k", "-1", "1e30", "9999999p", "nan", "inf", "1kk", "0x10", "1e3", "1 b k", "1i", "1.2.3", "1ib"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", in, got)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"64m", "1.5GiB", "0x1p62", "nan", "1_000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := parseSize(s); err == nil && n < 0 {
			t.Errorf("parseSize(%q) = %d", s, n)
		}
	})
}

func TestShort(t *testing.T) {
	if got := ellipsis(`/bin/sh -c "sleep 1000"`, 20); got != `/bin/sh -c "sleep 1…` {
		t.Errorf("ellipsis = %q", got)
	}
	if got := ellipsis("täglich", 7); got != "täglich" {
		t.Errorf("ellipsis = %q", got)
	}
	if got := shortID("sha256:0123456789abcdef"); got != "0123456789ab" {
		t.Errorf("shortID = %q", got)
	}
	if got := shortID("ab"); got != "ab" {
		t.Errorf("shortID = %q", got)
	}
}
