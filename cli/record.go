// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/container"
	"sbx/reference"
	"sbx/store"
)

// The records that inspect prints. Fields and their order are those of Docker's
// API, because scripts and editors read them; Rung is ours.

type containerRecord struct {
	ID              string `json:"Id"`
	Created         string
	Path            string
	Args            []string
	State           stateRecord
	Image           string
	LogPath         string
	Name            string
	RestartCount    int
	Driver          string
	Platform        string
	MountLabel      string
	ProcessLabel    string
	AppArmorProfile string
	ExecIDs         []string
	HostConfig      hostConfigRecord
	GraphDriver     graphDriverRecord
	SizeRw          *int64 `json:",omitempty"`
	SizeRootFs      *int64 `json:",omitempty"`
	Rung            string
	RootEmulation   string
	LimitsEnforced  map[string]string // how each limit is held: enforced, approximate, none
	Mounts          []mountRecord
	Config          configRecord
	NetworkSettings networkRecord
}

type stateRecord struct {
	Status     string
	Running    bool
	Paused     bool
	Restarting bool
	OOMKilled  bool
	Dead       bool
	Pid        int
	ExitCode   int
	Error      string
	StartedAt  string
	FinishedAt string
	Health     *healthRecord `json:",omitempty"`
}

type healthRecord struct {
	Status        string
	FailingStreak int
	Log           []healthEntryRecord
}

type healthEntryRecord struct {
	Start    time.Time
	End      time.Time
	ExitCode int
	Output   string
}

func newHealthRecord(h *container.Health) *healthRecord {
	if h == nil {
		return nil
	}
	r := &healthRecord{Status: h.Status, FailingStreak: h.FailingStreak, Log: []healthEntryRecord{}}
	for _, e := range h.Log {
		r.Log = append(r.Log, healthEntryRecord(e))
	}
	return r
}

type hostConfigRecord struct {
	Binds           []string
	LogConfig       logConfigRecord
	NetworkMode     string
	PortBindings    map[string][]portRecord
	PublishAllPorts bool
	DNS             []string `json:"Dns"`
	DNSOptions      []string `json:"DnsOptions"`
	DNSSearch       []string `json:"DnsSearch"`
	ExtraHosts      []string
	RestartPolicy   restartRecord
	AutoRemove      bool
	Mounts          []hostMountRecord `json:",omitempty"`
	CapAdd          []string
	CapDrop         []string
	Privileged      bool
	ReadonlyRootfs  bool
	UsernsMode      string
	SecurityOpt     []string
	Tmpfs           map[string]string `json:",omitempty"`
	Init            bool

	Annotations       map[string]string `json:",omitempty"`
	CgroupnsMode      string
	IpcMode           string
	PidMode           string
	UTSMode           string
	GroupAdd          []string
	ShmSize           int64
	Sysctls           map[string]string `json:",omitempty"`
	OomScoreAdj       int
	Memory            int64
	MemoryReservation int64
	MemorySwap        int64
	NanoCpus          int64
	CPUPeriod         int64  `json:"CpuPeriod"`
	CPUQuota          int64  `json:"CpuQuota"`
	CPUShares         int64  `json:"CpuShares"`
	CPUSet            string `json:"CpusetCpus"`
	PidsLimit         int64
	Ulimits           []ulimitRecord
	Devices           []deviceRecord
}

type ulimitRecord struct {
	Name string
	Hard int64
	Soft int64
}

type deviceRecord struct {
	PathOnHost        string
	PathInContainer   string
	CgroupPermissions string
}

// bounds fills in what the container may use and do.
func (h *hostConfigRecord) bounds(c *container.Config) {
	l, p := &c.Limits, &c.Privileges
	h.Annotations, h.Sysctls, h.GroupAdd = c.Annotations, p.Sysctls, p.GroupAdd
	h.CapAdd, h.CapDrop, h.Privileged, h.SecurityOpt = p.CapAdd, p.CapDrop, p.Privileged, p.Options
	h.CgroupnsMode, h.IpcMode, h.UTSMode = "private", cmp.Or(p.IPC, container.IPCPrivate), ""
	h.PidMode = p.PID
	if p.HostUTS {
		h.UTSMode = "host"
	}
	if p.HostCgroup {
		h.CgroupnsMode = "host"
	}
	if h.ShmSize = l.ShmSize; h.ShmSize == 0 {
		h.ShmSize = 64 << 20
	}
	h.OomScoreAdj, h.Memory, h.MemoryReservation, h.MemorySwap = l.OOMScoreAdj, l.Memory, l.MemoryReservation, l.MemorySwap
	h.CPUPeriod, h.CPUQuota = l.CPUPeriod, l.CPUQuota
	h.NanoCpus, h.CPUShares, h.CPUSet, h.PidsLimit = l.NanoCPUs, l.CPUShares, l.CPUSet, l.PidsLimit()
	h.Ulimits, h.Devices = []ulimitRecord{}, []deviceRecord{}
	for _, u := range l.Ulimits {
		h.Ulimits = append(h.Ulimits, ulimitRecord{u.Name, u.Hard, u.Soft})
	}
	for _, d := range p.Devices {
		mode := "rwm"
		if d.ReadOnly {
			mode = "r"
		}
		h.Devices = append(h.Devices, deviceRecord{d.Source, d.Target, mode})
	}
}

