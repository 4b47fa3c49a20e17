package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
)

// These variables turn the test binary into something else: the operator itself, with
// these flags, to be killed; and a test in a mount namespace of its own.
const (
	operatorVariable = "KERNEL_GOSSIP_TEST_OPERATOR"
	mountsVariable   = "KERNEL_GOSSIP_TEST_MOUNTS"
)

func TestMain(m *testing.M) {
	if flags := os.Getenv(operatorVariable); flags != "" {
		app, o := newApp()
		kingpin.MustParse(app.Parse(strings.Split(flags, "\n")))
		fmt.Fprintln(os.Stderr, run(context.Background(), o, slog.New(slog.DiscardHandler)))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// serve runs the operator on a directory until the test ends.
func serve(t *testing.T, dir string, flags ...string) (url string) {
	t.Helper()
	address := freeAddress(t)
	ctx, end := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	o := parse(t, append([]string{"--store.directory=" + dir, "--web.listen-address=" + address}, flags...)...)
	go func() { ended <- run(ctx, o, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		end()
		assert.NoError(t, <-ended)
	})
	url = "http://" + address
	healthy(t, url)
	return url
}

func healthy(t *testing.T, url string) {
	t.Helper()
	require.Eventually(t, func() bool {
		resp, err := http.Get(url + "/-/healthy")
		return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	}, 30*time.Second, 10*time.Millisecond)
}

func event(namespace, pod string) string {
	return fmt.Sprintf(`{"type":"cpu_throttle","pod_name":%q,"namespace":%q,"throttle_percentage":78.5,"timestamp":%q}`,
		pod, namespace, time.Now().Format(time.RFC3339Nano))
}

func post(url, body string) (int, string, error) {
	resp, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(answer), err
}

// whispers are the objects in a directory by namespace/pod, each of them whole.
func whispers(t *testing.T, dir string) map[string]*v1alpha1.KernelWhisper {
	t.Helper()
	out := map[string]*v1alpha1.KernelWhisper{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		w := &v1alpha1.KernelWhisper{}
		require.NoError(t, yaml.UnmarshalStrict(content, w), path)
		out[w.Namespace+"/"+w.Spec.PodName] = w
		return nil
	}))
	return out
}

// ownMounts runs the calling test once more, in a process with a mount namespace of
// its own, and returns false; in that process it returns true. What is mounted there
// is gone with the process.
func ownMounts(t *testing.T) bool {
	t.Helper()
	if os.Getenv(mountsVariable) != "" {
		require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		return true
	}
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	again.Env = append(os.Environ(), mountsVariable+"=1")
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		again.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		again.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		again.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := again.CombinedOutput()
	if errors.Is(err, fs.ErrPermission) {
		t.Skipf("this test mounts a file system of its own and may not here: %v", err)
	}
	require.NoError(t, err, "%s", out)
	t.Logf("in a mount namespace of its own:\n%s", out)
	return false
}

// A disk that is full or read-only costs answers, never what was acknowledged, and
// the operator goes on as soon as the disk does.
func TestDiskFaults(t *testing.T) {
	if !ownMounts(t) {
		return
	}
	for name, c := range map[string]struct {
		options string // of the tmpfs
		harm    func(t *testing.T, dir string)
		heal    func(t *testing.T, dir string)
		says    string
	}{
		"full": {
			options: "size=256k",
			heal: func(t *testing.T, dir string) {
				require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT, "size=8m"))
			},
			says: "no space left on device",
		},
		"no inodes left": {
			options: "size=8m,nr_inodes=40",
			heal: func(t *testing.T, dir string) {
				require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT, "nr_inodes=4000"))
			},
			says: "no space left on device",
		},
		"read-only": {
			options: "size=8m",
			harm: func(t *testing.T, dir string) {
				require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
			},
			heal: func(t *testing.T, dir string) { require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT, "")) },
			says: "read-only file system",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, c.options))
			t.Cleanup(func() { assert.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
			url := serve(t, dir)
			acknowledged := map[string]bool{}
			var refused []string
			for i := range 100 {
				if i == 20 && c.harm != nil {
					c.harm(t, dir)
				}
				// Of several namespaces, so that folders have to be made, too.
				namespace, pod := fmt.Sprintf("shop-%d", i%25), fmt.Sprintf("web-%d", i)
				code, answer, err := post(url+"/webhook/ebpf", event(namespace, pod))
				require.NoError(t, err)
				switch code {
				case http.StatusOK:
					acknowledged[namespace+"/"+pod] = true
				case http.StatusServiceUnavailable:
					assert.Contains(t, answer, c.says)
					refused = append(refused, namespace+"/"+pod)
				default:
					assert.Fail(t, "another answer", "%d %s", code, answer)
				}
			}
			require.NotEmpty(t, acknowledged)
			require.NotEmpty(t, refused)
			kept := whispers(t, dir)
			for pod := range acknowledged {
				assert.Contains(t, kept, pod, "acknowledged")
			}
			// What is there can't be told anew either, and stays whole.
			for pod := range acknowledged {
				namespace, name, _ := strings.Cut(pod, "/")
				code, answer, err := post(url+"/webhook/ebpf", event(namespace, name))
				require.NoError(t, err)
				if code != http.StatusOK {
					assert.Contains(t, answer, c.says)
				}
			}
			assert.Len(t, whispers(t, dir), len(kept))
			resp, err := http.Get(url + "/-/healthy")
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, http.StatusOK, resp.StatusCode, "a restart would not help")

			c.heal(t, dir)
			for _, pod := range refused {
				namespace, name, _ := strings.Cut(pod, "/")
				code, answer, err := post(url+"/webhook/ebpf", event(namespace, name))
				require.NoError(t, err)
				assert.Equal(t, http.StatusOK, code, answer)
			}
			assert.Len(t, whispers(t, dir), 100)
			var left []string
			require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
				if strings.HasPrefix(filepath.Base(path), ".") {
					left = append(left, path)
				}
				return err
			}))
			assert.Empty(t, left, "nothing unfinished is left")
			t.Logf("%d acknowledged before, %d refused during the fault, all 100 kept after it", len(acknowledged), len(refused))
		})
	}
}

