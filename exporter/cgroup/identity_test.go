package cgroup

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// The layouts that runtimes make are in TestFixtureTrees; these are the edges.
func TestIdentify(t *testing.T) {
	id := cid("app")
	u, us, hash := uid("pod"), underscored("pod"), configHash("static")
	slice := "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + us + ".slice"
	burstable := Identity{Kind: KindPod, PodUID: u, QoS: QoSBurstable}
	inPod := func(runtime string, pod Identity) Identity {
		pod.Kind, pod.ContainerID, pod.Runtime = KindContainer, id, runtime
		return pod
	}
	tests := []struct {
		name, path string
		want       Identity
		owner      string // "=": the path itself
	}{
		{"nothing", "", Identity{}, ""},
		{"relative", "kubepods/pod" + u, Identity{}, ""},
		{"root", "/", Identity{}, ""},
		{"slashes", "//", Identity{}, ""},
		{"plain", "/batch", Identity{Kind: KindOther}, "="},
		{"plain nested", "/batch/job", Identity{Kind: KindOther}, "="},
		{"slice", "/system.slice", Identity{Kind: KindOther}, "="},
		{"service", "/system.slice/sshd.service", Identity{Kind: KindService}, "="},
		{"template service", "/system.slice/system-getty.slice/getty@tty1.service", Identity{Kind: KindService}, "="},
		{"inside a service", "/system.slice/sshd.service/a/b", Identity{Kind: KindService}, "/system.slice/sshd.service"},
		{"user unit", "/user.slice/user-1000.slice/user@1000.service/app.slice/app-foo@1.service", Identity{Kind: KindService}, "="},
		{"user slice in its manager", "/user.slice/user-1000.slice/user@1000.service/app.slice", Identity{Kind: KindService}, "/user.slice/user-1000.slice/user@1000.service"},
		{"session", "/user.slice/user-0.slice/session-1.scope", Identity{Kind: KindService}, "="},
		{"only a suffix", "/.service", Identity{Kind: KindOther}, "="},

		{"pod slice", slice, burstable, "="},
		{"pod's child of another name", slice + "/kata_overhead", burstable, slice},
		{"short id", slice + "/cri-containerd-" + id[1:] + ".scope", burstable, slice},
		{"upper case id", slice + "/cri-containerd-" + strings.ToUpper(id) + ".scope", burstable, slice},
		{"container", slice + "/cri-containerd-" + id + ".scope", inPod("containerd", burstable), "="},
		{"unknown runtime", slice + "/runc-" + id + ".scope", inPod("", burstable), "="},
		{"deep inside a container", slice + "/cri-containerd-" + id + ".scope/docker/" + cid("inner") + "/x", inPod("containerd", burstable), slice + "/cri-containerd-" + id + ".scope"},
		{"pod inside a container of a pod", slice + "/cri-containerd-" + id + ".scope/kubepods/pod" + uid("inner"), inPod("containerd", burstable), slice + "/cri-containerd-" + id + ".scope"},
		{"pod without QoS slice", "/kubepods.slice/kubepods-pod" + us + ".slice", Identity{Kind: KindPod, PodUID: u, QoS: QoSGuaranteed}, "="},
		{"slice of no pod", "/kubepods.slice/kubepods-burstable.slice", Identity{Kind: KindOther}, "="},
		{"pod slice of another parent", "/x.slice/x-pod" + us + ".slice", Identity{Kind: KindOther}, "="},
		{"empty uid", "/kubepods.slice/kubepods-pod.slice", Identity{Kind: KindOther}, "="},
		{
			"deep systemd prefix", "/a.slice/a-b.slice/a-b-kubepods.slice/a-b-kubepods-besteffort.slice/a-b-kubepods-besteffort-pod" + us + ".slice/crio-" + id + ".scope",
			inPod("crio", Identity{PodUID: u, QoS: QoSBestEffort}), "=",
		},
		{"deep cgroupfs prefix", "/a/b/c/kubepods/besteffort/pod" + u + "/" + id, inPod("", Identity{PodUID: u, QoS: QoSBestEffort}), "="},
		{"cgroupfs, guaranteed", "/kubepods/pod" + u + "/" + id, inPod("", Identity{PodUID: u, QoS: QoSGuaranteed}), "="},
		{"static pod", "/kubepods/burstable/pod" + hash + "/" + id, inPod("", Identity{PodUID: hash, QoS: QoSBurstable}), "="},
		{"static pod with a UID of its own", "/kubepods/burstable/podmy-uid/" + id, inPod("", Identity{PodUID: "my-uid", QoS: QoSBurstable}), "="},
		{"tree mounted from kubepods down", "/burstable/pod" + u + "/" + id, inPod("", Identity{PodUID: u}), "="},
		{"podman's own directory is no pod", "/podman/x", Identity{Kind: KindOther}, "="},

		{
			"colon form at the root", "/kubepods-burstable-pod" + us + ".slice:cri-containerd:" + id,
			inPod("containerd", burstable), "=",
		},
		{
			"colon form, nested", "/system.slice/containerd.service/kubepods-pod" + us + ".slice:crio:" + id + "/init",
			inPod("crio", Identity{PodUID: u, QoS: QoSGuaranteed}), "/system.slice/containerd.service/kubepods-pod" + us + ".slice:crio:" + id,
		},
		{"colon form outside a pod", "/system.slice:docker:" + id, Identity{Kind: KindContainer, ContainerID: id, Runtime: "docker"}, "="},
		{"colons without an id", "/system.slice:docker:x", Identity{Kind: KindOther}, "="},

		{"conmon of a pod", slice + "/crio-conmon-" + id + ".scope", burstable, slice},
		{"conmon of its own", "/machine.slice/libpod-conmon-" + id + ".scope", Identity{}, ""},
		{"inside conmon", "/machine.slice/libpod-conmon-" + id + ".scope/x", Identity{}, ""},
		{"nerdctl", "/system.slice/nerdctl-" + id + ".scope", Identity{Kind: KindContainer, ContainerID: id, Runtime: "containerd"}, "="},
		{"ECS", "/ecs/0123/" + id, Identity{Kind: KindContainer, ContainerID: id}, "="},
		{"docker in docker", "/docker/" + id + "/docker/" + cid("inner"), Identity{Kind: KindContainer, ContainerID: id, Runtime: "docker"}, "/docker/" + id},
		{"kind's node", "/docker/" + id + "/kubelet.slice", Identity{Kind: KindContainer, ContainerID: id, Runtime: "docker"}, "/docker/" + id},
		{"kind's pod", "/docker/" + cid("node") + "/kubelet/kubepods/burstable/pod" + u + "/" + id, inPod("", burstable), "="},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, owner := Identify(test.path)
			assert.Equal(t, test.want, got)
			if test.owner == "=" {
				test.owner = test.path
			}
			assert.Equal(t, test.owner, owner)
		})
	}
}

