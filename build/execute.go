// SPDX-License-Identifier: Apache-2.0

package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sbx/container"
	"sbx/overlay"
	"sbx/reference"
	"sbx/store"
)

func isCancelled(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, errNeeded)
}

// step evaluates one step above a snapshot.
func (b *builder) step(ctx context.Context, below snapshot, st *step) (snapshot, error) {
	var from snapshot
	if st.copy != nil && st.copy.from != nil {
		var err error
		if from, err = st.copy.from.await(ctx); err != nil {
			return below, err
		}
	}
	if st.run != nil {
		if err := b.awaitMounts(ctx, st); err != nil {
			return below, err
		}
	}
	v := b.report.begin(st.name)
	layer, known, err := b.layer(ctx, v, below, from, st)
	if known {
		v.cached()
	}
	v.end(err)
	if err != nil {
		return below, err
	}
	st.empty, st.created = layer.Layer.Entries == 0, layer.Created
	return below.with(layer.Layer), nil
}

// layer finds or makes the layer of a step.
func (b *builder) layer(ctx context.Context, v *vertex, below, from snapshot, st *step) (l store.StepLayer, known bool, err error) {
	switch {
	case st.run != nil:
		return b.runLayer(ctx, v, below, st)
	case st.copy != nil:
		return b.copyLayer(ctx, below, from, st)
	}
	return b.mkdirLayer(ctx, below, st)
}

// remember keeps a step's layer for the next build.
func (b *builder) remember(l store.StepLayer, keys ...reference.Digest) error {
	for _, key := range keys {
		if key.IsZero() {
			continue
		}
		if err := b.home.Store.CacheLayer(key, l); err != nil {
			return err
		}
		b.use(key, l)
	}
	return nil
}

// made is the end of a step that made a layer, or failed to.
func (b *builder) made(l store.Layer, err error, keys ...reference.Digest) (store.StepLayer, bool, error) {
	made := store.StepLayer{Layer: l, Created: time.Now().UTC()}
	if err == nil {
		err = b.remember(made, keys...)
	}
	return made, false, err
}

// treeOf is the tree of a snapshot's unpacked layers.
func (b *builder) treeOf(ctx context.Context, s snapshot) (tree, error) {
	dirs, err := b.dirs(ctx, s)
	return tree{Lower: dirs, Owners: store.OwnersFiles(dirs), Recorded: !b.home.Store.Rung().IsMapped()}, err
}

func (b *builder) newJob(dest string) packJob {
	job := packJob{Dest: dest, Now: b.started.Unix()}
	if b.plan.epoch != nil {
		job.Now, job.Clamp = b.plan.epoch.Unix(), b.plan.epoch.Unix()
		if job.Clamp == 0 {
			job.Clamp = 1
		}
	}
	return job
}

// addLayer makes a layer of a job above a snapshot.
func (b *builder) addLayer(ctx context.Context, below snapshot, job packJob) (store.Layer, error) {
	return b.draft.AddPacked(ctx, below.diffIDs(), func(w io.Writer) error { return b.pack(ctx, w, job) })
}

func (b *builder) mkdirLayer(ctx context.Context, below snapshot, st *step) (store.StepLayer, bool, error) {
	m := st.mkdir
	key := keyOf("mkdir", store.ChainID(below.diffIDs()), m.dir, m.user, b.epochKey())
	if l, ok := b.cached(ctx, st.stage, below, key); ok {
		return l, true, nil
	}
	target, err := b.treeOf(ctx, below)
	if err != nil {
		return store.StepLayer{}, false, err
	}
	job := b.newJob("/")
	job.Mkdir, job.Target = m.dir, target
	if m.user != "" {
		if job.Owner, err = lookUpOwner(m.user, target.Lower); err != nil {
			return store.StepLayer{}, false, err
		}
	}
	var tar bytes.Buffer
	if err := b.pack(ctx, &tar, job); err != nil {
		return store.StepLayer{}, false, err
	}
	l, err := b.draft.AddPacked(ctx, below.diffIDs(), func(w io.Writer) error {
		_, err := w.Write(tar.Bytes())
		return err
	})
	return b.made(l, err, key)
}

// lookUpOwner is what --chown means in an image: a number without a group is the
// group, too.
func lookUpOwner(spec string, lower []string) (*owner, error) {
	user, group, hasGroup := strings.Cut(spec, ":")
	if n, err := strconv.ParseUint(user, 10, 32); err == nil && (!hasGroup || group == "") {
		return &owner{int(n), int(n)}, nil
	}
	id, err := container.LookUp(user, lower)
	if err == nil && hasGroup && group != "" {
		id.GID, err = container.LookUpGroup(group, lower)
	}
	return &owner{int(id.UID), int(id.GID)}, err
}

func (b *builder) copyLayer(ctx context.Context, below, from snapshot, st *step) (store.StepLayer, bool, error) {
	c := st.copy
	// What a stage holds is known without reading it; only where that has changed
	// does the content of what is copied count.
	var quick reference.Digest
	if c.from != nil && c.from.context == nil {
		quick = b.copyKey(below, c, "chain "+store.ChainID(from.diffIDs()).String())
		if l, ok := b.cached(ctx, st.stage, below, quick); ok {
			return l, true, nil
		}
	}
	job, err := b.copyJob(ctx, c, from)
	if err != nil {
		return store.StepLayer{}, false, err
	}
	content, err := b.digest(ctx, job)
	if err != nil {
		return store.StepLayer{}, false, b.explainMissing(err, c)
	}
	key := b.copyKey(below, c, content)
	if l, ok := b.cached(ctx, st.stage, below, key); ok {
		return l, true, b.remember(l, quick)
	}
	if !c.link || c.chown != "" {
		if job.Target, err = b.treeOf(ctx, below); err != nil {
			return store.StepLayer{}, false, err
		}
	}
	if c.chown != "" {
		if job.Owner, err = lookUpOwner(c.chown, job.Target.Lower); err != nil {
			return store.StepLayer{}, false, err
		}
	}
	if c.link {
		job.Target = tree{}
	}
	l, err := b.addLayer(ctx, below, job)
	return b.made(l, err, key, quick)
}

