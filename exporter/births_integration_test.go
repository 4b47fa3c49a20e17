package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/bpf"
	"github.com/kernel-gossip/kernel-gossip/exporter/birth/straced"
	"github.com/kernel-gossip/kernel-gossip/exporter/pods"
	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

var recordBirths = flag.String("record-births", "", "directory to write the events and counters of births to, as the tests of exporter/birth play them: birth/testdata")

// recorder writes to a file there, where that is asked for.
func recorder(t *testing.T, name string) func(any) {
	t.Helper()
	if *recordBirths == "" {
		return nil
	}
	file, err := os.Create(filepath.Join(*recordBirths, name))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, file.Close()) })
	encoder := json.NewEncoder(file)
	return func(v any) { assert.NoError(t, encoder.Encode(v)) }
}

// bundle is an OCI bundle whose container runs busybox.
func bundle(t testing.TB, arguments ...string) string {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs Debian's busybox-static")
	}
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "rootfs/bin"), 0o755))
	binary, err := os.ReadFile(busybox)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "rootfs/bin/busybox"), binary, 0o755))
	cmd := exec.Command("runc", "spec")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	path := filepath.Join(dir, "config.json")
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	var config map[string]any
	require.NoError(t, json.Unmarshal(raw, &config))
	process := config["process"].(map[string]any)
	process["args"], process["terminal"] = append([]string{"/bin/busybox"}, arguments...), false
	raw, err = json.Marshal(config)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, raw, 0o644))
	return dir
}

// followBirths gives each certificate to a channel, its events and counters to record.
func followBirths(t testing.TB, index podsIndex, record func(any)) <-chan wire.PodCreation {
	t.Helper()
	told := make(chan wire.PodCreation, 16)
	t.Cleanup(follow(t, index, record, func(e wire.Event) { told <- e.(wire.PodCreation) }))
	return told
}

// follow has births followed until it is stopped.
func follow(t testing.TB, index podsIndex, record func(any), tell func(wire.Event)) (stop func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it attaches BPF programs and runs containers")
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	tracer := bpf.Open(t.Context(), bpf.Config{Log: log, Probes: []bpf.Probe{bpf.ProbeBirth}})
	kernel, err := tracer.Births()
	if err != nil {
		t.Skipf("this kernel does not have the probe: %s", tracer.Status()[0].Reason)
	}
	o := &options{log: log, birthAlways: index == nil && tell != nil}
	o.whisper.namespace = "test"
	b := newBirths(kernel, index, o)
	b.tell, b.record = tell, record
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- b.run(ctx) }()
	time.Sleep(100 * time.Millisecond) // until it counts
	return func() {
		cancel()
		assert.NoError(t, <-done)
		assert.NoError(t, tracer.Close())
	}
}

// The same run seen by strace: every call, execve, mount and namespace.
func TestBirthOfAContainerAgainstStrace(t *testing.T) {
	t.Run("runc", func(t *testing.T) { againstStrace(t, "runc") })
	t.Run("crun", func(t *testing.T) { againstStrace(t, "crun", "--cgroup-manager=disabled") })
}

// hybrid is where systemd mounts cgroup v2 when the controllers are on v1; crun goes on
// strike there unless it is out of its sight.
const hybrid = "/sys/fs/cgroup/unified"

