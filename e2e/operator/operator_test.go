// Package operator runs the operator's own binary against a real API server.
package operator

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kernel-gossip/kernel-gossip/e2e/apiserver"
	"github.com/kernel-gossip/kernel-gossip/exporter/whisper"
	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/wire"
)

const (
	namespace = "kernel-gossip"
	// talk is the request that the talk makes by hand.
	talk = `{"type":"cpu_throttle","pod_name":"live-demo","namespace":"kernel-gossip","container_name":"app","throttle_percentage":78.5,"actual_cpu_usage":1.5,"reported_cpu_usage":0.6,"period_seconds":60,"timestamp":"2025-08-25T11:00:00Z"}`
)

// bed is an API server with our CRDs, and the operator's binary.
type bed struct {
	server *apiserver.Server
	api    client.Client
	binary string
}

// build builds a binary of ours.
func build(t *testing.T, name string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), name)
	// As make build builds it, whose cache this shares.
	cmd := exec.Command("go", "build", "-trimpath", "-o", binary, "./"+name)
	cmd.Dir = "../.." // of the module whose go.mod the binary ships with
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return binary
}

func setUp(t *testing.T) *bed {
	t.Helper()
	server, err := apiserver.Start(t.Context(), apiserver.Options{CRDs: []string{"../../deploy/crds"}})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, server.Stop()) })
	scheme := runtime.NewScheme()
	require.NoError(t, clientgoscheme.AddToScheme(scheme))
	require.NoError(t, v1alpha1.AddToScheme(scheme))
	api, err := client.New(server.Config(), client.Options{Scheme: scheme})
	require.NoError(t, err)
	require.NoError(t, api.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}))
	return &bed{server, api, build(t, "operator")}
}