// Killed again and again in the middle of writes, the operator loses nothing that it
// acknowledged, and each file is whole.
func TestKilledAgainAndAgain(t *testing.T) {
	const rounds, senders, pods = 8, 8, 40
	dir := t.TempDir()
	var mu sync.Mutex
	acknowledged, sent := map[string]int{}, map[string]int{}
	for range rounds {
		address := freeAddress(t)
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), operatorVariable+"=--store.directory="+dir+"\n--web.listen-address="+address)
		cmd.Stderr = t.Output()
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		require.NoError(t, cmd.Start())
		url := "http://" + address
		healthy(t, url)
		for key := range whispers(t, dir) {
			assert.Contains(t, sent, key)
		}
		dead := make(chan struct{})
		var wg sync.WaitGroup
		for range senders {
			wg.Go(func() {
				for {
					select {
					case <-dead:
						return
					default:
					}
					i := rand.IntN(pods)
					namespace, pod := fmt.Sprintf("shop-%d", i%4), fmt.Sprintf("web-%d", i)
					mu.Lock()
					sent[namespace+"/"+pod]++
					mu.Unlock()
					code, answer, err := post(url+"/webhook/ebpf", event(namespace, pod))
					if err != nil {
						continue // killed
					}
					if assert.Equal(t, http.StatusOK, code, answer) {
						mu.Lock()
						acknowledged[namespace+"/"+pod]++
						mu.Unlock()
					}
				}
			})
		}
		time.Sleep(50*time.Millisecond + rand.N(200*time.Millisecond))
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait() // killed
		close(dead)
		wg.Wait()
	}
	kept, total := whispers(t, dir), 0
	for pod, n := range acknowledged {
		total += n
		if assert.Contains(t, kept, pod) {
			assert.GreaterOrEqual(t, int(kept[pod].Status.Occurrences), n, "%s: each acknowledged event counts", pod)
			assert.LessOrEqual(t, int(kept[pod].Status.Occurrences), sent[pod], "%s: and none twice", pod)
		}
	}
	require.Greater(t, total, rounds, "it was killed before it could do anything")
	t.Logf("killed %d times; %d events acknowledged, of %d pods, none lost", rounds, total, len(acknowledged))
}

