// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
)

func bootCommand() command {
	return command{
		name: "boot", summary: "Start the containers that come back after a reboot", usage: "[OPTIONS]",
		bind: func() ([]option, action) {
			o := &bootOptions{}
			return o.flags(), o.run
		},
	}
}

type bootOptions struct {
	lines bool
}

func (o *bootOptions) flags() []option {
	return []option{switchFlag(&o.lines, "print", "", "Print what has cron or systemd call this, and do nothing")}
}

func (o *bootOptions) run(ctx context.Context, c *client, _ []string) error {
	if o.lines {
		return o.print(c)
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	started, err := home.Boot(ctx)
	for _, name := range started {
		c.print("%s\n", name)
	}
	return err
}

// print prints a line for cron and a unit for systemd: there is no daemon that
// could start containers by itself.
func (o *bootOptions) print(c *client) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	call := quoteWord(self) + " system boot"
	if dir := c.variable("SBX_HOME"); dir != "" {
		call = "/usr/bin/env SBX_HOME=" + quoteWord(dir) + " " + call
	}
	c.print(`# cron: add this line with crontab -e
@reboot %[1]s

# or systemd: ~/.config/systemd/user/sbx-boot.service; then
# systemctl --user enable sbx-boot, and loginctl enable-linger
[Unit]
Description=Containers of sbx that come back after a reboot
[Service]
Type=oneshot
RemainAfterExit=yes
KillMode=none
ExecStart=%[1]s
[Install]
WantedBy=default.target
`, call)
	return nil
}

// quoteWord writes a path as one word of a shell and of systemd.
func quoteWord(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+") == "" {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(s) + `"`
}