// operator is one running replica.
type operator struct {
	url  string
	cmd  *exec.Cmd
	done chan struct{}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

func (b *bed) start(t *testing.T, address string, args ...string) *operator {
	t.Helper()
	return b.startWith(t, b.server.Kubeconfig(), address, args...)
}

// startWith reaches the API server as the kubeconfig says.
func (b *bed) startWith(t *testing.T, kubeconfig, address string, args ...string) *operator {
	t.Helper()
	cmd := launch(t, b.binary, append([]string{
		"--kubeconfig=" + kubeconfig, "--web.listen-address=" + address, "--log.level=warn",
	}, args...)...)
	o := &operator{"http://" + address, cmd, make(chan struct{})}
	go func() { _ = cmd.Wait(); close(o.done) }()
	t.Cleanup(o.kill)
	require.Eventually(t, func() bool { return healthy(o.url + "/-/ready") }, 30*time.Second, 50*time.Millisecond)
	return o
}

// launch starts a process that does not outlive the test.
func launch(t *testing.T, path string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	return cmd
}

func healthy(url string) bool {
	resp, err := http.Get(url)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// kill is kill -9.
func (o *operator) kill() {
	_ = o.cmd.Process.Kill()
	<-o.done
}

// stop asks the operator to end, as kubelet does, and holds it to a clean end.
func (o *operator) stop(t *testing.T) {
	t.Helper()
	require.NoError(t, o.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-o.done:
	case <-time.After(45 * time.Second):
		require.Fail(t, "the operator does not end")
	}
	assert.Equal(t, 0, o.cmd.ProcessState.ExitCode())
}

func post(url, body string) (int, string, error) {
	resp, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func TestOperatorOnARealAPIServer(t *testing.T) {
	t.Parallel()
	const room = "--whisper.max-per-namespace=2000"
	b := setUp(t)
	ctx := t.Context()
	get := func(name string) (*v1alpha1.KernelWhisper, error) {
		w := &v1alpha1.KernelWhisper{}
		return w, b.api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, w)
	}

	t.Run("the talk's request is a whisper in under a second", func(t *testing.T) {
		o := b.start(t, freeAddress(t))
		began := time.Now()
		code, body, err := post(o.url+"/webhook/pixie", talk)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, code, body)
		w, err := get("live-demo-kw")
		require.NoError(t, err)
		t.Logf("object after %s", time.Since(began))
		assert.Less(t, time.Since(began), time.Second)
		assert.EqualValues(t, 1, w.Status.Occurrences)
		assert.Equal(t, "Active", string(w.Status.Phase))
		assert.Contains(t, w.Spec.Insights, "CPU throttling detected: 78.5% throttled")
		assert.NotEmpty(t, w.Status.Recommendations)
	})

	t.Run("the same request a thousand times, to two replicas, is one object", func(t *testing.T) {
		body := strings.ReplaceAll(talk, "live-demo", "thousand")
		replicas := []*operator{b.start(t, freeAddress(t)), b.start(t, freeAddress(t))}
		var wg sync.WaitGroup
		failed := make(chan string, 1000)
		for worker := range 20 {
			wg.Go(func() {
				for range 50 {
					if code, answer, err := post(replicas[worker%2].url+"/webhook/pixie", body); err != nil || code != http.StatusOK {
						failed <- fmt.Sprint(code, answer, err)
					}
				}
			})
		}
		wg.Wait()
		require.Empty(t, failed)
		w, err := get("thousand-kw")
		require.NoError(t, err)
		assert.EqualValues(t, 1000, w.Status.Occurrences)
	})

	t.Run("killed in the middle of a thousand events, every container has its whisper", func(t *testing.T) {
		address := freeAddress(t)
		o := b.start(t, address, room)
		sender, err := whisper.NewSender(whisper.SenderConfig{URL: o.url, Batch: 25})
		require.NoError(t, err)
		run, end := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- sender.Run(run) }()
		const events = 1000
		used := 0.3
		for i := range events {
			sender.Enqueue(wire.CPUThrottle{
				Head:               wire.Head{Type: wire.TypeCPUThrottle, PodName: fmt.Sprintf("killed-%04d", i/2), Namespace: namespace, ContainerName: fmt.Sprintf("c%d", i%2), Timestamp: time.Now()},
				ThrottlePercentage: 90, ActualCPUUsage: &used, PeriodSeconds: 60,
			})
		}
		list := func() int {
			ws := &v1alpha1.KernelWhisperList{}
			require.NoError(t, b.api.List(ctx, ws, client.InNamespace(namespace)))
			n := 0
			for _, w := range ws.Items {
				if strings.HasPrefix(w.Spec.PodName, "killed-") {
					n++
				}
			}
			return n
		}
		require.Eventually(t, func() bool { return list() > 250 }, time.Minute, 20*time.Millisecond)
		o.kill()
		at := list()
		require.Less(t, at, events, "the kill came too late to prove anything")
		b.start(t, address, room)
		require.Eventually(t, func() bool { return sender.QueueLength() == 0 }, 90*time.Second, 100*time.Millisecond)
		end()
		require.NoError(t, <-ended)
		t.Logf("%d of %d whispers stood when the operator was killed", at, events)
		ws := &v1alpha1.KernelWhisperList{}
		require.NoError(t, b.api.List(ctx, ws, client.InNamespace(namespace)))
		whispers := map[string]int{}
		for _, w := range ws.Items {
			if strings.HasPrefix(w.Spec.PodName, "killed-") {
				assert.Equal(t, v1alpha1.Active, w.Status.Phase, w.Name)
				whispers[w.Spec.PodName+"/"+w.Spec.ContainerName]++
			}
		}
		assert.Len(t, whispers, events, "containers that have a whisper")
		for container, n := range whispers {
			assert.Equal(t, 1, n, "whispers of %s", container)
		}
	})

	t.Run("an API server that is away costs an answer, not a whisper", func(t *testing.T) {
		o := b.start(t, freeAddress(t), room)
		body := strings.ReplaceAll(talk, "live-demo", "away")
		require.NoError(t, b.server.StopAPI())
		code, answer, err := post(o.url+"/webhook/pixie", body)
		require.NoError(t, err)
		assert.Equal(t, http.StatusServiceUnavailable, code, answer)
		require.NoError(t, b.server.StartAPI(ctx))
		require.Eventually(t, func() bool {
			code, _, err := post(o.url+"/webhook/pixie", body)
			return err == nil && code == http.StatusOK
		}, 30*time.Second, 200*time.Millisecond)
		_, err = get("away-kw")
		require.NoError(t, err)
	})

	t.Run("what is malformed writes nothing", func(t *testing.T) {
		o := b.start(t, freeAddress(t))
		for field, body := range map[string]string{
			"pod_name":            strings.ReplaceAll(talk, "live-demo", "../../etc"),
			"throttle_percentage": strings.ReplaceAll(strings.ReplaceAll(talk, "live-demo", "refused"), "78.5", "178.5"),
			"period_seconds":      strings.ReplaceAll(strings.ReplaceAll(talk, "live-demo", "refused"), ":60,", `:"x",`),
		} {
			code, answer, err := post(o.url+"/webhook/pixie", body)
			require.NoError(t, err)
			assert.Equal(t, http.StatusBadRequest, code, answer)
			var reply struct{ Field string }
			require.NoError(t, json.Unmarshal([]byte(answer), &reply))
			assert.Equal(t, field, reply.Field)
		}
		_, err := get("refused-kw")
		assert.True(t, apierrors.IsNotFound(err), "%v", err)
	})

	t.Run("the CRD refuses a bad object with the field named", func(t *testing.T) {
		bad := &v1alpha1.KernelWhisper{
			ObjectMeta: metav1.ObjectMeta{Name: "bad", Namespace: namespace},
			Spec:       v1alpha1.KernelWhisperSpec{SignalType: "gossip", PodName: "p"},
		}
		err := b.api.Create(ctx, bad)
		require.ErrorContains(t, err, "spec.signalType")
	})
}
