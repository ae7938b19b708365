// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Dates in one of the forms of RFC 3339, whole or cut short, from the most exact
// on. What has no zone is local; what has no date is today's.
var whenLayouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00", "2006-01-02Z07:00",
	"2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02", "15:04:05", "15:04",
}

// moment reads a moment as --since, --until and filters have it: how long before
// now; a date; or seconds since 1970, with a fraction.
func moment(s string, now time.Time) (t time.Time, ok bool) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), true
	}
	for _, layout := range whenLayouts {
		t, err := time.ParseInLocation(layout, s, now.Location())
		if err != nil {
			continue
		}
		if t.Year() == 0 {
			y, m, d := now.Date()
			t = t.AddDate(y, int(m)-1, d-1)
		}
		return t, true
	}
	seconds, fraction, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(seconds, 10, 64)
	nanos, fractionErr := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	if err != nil || fractionErr != nil || len(fraction) > 9 {
		return time.Time{}, false
	}
	return time.Unix(n, nanos), true
}

// parseWhen reads the moment that a flag of this name has; without one it is zero.
func parseWhen(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, ok := moment(s, now)
	if !ok {
		return t, &usageError{text: fmt.Sprintf("invalid value for %q: failed to parse value as time or duration: %q", flag, s), hint: whenHint}
	}
	return t, nil
}

// until reads the condition until=: what was made before that moment is meant.
// It is zero if there is none.
func (f filters) until(now time.Time) (time.Time, error) {
	values := f["until"]
	if len(values) == 0 {
		return time.Time{}, nil
	}
	s := values[len(values)-1]
	t, ok := moment(s, now)
	if !ok {
		return t, &usageError{text: fmt.Sprintf("invalid filter 'until=%s'", s), hint: whenHint}
	}
	return t, nil
}

const whenHint = "want a date (2026-01-31T15:04:05), seconds since 1970, or how long ago (10m)"
