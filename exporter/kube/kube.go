// Package kube is the part of the API server that the exporter asks for: pods and
// nodes. The whole clientset knows every kind that there is, which would be half of
// the program's file and most of what of it is resident, on every node.
package kube

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"
)

// Client asks one API server. It is safe for concurrent use.
type Client struct {
	rest   *rest.RESTClient
	params runtime.ParameterCodec
}

// New returns a Client; it does not call the API server yet.
func New(config *rest.Config) (*Client, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("learning the kinds of the core API: %w", err)
	}
	c := rest.CopyConfig(config)
	c.GroupVersion, c.APIPath = &corev1.SchemeGroupVersion, "/api"
	c.NegotiatedSerializer = rest.CodecFactoryForGeneratedClient(scheme, serializer.NewCodecFactory(scheme)).WithoutConversion()
	client, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, err
	}
	return &Client{rest: client, params: runtime.NewParameterCodec(scheme)}, nil
}

// REST makes requests of any kind.
func (c *Client) REST() rest.Interface { return c.rest }

// Pods are those of all namespaces.
func (c *Client) Pods() *gentype.ClientWithList[*corev1.Pod, *corev1.PodList] {
	return gentype.NewClientWithList("pods", rest.Interface(c.rest), c.params, metav1.NamespaceAll,
		func() *corev1.Pod { return &corev1.Pod{} }, func() *corev1.PodList { return &corev1.PodList{} },
		gentype.PrefersProtobuf[*corev1.Pod]())
}

// Nodes are the cluster's.
func (c *Client) Nodes() *gentype.Client[*corev1.Node] {
	return gentype.NewClient("nodes", rest.Interface(c.rest), c.params, "",
		func() *corev1.Node { return &corev1.Node{} }, gentype.PrefersProtobuf[*corev1.Node]())
}
