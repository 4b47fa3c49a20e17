// Package privileges holds the exporter to what deploy/ gives it: with these
// capabilities and system calls it does all that it does as root, and with one
// capability less it does not.
package privileges

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"

	"github.com/kernel-gossip/kernel-gossip/e2e/apiserver"
	"github.com/kernel-gossip/kernel-gossip/e2e/throttled"
)

const (
	profileFile = "../../deploy/seccomp/kernel-gossip-exporter.json"
	patience    = time.Minute

	// What this binary, run again, does before it becomes another.
	capabilitiesVariable = "PRIVILEGES_CAPABILITIES" // keep these alone
	profileVariable      = "PRIVILEGES_SECCOMP"      // and these system calls
)

func TestMain(m *testing.M) {
	if _, confined := os.LookupEnv(capabilitiesVariable); confined {
		fmt.Fprintln(os.Stderr, confine(os.Args[1:]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// capabilities are those that matter here, by Kubernetes' names.
func capabilities() map[string]uintptr {
	return map[string]uintptr{"BPF": unix.CAP_BPF, "PERFMON": unix.CAP_PERFMON, "SYS_RESOURCE": unix.CAP_SYS_RESOURCE}
}

// confine becomes the command as a container runtime starts it: root with the
// capabilities that are named and no way to more.
func confine(command []string) error {
	runtime.LockOSThread()
	var keep uint64
	for name := range strings.SplitSeq(os.Getenv(capabilitiesVariable), ",") {
		if name != "" {
			keep |= 1 << capabilities()[name]
		}
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if keep&(1<<c) == 0 {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) { // not on this kernel
				return fmt.Errorf("dropping capability %d: %w", c, err)
			}
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{}
	for i := range data {
		half := uint32(keep >> (32 * i))
		data[i] = unix.CapUserData{Effective: half, Permitted: half, Inheritable: half}
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("keeping the capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up new privileges: %w", err)
	}
	if path := os.Getenv(profileVariable); path != "" {
		names, err := allowed(path)
		if err != nil {
			return err
		}
		// A call that the profile lacks kills, lest an error pass unseen.
		if err := seccomp.LoadFilter(seccomp.Filter{Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionKillProcess,
			Syscalls:      []seccomp.SyscallGroup{{Names: names, Action: seccomp.ActionAllow}},
		}}); err != nil {
			return fmt.Errorf("loading the seccomp profile: %w", err)
		}
	}
	return unix.Exec(command[0], command, os.Environ())
}

// allowed are the system calls that a profile of the container runtimes' format allows.
func allowed(path string) ([]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var profile struct {
		DefaultAction string
		Syscalls      []struct {
			Names  []string
			Action string
		}
	}
	if err := json.Unmarshal(b, &profile); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if profile.DefaultAction != "SCMP_ACT_ERRNO" {
		return nil, fmt.Errorf("%s: refuses by %s", path, profile.DefaultAction)
	}
	var names []string
	for _, s := range profile.Syscalls {
		if s.Action != "SCMP_ACT_ALLOW" {
			return nil, fmt.Errorf("%s: %s", path, s.Action)
		}
		names = append(names, s.Names...)
	}
	return names, nil
}

func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "kernel-gossip-exporter")
	// As make build builds it, whose cache this shares.
	cmd := exec.Command("go", "build", "-trimpath", "-o", binary, "./exporter")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return binary
}

// shipped are the capabilities that deploy/manifests adds to none.
func shipped(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("../../deploy/manifests/exporter.yaml")
	require.NoError(t, err)
	var ds appsv1.DaemonSet
	require.NoError(t, yaml.Unmarshal(b, &ds))
	c := ds.Spec.Template.Spec.Containers[0].SecurityContext.Capabilities
	require.Len(t, c.Drop, 1)
	require.EqualValues(t, "ALL", c.Drop[0])
	var names []string
	for _, name := range c.Add {
		names = append(names, string(name))
		require.Contains(t, capabilities(), string(name))
	}
	return names
}

// exporter is a running one.
type exporter struct {
	cmd *exec.Cmd
	log bytes.Buffer
	url string
}

// start runs the exporter, confined unless environment is empty, until it is ready.
func start(t *testing.T, binary string, environment []string, flags ...string) *exporter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())
	e := &exporter{url: "http://" + address}
	command := append([]string{binary, "--web.listen-address=" + address}, flags...)
	if len(environment) > 0 {
		self, err := os.Executable()
		require.NoError(t, err)
		command = append([]string{self}, command...)
	}
	e.cmd = exec.Command(command[0], command[1:]...)
	e.cmd.Env = append(os.Environ(), environment...)
	e.cmd.Stdout, e.cmd.Stderr = &e.log, &e.log
	require.NoError(t, e.cmd.Start())
	t.Cleanup(func() { _ = e.cmd.Process.Kill() })
	require.Eventually(t, func() bool {
		resp, err := http.Get(e.url + "/-/ready")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, patience, 100*time.Millisecond, "the exporter is not ready")
	return e
}

// stop ends it as a kubelet does; what killed it instead is an error.
func (e *exporter) stop(t *testing.T) {
	t.Helper()
	require.NoError(t, e.cmd.Process.Signal(unix.SIGTERM))
	assert.NoError(t, e.cmd.Wait(), "%s", &e.log)
}

func (e *exporter) get(t *testing.T, path string) string {
	t.Helper()
	resp, err := http.Get(e.url + path)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode, path)
	return string(body)
}

