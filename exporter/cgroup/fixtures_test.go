package cgroup

import (
	"crypto/md5" //nolint:gosec // as the kubelet hashes a static pod's manifest
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The fixtures' container IDs, pod UIDs and config hashes are hashes of names.

func cid(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

func configHash(name string) string {
	sum := md5.Sum([]byte(name)) //nolint:gosec // see above
	return hex.EncodeToString(sum[:])
}

func uid(name string) string {
	h := configHash(name)
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

func underscored(name string) string { return strings.ReplaceAll(uid(name), "-", "_") }

// fixture copies testdata/name, so that a test may change it. Directory names write a
// colon, which Go modules don't allow, as %3A.
func fixture(t testing.TB, name string) string {
	t.Helper()
	from, to := filepath.Join("testdata", name), t.TempDir()
	require.NoError(t, filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.ReplaceAll(rel, "%3A", ":"))
		switch {
		case d.IsDir():
			return os.MkdirAll(target, 0o755)
		case d.Type()&fs.ModeSymlink != 0:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		default:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(target, b, 0o644)
		}
	}))
	return to
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func openFixture(t testing.TB, name string) (*Tree, string) {
	t.Helper()
	root := fixture(t, name)
	tree, err := Open(Config{Root: root, Log: quiet()})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, tree.Close()) })
	return tree, root
}

func group(t testing.TB, tree *Tree, path string) Group {
	t.Helper()
	for _, g := range tree.Groups() {
		if g.Path == path && g.Gone.IsZero() {
			return g
		}
	}
	require.Failf(t, "no such group", "%s among %v", path, paths(tree.Groups()))
	return Group{}
}

func paths(groups []Group) []string {
	var all []string
	for _, g := range groups {
		all = append(all, g.Path)
	}
	return all
}

// want is a group's path and what its identity must be.
type want struct {
	path string
	Identity
}