type hostMountRecord struct {
	Type     string
	Source   string `json:",omitempty"`
	Target   string
	ReadOnly bool `json:",omitempty"`
}

type logConfigRecord struct {
	Type   string
	Config map[string]string
}

type restartRecord struct {
	Name              string
	MaximumRetryCount int
}

type portRecord struct {
	HostIP   string `json:"HostIp"`
	HostPort string
}

type mountRecord struct {
	Type        string
	Name        string `json:",omitempty"`
	Source      string
	Destination string
	Driver      string `json:",omitempty"`
	Mode        string
	RW          bool
	Propagation string
}

type configRecord struct {
	Hostname     string
	Domainname   string
	User         string
	AttachStdin  bool
	AttachStdout bool
	AttachStderr bool
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Tty          bool
	OpenStdin    bool
	StdinOnce    bool
	Env          []string
	Cmd          []string
	Healthcheck  *healthcheckRecord `json:",omitempty"`
	Image        string
	Volumes      map[string]struct{}
	WorkingDir   string
	Entrypoint   []string
	Labels       map[string]string
	StopSignal   string `json:",omitempty"`
	StopTimeout  *int   `json:",omitempty"`
}

type networkRecord struct {
	Ports       map[string][]portRecord
	IPAddress   string
	Gateway     string
	MacAddress  string
	IPPrefixLen int

	GlobalIPv6Address   string
	GlobalIPv6PrefixLen int
	IPv6Gateway         string

	Networks map[string]endpointRecord
}

type endpointRecord struct {
	Aliases             []string
	NetworkID           string
	EndpointID          string
	Gateway             string
	IPAddress           string
	IPPrefixLen         int
	MacAddress          string
	IPv6Gateway         string
	GlobalIPv6Address   string
	GlobalIPv6PrefixLen int
}

func newContainerRecord(c *container.Container) *containerRecord {
	cfg, s := &c.Config, c.State
	r := &containerRecord{
		ID: c.ID(), Created: stamp(cfg.Created), Args: []string{}, Image: cfg.ImageID, LogPath: c.LogPath(), Name: "/" + cfg.Name, RestartCount: s.Restarts, Driver: cfg.Root, Platform: "linux",
		State: stateRecord{
			Status: string(s.Status), Running: s.Status.IsAlive(), Paused: s.Status == container.Paused, Restarting: s.Status == container.Restarting, Pid: s.PID, ExitCode: s.ExitCode, Error: s.Error, OOMKilled: s.OOMKilled,
			StartedAt: stamp(s.StartedAt), FinishedAt: stamp(s.FinishedAt),
			Health: newHealthRecord(s.Health),
		},
		HostConfig: hostConfigRecord{
			LogConfig: newLogConfigRecord(cfg.Log), NetworkMode: cfg.Network, PortBindings: portBindings(c), PublishAllPorts: cfg.Networking.PublishAll, DNS: cfg.Networking.DNS, DNSOptions: cfg.Networking.DNSOptions, DNSSearch: cfg.Networking.DNSSearch, ExtraHosts: cfg.Networking.AddHosts,
			RestartPolicy: restartRecord{Name: or(cfg.Restart.Name, container.RestartNo), MaximumRetryCount: cfg.Restart.Retries}, AutoRemove: cfg.AutoRemove, ReadonlyRootfs: cfg.ReadOnly, Init: cfg.Init,
		},
		Rung: cfg.Rung.Name,
		Config: configRecord{
			Hostname: cfg.Hostname, Domainname: cfg.Domainname, User: cfg.User, AttachStdin: cfg.OpenStdin, AttachStdout: true, AttachStderr: true,
			Tty: cfg.TTY, OpenStdin: cfg.OpenStdin, StdinOnce: cfg.StdinOnce, Env: cfg.AskedEnv(), Cmd: cfg.Cmd, Image: cfg.Image,
			WorkingDir: cfg.WorkingDir, Entrypoint: cfg.Entrypoint, Labels: cfg.Labels, StopSignal: cfg.StopSignal,
		},
		Mounts:          []mountRecord{},
		NetworkSettings: newNetworkRecord(c),
	}
	r.RootEmulation, _ = c.RootEmulation()
	r.LimitsEnforced = cfg.Limits.Enforcement(c.State.Held)
	r.complete(c)
	r.HostConfig.bounds(cfg)
	if cfg.KeepID {
		r.HostConfig.UsernsMode = "keep-id"
	}
	if r.Config.Labels == nil {
		r.Config.Labels = map[string]string{}
	}
	if command := cfg.Command(); len(command) > 0 {
		r.Path, r.Args = command[0], command[1:]
	}
	for _, m := range cfg.Mounts {
		r.addMount(m)
	}
	return r
}

