package kube

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

// What the whole clientset asks and understands, this one has to as well: the API
// server's own words are in e2e.
func TestClient(t *testing.T) {
	const pod = `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web","namespace":"shop","uid":"1"},"spec":{"nodeName":"worker"}}`
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.String())
		assert.Contains(t, r.Header.Get("Accept"), "application/vnd.kubernetes.protobuf")
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Query().Get("watch") != "":
			fmt.Fprintf(w, `{"type":"ADDED","object":%s}`, pod)
		case r.URL.Path == "/api/v1/pods":
			fmt.Fprintf(w, `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[%s]}`, pod)
		case r.URL.Path == "/api/v1/nodes/worker":
			fmt.Fprint(w, `{"kind":"Node","apiVersion":"v1","metadata":{"name":"worker"}}`)
		default:
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","message":"no","code":403}`)
		}
	}))
	t.Cleanup(server.Close)
	c, err := New(&rest.Config{Host: server.URL})
	require.NoError(t, err)

	here := metav1.ListOptions{FieldSelector: "spec.nodeName=worker", Limit: 500}
	list, err := c.Pods().List(t.Context(), here)
	require.NoError(t, err)
	assert.Equal(t, "7", list.ResourceVersion)
	require.Len(t, list.Items, 1)
	assert.Equal(t, "web", list.Items[0].Name)

	events, err := c.Pods().Watch(t.Context(), here)
	require.NoError(t, err)
	event := <-events.ResultChan()
	events.Stop()
	assert.Equal(t, watch.Added, event.Type)
	assert.Equal(t, "worker", event.Object.(*corev1.Pod).Spec.NodeName)

	node, err := c.Nodes().Get(t.Context(), "worker", metav1.GetOptions{})
	require.NoError(t, err)
	assert.Equal(t, "worker", node.Name)
	_, err = c.Nodes().Get(t.Context(), "other", metav1.GetOptions{})
	assert.True(t, apierrors.IsForbidden(err), "%v", err)
	assert.Equal(t, []string{
		"/api/v1/pods?fieldSelector=spec.nodeName%3Dworker&limit=500",
		"/api/v1/pods?fieldSelector=spec.nodeName%3Dworker&limit=500&watch=true",
		"/api/v1/nodes/worker", "/api/v1/nodes/other",
	}, asked)
}