func TestFixtureTrees(t *testing.T) {
	container := func(uid, name, runtime string, qos QoS) Identity {
		return Identity{Kind: KindContainer, PodUID: uid, ContainerID: cid(name), Runtime: runtime, QoS: qos}
	}
	pod := func(uid string, qos QoS) Identity { return Identity{Kind: KindPod, PodUID: uid, QoS: qos} }
	service, other := Identity{Kind: KindService}, Identity{Kind: KindOther}

	const (
		userUnit  = "/user.slice/user-1000.slice/user@1000.service"
		slice     = "/kubepods.slice"
		burstable = slice + "/kubepods-burstable.slice/kubepods-burstable-pod"
		besteff   = slice + "/kubepods-besteffort.slice/kubepods-besteffort-pod"
	)
	webPod := burstable + underscored("web") + ".slice"
	node := "/system.slice/docker-" + cid("node") + ".scope"
	kindPod := node + "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod" + underscored("burstable") + ".slice"

	tests := []struct {
		fixture string
		layout  string
		want    []want
		// nested maps a cgroup that is no group to the path of the group it counts as part of
		nested map[string]string
		// nobody's cgroups
		nobody []string
	}{
		{
			fixture: "v2-systemd-containerd", layout: "v2",
			want: []want{
				{"/init.scope", service},
				{"/system.slice/kubelet.service", service},
				{"/system.slice/delegated.service", service}, // its processes are one level down
				{userUnit + "/init.scope", service},
				{userUnit + "/app.slice/editor.service", service},
				{slice + "/kubepods-pod" + underscored("guaranteed") + ".slice", pod(uid("guaranteed"), QoSGuaranteed)},
				{slice + "/kubepods-pod" + underscored("guaranteed") + ".slice/cri-containerd-" + cid("guaranteed/pause") + ".scope", container(uid("guaranteed"), "guaranteed/pause", "containerd", QoSGuaranteed)},
				{slice + "/kubepods-pod" + underscored("guaranteed") + ".slice/cri-containerd-" + cid("guaranteed/app") + ".scope", container(uid("guaranteed"), "guaranteed/app", "containerd", QoSGuaranteed)},
				{burstable + underscored("burstable") + ".slice", pod(uid("burstable"), QoSBurstable)},
				{burstable + underscored("burstable") + ".slice/cri-containerd-" + cid("burstable/app") + ".scope", container(uid("burstable"), "burstable/app", "containerd", QoSBurstable)},
				{burstable + configHash("static") + ".slice", pod(configHash("static"), QoSBurstable)},
				{burstable + configHash("static") + ".slice/cri-containerd-" + cid("static/etcd") + ".scope", container(configHash("static"), "static/etcd", "containerd", QoSBurstable)},
				{besteff + underscored("besteffort") + ".slice", pod(uid("besteffort"), QoSBestEffort)},
				{besteff + underscored("besteffort") + ".slice/cri-containerd-" + cid("besteffort/app") + ".scope", container(uid("besteffort"), "besteffort/app", "containerd", QoSBestEffort)},
			},
			nested: map[string]string{
				"/system.slice/delegated.service/workers": "/system.slice/delegated.service",
				burstable + underscored("burstable") + ".slice/cri-containerd-" + cid("burstable/app") + ".scope/system.slice/cron.service": burstable + underscored("burstable") + ".slice/cri-containerd-" + cid("burstable/app") + ".scope",
			},
			nobody: []string{"/", "/system.slice", "/system.slice/idle.service", slice, userUnit, userUnit + "/app.slice"},
		},
		{
			fixture: "v2-systemd-crio", layout: "v2",
			want: []want{
				{webPod, pod(uid("web"), QoSBurstable)},
				{webPod + "/crio-" + cid("web/app") + ".scope", container(uid("web"), "web/app", "crio", QoSBurstable)},
			},
			nested: map[string]string{
				webPod + "/crio-" + cid("web/app") + ".scope/container": webPod + "/crio-" + cid("web/app") + ".scope",
				webPod + "/crio-conmon-" + cid("web/app") + ".scope":    webPod,
			},
			nobody: []string{"/system.slice/crio-conmon-" + cid("web/app") + ".scope"},
		},
		{
			fixture: "v2-systemd-docker", layout: "v2",
			want: []want{
				{"/system.slice/docker.service", service},
				{"/system.slice/docker-" + cid("nginx") + ".scope", container("", "nginx", "docker", "")},
				{slice + "/kubepods-pod" + underscored("dockerd") + ".slice", pod(uid("dockerd"), QoSGuaranteed)},
				{slice + "/kubepods-pod" + underscored("dockerd") + ".slice/docker-" + cid("dockerd/app") + ".scope", container(uid("dockerd"), "dockerd/app", "docker", QoSGuaranteed)},
				{userUnit + "/user.slice/docker-" + cid("rootless") + ".scope", container("", "rootless", "docker", "")},
			},
		},
		{
			fixture: "v2-systemd-podman", layout: "v2",
			want: []want{
				{"/machine.slice/libpod-" + cid("db") + ".scope", container("", "db", "libpod", "")},
				{"/machine.slice/machine-libpod_pod_" + cid("pod") + ".slice/libpod-" + cid("pod/app") + ".scope", container("", "pod/app", "libpod", "")},
				{"/system.slice/web.service", service},
				{"/system.slice/web.service/libpod-payload-" + cid("quadlet"), container("", "quadlet", "libpod", "")},
			},
			nested: map[string]string{
				"/machine.slice/libpod-" + cid("db") + ".scope/container": "/machine.slice/libpod-" + cid("db") + ".scope",
				"/system.slice/web.service/supervisor":                    "/system.slice/web.service",
			},
			nobody: []string{"/machine.slice/libpod-conmon-" + cid("db") + ".scope"},
		},
		{
			fixture: "v2-systemd-kind", layout: "v2",
			want: []want{
				{node, container("", "node", "docker", "")},
				{kindPod, pod(uid("burstable"), QoSBurstable)},
				{kindPod + "/cri-containerd-" + cid("burstable/app") + ".scope", container(uid("burstable"), "burstable/app", "containerd", QoSBurstable)},
			},
			nested: map[string]string{
				node + "/system.slice/containerd.service": node,
				node + "/kubelet.slice/kubelet.service":   node,
				node + "/kubelet.slice":                   node,
			},
		},
		{
			fixture: "v2-cgroupfs-containerd", layout: "v2",
			want: []want{
				{"/batch", other}, {"/batch/job", other},
				{"/k8s.io/" + cid("ctr"), container("", "ctr", "containerd", "")},
				{"/kubepods/pod" + uid("guaranteed"), pod(uid("guaranteed"), QoSGuaranteed)},
				{"/kubepods/pod" + uid("guaranteed") + "/" + cid("guaranteed/app"), container(uid("guaranteed"), "guaranteed/app", "", QoSGuaranteed)},
				{"/kubepods/burstable/pod" + configHash("static"), pod(configHash("static"), QoSBurstable)},
				{"/kubepods/burstable/pod" + configHash("static") + "/" + cid("static/etcd"), container(configHash("static"), "static/etcd", "", QoSBurstable)},
				{"/kubepods/besteffort/pod" + uid("besteffort"), pod(uid("besteffort"), QoSBestEffort)},
				{"/kubepods/besteffort/pod" + uid("besteffort") + "/" + cid("besteffort/app"), container(uid("besteffort"), "besteffort/app", "", QoSBestEffort)},
			},
			nobody: []string{"/empty", "/kubepods", "/kubepods/burstable", "/k8s.io"},
		},
		{
			fixture: "v2-cgroupfs-crio", layout: "v2",
			want: []want{
				{"/kubepods/burstable/pod" + uid("web"), pod(uid("web"), QoSBurstable)},
				{"/kubepods/burstable/pod" + uid("web") + "/crio-" + cid("web/app"), container(uid("web"), "web/app", "crio", QoSBurstable)},
			},
			nested: map[string]string{
				"/kubepods/burstable/pod" + uid("web") + "/crio-conmon-" + cid("web/app"): "/kubepods/burstable/pod" + uid("web"),
			},
		},
		{
			fixture: "v2-cgroupfs-docker", layout: "v2",
			want: []want{{"/docker/" + cid("nginx"), container("", "nginx", "docker", "")}},
			nested: map[string]string{
				"/docker/" + cid("nginx") + "/docker/" + cid("inner"): "/docker/" + cid("nginx"),
			},
			nobody: []string{"/docker"},
		},
		{
			fixture: "v2-cgroupfs-podman", layout: "v2",
			want:   []want{{"/libpod_parent/libpod-" + cid("db"), container("", "db", "libpod", "")}},
			nobody: []string{"/libpod_parent", "/libpod_parent/libpod-conmon-" + cid("db")},
		},
		{
			fixture: "v1-systemd-containerd", layout: "v1",
			want: []want{
				{"/system.slice/containerd.service", service},
				{"/system.slice/containerd.service/kubepods-besteffort-pod" + underscored("besteffort") + ".slice:cri-containerd:" + cid("besteffort/app"), container(uid("besteffort"), "besteffort/app", "containerd", QoSBestEffort)},
				{"/system.slice/sshd.service", service},
				{burstable + underscored("burstable") + ".slice", pod(uid("burstable"), QoSBurstable)},
				{burstable + underscored("burstable") + ".slice/cri-containerd-" + cid("burstable/app") + ".scope", container(uid("burstable"), "burstable/app", "containerd", QoSBurstable)},
			},
			nobody: []string{"/", "/system.slice", slice},
		},
		{
			fixture: "v1-systemd-crio", layout: "v1",
			want: []want{
				{slice + "/kubepods-pod" + underscored("guaranteed") + ".slice", pod(uid("guaranteed"), QoSGuaranteed)},
				{slice + "/kubepods-pod" + underscored("guaranteed") + ".slice/crio-" + cid("guaranteed/app") + ".scope", container(uid("guaranteed"), "guaranteed/app", "crio", QoSGuaranteed)},
			},
			nested: map[string]string{
				slice + "/kubepods-pod" + underscored("guaranteed") + ".slice/crio-conmon-" + cid("guaranteed/app") + ".scope": slice + "/kubepods-pod" + underscored("guaranteed") + ".slice",
			},
		},
		{
			fixture: "v1-cgroupfs-docker", layout: "v1",
			want: []want{
				{"/docker/" + cid("nginx"), container("", "nginx", "docker", "")},
				{"/kubepods/besteffort/pod" + uid("besteffort"), pod(uid("besteffort"), QoSBestEffort)},
				{"/kubepods/besteffort/pod" + uid("besteffort") + "/" + cid("besteffort/app"), container(uid("besteffort"), "besteffort/app", "", QoSBestEffort)},
			},
		},
		{
			fixture: "hybrid-cgroupfs-containerd", layout: "hybrid",
			want: []want{
				{"/demo", other},
				{"/kubelet/kubepods/burstable/pod" + uid("burstable"), pod(uid("burstable"), QoSBurstable)},
				{"/kubelet/kubepods/burstable/pod" + uid("burstable") + "/" + cid("burstable/app"), container(uid("burstable"), "burstable/app", "", QoSBurstable)},
			},
			nobody: []string{"/kubelet", "/kubelet/kubepods"},
		},
	}
	seen := map[string]bool{}
	for _, test := range tests {
		seen[test.fixture] = true
		t.Run(test.fixture, func(t *testing.T) {
			tree, _ := openFixture(t, test.fixture)
			assert.Equal(t, test.layout, tree.Mounts().Layout())

			got, expected := map[string]Identity{}, map[string]Identity{}
			for _, g := range tree.Groups() {
				got[g.Path] = g.Identity
				assert.False(t, g.Seen.IsZero(), g.Path)
				assert.True(t, g.Gone.IsZero(), g.Path)
				owner, ok := tree.Owner(g.ID)
				assert.True(t, ok, "a group owns itself: %s", g.Path)
				assert.Equal(t, g.ID, owner, g.Path)

				s, err := tree.CPU(g)
				require.NoError(t, err, g.Path)
				// The fixtures' n-th cgroup has n hundred periods, n seconds of usage.
				if s.HasBandwidth {
					n := s.Periods / 100
					assert.Equal(t, 92*n, s.Throttled, g.Path)
					assert.InDelta(t, float64(5*n), s.ThrottledTime.Seconds(), 0.001, g.Path)
					if s.HasUsage {
						assert.InDelta(t, float64(n), s.Usage.Seconds(), 0.001, g.Path)
					}
				}
				_, err = tree.EffectiveLimit(g)
				require.NoError(t, err, g.Path)
			}
			for _, w := range test.want {
				expected[w.path] = w.Identity
			}
			assert.Equal(t, expected, got)

			id := func(path string) ID {
				id, err := stat(filepath.Join(tree.Mounts().CPU, path))
				require.NoError(t, err)
				return id
			}
			for path, owner := range test.nested {
				got, ok := tree.Owner(id(path))
				assert.True(t, ok, "%s belongs to %s", path, owner)
				assert.Equal(t, id(owner), got, "owner of %s", path)
			}
			for _, path := range test.nobody {
				_, ok := tree.Owner(id(path))
				assert.False(t, ok, "%s belongs to nobody", path)
			}
		})
	}
	entries, err := os.ReadDir("testdata")
	require.NoError(t, err)
	for _, e := range entries {
		assert.True(t, seen[e.Name()] || e.Name() == "fuzz", "testdata/%s is not tested", e.Name())
	}
}

