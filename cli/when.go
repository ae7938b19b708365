// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// parseWhen reads a moment as --since and --until have it: a date in one of the
// forms of RFC 3339, whole or cut short, in local time without a zone; seconds
// since 1970, with a fraction; or a duration before now.
func parseWhen(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02Z07:00",
	} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{
		"2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02", "15:04:05", "15:04",
	} {
		t, err := time.ParseInLocation(layout, s, now.Location())
		if err != nil {
			continue
		}
		if t.Year() == 0 { // today
			y, m, d := now.Date()
			t = t.AddDate(y, int(m)-1, d-1)
		}
		return t, nil
	}
	seconds, fraction, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(seconds, 10, 64)
	nanos, fractionErr := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	if err != nil || fractionErr != nil || len(fraction) > 9 {
		return time.Time{}, &usageError{
			text: fmt.Sprintf("invalid time %q", s), hint: "want a date (2026-01-31T15:04:05), seconds since 1970, or how long ago (10m)",
		}
	}
	return time.Unix(n, nanos), nil
}
