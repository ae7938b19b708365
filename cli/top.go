// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"sbx/container"
)

func topCommand() command {
	return command{
		name: "top", summary: "Display the running processes of a container",
		usage: "CONTAINER [ps OPTIONS]", forms: []string{"sbx container top", "sbx top"}, min: 1, max: -1, trailing: true,
		bind: func() ([]option, action) { return nil, runTop },
	}
}

// runTop prints what ps(1) would of the container's processes. Its process IDs
// are this machine's, as on Docker.
func runTop(ctx context.Context, c *client, operands []string) error {
	columns, err := psColumns(operands[1:])
	if err != nil {
		return err
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	ctr, err := home.Find(operands[0])
	if err != nil {
		return err
	}
	if ctr.State.PID == 0 {
		return fmt.Errorf("container %s is not running", ctr.Config.Name)
	}
	list, err := ctr.Processes()
	if err != nil {
		return err
	}
	v := psView{now: time.Now(), memory: memory()}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 20, 1, 3, ' ', 0)
	for i, col := range columns {
		fmt.Fprint(w, tabBefore(i), col.title)
	}
	fmt.Fprintln(w)
	for i := range list {
		for k, col := range columns {
			fmt.Fprint(w, tabBefore(k), printable(col.show(&v, &list[i])))
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	c.write(b.String())
	return nil
}

func tabBefore(i int) string {
	if i == 0 {
		return ""
	}
	return "\t"
}

// psView is what columns need beside the process.
type psView struct {
	now    time.Time
	memory int64
}

// psColumn is a column of ps(1).
type psColumn struct {
	title string
	show  func(*psView, *container.Process) string
}

// psFields are the columns that -o knows, by their names in ps(1).
var psFields = map[string]psColumn{
	"pid":   {"PID", func(_ *psView, p *container.Process) string { return strconv.Itoa(p.PID) }},
	"ppid":  {"PPID", func(_ *psView, p *container.Process) string { return strconv.Itoa(p.PPID) }},
	"uid":   {"UID", func(_ *psView, p *container.Process) string { return strconv.FormatUint(uint64(p.UID), 10) }},
	"user":  {"USER", func(_ *psView, p *container.Process) string { return userName(p.UID) }},
	"cmd":   {"CMD", func(_ *psView, p *container.Process) string { return commandLine(p) }},
	"comm":  {"COMMAND", func(_ *psView, p *container.Process) string { return p.Comm }},
	"time":  {"TIME", func(_ *psView, p *container.Process) string { return clock(p.CPU) }},
	"etime": {"ELAPSED", func(v *psView, p *container.Process) string { return elapsed(v.now.Sub(p.Started)) }},
	"tty":   {"TTY", func(_ *psView, p *container.Process) string { return terminalName(p.TTY) }},
	"stat":  {"STAT", func(_ *psView, p *container.Process) string { return p.State }},
	"pcpu":  {"%CPU", func(v *psView, p *container.Process) string { return share(v, p) }},
	"c":     {"C", func(v *psView, p *container.Process) string { return strings.SplitN(share(v, p), ".", 2)[0] }},
	"pmem": {"%MEM", func(v *psView, p *container.Process) string {
		return strconv.FormatFloat(100*float64(p.RSS)/float64(max(v.memory, 1)), 'f', 1, 64)
	}},
	"rss":   {"RSS", func(_ *psView, p *container.Process) string { return strconv.FormatInt(p.RSS>>10, 10) }},
	"vsz":   {"VSZ", func(_ *psView, p *container.Process) string { return strconv.FormatInt(p.VSize>>10, 10) }},
	"ni":    {"NI", func(_ *psView, p *container.Process) string { return strconv.Itoa(p.Nice) }},
	"nlwp":  {"NLWP", func(_ *psView, p *container.Process) string { return strconv.Itoa(p.Threads) }},
	"stime": {"STIME", func(v *psView, p *container.Process) string { return startedAt(v.now, p.Started) }},
	"lstart": {"STARTED", func(_ *psView, p *container.Process) string {
		return p.Started.Format(time.ANSIC)
	}},
}

var psAliases = map[string]string{
	"args": "cmd", "command": "cmd", "ucmd": "comm", "ucomm": "comm", "euser": "user", "uname": "user", "euid": "uid", "ruid": "uid", "ruser": "user",
	"cputime": "time", "tt": "tty", "tname": "tty", "s": "stat", "state": "stat", "%cpu": "pcpu", "%mem": "pmem", "rssize": "rss", "rsz": "rss",
	"vsize": "vsz", "nice": "ni", "thcount": "nlwp", "start": "stime", "start_time": "stime", "bsdstart": "stime", "bsdtime": "time",
}

// psColumns reads the options of ps: -ef, aux, -eo and -o with columns.
func psColumns(args []string) ([]psColumn, error) {
	var names []string
	titles := map[int]string{}
	add := func(list string) error {
		for field := range strings.SplitSeq(list, ",") {
			name, title, renamed := strings.Cut(strings.TrimSpace(field), "=")
			name = cmp.Or(psAliases[strings.ToLower(name)], strings.ToLower(name))
			if _, ok := psFields[name]; !ok {
				var known []string
				for k := range psFields {
					known = append(known, k)
				}
				slices.Sort(known)
				return &usageError{text: fmt.Sprintf("unknown column %q", field), near: nearest(name, known), hint: "there are " + strings.Join(known, ", ")}
			}
			if renamed {
				titles[len(names)] = title
			}
			names = append(names, name)
		}
		return nil
	}
	for i := 0; i < len(args); i++ {
		arg := strings.TrimPrefix(args[i], "-")
		switch at := strings.IndexByte(arg, 'o'); {
		case strings.HasPrefix(args[i], "--format="):
			if err := add(strings.TrimPrefix(args[i], "--format=")); err != nil {
				return nil, err
			}
		case strings.HasPrefix(arg, "-"):
			return nil, &usageError{text: fmt.Sprintf("unknown option of ps: %s", args[i])}
		case at >= 0 && strings.Trim(arg[:at], "aAexwfg") == "":
			list := arg[at+1:]
			if list == "" {
				if i++; i == len(args) {
					return nil, &usageError{text: "format specification must follow -o"}
				}
				list = args[i]
			}
			if err := add(list); err != nil {
				return nil, err
			}
		case strings.Contains(arg, "u") && strings.Trim(arg, "auxwe") == "":
			names = append(names, "user", "pid", "pcpu", "pmem", "vsz", "rss", "tty", "stat", "stime", "time", "cmd")
		case strings.Trim(arg, "aAefxwlF") == "":
		default:
			return nil, &usageError{text: fmt.Sprintf("unknown option of ps: %s", args[i]), hint: "there are -ef, aux, and -o with columns: -o pid,cmd"}
		}
	}
	if len(names) == 0 {
		names = []string{"user", "pid", "ppid", "c", "stime", "tty", "time", "cmd"}
		titles[0] = "UID"
	}
	columns := make([]psColumn, len(names))
	for i, name := range names {
		columns[i] = psFields[name]
		if title, ok := titles[i]; ok {
			columns[i].title = title
		}
	}
	return columns, nil
}

func userName(uid uint32) string {
	if uid == 0 {
		return "root"
	}
	return strconv.FormatUint(uint64(uid), 10)
}

func commandLine(p *container.Process) string {
	if len(p.Args) == 0 {
		return "[" + p.Comm + "]"
	}
	return strings.Join(p.Args, " ")
}

// clock writes a time of computing as HH:MM:SS.
func clock(d time.Duration) string {
	s := int(d.Seconds())
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}

// elapsed writes [[DD-]HH:]MM:SS.
func elapsed(d time.Duration) string {
	s := max(int(d.Seconds()), 0)
	switch {
	case s >= 86400:
		return fmt.Sprintf("%d-%02d:%02d:%02d", s/86400, s/3600%24, s/60%60, s%60)
	case s >= 3600:
		return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%02d:%02d", s/60, s%60)
}

func share(v *psView, p *container.Process) string {
	alive := max(v.now.Sub(p.Started), time.Millisecond)
	return strconv.FormatFloat(100*float64(p.CPU)/float64(alive), 'f', 1, 64)
}

func startedAt(now, t time.Time) string {
	t = t.In(now.Location())
	switch {
	case now.Sub(t) < 24*time.Hour:
		return t.Format("15:04")
	case now.Year() == t.Year():
		return t.Format("Jan02")
	}
	return t.Format("2006")
}

// terminalName names a terminal by its device number (proc(5), tty_nr).
func terminalName(device int) string {
	major, minor := device>>8&0xfff, device&0xff|device>>12&0xfff00
	switch {
	case device == 0:
		return "?"
	case major >= 136 && major <= 143:
		return "pts/" + strconv.Itoa((major-136)*256+minor)
	}
	return fmt.Sprintf("%d:%d", major, minor)
}
