// SPDX-License-Identifier: Apache-2.0

package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"sbx/container"
	"sbx/overlay"
	"sbx/store"
)

// stepMounts are what the mounts of a RUN become.
type stepMounts struct {
	b     *builder
	stage *stage
	run   *runStep

	mounts       []container.Mount
	trees        []container.StepTree
	files        []container.StepFile
	env          []string // secrets
	stubs        []string
	certificates bool
	held         []*os.File // locks of caches
}

// awaitMounts waits for the stages that a RUN's mounts come from.
func (b *builder) awaitMounts(ctx context.Context, st *step) error {
	for _, m := range st.run.mounts {
		if m.From == "" {
			continue
		}
		if src := b.plan.stage(m.From); src != nil {
			if _, err := src.await(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// treeOf is the tree that a mount comes from: a stage's, or the context.
func (m *stepMounts) treeOf(ctx context.Context, mount *instructions.Mount) (tree, error) {
	if mount.From == "" {
		return m.b.Context.tree, nil
	}
	src := m.b.plan.stage(mount.From)
	if src.context != nil {
		return src.context.tree, nil
	}
	return m.b.treeOf(ctx, src.result)
}

// digests are those of what bind mounts show: for layers, their chain.
func (m *stepMounts) digests(ctx context.Context) (map[*instructions.Mount]string, error) {
	digests := map[*instructions.Mount]string{}
	for _, mount := range m.run.mounts {
		if mount.Type != instructions.MountTypeBind && (mount.Type != instructions.MountTypeCache || mount.From == "") {
			continue
		}
		if mount.From != "" {
			if src := m.b.plan.stage(mount.From); src.context == nil {
				digests[mount] = store.ChainID(src.result.diffIDs()).String()
				continue
			}
		}
		from, err := m.treeOf(ctx, mount)
		if err != nil {
			return nil, err
		}
		job := m.b.newJob("/")
		job.From = from
		job.Sources = []packSource{{Path: path.Join("/", mount.Source), Exact: true}}
		if len(from.Lower) == 0 {
			return nil, missing(mount.Source)
		}
		if digests[mount], err = m.b.digest(ctx, job); err != nil {
			return nil, err
		}
	}
	return digests, nil
}

// prepare makes everything ready that is to be mounted.
func (m *stepMounts) prepare(ctx context.Context, lower []string) error {
	for _, mount := range m.run.mounts {
		var err error
		switch mount.Type {
		case instructions.MountTypeTmpfs:
			options := ""
			if mount.SizeLimit > 0 {
				options = fmt.Sprintf("size=%d", mount.SizeLimit)
			}
			m.mounts = append(m.mounts, container.Mount{Type: container.Tmpfs, Target: m.run.absolute(mount.Target), Options: options})
		case instructions.MountTypeBind:
			err = m.bind(ctx, mount)
		case instructions.MountTypeCache:
			err = m.cache(ctx, mount)
		case instructions.MountTypeSecret:
			err = m.secret(mount)
		case instructions.MountTypeSSH:
			err = m.ssh(mount)
		}
		if err != nil {
			return err
		}
	}
	if s := m.run.script; s != nil {
		m.files = append(m.files, container.StepFile{Target: path.Join(scriptDir, s.Name), Data: []byte(s.Data), Mode: 0o755})
	}
	if m.b.ShmSize > 0 {
		m.mounts = append(m.mounts, container.Mount{Type: container.Tmpfs, Target: "/dev/shm", Options: fmt.Sprintf("size=%d,mode=1777", m.b.ShmSize)})
	}
	if len(m.b.Certificates) > 0 && m.run.network != container.NetworkNone {
		m.certificates = true
		m.files = append(m.files, container.StepFile{Target: certificatesFile, Data: m.bundle(lower), Mode: 0o644})
	}
	return nil
}

// bundle joins the authorities of the image and of this machine: a program that
// is told of one file looks at no other.
func (m *stepMounts) bundle(lower []string) []byte {
	data := bytes.TrimRight(m.b.Certificates, "\n")
	for _, name := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"} {
		f, err := overlay.OpenMerged(lower, name)
		if err != nil {
			continue
		}
		own, err := io.ReadAll(io.LimitReader(f, 1<<20))
		f.Close()
		if err == nil {
			return bytes.Join([][]byte{data, own}, []byte("\n"))
		}
	}
	return append(data, '\n')
}

// bind shows a part of a stage or of the context. Of the context only what is not
// ignored may be seen: where that is not all, a copy is made.
func (m *stepMounts) bind(ctx context.Context, mount *instructions.Mount) error {
	from, err := m.treeOf(ctx, mount)
	if err != nil {
		return err
	}
	at, dir, err := from.isDir(mount.Source)
	if err != nil {
		return err
	}
	t := container.StepTree{Target: m.run.absolute(mount.Target), Lower: from.Lower, Source: at, File: !dir, Writable: !mount.ReadOnly}
	whole := len(from.Lower) == 1 && mount.ReadOnly
	if len(from.Ignore) > 0 || !whole && !m.b.home.Features.Overlay {
		job := m.b.newJob("/")
		job.From = from
		if job.Sources = []packSource{{Path: "/" + at, Exact: true}}; dir {
			job.Dest = "/"
		}
		copied, err := m.b.temp.dir()
		if err == nil {
			err = m.b.copyOut(ctx, copied, job)
		}
		if err != nil {
			return err
		}
		t.Lower, t.Source, t.Writable = []string{copied}, "", t.Writable && m.b.home.Features.Overlay
		if !dir {
			t.Source = path.Base(at)
		}
	}
	m.trees = append(m.trees, t)
	return nil
}

// copyOut unpacks what a job packs into a directory.
func (b *builder) copyOut(ctx context.Context, dir string, job packJob) error {
	r, w := io.Pipe()
	go func() { w.CloseWithError(b.pack(ctx, w, job)) }()
	defer r.Close()
	return b.home.Store.UnpackTree(ctx, dir, r)
}

func (m *stepMounts) secret(mount *instructions.Mount) error {
	id := mount.CacheID
	if mount.Source != "" {
		id = mount.Source
	}
	if id == "" {
		id = path.Base(mount.Target)
	}
	secret, ok := m.b.Secrets[id]
	if !ok {
		if mount.Required {
			return fmt.Errorf("secret %s: not found", id)
		}
		return nil
	}
	if mount.Env != nil {
		name := *mount.Env
		if name == "" {
			name = id
		}
		m.env = append(m.env, name+"="+string(secret.Data))
		if mount.Target == "" {
			return nil
		}
	}
	target := mount.Target
	if target == "" {
		target = "/run/secrets/" + path.Base(id)
	}
	f := container.StepFile{Target: m.run.absolute(target), Data: secret.Data, Mode: 0o400}
	if mount.Mode != nil {
		f.Mode = uint32(*mount.Mode)
	}
	if mount.UID != nil {
		f.UID = uint32(*mount.UID)
	}
	if mount.GID != nil {
		f.GID = uint32(*mount.GID)
	}
	m.files = append(m.files, f)
	return nil
}

// ssh mounts the socket of an agent of the user's.
func (m *stepMounts) ssh(mount *instructions.Mount) error {
	id := mount.CacheID
	if id == "" {
		id = "default"
	}
	socket, ok := m.b.SSH[id]
	if !ok {
		if mount.Required {
			return fmt.Errorf("unset ssh forward key %s", id)
		}
		return nil
	}
	target := mount.Target
	if target == "" {
		target = fmt.Sprintf("/run/buildkit/ssh_agent.%d", len(m.stubs))
	}
	target = m.run.absolute(target)
	m.mounts = append(m.mounts, container.Mount{Type: container.Bind, Source: socket, Target: target})
	m.env = append(m.env, "SSH_AUTH_SOCK="+target)
	m.stubs = append(m.stubs, target)
	return nil
}

// close gives caches back.
func (m *stepMounts) close() {
	for _, f := range m.held {
		f.Close()
	}
}

var errNoCacheDir = errors.New("no directory for the cache could be locked")