func TestReadings(t *testing.T) {
	const ms, us = time.Millisecond, time.Microsecond
	scope := func(qos, pod, name string) string {
		dir := "/kubepods.slice/kubepods-" + qos + ".slice/kubepods-" + qos + "-pod"
		if qos == "" {
			dir = "/kubepods.slice/kubepods-pod"
		}
		return dir + underscored(pod) + ".slice/" + name + ".scope"
	}
	tests := []struct {
		fixture, path string
		usage         time.Duration // 0: not measured
		local         time.Duration // 0: not measured
		bandwidth     bool
		limit         CPULimit
		effective     EffectiveLimit
		cpus          int
	}{
		{
			fixture: "v2-systemd-containerd", path: scope("", "guaranteed", "cri-containerd-"+cid("guaranteed/app")),
			usage: 17*time.Second + 7*us, local: 102*time.Second + 2*us, bandwidth: true,
			limit:     CPULimit{Quota: 200 * ms, Period: 100 * ms},
			effective: EffectiveLimit{CPULimit{Quota: 200 * ms, Period: 100 * ms}, scope("", "guaranteed", "cri-containerd-"+cid("guaranteed/app"))},
			cpus:      2,
		},
		{ // the pod's limit is the smaller one; its CPUs are those of kubepods.slice
			fixture: "v2-systemd-containerd", path: scope("burstable", "burstable", "cri-containerd-"+cid("burstable/app")),
			usage: 20*time.Second + 7*us, local: 120*time.Second + 2*us, bandwidth: true,
			limit:     CPULimit{Quota: 80 * ms, Period: 100 * ms, Burst: 20 * ms},
			effective: EffectiveLimit{CPULimit{Quota: 50 * ms, Period: 100 * ms}, filepath.Dir(scope("burstable", "burstable", "x"))},
			cpus:      6,
		},
		{ // no cpu controller: usage only
			fixture: "v2-systemd-containerd", path: "/user.slice/user-1000.slice/user@1000.service/app.slice/editor.service",
			usage: 13*time.Second + 7*us, cpus: 8,
		},
		{ // before 6.6 there is no cpu.stat.local
			fixture: "v2-cgroupfs-containerd", path: "/batch/job",
			usage: 14*time.Second + 7*us, bandwidth: true,
			limit:     CPULimit{Period: 100 * ms},
			effective: EffectiveLimit{CPULimit{Quota: 25 * ms, Period: 100 * ms}, "/batch"},
			cpus:      8,
		},
		{
			fixture: "v1-systemd-containerd", path: scope("burstable", "burstable", "cri-containerd-"+cid("burstable/app")),
			usage: 8 * 1000000007, bandwidth: true,
			limit:     CPULimit{Quota: 50 * ms, Period: 100 * ms},
			effective: EffectiveLimit{CPULimit{Quota: 50 * ms, Period: 100 * ms}, scope("burstable", "burstable", "cri-containerd-"+cid("burstable/app"))},
			cpus:      2,
		},
		{ // before 5.14 there is no burst
			fixture: "v1-cgroupfs-docker", path: "/docker/" + cid("nginx"),
			usage: 3 * 1000000007, bandwidth: true,
			limit:     CPULimit{Quota: 200 * ms, Period: 100 * ms},
			effective: EffectiveLimit{CPULimit{Quota: 200 * ms, Period: 100 * ms}, "/docker/" + cid("nginx")},
			cpus:      8,
		},
		{ // made in the cpu hierarchy only: no usage
			fixture: "hybrid-cgroupfs-containerd", path: "/demo", bandwidth: true,
			limit:     CPULimit{Quota: 10 * ms, Period: 100 * ms},
			effective: EffectiveLimit{CPULimit{Quota: 10 * ms, Period: 100 * ms}, "/demo"},
			cpus:      8,
		},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%s%.60s", test.fixture, test.path), func(t *testing.T) {
			tree, _ := openFixture(t, test.fixture)
			g := group(t, tree, test.path)

			before := time.Now()
			s, err := tree.CPU(g)
			require.NoError(t, err)
			assert.WithinRange(t, s.At, before, time.Now())
			assert.Equal(t, test.usage, s.Usage)
			assert.Equal(t, test.usage != 0, s.HasUsage)
			assert.Equal(t, test.bandwidth, s.HasBandwidth)
			if test.local == 0 {
				assert.Nil(t, s.HierarchicalThrottledTime)
			} else if assert.NotNil(t, s.HierarchicalThrottledTime) {
				assert.Equal(t, test.local, *s.HierarchicalThrottledTime)
			}

			l, err := tree.Limit(g)
			require.NoError(t, err)
			assert.Equal(t, test.limit, l)
			e, err := tree.EffectiveLimit(g)
			require.NoError(t, err)
			assert.Equal(t, test.effective.Path, e.Path)
			if test.effective.Path != "" {
				assert.Equal(t, test.effective, e)
			}
			n, err := tree.CPUs(g)
			require.NoError(t, err)
			assert.Equal(t, test.cpus, n)
		})
	}
}
