// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// humanDuration says roughly how long d is, in Docker's words: "3 weeks".
func humanDuration(d time.Duration) string {
	seconds, minutes, hours := int(d.Seconds()), int(d.Minutes()), int(d.Hours()+0.5)
	switch {
	case seconds < 1:
		return "Less than a second"
	case seconds == 1:
		return "1 second"
	case seconds < 60:
		return fmt.Sprintf("%d seconds", seconds)
	case minutes == 1:
		return "About a minute"
	case minutes < 60:
		return fmt.Sprintf("%d minutes", minutes)
	case hours == 1:
		return "About an hour"
	case hours < 48:
		return fmt.Sprintf("%d hours", hours)
	case hours < 24*7*2:
		return fmt.Sprintf("%d days", hours/24)
	case hours < 24*30*2:
		return fmt.Sprintf("%d weeks", hours/24/7)
	case hours < 24*365*2:
		return fmt.Sprintf("%d months", hours/24/30)
	}
	return fmt.Sprintf("%d years", int(d.Hours())/24/365)
}

// ago says how long before now t was. Nobody knows when an image without a date
// was made.
func ago(t, now time.Time) string {
	if t.IsZero() || t.Unix() <= 0 {
		return "N/A"
	}
	return humanDuration(now.Sub(t)) + " ago"
}

// humanSize gives bytes in decimal units with three digits: 7.79MB.
func humanSize(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	size := float64(n)
	i := 0
	for size >= 999.5 && i < len(units)-1 { // 999.5 is four digits when rounded
		size /= 1000
		i++
	}
	return strconv.FormatFloat(size, 'g', 3, 64) + units[i]
}

// parseSize reads a size as Docker does, in binary units: 64m, 1.5GiB, 512.
func parseSize(s string) (int64, error) {
	unit := strings.TrimLeft(s, "0123456789.")
	f, err := strconv.ParseFloat(s[:len(s)-len(unit)], 64)
	unit = strings.TrimSuffix(strings.ToLower(strings.TrimPrefix(unit, " ")), "b")
	if len(unit) == 2 {
		unit = strings.TrimSuffix(unit, "i")
	}
	power := len(unit)
	if power == 1 {
		power = 1 + strings.Index("kmgtp", unit)
	}
	if err != nil || power > 5 || len(unit) > 1 || len(unit) == 1 && power == 0 {
		return 0, fmt.Errorf("%q is no size", s)
	}
	f *= float64(int64(1) << (10 * power))
	if f >= 1<<62 {
		return 0, fmt.Errorf("%q is no size", s)
	}
	return int64(f), nil
}

// ellipsis shortens s to most characters, the last of them "…" then.
func ellipsis(s string, most int) string {
	if utf8.RuneCountInString(s) <= most || most < 1 {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}

// shortID is the beginning of an ID that tables show, without the algorithm.
func shortID(id string) string {
	if _, digits, ok := strings.Cut(id, ":"); ok {
		id = digits
	}
	return id[:min(len(id), 12)]
}
