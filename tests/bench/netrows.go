// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
)

// netOptions are what the network's rows can be told.
type netOptions struct {
	request  stageRequest
	only     bool
	variants string
}

func (o *netOptions) flags() {
	flag.BoolVar(&o.only, "net", false, "measure the network only, and print all figures")
	flag.IntVar(&o.request.Seconds, "net-seconds", 2, "how long one stream runs")
	flag.IntVar(&o.request.Rounds, "net-rounds", 3, "how many rounds")
	flag.StringVar(&o.variants, "net-variants", "", "only these, by commas")
	flag.StringVar(&o.request.Only, "net-measure", "", "only measurements that begin so")
	flag.StringVar(&o.request.Processor, "net-profile", "", "write a profile of the engine to `FILE`")
}

// measureNetwork runs the stage.
func measureNetwork(ctx context.Context, o *netOptions) (stageReport, error) {
	if o.variants != "" {
		o.request.Variants = strings.Split(o.variants, ",")
	}
	cmd := stageCommand(ctx, o.request)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	report := stageReport{}
	return report, json.Unmarshal(out.Bytes(), &report)
}

// showNetwork prints every figure.
func showNetwork(report stageReport) {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	for _, m := range measurements {
		for _, v := range m.variants {
			f := report[m.name][v]
			if f == nil {
				continue
			}
			if f.Err != "" {
				fmt.Fprintf(w, "%s\t%s\t%s\n", m.name, v, f.Err)
				continue
			}
			fmt.Fprintf(w, "%s\t%s\t%s\tloss %.2f %%\tcpu %.2f s/GB\tpeak %.1f MB\n", m.name, v, unitOf(m.name, median(f.Rate)), median(f.Loss), medianOr0(f.Seconds), float64(f.Peak)/1e6)
		}
	}
	w.Flush()
}

func medianOr0(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	return median(v)
}

func unitOf(name string, rate float64) string {
	if strings.Contains(name, "ask") {
		return fmt.Sprintf("%.1f us", rate)
	}
	return fmt.Sprintf("%.0f Mbit/s", rate/1e6)
}
