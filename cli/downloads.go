// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"time"

	"sbx/bases"
	"sbx/container"
)

// downloadsRow is system df's on what is kept to make bases again.
func downloadsRow(d bases.Downloads) dfRow {
	size := downloadsSize(d)
	if d.InUse {
		return newDfRow("Base Downloads", len(d.Files), len(d.Files), size, 0)
	}
	return newDfRow("Base Downloads", len(d.Files), 0, size, size)
}

func downloadsSize(d bases.Downloads) (total int64) {
	for _, f := range d.Files {
		total += f.Size
	}
	return total
}

// downloadsTable lists each download by itself.
func downloadsTable(d bases.Downloads) (string, error) {
	now := time.Now()
	var rows []cacheRow
	for _, f := range d.Files {
		rows = append(rows, cacheRow{f.Name(), f.Kind, humanSize(f.Size), ago(f.Used, now)})
	}
	text, err := formatRows("", `{{.CacheID}}\t{{.CacheType}}\t{{.Size}}\t{{.LastUsed}}`, cacheRow{"DOWNLOAD ID", "TYPE", "SIZE", "LAST USED"}, rows)
	return fmt.Sprintf("\nBase downloads usage: %s\n\n%s", humanSize(downloadsSize(d)), text), err
}

// downloads removes what is kept to make bases again, unless one is being made.
func (p *pruned) downloads(home *container.Home, filter filters) error {
	until, err := filter.until(time.Now())
	if err != nil {
		return err
	}
	if !filter.labels(nil) {
		return nil // they have no labels
	}
	d, err := bases.Downloaded(home.Store)
	if err != nil {
		return err
	}
	gone, err := d.Prune(home.Store, until)
	var names []string
	for _, f := range gone {
		names = append(names, f.ID)
		p.reclaimed += f.Size
	}
	p.add("Deleted base downloads", names)
	return err
}