func newLogConfigRecord(l container.LogConfig) logConfigRecord {
	r := logConfigRecord{Type: or(l.Driver, container.LogJSON), Config: map[string]string{}}
	for name, value := range l.Options {
		r.Config[name] = value
	}
	return r
}

func (r *containerRecord) addMount(m container.Mount) {
	mode := ""
	if m.ReadOnly {
		mode = "ro"
	}
	if m.Type == container.Tmpfs {
		if r.HostConfig.Tmpfs == nil {
			r.HostConfig.Tmpfs = map[string]string{}
		}
		r.HostConfig.Tmpfs[m.Target] = m.Options
		return
	}
	out := mountRecord{Type: m.Type, Name: m.VolumeName(), Source: m.Source, Destination: m.Target, Mode: mode, RW: !m.ReadOnly, Propagation: "rprivate"}
	if m.Type == container.Volume {
		// Docker's word for a volume, whatever was asked for.
		out.Driver, out.Propagation, out.Mode = "local", "", or(mode, "z")
	}
	r.Mounts = append(r.Mounts, out)
	bind := or(out.Name, m.Source) + ":" + m.Target
	if mode != "" {
		bind += ":" + mode
	}
	r.HostConfig.Binds = append(r.HostConfig.Binds, bind)
}

// stamp writes a time as Docker does, which has a year 1 for "never".
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

type imageRecord struct {
	ID           string `json:"Id"`
	RepoTags     []string
	RepoDigests  []string
	Comment      string
	Created      string
	Author       string
	Config       dockerspec.DockerOCIImageConfig
	Architecture string
	Variant      string `json:",omitempty"`
	Os           string
	Size         int64
	RootFS       rootFSRecord
	Metadata     metadataRecord
	Descriptor   ocispec.Descriptor
	Origin       string `json:",omitempty"`
}

type rootFSRecord struct {
	Type   string
	Layers []string
}

type metadataRecord struct {
	LastTagTime string
}

func newImageRecord(st *store.Store, img store.Image) (*imageRecord, error) {
	names, err := st.Names(img.ID)
	if err != nil {
		return nil, err
	}
	r := &imageRecord{
		ID: img.ID.String(), RepoTags: []string{}, RepoDigests: []string{}, Created: stamp(created(img)), Author: img.Config.Author, Config: img.Config.Config,
		Architecture: img.Config.Architecture, Variant: img.Config.Variant, Os: img.Config.OS, Size: img.Size,
		RootFS: rootFSRecord{Type: "layers", Layers: []string{}}, Metadata: metadataRecord{stamp(img.Pulled)}, Descriptor: img.Manifest, Origin: img.Origin,
	}
	for _, l := range img.Layers {
		r.RootFS.Layers = append(r.RootFS.Layers, l.String())
	}
	if n := len(img.Config.History); n > 0 {
		r.Comment = img.Config.History[n-1].Comment
	}
	for _, name := range names {
		repository, tag := repositoryAndTag(name)
		ref, err := reference.Parse(name)
		switch {
		case err != nil || repository != ref.FamiliarName():
			r.RepoTags = append(r.RepoTags, name)
			continue
		case tag != none:
			r.RepoTags = append(r.RepoTags, repository+":"+tag)
		}
		r.RepoDigests = append(r.RepoDigests, repository+"@"+img.RegistryDigest())
	}
	return r, nil
}

type volumeRecord struct {
	CreatedAt  string
	Driver     string
	Labels     map[string]string
	Mountpoint string
	Name       string
	Options    map[string]string
	Scope      string
}

func newVolumeRecord(v store.Volume) *volumeRecord {
	return &volumeRecord{
		CreatedAt: v.Created.Format(time.RFC3339), Driver: "local", Labels: volumeLabels(v), Mountpoint: v.Dir, Name: v.Name,
		Options: v.Options, Scope: "local",
	}
}