// A storm of alerts about ten thousand containers: in one notification it is refused
// with the way out, in notifications of a size that the operator takes all of it is kept.
func TestTenThousandAlerts(t *testing.T) {
	const all, containers, batch = 10_000, stormContainers, 100 // the batch as max_alerts of the shipped configuration
	if !ownMounts(t) {
		return
	}
	// In memory: an object costs two fsyncs, and a disk's are not what this measures.
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=200m"))
	t.Cleanup(func() { assert.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	url := serve(t, dir) + "/webhook/alertmanager"
	alerts := make([]string, all)
	for i := range alerts {
		alerts[i] = fmt.Sprintf(`{"status":"firing","labels":{"alertname":"KernelGossipMetricsLie","namespace":"shop-%d","pod":"web-%d"},"annotations":{"throttle_percentage":"50"},"startsAt":%q}`,
			i%25, i, time.Now().Format(time.RFC3339))
	}
	notification := func(alerts []string) string {
		return `{"version":"4","status":"firing","alerts":[` + strings.Join(alerts, ",") + `]}`
	}
	kept := func() int { return len(whispers(t, dir)) } // a failure need not show them all
	code, answer, err := post(url, notification(alerts))
	require.NoError(t, err)
	assert.Equal(t, http.StatusRequestEntityTooLarge, code, answer)
	assert.Contains(t, answer, "send fewer events at once")
	require.Zero(t, kept(), "nothing of it is written")

	var wg sync.WaitGroup
	slots := make(chan struct{}, 16)
	began := time.Now()
	var mu sync.Mutex
	answers := map[int]int{}
	for first := 0; first < containers; first += batch {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			// As Alertmanager does: 5xx is tried again, everything else is not.
			for range 100 {
				code, answer, err := post(url, notification(alerts[first:first+batch]))
				if !assert.NoError(t, err) {
					return
				}
				mu.Lock()
				answers[code]++
				mu.Unlock()
				if code == http.StatusOK {
					return
				}
				if !assert.Equal(t, http.StatusServiceUnavailable, code, answer) {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
			assert.Fail(t, "a notification never came through")
		})
	}
	wg.Wait()
	assert.Equal(t, containers, kept())
	t.Logf("%d containers in %s; answers by status: %v", containers, time.Since(began).Round(time.Millisecond), answers)
}

// Two operators never share a directory: the second says why it does not start.
func TestTwoOperatorsOnADirectory(t *testing.T) {
	dir := t.TempDir()
	serve(t, dir)
	o := parse(t, "--store.directory="+dir, "--web.listen-address=127.0.0.1:0")
	require.ErrorContains(t, run(t.Context(), o, slog.New(slog.DiscardHandler)), "does another operator use it?")
}

// Whatever a stranger sends, a log line stays one line, and says nothing of its own.
func TestHostileNamesInTheLog(t *testing.T) {
	var mu sync.Mutex
	var out strings.Builder
	log := slog.New(slog.NewTextHandler(lockedWriter{&mu, &out}, nil))
	address := freeAddress(t)
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	dir := t.TempDir()
	o := parse(t, "--store.directory="+dir, "--web.listen-address="+address)
	go func() { ended <- run(ctx, o, log) }()
	healthy(t, "http://"+address)
	for _, name := range []string{"a\nlevel=ERROR msg=forged", "a\r\nlevel=ERROR", "\x1b[2Jcleared", "%s%n%d", "../../../etc/passwd", "..", "a/b", "a\x00b", "\u202egnp.exe", "<script>alert(1)</script>"} {
		quoted, err := json.Marshal(name)
		require.NoError(t, err)
		for _, field := range []string{"pod_name", "namespace", "container_name", "node_name", "type"} {
			body := fmt.Sprintf(`{"type":"cpu_throttle","pod_name":"web","namespace":"shop","throttle_percentage":78.5,"timestamp":%q,%s}`,
				time.Now().Format(time.RFC3339), fmt.Sprintf("%q:%s", field, quoted))
			// The key once, or the body is refused for that alone.
			body = strings.Replace(body, map[string]string{"pod_name": `"pod_name":"web",`, "namespace": `"namespace":"shop",`, "type": `"type":"cpu_throttle",`}[field], "", 1)
			code, answer, err := post("http://"+address+"/webhook/ebpf", body)
			require.NoError(t, err)
			assert.Equal(t, http.StatusBadRequest, code, "%s %q: %s", field, name, answer)
			assert.NotContains(t, answer, "\x1b")
		}
		alert, err := json.Marshal(map[string]any{"version": "4", "alerts": []any{map[string]any{
			"status": "firing", "labels": map[string]string{"alertname": name, "namespace": name, "pod": name}, "annotations": map[string]string{"throttle_percentage": "50", "summary": name},
			"startsAt": time.Now().Format(time.RFC3339),
		}}})
		require.NoError(t, err)
		code, answer, err := post("http://"+address+"/webhook/alertmanager", string(alert))
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, code, "Alertmanager can't mend it: %s", answer)
	}
	end()
	require.NoError(t, <-ended)
	assert.Empty(t, whispers(t, dir))
	mu.Lock()
	defer mu.Unlock()
	lines := 0
	for line := range strings.Lines(out.String()) {
		lines++
		assert.True(t, strings.HasPrefix(line, "time="), "a forged line: %q", line)
		for _, c := range strings.TrimSuffix(line, "\n") {
			assert.False(t, c < ' ' || c == 0x7f || c == 0x202e, "%q holds %U", line, c)
		}
		assert.NotContains(t, line, "%!", "a format string was taken as one")
	}
	assert.Greater(t, lines, 20)
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
