// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"slices"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"sbx/reference"
	"sbx/store"
)

// keyVersion is of the way in which steps are evaluated. Another one would make
// other layers of the same instruction.
const keyVersion = 2

// keyOf is the digest of the parts of a key, which are plain data.
func keyOf(parts ...any) reference.Digest {
	h := sha256.New()
	// Strings, numbers and lists of them cannot fail to marshal, and the length of
	// each is in what JSON makes of it.
	data, _ := json.Marshal(append([]any{keyVersion}, parts...))
	h.Write(data)
	return reference.SHA256([32]byte(h.Sum(nil)))
}

// epochKey is what the key has of SOURCE_DATE_EPOCH: times in layers depend on it.
func (b *builder) epochKey() int64 {
	if b.plan.epoch == nil {
		return -1
	}
	return b.plan.epoch.Unix()
}

// mountKey is what a key has of a mount. Secrets and what a cache holds are not
// among it.
type mountKey struct {
	Type, From, Source, Target, ID string
	Env                            *string
	ReadOnly                       bool
	Content                        string // digest of what a bind shows
}

// runKey is the key of a RUN above the layers of below. bound are the digests of
// what its bind mounts show.
func (b *builder) runKey(below snapshot, r *runStep, bound map[*instructions.Mount]string) reference.Digest {
	var mounts []mountKey
	for _, m := range r.mounts {
		mounts = append(mounts, mountKey{string(m.Type), m.From, m.Source, m.Target, m.CacheID, m.Env, m.ReadOnly, bound[m]})
	}
	script := ""
	if r.script != nil {
		script = r.script.Name + "\x00" + r.script.Data
	}
	return keyOf("run", store.ChainID(below.diffIDs()), r.args, []string(r.env), r.workdir, r.user, r.network, r.security, b.Network, r.image,
		mounts, script, b.Hosts, b.ShmSize, b.Ulimits, b.epochKey())
}

// copyKey is the key of a COPY: content is the digest of what it reads.
func (b *builder) copyKey(below snapshot, c *copyStep, content string) reference.Digest {
	chain := store.ChainID(below.diffIDs())
	if c.link {
		chain = reference.Digest{} // such a layer is the same above any other
	}
	unpack := "default"
	if c.unpack != nil {
		unpack = map[bool]string{true: "yes", false: "no"}[*c.unpack]
	}
	return keyOf("copy", chain, c.add, c.sources, c.dest, c.chown, c.chmod, c.link, c.parents, c.excludes, unpack, content, b.epochKey())
}

// digest is that of the files a job reads, without their times. Archives that are
// to be unpacked count as the files they are, which costs no decompression.
func (b *builder) digest(ctx context.Context, job packJob) (string, error) {
	job.Timeless, job.Target, job.Owner, job.Mode, job.Clamp = true, tree{}, nil, "", 0
	packed := job
	packed.Sources = slices.Clone(job.Sources)
	unpacks := false
	for i := range packed.Sources {
		unpacks = unpacks || packed.Sources[i].Unpack
		packed.Sources[i].Unpack = false
	}
	sum, err := b.digestOf(ctx, packed)
	if err != nil && unpacks {
		return b.digestOf(ctx, job) // an archive may be in the way of a directory, where its content is not
	}
	return sum, err
}

func (b *builder) digestOf(ctx context.Context, job packJob) (string, error) {
	h := sha256.New()
	if err := b.pack(ctx, h, job); err != nil {
		return "", err
	}
	return reference.SHA256([32]byte(h.Sum(nil))).String(), nil
}

// cached looks a key up, here and in --cache-from. The layer stays in the store as long as the build.
func (b *builder) cached(ctx context.Context, s *stage, below snapshot, key reference.Digest) (store.StepLayer, bool) {
	if b.NoCache || slices.Contains(b.NoCacheFilter, s.name) && s.name != "" {
		return store.StepLayer{}, false
	}
	l, ok := b.home.Store.CachedLayer(key)
	if ok && l.Layer.Entries > 0 {
		whole, err := b.draft.Keep(ctx, l.Layer)
		ok = err == nil && whole
	}
	if !ok {
		l, ok = b.imported(ctx, below, key)
	}
	if ok {
		b.use(key, l)
	}
	return l, ok
}

// pack writes a job's tar, in the role "pack" where files of the image could be
// somebody else's, or shut out the one whom all of them belong to.
func (b *builder) pack(ctx context.Context, w io.Writer, job packJob) error {
	rung := b.home.Store.Rung()
	if rung.IsMapped() && job.hasLayers() || job.fromLayers() {
		return packByRole(ctx, rung, w, job)
	}
	return pack(ctx, w, &job)
}
