// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sbx/bases"
	"sbx/build"
	"sbx/container"
	"sbx/reference"
	"sbx/store"
)

func dfCommand() command {
	return command{
		name: "df", summary: "Show disk usage of images, containers and volumes", usage: "[OPTIONS]",
		bind: func() ([]option, action) {
			o := &dfOptions{}
			return o.flags(), o.run
		},
	}
}

type dfOptions struct {
	format  string
	verbose bool
}

func (o *dfOptions) flags() []option {
	return []option{
		textFlag(&o.format, "format", "", formatUsage),
		switchFlag(&o.verbose, "verbose", "v", "Show detailed information on space usage"),
	}
}

// dfRow is one kind of thing, with Docker's fields.
type dfRow struct {
	Active      string
	Reclaimable string
	Size        string
	TotalCount  string
	Type        string
}

const dfTable = `{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}`

// diskUse is everything that takes space.
type diskUse struct {
	images     []imageUse
	containers []containerUse
	volumes    []volumeUse
	cache      []build.CacheEntry // of builds
	downloads  bases.Downloads
	layers     int64 // bytes of all layers, each once
	needed     int64 // of those that containers stand on
}

type imageUse struct {
	img            store.Image
	shared, unique int64
	containers     int
}

type containerUse struct {
	ctr  *container.Container
	size int64
}

type volumeUse struct {
	vol   store.Volume
	links int
	size  int64
}

