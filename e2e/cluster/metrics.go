package cluster

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// metricsAPI routes metrics.k8s.io to the metrics-server on the node's address.
const metricsAPI = `apiVersion: v1
kind: Service
metadata: {name: metrics-server, namespace: kube-system}
spec: {clusterIP: None, ports: [{port: 443, targetPort: 4443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: metrics-server-1, namespace: kube-system, labels: {kubernetes.io/service-name: metrics-server}}
addressType: IPv4
endpoints: [{addresses: [%s], conditions: {ready: true}}]
ports: [{name: "", port: 4443, protocol: TCP}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec: {group: metrics.k8s.io, version: v1beta1, groupPriorityMinimum: 100, versionPriority: 100, insecureSkipTLSVerify: true, service: {name: metrics-server, namespace: kube-system}}
`

// StartMetricsServer starts the real metrics-server and waits until metrics.k8s.io serves the node.
func (c *Cluster) StartMetricsServer(ctx context.Context) error {
	pki := c.path("pki")
	c.MetricsServer = newProcess(c.Logs, "metrics-server", filepath.Join(c.bin.Node, "metrics-server"), nil,
		"--kubeconfig="+c.Kubeconfig, "--authentication-kubeconfig="+c.Kubeconfig, "--authorization-kubeconfig="+c.Kubeconfig,
		"--secure-port=4443", "--tls-cert-file="+filepath.Join(pki, "metrics-server.crt"), "--tls-private-key-file="+filepath.Join(pki, "metrics-server.key"),
		"--kubelet-certificate-authority="+filepath.Join(pki, "ca.crt"), "--kubelet-preferred-address-types=InternalIP",
		"--metric-resolution=15s", "--kubelet-request-timeout=10s", "--client-ca-file="+filepath.Join(pki, "ca.crt"))
	if err := c.MetricsServer.Start(); err != nil {
		return err
	}
	manifest, err := c.WriteFile("metrics-api.yaml", fmt.Sprintf(metricsAPI, nodeIP))
	if err != nil {
		return err
	}
	if _, err := c.Kubectl(ctx, "", "apply", "-f", manifest); err != nil {
		return err
	}
	err = wait.PollUntilContextTimeout(ctx, time.Second, 4*time.Minute, true, func(ctx context.Context) (bool, error) {
		_, err := c.Client.Discovery().RESTClient().Get().AbsPath("/apis/metrics.k8s.io/v1beta1/nodes/" + NodeName).DoRaw(ctx)
		return err == nil, nil
	})
	if err != nil {
		return c.explain(fmt.Errorf("metrics.k8s.io does not serve the node: %w", err), c.MetricsServer)
	}
	c.Say("metrics-server serves %s", NodeName)
	return nil
}