func FuzzIdentity(f *testing.F) {
	id := cid("app")
	for _, seed := range []string{
		"", "/", "//", "/batch", "/system.slice/sshd.service", "/user.slice/user-1000.slice/user@1000.service/app.slice",
		"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + underscored("pod") + ".slice/cri-containerd-" + id + ".scope/x",
		"/kubepods/besteffort/pod" + uid("pod") + "/" + id, "/kubepods/burstable/pod" + configHash("static") + "/crio-conmon-" + id,
		"/kubepods-pod" + underscored("pod") + ".slice:cri-containerd:" + id, "/docker/" + id + "/kubelet/kubepods/pod" + uid("pod") + "/" + id,
		"/machine.slice/libpod-" + id + ".scope/container", "/machine.slice/libpod-conmon-" + id + ".scope",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		got, owner := Identify(path)
		if owner == "" {
			assert.Equal(t, Identity{}, got, "what nobody owns has no identity")
			return
		}
		assert.True(t, owner == path || strings.HasPrefix(path, owner+"/"), "%q owns %q", owner, path)
		again, itself := Identify(owner)
		assert.Equal(t, owner, itself, "an owner owns itself")
		assert.Equal(t, got, again, "and has the identity that it gives")
		assert.Equal(t, got.Kind == KindContainer, isContainerID(got.ContainerID))
		switch got.Kind {
		case KindPod:
			assert.NotEmpty(t, got.PodUID)
		case KindService, KindOther:
			assert.Equal(t, Identity{Kind: got.Kind}, got)
		}
	})
}
