package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// NodeConfig says where a node has its things, as the node itself sees them.
type NodeConfig struct {
	Name    string
	IP      string
	PodCIDR string
	Dir     string // what it reads and writes: its configuration, pki, containerd's and the kubelet's state
	Bin     string // containerd, containerd-shim-runc-v2 and runc
	CNI     string // the CNI plugins
	Groups  string // the cgroup below which the kubelet works
	Traces  string // where strace writes what runc does for pods of the class TracedHandler; empty: there is none
	Kubelet string // further lines of the kubelet's configuration
}

// TracedHandler is the runtime that is runc under strace.
const TracedHandler = "traced"

// tracedRunc leaves runc the process that its caller waits for (-D): after a create
// strace goes on with the container.
const tracedRunc = `#!/bin/sh
exec strace -D -f -ttt -s 256 -o '%s/'$$ '%s/runc' "$@"
`

const tracedRuntime = `[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.%[1]s]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.%[1]s.options]
  BinaryName = '%[2]s/traced-runc'
  SystemdCgroup = false
`

// files are the configuration of the node's programs, by path below Dir.
func (n NodeConfig) files() map[string]string {
	pki := filepath.Join(n.Dir, "pki")
	files := map[string]string{
		"cni/10-bridge.conflist": fmt.Sprintf(`{"cniVersion":"1.0.0","name":"bed","plugins":[{"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":false,"hairpinMode":true,"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":%q}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}`, filepath.Join(n.Dir, "cni-state"), n.PodCIDR),
		"containerd.toml": fmt.Sprintf(`version = 3
root = '%[1]s/containerd'
state = '/run/containerd'
[grpc]
  address = '/run/containerd/containerd.sock'
[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '%[4]s'
[plugins.'io.containerd.cri.v1.runtime']
  disable_apparmor = true
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.containerd]
  default_runtime_name = 'runc'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = '%[2]s/runc'
  SystemdCgroup = false
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['%[3]s']
  conf_dir = '%[1]s/cni'
`, n.Dir, n.Bin, n.CNI, PauseImage),
		"kubelet.yaml": fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
cgroupRoot: %q
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
failSwapOn: false
resolvConf: ""
clusterDNS: [%q]
clusterDomain: cluster.local
staticPodPath: %q
podLogsDir: %q
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %[5]q}}
authorization: {mode: Webhook}
tlsCertFile: %[6]q
tlsPrivateKeyFile: %[7]q
enforceNodeAllocatable: [pods]
evictionHard: {memory.available: 50Mi, nodefs.available: 1%%, imagefs.available: 1%%, nodefs.inodesFree: 1%%}
nodeStatusUpdateFrequency: 2s
syncFrequency: 5s
shutdownGracePeriod: 0s
%[8]s`, n.Groups, dnsIP, filepath.Join(n.Dir, "manifests"), filepath.Join(n.Dir, "pods"), filepath.Join(pki, "ca.crt"), filepath.Join(pki, "kubelet.crt"), filepath.Join(pki, "kubelet.key"), n.Kubelet),
	}
	if n.Traces != "" {
		files["containerd.toml"] += fmt.Sprintf(tracedRuntime, TracedHandler, n.Dir)
		files["traced-runc"] = fmt.Sprintf(tracedRunc, n.Traces, n.Bin)
	}
	return files
}

// KubeletFlags are the kubelet's arguments on that node.
func (n NodeConfig) KubeletFlags() []string {
	return []string{
		"--config=" + filepath.Join(n.Dir, "kubelet.yaml"), "--kubeconfig=" + filepath.Join(n.Dir, "pki", "node.kubeconfig"),
		"--hostname-override=" + n.Name, "--node-ip=" + n.IP, "--root-dir=" + filepath.Join(n.Dir, "kubelet"),
	}
}

// write writes to dir what the node has in its Dir: configuration, and certificates by ca.
func (n NodeConfig) write(dir string, ca *authority) error {
	pki := filepath.Join(dir, "pki")
	for _, d := range []string{pki, filepath.Join(dir, "cni"), filepath.Join(dir, "manifests"), filepath.Join(dir, "pods")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	for name, body := range n.files() {
		mode := os.FileMode(0o644)
		if name == "traced-runc" {
			mode = 0o755
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), mode); err != nil {
			return err
		}
	}
	ca = ca.in(pki)
	_, err := ca.kubeconfigFor("node", "system:node:"+n.Name, "system:nodes")
	return errors.Join(err, ca.writeSelf(), ca.issue("kubelet", "system:node:"+n.Name, []string{"system:nodes"}, []string{n.IP}, n.Name))
}

// Admit makes the cluster ready for a further node on the bed's network: it writes to
// dir what the node is to have in its Dir, and routes the node's pods to it.
func (c *Cluster) Admit(n NodeConfig, dir string) error {
	if err := n.write(dir, c.ca); err != nil {
		return fmt.Errorf("write the files of node %s: %w", n.Name, err)
	}
	if out, err := exec.Command("ip", "route", "replace", n.PodCIDR, "via", n.IP).CombinedOutput(); err != nil {
		return fmt.Errorf("route the pods of node %s: %w: %s", n.Name, err, out)
	}
	return nil
}