func (o *dfOptions) run(ctx context.Context, c *client, _ []string) error {
	if o.verbose && o.format != "" && o.format != "json" {
		return &usageError{text: "the verbose and the format options conflict"}
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	use, err := measureDisk(ctx, home)
	if err != nil {
		return err
	}
	if o.verbose && o.format == "" {
		text, err := use.verbose()
		c.document(text)
		return err
	}
	header := dfRow{Active: "ACTIVE", Reclaimable: "RECLAIMABLE", Size: "SIZE", TotalCount: "TOTAL", Type: "TYPE"}
	text, err := formatRows(o.format, dfTable, header, use.rows())
	c.document(text)
	return err
}

func measureDisk(ctx context.Context, home *container.Home) (*diskUse, error) {
	u := &diskUse{}
	list, err := home.List()
	if err != nil {
		return nil, err
	}
	needed := map[reference.Digest]bool{}
	users := map[string]int{}
	for _, ctr := range list {
		size, err := ctr.Size(ctx)
		if err != nil {
			return nil, err
		}
		u.containers = append(u.containers, containerUse{ctr, size})
		users[ctr.Config.ImageID]++
		for _, l := range ctr.Config.Layers {
			if id, err := reference.ParseDigest(l); err == nil {
				needed[id] = true
			}
		}
	}
	if err := u.measureImages(home, users, needed); err != nil {
		return nil, err
	}
	volumes, err := home.Volumes().List()
	if err != nil {
		return nil, err
	}
	links, err := home.VolumeUsers()
	if err != nil {
		return nil, err
	}
	for _, v := range volumes {
		size, err := home.Store.TreeSize(ctx, v.Dir)
		if err != nil {
			return nil, err
		}
		u.volumes = append(u.volumes, volumeUse{v, len(links[v.Name]), size})
	}
	if u.cache, err = build.CacheUse(home.Store); err != nil {
		return nil, err
	}
	u.downloads, err = bases.Downloaded(home.Store)
	return u, err
}

func (u *diskUse) measureImages(home *container.Home, users map[string]int, needed map[reference.Digest]bool) error {
	images, err := home.Store.Images()
	if err != nil {
		return err
	}
	holders := map[reference.Digest]int{}
	once := map[string]bool{}
	for _, img := range images {
		if id := img.ID.String(); !once[id] {
			once[id] = true
			for _, l := range img.Layers {
				holders[l]++
			}
		}
	}
	for _, img := range images {
		use := imageUse{img: img, containers: users[img.ID.String()]}
		for _, l := range img.Layers {
			if size := home.Store.LayerSize(l); holders[l] > 1 {
				use.shared += size
			} else {
				use.unique += size
			}
		}
		u.images = append(u.images, use)
	}
	for l := range needed {
		holders[l]++ // of an image that is gone too: its containers hold it
	}
	for l := range holders {
		size := home.Store.LayerSize(l)
		u.layers += size
		if needed[l] {
			u.needed += size
		}
	}
	return nil
}

func (u *diskUse) rows() []dfRow {
	ids := map[string]bool{}
	active := map[string]bool{}
	for _, i := range u.images {
		ids[i.img.ID.String()] = true
		if i.containers > 0 {
			active[i.img.ID.String()] = true
		}
	}
	rows := []dfRow{newDfRow("Images", len(ids), len(active), u.layers, u.layers-u.needed)}
	var size, free int64
	running := 0
	for _, c := range u.containers {
		size += c.size
		if c.ctr.State.Status == container.Running {
			running++
		} else {
			free += c.size
		}
	}
	rows = append(rows, newDfRow("Containers", len(u.containers), running, size, free))
	size, free = 0, 0
	used := 0
	for _, v := range u.volumes {
		size += v.size
		if v.links > 0 {
			used++
		} else {
			free += v.size
		}
	}
	cached := u.cacheSize()
	return append(rows, newDfRow("Local Volumes", len(u.volumes), used, size, free), newDfRow("Build Cache", len(u.cache), 0, cached, cached), downloadsRow(u.downloads))
}

// cacheSize is what builder prune -a would remove.
func (u *diskUse) cacheSize() (total int64) {
	for _, e := range u.cache {
		total += e.Size
	}
	return total
}

func newDfRow(kind string, total, active int, size, free int64) dfRow {
	r := dfRow{Type: kind, TotalCount: fmt.Sprint(total), Active: fmt.Sprint(active), Size: humanSize(size), Reclaimable: humanSize(free)}
	if size > 0 {
		r.Reclaimable += fmt.Sprintf(" (%d%%)", free*100/size)
	}
	return r
}

// verbose lists each thing by itself.
func (u *diskUse) verbose() (string, error) {
	var b strings.Builder
	now := time.Now()
	var images []imageRow
	for _, i := range u.images {
		r := newImageRow(i.img, now, true)
		r.SharedSize, r.UniqueSize, r.Containers = humanSize(i.shared), humanSize(i.unique), fmt.Sprint(i.containers)
		images = append(images, r)
	}
	text, err := formatRows("", `{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}`, imageHeader(), images)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "Images space usage:\n\n%s", text)
	var containers []psRow
	for _, c := range u.containers {
		r := newPsRow(c.ctr, now, true)
		r.Size = humanSize(c.size)
		containers = append(containers, r)
	}
	text, err = formatRows("", `{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}`, psHeader(), containers)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "\nContainers space usage:\n\n%s", text)
	var volumes []volumeRow
	for _, v := range u.volumes {
		r := newVolumeRow(v.vol)
		r.Links, r.Size = fmt.Sprint(v.links), humanSize(v.size)
		volumes = append(volumes, r)
	}
	text, err = formatRows("", `{{.Name}}\t{{.Links}}\t{{.Size}}`, volumeRow{Name: "VOLUME NAME", Links: "LINKS", Size: "SIZE"}, volumes)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "\nLocal Volumes space usage:\n\n%s", text)
	var cache []cacheRow
	for _, e := range u.cache {
		cache = append(cache, newCacheRow(e, now))
	}
	text, err = formatRows("", `{{.CacheID}}\t{{.CacheType}}\t{{.Size}}\t{{.LastUsed}}`, cacheRow{"CACHE ID", "CACHE TYPE", "SIZE", "LAST USED"}, cache)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "\nBuild cache usage: %s\n\n%s", humanSize(u.cacheSize()), text)
	text, err = downloadsTable(u.downloads)
	b.WriteString(text)
	return b.String(), err
}

// cacheRow is something that builds keep, in Docker's words.
type cacheRow struct{ CacheID, CacheType, Size, LastUsed string }

func newCacheRow(e build.CacheEntry, now time.Time) cacheRow {
	kind := "regular"
	if e.Mount {
		kind = "exec.cachemount"
	}
	return cacheRow{e.ID, kind, humanSize(e.Size), ago(e.Used, now)}
}