func againstStrace(t *testing.T, runtime string, flags ...string) {
	for _, tool := range []string{"runc", runtime, "strace"} { // runc writes the bundle
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	told := followBirths(t, nil, recorder(t, runtime+".jsonl"))
	dir, id := bundle(t, "true"), runtime+"-"+strconv.Itoa(os.Getpid())
	log := filepath.Join(t.TempDir(), "strace")
	arguments := append([]string{"strace", "-f", "-ttt", "-s", "64", "-o", log, runtime}, flags...)
	arguments = append(arguments, "run", id)
	if _, err := os.Stat(hybrid); err == nil && runtime == "crun" {
		arguments = append([]string{"unshare", "--mount", "sh", "-c", "umount " + hybrid + ` && exec "$@"`, "sh"}, arguments...)
	}
	cmd := exec.Command(arguments[0], arguments[1:]...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	var e wire.PodCreation
	for e.PodName != id {
		select {
		case e = <-told:
		case <-time.After(30 * time.Second):
			require.Fail(t, "there is no certificate")
		}
	}
	file, err := os.Open(log)
	require.NoError(t, err)
	defer file.Close()
	want, err := straced.Read(file, "/bin/busybox")
	require.NoError(t, err)

	require.True(t, *e.Complete, "%v", e.IncompleteReasons)
	assert.False(t, e.Failed)
	// The kernel lets go of a birth somewhere in the entrypoint's execve; under strace it is
	// long enough for the runtime to make some more calls.
	assert.GreaterOrEqual(t, float64(e.TotalSyscalls), 0.99*float64(want.Before))
	assert.LessOrEqual(t, float64(e.TotalSyscalls), 1.01*float64(want.Calls))
	assert.EqualValues(t, want.Execs(), *e.Execs)
	assert.EqualValues(t, want.Mounts(), *e.Mounts)
	made := map[string]int{}
	for _, n := range e.Namespaces {
		if n.Created > 0 {
			made[n.Kind] = int(n.Created)
		}
	}
	assert.Equal(t, want.Created, made)
	counted := map[string]int{}
	for _, s := range e.Syscalls {
		counted[s.Name] = int(s.Count)
	}
	// The first execve was made by who was not a runtime yet.
	for _, name := range []string{"mount", "execveat", "unshare", "setns", "pivot_root", "capset", "mkdirat"} {
		assert.GreaterOrEqual(t, counted[name], want.Begun[name], name)
		assert.LessOrEqual(t, counted[name], want.Named[name], name)
	}
	require.Len(t, e.Containers, 1)
	assert.Equal(t, id, e.Containers[0].ContainerID)
	assert.Equal(t, "/bin/busybox", e.Containers[0].Entrypoint)
	t.Logf("system calls: %d here, %d to %d by strace; of them set-up: %d; execs %d, mounts %d, namespaces %v",
		e.TotalSyscalls, want.Before, want.Calls, *e.SetupSyscalls, *e.Execs, *e.Mounts, made)
}

// podman starts a container by conmon, and conmon by the runtime: the container has one
// certificate with all three on it.
func TestBirthByPodman(t *testing.T) {
	for _, tool := range []string{"podman", "runc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	told := followBirths(t, nil, nil)
	root, state := filepath.Join(bundle(t), "rootfs"), t.TempDir()
	cid := filepath.Join(state, "cid")
	parent := "kernel-gossip-podman-" + strconv.Itoa(os.Getpid())
	t.Cleanup(func() { // conmon, which made a group of its own in there, ends later
		assert.Eventually(t, func() bool {
			left := 0
			for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
				for _, group := range []string{parent + "/conmon", parent} {
					groups, err := filepath.Glob(filepath.Join(pattern, group))
					require.NoError(t, err)
					for _, g := range groups {
						if os.Remove(g) != nil {
							left++
						}
					}
				}
			}
			return left == 0
		}, 10*time.Second, 50*time.Millisecond, "podman's cgroups stay")
	})
	// Limits that are not above those of this process, which may not raise its own.
	cmd := exec.Command("podman", "--runtime=runc", "--root="+state+"/graph", "--runroot="+state+"/run", "--tmpdir="+state+"/tmp",
		"--storage-driver=vfs", "--cgroup-manager=cgroupfs", "run", "--rm", "--cidfile="+cid, "--cgroup-parent=/"+parent, "--network=none",
		"--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "--rootfs", root, "/bin/busybox", "true")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	raw, err := os.ReadFile(cid)
	require.NoError(t, err)
	id := strings.TrimSpace(string(raw))
	var e wire.PodCreation
	for e.PodName != id {
		select {
		case e = <-told:
		case <-time.After(30 * time.Second):
			require.Fail(t, "there is no certificate")
		}
	}
	assert.True(t, *e.Complete, "%v", e.IncompleteReasons)
	assert.False(t, e.Failed, e.Failure)
	require.Len(t, e.Containers, 1)
	assert.Equal(t, "/bin/busybox", e.Containers[0].Entrypoint)
	roles := map[string]uint64{}
	for _, r := range e.Roles {
		roles[r.Role] += r.Syscalls
	}
	for _, role := range []string{"podman", "shim", "runc create", "runc init", "runc start"} {
		assert.NotZero(t, roles[role], "%s: %v", role, roles)
	}
	t.Logf("system calls: %d, of them set-up: %d; execs %d, mounts %d, by role %v", e.TotalSyscalls, *e.SetupSyscalls, *e.Execs, *e.Mounts, roles)
}

// What a runtime's hook, as a CNI plugin would, asks of nftables by iptables-nft is on
// the certificate, in batches of whatever size.
func TestBirthWithFirewallRules(t *testing.T) {
	for _, tool := range []string{"runc", "iptables-nft-restore", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	const rules = 120
	var restore strings.Builder
	restore.WriteString("*filter\n:KERNEL-GOSSIP - [0:0]\n")
	for i := range rules {
		fmt.Fprintf(&restore, "-A KERNEL-GOSSIP -s 10.1.2.%d/32 -p tcp -m tcp --dport 443 -j ACCEPT\n", i)
	}
	restore.WriteString("COMMIT\n")
	dir, id := bundle(t, "true"), "firewall-"+strconv.Itoa(os.Getpid())
	file := filepath.Join(dir, "rules")
	require.NoError(t, os.WriteFile(file, []byte(restore.String()), 0o644))
	if out, err := exec.Command("unshare", "--net", "iptables-nft-restore", file).CombinedOutput(); err != nil {
		t.Skipf("this kernel has no nftables for iptables: %s", out)
	}
	path := filepath.Join(dir, "config.json")
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	var config map[string]any
	require.NoError(t, json.Unmarshal(raw, &config))
	unshare, err := exec.LookPath("unshare")
	require.NoError(t, err)
	// In a network namespace of its own: nothing of this machine's changes.
	config["hooks"] = map[string]any{"createRuntime": []any{map[string]any{
		"path": unshare, "args": []string{"unshare", "--net", "sh", "-c", "iptables-nft-restore " + file + " && iptables-nft -A OUTPUT -j ACCEPT"},
		"env": []string{"PATH=" + os.Getenv("PATH")},
	}}}
	raw, err = json.Marshal(config)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, raw, 0o644))
	told := followBirths(t, nil, nil)
	cmd := exec.Command("runc", "run", id)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for {
		select {
		case e := <-told:
			if e.PodName != id {
				continue
			}
			assert.True(t, *e.Complete, "%v", e.IncompleteReasons)
			require.NotNil(t, e.Network)
			require.NotNil(t, e.Network.FirewallRules)
			assert.EqualValues(t, rules+1, *e.Network.FirewallRules)
			return
		case <-time.After(30 * time.Second):
			require.Fail(t, "there is no certificate")
		}
	}
}

func TestBirthThatFails(t *testing.T) {
	if _, err := exec.LookPath("runc"); err != nil {
		t.Skip("needs runc")
	}
	for _, tc := range []struct{ name, file, cause string }{
		{"there is no such program", "", "runc init ended with status 1"},
		{"the program is none", "no program", "execve of /bin/program: exec format error; runc init ended with status 1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			told := followBirths(t, nil, nil)
			dir, id := bundle(t), fmt.Sprintf("failing-%d-%d", os.Getpid(), len(tc.file))
			config := filepath.Join(dir, "config.json")
			raw, err := os.ReadFile(config)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(config, []byte(strings.ReplaceAll(string(raw), "/bin/busybox", "/bin/program")), 0o644))
			if tc.file != "" {
				require.NoError(t, os.WriteFile(filepath.Join(dir, "rootfs/bin/program"), []byte(tc.file), 0o755))
			}
			cmd := exec.Command("runc", "run", id)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			require.Error(t, err, "%s", out)
			for {
				select {
				case e := <-told:
					if e.PodName != id {
						continue
					}
					assert.True(t, e.Failed)
					assert.Contains(t, e.Failure, "never reached its entrypoint: "+tc.cause)
					require.Len(t, e.Containers, 1)
					assert.Nil(t, e.Containers[0].EntrypointMs)
					assert.Contains(t, e.Containers[0].Failure, tc.cause)
					assert.NotZero(t, e.TotalSyscalls)
					return
				case <-time.After(30 * time.Second):
					require.Fail(t, "there is no certificate")
				}
			}
		})
	}
}

