package apiserver_test

import (
	"context"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kernel-gossip/kernel-gossip/e2e/apiserver"
)

func TestServer(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	server, err := apiserver.Start(ctx, apiserver.Options{CRDs: []string{"testdata"}, Progress: t.Output()})
	require.NoError(t, err)
	defer func() { assert.NoError(t, server.Stop()) }()

	config, err := clientcmd.BuildConfigFromFlags("", server.Kubeconfig())
	require.NoError(t, err)
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	put := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kept"}, Data: map[string]string{"a": "b"}}
	_, err = client.CoreV1().ConfigMaps("default").Create(ctx, put, metav1.CreateOptions{})
	require.NoError(t, err)

	t.Run("kubectl knows the CRD", func(t *testing.T) {
		out, err := server.Kubectl(ctx, strings.NewReader(`{"apiVersion":"e2e.test/v1","kind":"Thing","metadata":{"name":"one","namespace":"default"}}`), "apply", "-f", "-")
		require.NoError(t, err)
		assert.Equal(t, "thing.e2e.test/one created\n", out)
		_, err = server.Kubectl(ctx, nil, "get", "nothings")
		require.ErrorContains(t, err, `the server doesn't have a resource type "nothings"`)
	})

	t.Run("a user may do nothing without RBAC", func(t *testing.T) {
		config, err := server.User("system:serviceaccount:default:nobody", "system:serviceaccounts")
		require.NoError(t, err)
		nobody, err := kubernetes.NewForConfig(config)
		require.NoError(t, err)
		_, err = nobody.CoreV1().ConfigMaps("default").List(ctx, metav1.ListOptions{})
		assert.True(t, apierrors.IsForbidden(err), "%v", err)
	})

	t.Run("the API server goes and comes back as it was", func(t *testing.T) {
		address, err := url.Parse(config.Host)
		require.NoError(t, err)
		require.NoError(t, server.StopAPI())
		_, err = net.DialTimeout("tcp", address.Host, time.Second)
		require.ErrorContains(t, err, "connection refused")
		require.NoError(t, server.StartAPI(ctx))
		got, err := client.CoreV1().ConfigMaps("default").Get(ctx, "kept", metav1.GetOptions{})
		require.NoError(t, err)
		assert.Equal(t, put.Data, got.Data)
	})
}
