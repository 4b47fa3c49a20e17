// Package kills ends the programs at random while they work, and looks at what is left.
package kills

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/kernel-gossip/kernel-gossip/e2e/soak"
	"github.com/kernel-gossip/kernel-gossip/e2e/throttled"
	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

const (
	node      = "kills"
	patience  = time.Minute
	shortLife = 4 * time.Second // of a program, on average
)

// program is one of ours that is ended and started again.
type program struct {
	t      *testing.T
	binary string
	args   []string
	url    string // stays the same over its lives, unless it is upgraded
	cmd    *exec.Cmd
	log    *os.File
}

func (p *program) start() {
	p.t.Helper()
	address := strings.TrimPrefix(p.url, "http://")
	p.cmd = exec.Command(p.binary, append(p.args, "--web.listen-address="+address)...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(p.t, p.cmd.Start())
	require.Eventually(p.t, func() bool {
		resp, err := http.Get(p.url + "/-/ready")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, patience, 20*time.Millisecond, "%s is not ready again", filepath.Base(p.binary))
}

func (p *program) kill() {
	require.NoError(p.t, p.cmd.Process.Kill())
	var exit *exec.ExitError
	err := p.cmd.Wait()
	require.ErrorAs(p.t, err, &exit, "it had ended before")
	require.Equal(p.t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal(), "it had ended before: %v", err)
}

// upgrade starts another beside it, as a DaemonSet with maxSurge does, and then ends it.
func (p *program) upgrade() {
	old := p.cmd
	p.url = freeURL(p.t)
	p.start()
	require.NoError(p.t, old.Process.Signal(syscall.SIGTERM))
	assert.NoError(p.t, old.Wait(), "asked to end, it ends well")
}

func freeURL(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return "http://" + l.Addr().String()
}

// For a minute (LENGTH=10m) either program is killed, or the exporter upgraded, every
// few seconds while new cgroups begin to be throttled. In the end each has its whisper,
// each file of the store is whole, and each probe is attached.
func TestKilledAtRandom(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("makes cgroups: run as root")
	}
	length := time.Minute
	if given := os.Getenv("LENGTH"); given != "" {
		var err error
		length, err = time.ParseDuration(given)
		require.NoError(t, err, "LENGTH")
	}
	bin := t.TempDir()
	for _, name := range []string{"exporter", "operator"} {
		build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(bin, name), "./"+name)
		build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
		out, err := build.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	store := t.TempDir()
	log, err := os.Create(filepath.Join(bin, "log"))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, log.Close()) })
	operator := &program{t: t, url: freeURL(t), log: log, binary: filepath.Join(bin, "operator"), args: []string{"--store.directory=" + store, "--whisper.max-per-namespace=0"}}
	exporter := &program{t: t, url: freeURL(t), log: log, binary: filepath.Join(bin, "exporter"), args: []string{
		"--kubernetes=off", "--node-name=" + node, "--whisper.url=" + operator.url, "--syscalls.names=getppid", "--throttle.window=10s",
	}}
	for _, p := range []*program{operator, exporter} {
		p.start()
		t.Cleanup(func() {
			_ = p.cmd.Process.Signal(syscall.SIGTERM)
			_ = p.cmd.Wait()
		})
	}
	attached := scrape(t, exporter.url).Values["kernel_gossip_exporter_probe_attached"]

	var groups []*throttled.Group
	t.Cleanup(func() {
		for _, g := range groups {
			assert.NoError(t, g.Close())
		}
	})
	ctx, end := context.WithTimeout(t.Context(), length)
	defer end()
	done := map[string]int{}
	for ctx.Err() == nil {
		g, err := throttled.New(fmt.Sprintf("kernel-gossip-kills-%d-%d", os.Getpid(), len(groups)), 2*time.Millisecond)
		require.NoError(t, err)
		groups = append(groups, g)
		require.NoError(t, g.Work())
		select {
		case <-ctx.Done():
		case <-time.After(rand.N(2 * shortLife)):
		}
		switch what := rand.IntN(3); what {
		case 0:
			done["the operator killed"]++
			operator.kill()
			operator.start()
		case 1:
			done["the exporter killed"]++
			exporter.kill()
			exporter.start()
		case 2:
			done["the exporter upgraded"]++
			exporter.upgrade()
		}
		for _, g := range groups {
			if told(t, store)[wire.HostPod(node, g.Path())] {
				g.Rest() // need not go on
			}
		}
	}
	t.Log("in", length, "with", len(groups), "throttled cgroups:", done)

	// What was killed before it had seen enough has to see it after.
	require.Eventually(t, func() bool {
		whispers := told(t, store)
		missing := 0
		for _, g := range groups {
			if !whispers[wire.HostPod(node, g.Path())] {
				missing++
			}
		}
		return missing == 0
	}, patience, 500*time.Millisecond, "each throttled cgroup has a whisper")
	assert.Equal(t, attached, scrape(t, exporter.url).Values["kernel_gossip_exporter_probe_attached"], "each probe is attached again")
}

// told reads every file that the store holds; one that is torn fails the test.
func told(t *testing.T, store string) (pods map[string]bool) {
	t.Helper()
	pods = map[string]bool{}
	files, err := filepath.Glob(filepath.Join(store, "*", "kernelwhispers", "*.yaml"))
	require.NoError(t, err)
	for _, file := range files {
		content, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		require.NoError(t, err)
		var w v1alpha1.KernelWhisper
		require.NoError(t, yaml.UnmarshalStrict(content, &w), file)
		require.NotEmpty(t, w.Spec.PodName, file)
		pods[w.Spec.PodName] = true
	}
	return pods
}

func scrape(t *testing.T, url string) soak.Point {
	t.Helper()
	resp, err := http.Get(url + "/metrics")
	require.NoError(t, err)
	defer resp.Body.Close()
	p, err := soak.Read(0, io.LimitReader(resp.Body, 16<<20))
	require.NoError(t, err)
	return p
}
