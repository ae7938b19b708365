// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"sbx/overlay"
	"sbx/store"
)

// Volumes are the home's volumes, beside its containers.
func (h *Home) Volumes() *store.Volumes {
	st := h.Store
	if st == nil {
		st = &store.Store{} // of a monitor, who is root here and needs no role to remove things
	}
	return st.Volumes(filepath.Join(filepath.Dir(h.dir), "volumes"))
}

// useVolumes adds the mounts that come from other containers and from the
// image's VOLUMEs, finds or makes each volume, and fills new ones from the
// image. Until release is called nobody can remove them: by then the container's
// record must say that it uses them.
func (h *Home) useVolumes(ctx context.Context, c *Config, image map[string]struct{}, from []string) (release func(), err error) {
	release = func() {}
	if err := h.inheritMounts(c, from); err != nil {
		return nil, err
	}
	addImageVolumes(c, image)
	if !slices.ContainsFunc(c.Mounts, func(m Mount) bool { return m.Type == Volume }) {
		return release, nil
	}
	for _, m := range c.Mounts {
		if err := checkTarget(m.Target); err != nil {
			return nil, err
		}
	}
	volumes := h.Volumes()
	if release, err = volumes.Hold(ctx); err != nil {
		return nil, err
	}
	for i := range c.Mounts {
		if m := &c.Mounts[i]; m.Type == Volume {
			if err = h.useVolume(ctx, volumes, c, m); err != nil {
				break
			}
		}
	}
	if err != nil {
		release()
		_ = h.RemoveAnonymous(context.WithoutCancel(ctx), c.Mounts)
		return nil, err
	}
	return release, nil
}

func (h *Home) useVolume(ctx context.Context, volumes *store.Volumes, c *Config, m *Mount) error {
	want := store.Volume{Name: m.Name, Labels: m.Labels}
	if want.Name == "" {
		want.Name, want.Anonymous, m.Anonymous = newID(), true, true
	}
	vol, err := volumes.Ensure(want)
	if err != nil {
		return fmt.Errorf("mount %s: %w", m.Target, err)
	}
	m.Name, m.Source = vol.Name, vol.Dir
	if m.NoCopy || m.Subpath != "" {
		return nil
	}
	there, err := overlay.IsMergedDir(c.Lower, m.Target)
	if err == nil && there {
		err = volumes.Seed(ctx, vol, c.Lower, m.Target)
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w", m.Target, err)
	}
	return nil
}

// inheritMounts adds the binds and volumes of other containers, but where this
// one has a mount of its own.
func (h *Home) inheritMounts(c *Config, from []string) error {
	for _, spec := range from {
		name, mode, _ := strings.Cut(spec, ":")
		other, err := h.Find(name)
		if err != nil {
			return fmt.Errorf("use volumes of %s: %w", name, err)
		}
		for _, m := range other.Config.Mounts {
			if m.Type == Tmpfs || hasTarget(c.Mounts, m.Target) {
				continue
			}
			m.ReadOnly = m.ReadOnly && mode != "rw" || mode == "ro"
			m.NoCopy = true
			c.Mounts = append(c.Mounts, m)
		}
	}
	return nil
}

// addImageVolumes adds an anonymous volume for each VOLUME of the image that has
// no mount yet.
func addImageVolumes(c *Config, image map[string]struct{}) {
	for _, target := range slices.Sorted(maps.Keys(image)) {
		target = filepath.Clean("/" + target)
		if target != "/" && !hasTarget(c.Mounts, target) {
			c.Mounts = append(c.Mounts, Mount{Type: Volume, Target: target})
		}
	}
}

func hasTarget(mounts []Mount, target string) bool {
	return slices.ContainsFunc(mounts, func(m Mount) bool { return m.Target == target })
}

// VolumeInUseError says that containers use a volume, running or not.
type VolumeInUseError struct {
	Name       string
	Containers []string // their names
}

func (e *VolumeInUseError) Error() string {
	return fmt.Sprintf("remove volume %s: it is in use by container %s", e.Name, strings.Join(e.Containers, ", "))
}

// Hint says how to free it.
func (e *VolumeInUseError) Hint() string {
	return "remove the container first: sbx rm " + strings.Join(e.Containers, " ")
}

// VolumeUsers returns the names of the containers that use each volume.
func (h *Home) VolumeUsers() (map[string][]string, error) {
	list, err := h.List()
	if err != nil {
		return nil, err
	}
	users := map[string][]string{}
	for _, c := range list {
		for _, m := range c.Config.Mounts {
			if name := m.VolumeName(); name != "" && !slices.Contains(users[name], c.Config.Name) {
				users[name] = append(users[name], c.Config.Name)
			}
		}
	}
	return users, nil
}

// RemoveVolume removes a volume that no container uses. The error is a
// *VolumeInUseError if one does.
func (h *Home) RemoveVolume(ctx context.Context, name string) error {
	return h.Volumes().Remove(ctx, name, func() error {
		users, err := h.VolumeUsers()
		if err == nil && len(users[name]) > 0 {
			err = &VolumeInUseError{name, users[name]}
		}
		return err
	})
}

// RemoveAnonymous removes those of the mounts' volumes that have no name and no
// other user.
func (h *Home) RemoveAnonymous(ctx context.Context, mounts []Mount) error {
	var all error
	for _, m := range anonymous(mounts) {
		err := h.RemoveVolume(ctx, m.Name)
		var used *VolumeInUseError
		var gone *store.VolumeNotFoundError
		if !errors.As(err, &used) && !errors.As(err, &gone) {
			all = errors.Join(all, err)
		}
	}
	return all
}

// anonymous are the mounts of volumes that were made for their container.
func anonymous(mounts []Mount) []Mount {
	var list []Mount
	for _, m := range mounts {
		if m.Type == Volume && m.Anonymous && m.Name != "" {
			list = append(list, m)
		}
	}
	return list
}

// VolumeName is the name of the volume that is mounted, or "". A record of
// version 0.1 has it only in the path.
func (m Mount) VolumeName() string {
	if m.Type != Volume || m.Name != "" {
		return m.Name
	}
	return filepath.Base(strings.TrimSuffix(m.Source, "/_data"))
}

// CreateVolume makes a volume, or returns the one that has the name. Without a
// name it is an anonymous one.
func (h *Home) CreateVolume(ctx context.Context, name string, labels map[string]string) (store.Volume, error) {
	want := store.Volume{Name: name, Labels: labels}
	if name == "" {
		want.Name, want.Anonymous = newID(), true
	}
	release, err := h.Volumes().Hold(ctx)
	if err != nil {
		return want, err
	}
	defer release()
	vol, _, err := h.Volumes().Create(ctx, want)
	return vol, err
}