// explainMissing adds that a source is there and ignored.
func (b *builder) explainMissing(err error, c *copyStep) error {
	if !errors.Is(err, errMissing) || c.from != nil || len(b.Context.tree.Ignore) == 0 || len(b.Context.tree.Lower) == 0 {
		return err
	}
	view, openErr := (&tree{Lower: b.Context.tree.Lower, Plain: true}).open()
	if openErr != nil {
		return err
	}
	defer view.Close()
	for _, src := range c.sources {
		if _, lookErr := view.Lookup(path.Clean("/" + src)[1:], true); lookErr == nil && err.Error() == missing(src).Error() {
			return fmt.Errorf("%w (it is excluded by .dockerignore)", err)
		}
	}
	return err
}

// copyJob says what a COPY reads. What has a URL is fetched.
func (b *builder) copyJob(ctx context.Context, c *copyStep, from snapshot) (packJob, error) {
	job := b.newJob(c.dest)
	job.Mode, job.Excludes, job.Parents = c.chmod, c.excludes, c.parents
	var err error
	switch {
	case c.from == nil:
		job.From = b.Context.tree
	case c.from.context != nil:
		job.From = c.from.context.tree
	default:
		job.From, err = b.treeOf(ctx, from)
	}
	if err != nil {
		return job, err
	}
	unpack := c.add
	if c.unpack != nil {
		unpack = *c.unpack
	}
	for _, src := range c.sources {
		var s packSource
		switch {
		case c.add && isGit(src):
			s, err = b.gitSource(ctx, src, c)
		case c.add && isURL(src):
			s, err = b.urlSource(ctx, src, c)
		default:
			s = packSource{Path: src, Unpack: unpack}
		}
		if err != nil {
			return job, err
		}
		job.Sources = append(job.Sources, s)
	}
	for _, in := range c.inline {
		job.Sources = append(job.Sources, packSource{Name: in.Path, Data: append([]byte{}, in.Data...)})
	}
	return job, nil
}

func (b *builder) gitSource(ctx context.Context, src string, c *copyStep) (packSource, error) {
	dir, err := b.temp.dir()
	if err == nil {
		err = clone(ctx, dir, src, c.keepGit)
	}
	if err != nil {
		return packSource{}, err
	}
	return packSource{Tree: &tree{Lower: []string{dir}, Plain: true}, Path: parseGit(src).subdir, Exact: true}, nil
}

// urlSource downloads a file, whose digest is checked if it is known.
func (b *builder) urlSource(ctx context.Context, src string, c *copyStep) (packSource, error) {
	if b.Download == nil {
		return packSource{}, fmt.Errorf("download %s: URLs cannot be reached here", src)
	}
	dir, err := b.temp.dir()
	if err != nil {
		return packSource{}, err
	}
	body, info, err := b.Download(ctx, src)
	if err != nil {
		return packSource{}, err
	}
	defer body.Close()
	name := urlName(src)
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return packSource{}, err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, h), body)
	if err = errors.Join(err, f.Close()); err != nil {
		return packSource{}, fmt.Errorf("download %s: %w", src, err)
	}
	if c.checksum != "" {
		want, err := reference.ParseDigest(c.checksum)
		if err != nil {
			return packSource{}, err
		}
		if want.Algorithm() != "sha256" {
			return packSource{}, fmt.Errorf("checksum %s: only sha256 is checked", c.checksum)
		}
		if got := reference.SHA256([32]byte(h.Sum(nil))); got != want {
			return packSource{}, fmt.Errorf("digest mismatch %s: %s", got, want)
		}
	}
	s := packSource{Tree: &tree{Lower: []string{dir}, Plain: true}, Path: name, Exact: true, Mode: 0o600, Unpack: c.unpack != nil && *c.unpack}
	if !info.Modified.IsZero() {
		s.Time = info.Modified.Unix()
	}
	return s, nil
}

func urlName(src string) string {
	src, _, _ = strings.Cut(src, "?")
	src, _, _ = strings.Cut(src, "#")
	_, src, _ = strings.Cut(src, "://")
	_, rest, found := strings.Cut(src, "/")
	base := path.Base("/" + rest)
	if !found || base == "/" || base == "." || base == ".." {
		return "__unnamed__"
	}
	return base
}

// contextLayer makes a named context that is a tree the base of a stage.
func (b *builder) contextLayer(ctx context.Context, s *stage) error {
	job := b.newJob("/")
	job.From, job.Sources = s.context.tree, []packSource{{Path: "/", Exact: true}}
	l, err := b.addLayer(ctx, snapshot{}, job)
	s.result = snapshot{}.with(l)
	return err
}

// isDir reports whether a path of a tree is a directory, and where it really is.
func (t *tree) isDir(name string) (at string, dir bool, err error) {
	view, err := t.open()
	if err != nil {
		return "", false, err
	}
	defer view.Close()
	e, err := view.Lookup(path.Clean("/" + name)[1:], true)
	if err != nil {
		return "", false, missing(name)
	}
	return e.Path, e.Kind == overlay.Dir, nil
}