// attached are the probes that it says are.
func (e *exporter) attached(t *testing.T) []string {
	t.Helper()
	var out []string
	const metric = `kernel_gossip_exporter_probe_attached{probe="`
	for l := range strings.Lines(e.get(t, "/metrics")) {
		if name, ok := strings.CutPrefix(l, metric); ok && strings.HasSuffix(l, "} 1\n") {
			out = append(out, strings.TrimSuffix(name, "\"} 1\n"))
		}
	}
	slices.Sort(out)
	return out
}

func TestCapabilities(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give capabilities")
	}
	binary := build(t)
	root := start(t, binary, nil, "--kubernetes=off")
	all := root.attached(t)
	root.stop(t)
	if len(all) == 0 {
		t.Skip("this kernel lets root attach no probe either")
	}

	names := shipped(t)
	e := start(t, binary, []string{capabilitiesVariable + "=" + strings.Join(names, ",")}, "--kubernetes=off")
	assert.Equal(t, all, e.attached(t), "all that root can attach")
	e.stop(t)
	for i, name := range names {
		t.Run("without "+name, func(t *testing.T) {
			rest := slices.Delete(slices.Clone(names), i, i+1)
			e := start(t, binary, []string{capabilitiesVariable + "=" + strings.Join(rest, ",")}, "--kubernetes=off")
			assert.Empty(t, e.attached(t), "it is not needed, then")
			e.stop(t)
			assert.Contains(t, e.log.String(), "CAP_"+name, "the log names what is missing")
		})
	}
}

// TestSeccompProfile lets the exporter do all that it does on a node, with nothing but
// the capabilities and the system calls that it is given.
func TestSeccompProfile(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can attach probes")
	}
	names, err := allowed(profileFile)
	require.NoError(t, err)
	assert.True(t, slices.IsSorted(names))
	for _, no := range []string{"mount", "setns", "unshare", "ptrace", "init_module", "kexec_load", "openat2", "unlinkat", "renameat", "mkdirat", "fchmodat"} {
		assert.NotContains(t, names, no)
	}

	binary := build(t)
	profile, err := filepath.Abs(profileFile)
	require.NoError(t, err)
	confined := []string{capabilitiesVariable + "=" + strings.Join(shipped(t), ","), profileVariable + "=" + profile}
	root := start(t, binary, nil, "--kubernetes=off")
	all := root.attached(t)
	root.stop(t)

	api, err := apiserver.Start(t.Context(), apiserver.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, api.Stop()) })
	var whispers atomic.Int64
	operator := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { whispers.Add(1) }))
	defer operator.Close()
	workload, err := throttled.New("kernel-gossip-privileges", 2*time.Millisecond, "sh", "-c", "while :; do :; done")
	require.NoError(t, err)
	defer func() { assert.NoError(t, workload.Close()) }()
	require.NoError(t, workload.Work())

	e := start(t, binary, confined, "--kubernetes=on", "--kubeconfig="+api.Kubeconfig(), "--node-name=node-1", "--whisper.url="+operator.URL)
	assert.Equal(t, all, e.attached(t))
	assert.Contains(t, e.get(t, "/"), "kernel-gossip-privileges")
	assert.Contains(t, e.get(t, "/container?container=%2Fkernel-gossip-privileges"), "nr_throttled")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.url+"/", http.NoBody)
	require.NoError(t, err)
	req.Header.Set("Accept", "text/event-stream")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	events := bufio.NewScanner(resp.Body)
	events.Buffer(nil, 16<<20)
	seen := 0
	for seen < 2 && events.Scan() {
		if events.Text() == "event: view" {
			seen++
		}
	}
	assert.Equal(t, 2, seen, "the live view")
	resp.Body.Close()
	require.Eventually(t, func() bool { return whispers.Load() > 0 }, patience, 100*time.Millisecond, "a whisper is sent")
	e.stop(t)

	self, err := os.Executable()
	require.NoError(t, err)
	for _, args := range [][]string{{"doctor", "--kubernetes=off"}, {"top", "--once", "--kubernetes=off"}} {
		cmd := exec.CommandContext(ctx, self, append([]string{binary}, args...)...)
		cmd.Env = append(os.Environ(), confined...)
		out, err := cmd.CombinedOutput()
		assert.NoError(t, err, "%v: %s", args, out)
	}

	t.Run("one call less is one too few", func(t *testing.T) {
		less := filepath.Join(t.TempDir(), "profile.json")
		b, err := os.ReadFile(profile)
		require.NoError(t, err)
		without := strings.Replace(string(b), "\"bpf\",", "", 1)
		require.NotEqual(t, string(b), without)
		require.NoError(t, os.WriteFile(less, []byte(without), 0o600))
		cmd := exec.CommandContext(ctx, self, binary, "doctor", "--kubernetes=off")
		cmd.Env = append(os.Environ(), confined[0], profileVariable+"="+less)
		out, err := cmd.CombinedOutput()
		require.ErrorContains(t, err, "bad system call", "%s", out)
	})
}
