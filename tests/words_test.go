// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// knownKeys are labels and annotations by which some program chooses a file, a device, a
// privilege or a command.
var knownKeys = strings.Fields(`
	io.containerd.runtime.log-uri containerd.io/log-uri nerdctl/log-uri nerdctl/log-config nerdctl/mounts nerdctl/extraHosts nerdctl/networks nerdctl/anonymous-volumes
	nerdctl/state-dir nerdctl/pid-file nerdctl/ports nerdctl/platform nerdctl/namespace nerdctl/hostname nerdctl/ipc nerdctl/mac-address nerdctl/stop-timeout
	containerd.io/restart.logpath containerd.io/restart.loguri containerd.io/restart.status containerd.io/restart.policy containerd.io/gc.root containerd.io/uncompressed
	containerd.io/snapshot/remote/stargz.reference containerd.io/snapshot/cri.image-layers containerd.io/distribution.source.docker.io
	cdi.k8s.io/devices cdi.k8s.io/vendor.com_net cdi.k8s.io/gpu nvidia.com/gpu.present com.nvidia.volumes.needed com.nvidia.cuda.version
	io.containers.capabilities io.containers.autoupdate io.containers.autoupdate.authfile io.containers.sdnotify io.containers.type io.containers.rootfs
	io.podman.annotations.autoremove io.podman.annotations.init io.podman.annotations.privileged io.podman.annotations.seccomp io.podman.annotations.apparmor io.podman.annotations.label
	io.podman.annotations.publish-all io.podman.annotations.volumes-from io.podman.annotations.cid-file io.podman.annotations.userns io.podman.annotations.ulimit io.podman.annotations.pids-limit
	io.podman.annotations.kube.health.check.type io.podman.annotations.infra.name PODMAN_SYSTEMD_UNIT
	run.oci.hooks.stdout run.oci.hooks.stderr run.oci.keep_original_groups run.oci.systemd.subgroup run.oci.systemd.force_cgroup_v1 run.oci.handler run.oci.pidfd_receiver
	run.oci.seccomp_bpf_data run.oci.seccomp_bpf_file run.oci.seccomp.receiver run.oci.seccomp.plugins run.oci.seccomp_fail_unknown_syscall run.oci.mount_context_type run.oci.timens_offset run.oci.delegate-cgroup
	org.criu.config org.systemd.property.ExecStartPre org.systemd.property.TimeoutStopUSec org.opencontainers.runc.debug
	io.kubernetes.cri-o.TrySkipVolumeSELinuxLabel io.kubernetes.cri-o.Devices io.kubernetes.cri-o.ShmSize io.kubernetes.cri-o.userns-mode io.kubernetes.cri-o.UnifiedCgroup io.kubernetes.cri-o.UmaskMode
	io.kubernetes.cri-o.cgroup2-mount-hierarchy-rw io.kubernetes.cri-o.seccompNotifierAction io.kubernetes.cri-o.LinkLogs io.kubernetes.cri-o.PodLinuxOverhead io.kubernetes.cri-o.Spoofed
	io.kubernetes.container.logPath io.kubernetes.container.hash io.kubernetes.pod.terminationGracePeriod io.kubernetes.docker.type io.cri-containerd.kind
	io.katacontainers.config.hypervisor.path io.katacontainers.config.runtime.disable_guest_seccomp dev.gvisor.spec.mount.a.source dev.gvisor.flag.platform
	com.docker.compose.project.working_dir com.docker.compose.project.config_files com.docker.compose.service com.docker.extension.host-setup com.docker.desktop.plugin.icon desktop.docker.io/binds/0/Source
	com.docker.stack.namespace com.docker.swarm.task org.opencontainers.image.url org.opencontainers.image.ref.name org.opencontainers.image.base.name org.opencontainers.image.source
	vnd.docker.reference.type vnd.docker.reference.digest io.balena.features.dbus io.balena.features.kernel-modules traefik.http.routers.x.rule ofelia.job-exec.x.command docker-volume-backup.exec-pre
	io.buildah.version io.sbx.run sbx.command RUN INSTALL UNINSTALL run install atomic.run maintainer
`)

// TestHostileWords has an image whose labels and annotations would have other programs
// execute, mount, log to or allow something. All that they do here is to be shown: S06, S07.
func TestHostileWords(t *testing.T) {
	for _, rung := range []string{"single", "mapped"} {
		t.Run(rung, func(t *testing.T) {
			needRung(t, rung)
			p := newPlayground(t, rung)
			canary := filepath.Join(p.dir, "canary")
			words := map[string]string{}
			values := []string{"sh -c 'touch CANARY'", "binary:///bin/touch?CANARY", "file://CANARY", "CANARY", `["touch","CANARY"]`, "vendor.com/device=all", `{"path":"/bin/touch","args":["touch","CANARY"]}`, "$(touch CANARY)"}
			for i, key := range knownKeys {
				words[key] = strings.ReplaceAll(values[i%len(values)], "CANARY", canary)
			}
			image := filepath.Join(p.dir, "words")
			r := recipe{layers: []string{defaultLayer}, arch: runtime.GOARCH, compression: "gzip", name: "words", annotations: words, config: ocispec.ImageConfig{Labels: words}}
			if err := (layout{image}).write(r); err != nil {
				t.Fatal(err)
			}
			flags := []string{}
			for key, value := range words {
				flags = append(flags, "--label", key+"="+value, "--annotation", key+"="+value)
			}
			p.sbx("load", "-q", "-i", image)
			p.sbx("pull", "-q", image)
			p.sbx("tag", image, "words")
			verb := append([]string{"probe", "posture"}, slices.Concat(hiddenPaths, readOnlyPaths)...)
			for what, more := range map[string][]string{"of the image": nil, "of the user": flags} {
				out := p.sbx(slices.Concat([]string{"run", "--rm", "--network", "none"}, more, []string{"words"}, verb)...)
				compareFacts(t, "words "+what, usualFacts(rung), parseFacts(out))
			}
			p.sbx(slices.Concat([]string{"run", "-d", "--name", "one", "--restart", "no", "--network", "none"}, flags, []string{"words", "probe", "sleep"})...)
			compareFacts(t, "exec", usualFacts(rung), parseFacts(p.sbx(append([]string{"exec", "one"}, verb...)...)))
			context := filepath.Join(p.dir, "from")
			text := fmt.Sprintf("FROM words\nLABEL %s=%q\nRUN [\"probe\", \"true\"]\n", knownKeys[0], words[knownKeys[0]])
			if err := os.Mkdir(context, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(context, "Dockerfile"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			p.sbx("build", "-q", "-t", "from", context)
			for _, args := range [][]string{{"logs", "one"}, {"commit", "one", "again"}, {"save", "-o", filepath.Join(p.dir, "saved"), "again"}, {"load", "-q", "-i", filepath.Join(p.dir, "saved")}, {"stop", "-t", "0", "one"}, {"start", "one"}, {"rm", "-f", "one"}, {"images", "-a"}, {"system", "df"}} {
				p.sbx(args...)
			}
			if _, err := os.Lstat(canary); err == nil {
				t.Error("a word was executed, or was a file to write")
			}
			shown := p.sbx("image", "inspect", "--format", "{{json .Config.Labels}}", "words")
			for key := range words {
				if !strings.Contains(shown, `"`+key+`"`) {
					t.Errorf("%s is not shown as what it is", key)
				}
			}
			t.Logf("%d words as labels and as annotations", len(words))
			if len(words) < 100 {
				t.Errorf("only %d words", len(words))
			}
		})
	}
}
