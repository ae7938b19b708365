// SPDX-License-Identifier: Apache-2.0

package container

import (
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/fakeroot"
	"sbx/store"
	"sbx/userns"
)

// Options are what the flags of run and create say. Zero values mean "not
// given"; what the image says then holds.
type Options struct {
	Name       string
	Hostname   string
	Domainname string
	User       string
	WorkingDir string
	StopSignal string
	Network    string // a mode; NetworkBridge when empty
	Networking Networking
	Args       []string  // after the image
	Entrypoint *[]string // nil: the image's; empty: cleared
	Env        []string  // NAME=value, in order
	Labels     map[string]string
	Mounts     []Mount
	// VolumesFrom are containers whose binds and volumes this one gets, too: CONTAINER[:ro|rw].
	VolumesFrom []string
	TTY         bool
	OpenStdin   bool
	StdinOnce   bool // the input ends with the first client that had it
	ReadOnly    bool
	Init        bool
	AutoRemove  bool
	step        bool // it is a step of a build, see CreateStep
	Limits      Limits
	Privileges  Privileges
	Annotations map[string]string
	Restart     RestartPolicy
	Log         LogConfig
	Health      *HealthCheck // nil: the image's
	// StopTimeout is how many seconds stop waits before it kills; negative for
	// ever, nil for the default.
	StopTimeout *int
	// RootEmulation and KeepID say what the one ID of `single` is to be, see DESIGN §5:
	// everybody, or the container's user and nobody else.
	RootEmulation fakeroot.Mode
	KeepID        bool
}

// Mount types.
const (
	Bind   = "bind"
	Volume = "volume"
	Tmpfs  = "tmpfs"
)

// Mount is something at a path of the container that is not from its image.
type Mount struct {
	Type     string `json:"type"`             // Bind, Volume or Tmpfs
	Source   string `json:"source,omitempty"` // an absolute host path; of a volume its directory, which Create finds
	Target   string `json:"target"`           // an absolute path inside
	ReadOnly bool   `json:"readOnly,omitempty"`
	// Kept says that a bind is of a directory of ours, whose files keep the owners that the
	// container gives them, as those of a volume do.
	Kept    bool   `json:"kept,omitempty"`
	Options string `json:"options,omitempty"` // of a tmpfs, as mount(8) takes them: size=, mode=, ..
	// Create makes a missing bind source a directory, as -v does; --mount does not.
	Create bool `json:"create,omitempty"`

	// Subpath is what of the source is mounted, if not all. Whoever wrote there cannot
	// make it lead anywhere else.
	Subpath string `json:"subpath,omitempty"`

	// Of a volume:
	Name      string            `json:"name,omitempty"`   // empty asks Create for an anonymous one
	NoCopy    bool              `json:"noCopy,omitempty"` // it is not filled from the image
	Anonymous bool              `json:"anonymous,omitempty"`
	Labels    map[string]string `json:"-"` // of one that is made for this
}

// Base is what a container's root filesystem starts from.
type Base struct {
	Name   string              // as the user typed it, for ps
	Image  store.Image         // zero for a directory
	Dir    string              // --rootfs: this directory itself is the root
	Lower  []string            // unpacked directories, topmost first
	Mounts []Mount             // the base's own, mounted before the user's
	Config ocispec.ImageConfig // defaults
	Health *HealthCheck        // the image's, or nil
	// Refused is what a program says when it may not write to this base, and
	// Advice what the user should then read.
	Refused string
	Advice  string
}

// The ways to make a root filesystem.
const (
	rootOverlay = "overlay" // the kernel's overlayfs over the base's directories
	rootCopy    = "copy"    // a copy of them, where overlayfs is refused
	rootDir     = "dir"     // a directory of the user's
)

// Config is a container's record: everything needed to start it, fixed when it
// is created. It is stored as config.json.
type Config struct {
	ID          string            `json:"id"`
	Name        string            `json:"name"`
	Created     time.Time         `json:"created"`
	Image       string            `json:"image"`              // as typed
	ImageID     string            `json:"imageID,omitempty"`  // config digest
	ImageName   string            `json:"imageRef,omitempty"` // canonical
	Rung        userns.Rung       `json:"rung"`
	Root        string            `json:"root"` // rootOverlay, ..
	RootDir     string            `json:"rootDir,omitempty"`
	Lower       []string          `json:"lower,omitempty"`
	Layers      []string          `json:"layers,omitempty"` // diff IDs, bottom first
	Entrypoint  []string          `json:"entrypoint,omitempty"`
	Cmd         []string          `json:"cmd,omitempty"`
	Env         []string          `json:"env,omitempty"`
	WorkingDir  string            `json:"workingDir"`
	User        string            `json:"user,omitempty"`
	Identity    Identity          `json:"identity"` // User, looked up in the image
	Hostname    string            `json:"hostname"`
	Domainname  string            `json:"domainname,omitempty"`
	StopSignal  string            `json:"stopSignal,omitempty"`
	Network     string            `json:"network"`
	Networking  Networking        `json:"networking,omitzero"`
	Labels      map[string]string `json:"labels,omitempty"`
	BaseMounts  []Mount           `json:"baseMounts,omitempty"`
	Mounts      []Mount           `json:"mounts,omitempty"`
	TTY         bool              `json:"tty,omitempty"`
	OpenStdin   bool              `json:"openStdin,omitempty"`
	StdinOnce   bool              `json:"stdinOnce,omitempty"`
	ReadOnly    bool              `json:"readOnly,omitempty"`
	Init        bool              `json:"init,omitempty"`
	AutoRemove  bool              `json:"autoRemove,omitempty"`
	Restart     RestartPolicy     `json:"restart,omitzero"`
	Log         LogConfig         `json:"log,omitzero"`
	Health      *HealthCheck      `json:"health,omitempty"`
	StopTimeout *int              `json:"stopTimeout,omitempty"`
	// RootEmulation is as it was asked for, see Container.RootEmulation.
	RootEmulation fakeroot.Mode     `json:"rootEmulation,omitzero"`
	KeepID        bool              `json:"keepID,omitempty"` // the user's one ID is Identity
	Step          bool              `json:"step,omitempty"`   // of a build: it is listed nowhere
	Limits        Limits            `json:"limits,omitzero"`
	Privileges    Privileges        `json:"privileges,omitzero"`
	Annotations   map[string]string `json:"annotations,omitempty"`
	Refused       string            `json:"refused,omitempty"`
	Advice        string            `json:"advice,omitempty"`
}

// Command is the program and its arguments: entrypoint, then command.
func (c *Config) Command() []string {
	return append(append([]string{}, c.Entrypoint...), c.Cmd...)
}
