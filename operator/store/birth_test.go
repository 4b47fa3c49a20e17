package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/yaml"

	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

func ptr[T any](v T) *T { return &v }

func bornWith(pod string, at time.Time, complete *bool) signal.Signal {
	s := born(at)
	s.Pod, s.PodUID, s.Creation.Complete = pod, "uid-"+pod, complete
	return s
}

func readBirth(t *testing.T, dir, name string) *v1alpha1.PodBirthCertificate {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, "shop/podbirthcertificates", name+".yaml"))
	require.NoError(t, err)
	b := &v1alpha1.PodBirthCertificate{}
	require.NoError(t, yaml.UnmarshalStrict(content, b))
	return b
}

func duration(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }

func TestACertificateTellsAll(t *testing.T) {
	dir := t.TempDir()
	d := openDirectory(t, dir, Options{})
	s := born(noon())
	s.Node = "n1"
	s.Creation = &signal.Creation{
		TotalSyscalls: 14918, SetupSyscalls: ptr(uint64(8473)), SharedSyscalls: ptr(uint64(5120)), SharedBy: ptr(uint64(3)),
		NamespaceOps: 15, CgroupWrites: 64, Mounts: ptr(uint64(91)), Execs: ptr(uint64(12)), Duration: 924_123_456,
		Complete: ptr(false), IncompleteReasons: []string{"3 events were lost"}, Failed: true, Failure: "app never ran",
		Namespaces: []signal.Namespaces{{Kind: "net", Created: 1, Entered: 2}},
		Network:    &signal.BirthNetwork{Interfaces: []string{"eth0"}, Addresses: []string{"10.0.0.2/24"}, Routes: []string{"default via 10.0.0.1"}, FirewallRules: ptr(uint64(0))},
		Containers: []signal.BirthContainer{{Name: "app", ContainerID: "0f3a", Init: true, Created: ptr(time.Millisecond), Started: ptr(2 * time.Millisecond), Entered: ptr(3 * time.Millisecond), Entrypoint: "/bin/app", Failure: "no such file", Syscalls: ptr(uint64(6000)), SetupSyscalls: ptr(uint64(3000))}},
		Roles:      []signal.Role{{Role: "runc init", Container: "app", Syscalls: 3484}},
		Timeline: []signal.Step{
			{Offset: 4 * time.Millisecond, Duration: ptr(1500 * time.Microsecond), Actor: "cni", Action: "bridge", Details: "ADD", Container: "app"},
			{Offset: -2 * time.Second, Precision: ptr(time.Second), Actor: "scheduler", Action: "find a node"},
		},
	}
	require.NoError(t, d.Accept(t.Context(), s))
	got := readBirth(t, dir, "web-0-birth").Spec
	assert.Len(t, got.Insights, 5, "%q", got.Insights)
	got.Insights = nil
	assert.Equal(t, v1alpha1.PodBirthCertificateSpec{
		PodName: "web-0", PodUID: "a", NodeName: "n1", DetectedAt: got.DetectedAt,
		TotalSyscalls: 14918, SetupSyscalls: ptr(int64(8473)), SharedWork: &v1alpha1.SharedWork{Syscalls: 5120, Births: ptr(int64(3))},
		NamespaceOperations: 15, CgroupWrites: 64, Mounts: ptr(int64(91)), Execs: ptr(int64(12)), Duration: *duration(924_100 * time.Microsecond),
		Complete: ptr(false), IncompleteReasons: []string{"3 events were lost"}, Failed: true, Failure: "app never ran",
		Namespaces: []v1alpha1.NamespaceCount{{Kind: "net", Created: 1, Entered: 2}},
		Network:    &v1alpha1.BirthNetwork{Interfaces: []string{"eth0"}, Addresses: []string{"10.0.0.2/24"}, Routes: []string{"default via 10.0.0.1"}, FirewallRules: ptr(int64(0))},
		Containers: []v1alpha1.BirthContainer{{Name: "app", ContainerID: "0f3a", Init: true, CreatedOffset: duration(time.Millisecond), StartedOffset: duration(2 * time.Millisecond), EntrypointOffset: duration(3 * time.Millisecond), Entrypoint: "/bin/app", Failure: "no such file", Syscalls: ptr(int64(6000)), SetupSyscalls: ptr(int64(3000))}},
		Roles:      []v1alpha1.BirthRole{{Role: "runc init", Container: "app", Syscalls: 3484}},
		Stages: []v1alpha1.Stage{
			{Offset: *duration(-2 * time.Second), Precision: duration(time.Second), Actor: "scheduler", Action: "find a node"},
			{Offset: *duration(4 * time.Millisecond), Duration: duration(1500 * time.Microsecond), Actor: "cni", Action: "bridge", Details: "ADD", Container: "app"},
		},
	}, got)
}