// onePod is an API server that knows of one pod with one container.
type onePod struct {
	pods.None
	uid, id string
}

func (p onePod) ByPodUID(uid string) (pods.Container, bool) {
	return pods.Container{Namespace: "shop", Pod: "cart", PodUID: uid}, uid == p.uid
}

func (p onePod) ByContainerID(id string) (pods.Container, bool) {
	return pods.Container{Namespace: "shop", Pod: "cart", Container: "app", PodUID: p.uid, ContainerID: id}, id == p.id
}

func (p onePod) Birth(uid string) (pods.Birth, bool) {
	return pods.Birth{Created: time.Now().Add(-time.Minute), Containers: []pods.ContainerBirth{{Name: "app"}}}, uid == p.uid
}

// A pod's cgroup, made as the kubelet makes it, has system calls counted from then on; a
// container is the pod's by the cgroup that the runtime puts it into.
func TestBirthOfAPod(t *testing.T) {
	if _, err := exec.LookPath("runc"); err != nil {
		t.Skip("needs runc")
	}
	const uid = "5f0c9a3e-4b7d-4c53-9a51-0d6c1f2b3a4d"
	id := strings.Repeat("0123456789abcdef", 4)
	told := followBirths(t, onePod{uid: uid, id: id}, recorder(t, "pod.jsonl"))
	dir := bundle(t, "true")
	config := filepath.Join(dir, "config.json")
	raw, err := os.ReadFile(config)
	require.NoError(t, err)
	parent := "/kubepods/burstable/pod" + uid
	raw = []byte(strings.Replace(string(raw), `"linux":{`, `"linux":{"cgroupsPath":"`+parent+"/"+id+`",`, 1))
	require.NoError(t, os.WriteFile(config, raw, 0o644))

	root := "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/cgroup.controllers"); err != nil {
		root += "/cpu"
	}
	made := filepath.Join(root, parent)
	require.NoError(t, os.MkdirAll(made, 0o755))
	t.Cleanup(func() { // runc made the same in the other hierarchies; what is somebody's is not empty
		roots, err := filepath.Glob("/sys/fs/cgroup/*")
		assert.NoError(t, err)
		for _, root := range append(roots, root) {
			for d := parent; d != "/"; d = filepath.Dir(d) {
				_ = os.Remove(filepath.Join(root, d))
			}
		}
	})
	time.Sleep(200 * time.Millisecond) // as the kubelet has other things to do then
	cmd := exec.Command("runc", "run", id)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	select {
	case e := <-told:
		assert.Equal(t, "shop", e.Namespace)
		assert.Equal(t, "cart", e.PodName)
		assert.Equal(t, uid, e.PodUID)
		assert.True(t, *e.Complete, "%v", e.IncompleteReasons)
		assert.False(t, e.Failed)
		require.Len(t, e.Containers, 1)
		assert.Equal(t, "app", e.Containers[0].Name)
		assert.Equal(t, "/bin/busybox", e.Containers[0].Entrypoint)
		assert.Greater(t, e.TotalSyscalls, uint64(1000))
		assert.Equal(t, "scheduler", e.Timeline[0].Actor, "what the API server knows comes first")
		assert.Equal(t, "made the pod's cgroup", e.Timeline[1].Action)
	case <-time.After(30 * time.Second):
		require.Fail(t, "there is no certificate")
	}
}
