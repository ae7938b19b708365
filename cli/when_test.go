// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"testing"
	"time"
)

func TestParseWhen(t *testing.T) {
	zone := time.FixedZone("", 2*3600)
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, zone)
	for in, want := range map[string]time.Time{
		"10m":                       now.Add(-10 * time.Minute),
		"-1h":                       now.Add(time.Hour),
		"1136073600":                time.Unix(1136073600, 0),
		"1136073600.5":              time.Unix(1136073600, 500000000),
		"1136073600.000000001":      time.Unix(1136073600, 1),
		"2006-01-02":                time.Date(2006, 1, 2, 0, 0, 0, 0, zone),
		"2006-01-02T15:04:05":       time.Date(2006, 1, 2, 15, 4, 5, 0, zone),
		"2006-01-02T15:04:05.25":    time.Date(2006, 1, 2, 15, 4, 5, 250000000, zone),
		"2006-01-02T15:04":          time.Date(2006, 1, 2, 15, 4, 0, 0, zone),
		"2006-01-02T15:04:05Z":      time.Date(2006, 1, 2, 15, 4, 5, 0, time.UTC),
		"2006-01-02T15:04:05+07:00": time.Date(2006, 1, 2, 8, 4, 5, 0, time.UTC),
		"2006-01-02T15:04Z":         time.Date(2006, 1, 2, 15, 4, 0, 0, time.UTC),
		"11:30":                     time.Date(2026, 3, 4, 11, 30, 0, 0, zone),
	} {
		if got, err := parseWhen("since", in, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"yesterday", "1.2.3", "2006-13-01", "1136073600.0000000001", "1x"} {
		if got, err := parseWhen("since", in, now); err == nil {
			t.Errorf("%q: %v, want an error", in, got)
		}
	}
}
