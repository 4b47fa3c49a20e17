package cluster

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	Isolate()
	os.Exit(m.Run())
}

func TestSmoke(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "bed")
	require.NoError(t, err)
	c, err := Start(ctx, dir, Binaries{Kubernetes: filepath.Join(cache, "kernel-gossip/bin/v1.36.3"), Node: filepath.Join(cache, "kernel-gossip/bin/node")}, os.Stderr)
	t.Log(dir)
	require.NoError(t, err)
	defer c.Stop()
	pause := filepath.Join(dir, "pause")
	cmd := exec.Command("go", "build", "-o", pause, "../cmd/pause")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.NoError(t, c.Import(ctx, Image{Reference: PauseImage, Files: map[string]string{"pause": pause}, Entrypoint: []string{"/pause"}}))
	require.NoError(t, c.Import(ctx, Image{Reference: BusyboxImage, Files: map[string]string{"bin/busybox": "/bin/busybox"}, Links: map[string]string{"bin/sh": "busybox", "bin/sleep": "busybox", "bin/wget": "busybox", "bin/nslookup": "busybox"}}))
	c.Say("images imported")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "hog.yaml"), []byte(`apiVersion: v1
kind: Pod
metadata: {name: hog, namespace: default}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: hog
    image: bed.test/busybox:1
    imagePullPolicy: Never
    command: ["sh","-c","while :; do :; done"]
    resources: {requests: {cpu: 100m, memory: 16Mi}, limits: {cpu: 200m, memory: 64Mi}}
`), 0o644))
	_, err = c.Kubectl(ctx, "apply", "-f", filepath.Join(dir, "hog.yaml"))
	require.NoError(t, err)
	s, err := c.Kubectl(ctx, "wait", "--for=condition=Ready", "pod/hog", "--timeout=90s")
	t.Log(s)
	if err != nil {
		d, _ := c.Kubectl(ctx, "describe", "pod", "hog")
		t.Log(d)
	}
	require.NoError(t, err)
	c.Say("pod ready")
	s, err = c.Kubectl(ctx, "exec", "hog", "--", "busybox", "nslookup", "kubernetes.default.svc.cluster.local")
	t.Log(s, err)
	s, err = c.Kubectl(ctx, "exec", "hog", "--", "cat", "/etc/resolv.conf")
	t.Log(s, err)
	require.NoError(t, c.StartMetricsServer(ctx))
	time.Sleep(20 * time.Second)
	s, err = c.Kubectl(ctx, "top", "pod", "-A")
	t.Log(s, err)
	b, err := c.Client.Discovery().RESTClient().Get().AbsPath("/api/v1/nodes/bed/proxy/metrics/cadvisor").DoRaw(ctx)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile("/tmp/w/cadvisor.txt", b, 0o644))
	b, err = c.Client.Discovery().RESTClient().Get().AbsPath("/api/v1/nodes/bed/proxy/metrics/resource").DoRaw(ctx)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile("/tmp/w/resource.txt", b, 0o644))
}