// A crash loop is no series of births, and leaves the certificate of the one there was.
func TestAPodIsBornOnce(t *testing.T) {
	yes, no := ptr(true), ptr(false)
	for name, c := range map[string]struct {
		first, second *bool
		replaced      bool
	}{
		"all was seen":                     {yes, yes, false},
		"a restart, partly seen":           {yes, no, false},
		"a restart, told by somebody else": {yes, nil, false},
		"now all is seen":                  {no, yes, true},
		"no more is seen":                  {no, no, false},
		"told by hand":                     {nil, nil, true},
		"told by hand before":              {nil, yes, true},
	} {
		dir := t.TempDir()
		d := openDirectory(t, dir, Options{})
		require.NoError(t, d.Accept(t.Context(), bornWith("web", noon(), c.first)))
		for i := range 20 {
			again := bornWith("web", noon().Add(time.Minute), c.second)
			again.Creation.TotalSyscalls = 7
			require.NoError(t, d.Accept(t.Context(), again), i)
		}
		b := readBirth(t, dir, "web-birth")
		assert.Equal(t, c.replaced, b.Spec.TotalSyscalls == 7, name)
		writes := 1.0
		if c.replaced {
			writes = 2
		}
		assert.Equal(t, writes, testutil.ToFloat64(d.opts.Metrics.writes.WithLabelValues("file")), name)
	}
}

func TestTheOldestBirthsMakeRoom(t *testing.T) {
	dir := t.TempDir()
	d := openDirectory(t, dir, Options{Limits: Limits{PerNamespace: 3, Total: 4}})
	for i := range 6 {
		require.NoError(t, d.Accept(t.Context(), bornWith(fmt.Sprint("p", i), noon(), nil)))
		// Files of one moment have no order.
		at := noon().Add(time.Duration(i) * time.Second)
		require.NoError(t, os.Chtimes(filepath.Join(dir, fmt.Sprintf("shop/podbirthcertificates/p%d-birth.yaml", i)), at, at))
	}
	assert.Equal(t, []string{"shop/podbirthcertificates/p3-birth.yaml", "shop/podbirthcertificates/p4-birth.yaml", "shop/podbirthcertificates/p5-birth.yaml"}, files(t, dir))
	for i := range 2 {
		s := bornWith(fmt.Sprint("q", i), noon(), nil)
		s.Namespace = "till"
		require.NoError(t, d.Accept(t.Context(), s))
	}
	assert.Equal(t, []string{
		"shop/podbirthcertificates/p4-birth.yaml", "shop/podbirthcertificates/p5-birth.yaml",
		"till/podbirthcertificates/q0-birth.yaml", "till/podbirthcertificates/q1-birth.yaml",
	}, files(t, dir))
	assert.EqualValues(t, 4, testutil.ToFloat64(d.opts.Metrics.evicted))
	assert.EqualValues(t, 0, testutil.ToFloat64(d.opts.Metrics.capped.WithLabelValues(scopeNamespace)))
}

func TestTheOldestBirthsMakeRoomInACluster(t *testing.T) {
	const limit = 40
	made, lists := 0, 0
	k, api := newCluster(t, Options{Limits: Limits{PerNamespace: limit}}, interceptor.Funcs{
		// The fake API server gives no time of creation.
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			err := c.List(ctx, list, opts...)
			lists++
			if m, ok := list.(*metav1.PartialObjectMetadataList); ok {
				for i := range m.Items {
					var n int
					_, _ = fmt.Sscanf(m.Items[i].Name, "p%d-birth", &n)
					m.Items[i].CreationTimestamp = metav1.NewTime(noon().Add(time.Duration(n) * time.Second))
				}
			}
			return err
		},
	})
	for ; made < limit+3; made++ {
		require.NoError(t, k.Accept(t.Context(), bornWith(fmt.Sprint("p", made), noon(), nil)))
	}
	assert.Less(t, lists, 15, "they are counted anew as room gets scarce")
	list := &v1alpha1.PodBirthCertificateList{}
	require.NoError(t, api.List(t.Context(), list))
	names := map[string]bool{}
	for _, b := range list.Items {
		names[b.Name] = true
	}
	// A twentieth goes at once: two at the 41st, two at the 43rd.
	assert.Len(t, names, limit-1)
	for i := range made {
		assert.Equal(t, i >= 4, names[fmt.Sprintf("p%d-birth", i)], i)
	}
	assert.EqualValues(t, 4, testutil.ToFloat64(k.opts.Metrics.evicted))
}

func TestBirthsAreShown(t *testing.T) {
	long := strings.Repeat("a", 250)
	k, _ := newCluster(t, Options{}, interceptor.Funcs{})
	for kind, kept := range map[string]interface {
		Store
		Birth(ctx context.Context, namespace, pod string) (*v1alpha1.PodBirthCertificate, error)
		Births(ctx context.Context) ([]BirthEntry, error)
	}{"cluster": k, "directory": openDirectory(t, t.TempDir(), Options{})} {
		all, err := kept.Births(t.Context())
		require.NoError(t, err)
		assert.Empty(t, all, kind)
		for _, pod := range []string{"web", long} {
			require.NoError(t, kept.Accept(t.Context(), bornWith(pod, noon(), nil)))
		}
		all, err = kept.Births(t.Context())
		require.NoError(t, err)
		require.Len(t, all, 2, kind)
		pods := map[string]bool{}
		for _, e := range append(all, BirthEntry{Namespace: "shop", Pod: long}) {
			b, err := kept.Birth(t.Context(), e.Namespace, e.Pod)
			require.NoError(t, err)
			require.NotNil(t, b, "%s: what is listed can be opened: %s", kind, e.Pod)
			pods[b.Spec.PodName] = true
		}
		assert.Equal(t, map[string]bool{"web": true, long: true}, pods, kind)
		b, err := kept.Birth(t.Context(), "shop", "other")
		require.NoError(t, err)
		assert.Nil(t, b, kind)
	}
}
