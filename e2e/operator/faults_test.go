package operator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
)

// fault does something to a request on its way to the API server, or to its answer;
// pass lets it through.
type fault func(w http.ResponseWriter, r *http.Request, pass http.HandlerFunc)

// proxy stands between the operator and the real API server and does harm as told.
type proxy struct {
	kubeconfig string
	harm       atomic.Pointer[fault]
	done       atomic.Int64 // harm
}

func (p *proxy) inject(f fault) { p.harm.Store(&f); p.done.Store(0) }
func (p *proxy) heal()          { p.harm.Store(nil) }

func newProxy(t *testing.T, b *bed) *proxy {
	t.Helper()
	p := &proxy{}
	transport, err := rest.TransportFor(b.server.Config())
	require.NoError(t, err)
	to, err := url.Parse(b.server.Config().Host)
	require.NoError(t, err)
	forward := &httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1,
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if harm := p.harm.Load(); harm != nil {
			(*harm)(w, r, forward.ServeHTTP)
			return
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	p.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, os.WriteFile(p.kubeconfig, []byte(fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: proxy
clusters: [{name: proxy, cluster: {server: %q}}]
contexts: [{name: proxy, context: {cluster: proxy, user: proxy}}]
users: [{name: proxy, user: {}}]
`, server.URL)), 0o600))
	return p
}

// ours tells requests for whispers from those for leases, watches and Events.
func ours(r *http.Request) bool {
	return strings.Contains(r.URL.Path, "/kernelwhispers") && r.URL.Query().Get("watch") == ""
}

func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	w.Header().Set("Content-Type", "application/json")
	if code == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{ // the operator may be gone
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
		Code: int32(code), Reason: reason, Message: "injected",
	})
}

// An API server that is slow, overloaded, contended, or that takes a write and loses
// its answer costs time and answers; what was acknowledged is there, once.
func TestAPIServerFaults(t *testing.T) {
	t.Parallel()
	const room = "--whisper.max-per-namespace=2000"
	b := setUp(t)
	p := newProxy(t, b)
	o := b.startWith(t, p.kubeconfig, freeAddress(t), room)
	var mu sync.Mutex
	turns := map[string]int{}
	// turn counts the requests of a kind for an object, from 1.
	turn := func(r *http.Request) int {
		mu.Lock()
		defer mu.Unlock()
		turns[r.Method+r.URL.Path]++
		return turns[r.Method+r.URL.Path]
	}
	for name, f := range map[string]fault{
		"slow": func(w http.ResponseWriter, r *http.Request, pass http.HandlerFunc) {
			time.Sleep(time.Second)
			p.done.Add(1)
			pass(w, r)
		},
		// Longer in all than a request to the operator may take.
		"very slow": func(w http.ResponseWriter, r *http.Request, pass http.HandlerFunc) {
			if ours(r) {
				time.Sleep(2 * time.Second)
				p.done.Add(1)
			}
			pass(w, r)
		},
		"overloaded (429)": func(w http.ResponseWriter, r *http.Request, pass http.HandlerFunc) {
			if ours(r) && turn(r) <= 2 {
				p.done.Add(1)
				refuse(w, http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests)
				return
			}
			pass(w, r)
		},
		"contended (409)": func(w http.ResponseWriter, r *http.Request, pass http.HandlerFunc) {
			if ours(r) && r.Method == http.MethodPatch && turn(r) <= 3 {
				p.done.Add(1)
				refuse(w, http.StatusConflict, metav1.StatusReasonConflict)
				return
			}
			pass(w, r)
		},
		"failing (500)": func(w http.ResponseWriter, r *http.Request, pass http.HandlerFunc) {
			if ours(r) && turn(r) <= 2 {
				p.done.Add(1)
				refuse(w, http.StatusInternalServerError, metav1.StatusReasonInternalError)
				return
			}
			pass(w, r)
		},
		"the answer is lost": func(w http.ResponseWriter, r *http.Request, pass http.HandlerFunc) {
			if ours(r) && r.Method == http.MethodPatch && turn(r) == 1 {
				pass(httptest.NewRecorder(), r) // written
				p.done.Add(1)
				panic(http.ErrAbortHandler) // and the connection breaks
			}
			pass(w, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			space := b.namespace(t, strings.Trim(strings.Map(func(r rune) rune {
				if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
					return r
				}
				return '-'
			}, name), "-"))
			p.inject(f)
			defer p.heal()
			const pods = 5
			var wg sync.WaitGroup
			var tries atomic.Int64
			began := time.Now()
			for i := range pods {
				wg.Go(func() {
					// As the exporter and Alertmanager do: 503 is tried again, nothing else is.
					for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
						tries.Add(1)
						code, answer := o.send(t, event(space, fmt.Sprintf("web-%d", i), "app", ""))
						if code == http.StatusOK {
							return
						}
						if !assert.Equal(t, http.StatusServiceUnavailable, code, answer) {
							return
						}
					}
					assert.Fail(t, "never stored", "web-%d", i)
				})
			}
			wg.Wait()
			assert.Positive(t, p.done.Load(), "the fault was never there")
			t.Logf("%d whispers after %s, %d requests to the operator, %d faults injected",
				pods, time.Since(began).Round(time.Millisecond), tries.Load(), p.done.Load())
			list := &v1alpha1.KernelWhisperList{}
			require.NoError(t, b.api.List(t.Context(), list, client.InNamespace(space)))
			assert.Len(t, list.Items, pods, "one for each")
			for _, w := range list.Items {
				assert.Equal(t, v1alpha1.Active, w.Status.Phase, w.Name)
				assert.GreaterOrEqual(t, int(w.Status.Occurrences), 1, w.Name)
			}
		})
	}
	assert.True(t, healthy(o.url+"/-/ready"), "and is well after all of it")
}

// Replicas of which none is allowed the lease (so that none leads) take words all the
// same; whispers stand once, and only what the leader tends waits.
func TestNobodyLeads(t *testing.T) {
	t.Parallel()
	b := setUp(t)
	p := newProxy(t, b)
	p.inject(func(w http.ResponseWriter, r *http.Request, pass http.HandlerFunc) {
		if strings.Contains(r.URL.Path, "/leases") {
			p.done.Add(1)
			refuse(w, http.StatusForbidden, metav1.StatusReasonForbidden)
			return
		}
		pass(w, r)
	})
	replicas := []*operator{b.startWith(t, p.kubeconfig, freeAddress(t)), b.startWith(t, p.kubeconfig, freeAddress(t))}
	space := b.namespace(t, "leaderless")
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			code, answer := replicas[i%2].send(t, event(space, fmt.Sprintf("web-%d", i/4), "app", ""))
			assert.Equal(t, http.StatusOK, code, answer)
		})
	}
	wg.Wait()
	list := &v1alpha1.KernelWhisperList{}
	require.NoError(t, b.api.List(t.Context(), list, client.InNamespace(space)))
	assert.Len(t, list.Items, 10)
	for _, w := range list.Items {
		assert.EqualValues(t, 4, w.Status.Occurrences, w.Name)
	}
	assert.Positive(t, p.done.Load(), "nobody asked for the lease")
	assert.Empty(t, b.holder(t))
}
