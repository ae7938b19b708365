// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
)

// netGoal is what the issue asks of one measurement, against the best of its peers.
type netGoal struct {
	name  string
	peers []string
	least float64 // times the best peer's rate; or
	most  float64 // times the best peer's time
}

var netGoals = []netGoal{
	{name: "tcp up", peers: []string{"slirp4netns", "pasta"}, least: 3},
	{name: "tcp down", peers: []string{"slirp4netns", "pasta"}, least: 1.5},
	{name: "tcp up, 4 streams", peers: []string{"slirp4netns", "pasta"}, least: 2},
	{name: "tcp down, 4 streams", peers: []string{"slirp4netns", "pasta"}, least: 1.3},
	{name: "udp up", peers: []string{"pasta"}, least: 1},
	{name: "connect and ask", peers: []string{"slirp4netns"}, most: 1},
}

const (
	netLoss      = 0.1 // percent at 500 Mbit/s
	netProcessor = 0.4 // seconds for 10^9 bytes
	netIdle      = 12 * mebibyte
	netBusy      = 64 * mebibyte
)

// network measures the engine by itself: what it forwards, and at what cost.
func (b *bench) network(ctx context.Context) []row {
	report, err := measureNetwork(ctx, &b.net)
	if err != nil {
		return []row{{name: "network", unknown: err}}
	}
	if b.net.only {
		showNetwork(report)
	}
	var rows []row
	for _, g := range netGoals {
		rows = append(rows, g.row(report))
	}
	loss := row{name: "network, udp lost at 500 Mbit/s", goal: fmt.Sprintf("<= %.1f %%", netLoss)}
	if f, err := report.figure("udp up, 500 Mbit/s", "engine"); err != nil {
		loss.unknown = err
	} else {
		loss.sbx, loss.missed = fmt.Sprintf("%.2f %%", median(f.Loss)), median(f.Loss) > netLoss
	}
	return append(rows, loss, costRow(report, "tcp up"), costRow(report, "tcp down"),
		memoryRow(report, "ask", "network, resident memory of an engine", netIdle),
		memoryRow(report, "hold, and ask again", fmt.Sprintf("network, the same with %d connections", held), netBusy))
}

// figure is what was measured, or why it was not.
func (r stageReport) figure(name, variant string) (*figure, error) {
	f := r[name][variant]
	switch {
	case f == nil:
		return nil, errNotHere
	case f.Err != "":
		return nil, fmt.Errorf("%s", f.Err)
	case len(f.Rate) == 0:
		return nil, errNotHere
	}
	return f, nil
}

// row compares the engine with the best of the goal's peers.
func (g netGoal) row(report stageReport) row {
	r := row{name: "network, " + g.name + ", times the best peer", goal: fmt.Sprintf(">= %.1f", g.least)}
	if g.most > 0 {
		r.goal = fmt.Sprintf("<= %.1f", g.most)
	}
	ours, err := report.figure(g.name, "engine")
	if err != nil {
		r.unknown = err
		return r
	}
	best := math.NaN()
	for _, p := range g.peers {
		f, err := report.figure(g.name, p)
		if err != nil {
			r.unknown = fmt.Errorf("%s: %w", p, err)
			continue
		}
		if rate := median(f.Rate); math.IsNaN(best) || (rate > best) == (g.least > 0) {
			best, r.other = rate, p+" "+unitOf(g.name, rate)
		}
	}
	if math.IsNaN(best) {
		r.sbx = unitOf(g.name, median(ours.Rate))
		r.unknown = cmp.Or(r.unknown, errNotHere)
		return r
	}
	r.unknown = nil
	ratio := median(ours.Rate) / best
	r.sbx, r.ratio = unitOf(g.name, median(ours.Rate)), fmt.Sprintf("%.2f", ratio)
	r.missed = g.least > 0 && ratio < g.least || g.most > 0 && ratio > g.most
	return r
}

// costRow is the engine's processor time.
func costRow(report stageReport, name string) row {
	r := row{name: "network, processor for 1 GB, " + name, goal: fmt.Sprintf("<= %.1f s", netProcessor)}
	f, err := report.figure(name, "engine")
	if err != nil {
		r.unknown = err
		return r
	}
	r.sbx, r.missed = fmt.Sprintf("%.2f s", medianOr0(f.Seconds)), medianOr0(f.Seconds) > netProcessor
	return r
}

// memoryRow is the largest memory of an engine during a measurement.
func memoryRow(report stageReport, measurement, name string, most int64) row {
	r := row{name: name, goal: fmt.Sprintf("<= %d MiB", most/mebibyte)}
	f, err := report.figure(measurement, "engine")
	if err != nil {
		r.unknown = err
		return r
	}
	r.sbx, r.missed = fmt.Sprintf("%.1f MiB", float64(f.Peak)/mebibyte), f.Peak > most
	return r
}
