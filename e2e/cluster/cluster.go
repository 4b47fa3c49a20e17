// Package cluster runs a real one-node Kubernetes cluster natively, in mount, PID
// and network namespaces of its own: etcd, kube-apiserver, controller manager,
// scheduler, kube-proxy, containerd with runc and the bridge CNI plugin, kubelet
// and metrics-server. A test binary calls Isolate first and Start second.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// The bed's addresses; they exist only in its network namespace.
const (
	NodeName    = "bed"
	Tap         = "kg0" // the device of nodeIP's network, for a virtual machine to be on it
	nodeIP      = "10.0.2.2"
	serviceCIDR = "10.96.0.0/16"
	apiIP       = "10.96.0.1"
	dnsIP       = "10.96.0.10"
	podCIDR     = "10.244.0.0/24"
	allPodsCIDR = "10.244.0.0/16" // further nodes' too
)

// Binaries are the folders that hold what the bed runs.
type Binaries struct {
	Kubernetes string // kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy, kubelet, kubectl
	Node       string // containerd, containerd-shim-runc-v2, ctr, runc, metrics-server, cni/
	Prometheus string // prometheus
}

// Cluster is a running bed.
type Cluster struct {
	Dir        string // everything it writes
	Logs       string
	Kubeconfig string
	Config     *rest.Config
	Client     kubernetes.Interface

	Etcd, APIServer, ControllerManager, Scheduler, Proxy, Containerd, Kubelet, MetricsServer *Process

	bin      Binaries
	ca       *authority
	progress func(format string, args ...any)
	stops    []func()
}

// Start starts the control plane and the node and returns when the node is Ready.
// It must run in the namespaces that Isolate makes. progress takes a line per stage.
func Start(ctx context.Context, dir string, bin Binaries, progress func(format string, args ...any)) (*Cluster, error) {
	c := &Cluster{Dir: dir, Logs: filepath.Join(dir, "logs"), bin: bin, progress: progress}
	for _, d := range []string{c.Logs, c.Traces(), c.path("pki"), c.path("etcd"), c.path("kubelet"), c.path("containerd")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(joinControl(), settle(dir)); err != nil {
		return nil, err
	}
	if err := c.writeFiles(); err != nil {
		return nil, fmt.Errorf("write the node's files: %w", err)
	}
	c.define()
	for _, p := range []*Process{c.Containerd, c.Etcd, c.APIServer} {
		if err := p.Start(); err != nil {
			return nil, err
		}
	}
	var err error
	if c.Config, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig); err != nil {
		return nil, err
	}
	c.Config.QPS, c.Config.Burst = 200, 400
	if c.Client, err = kubernetes.NewForConfig(c.Config); err != nil {
		return nil, err
	}
	if err := c.WaitAPI(ctx); err != nil {
		return nil, c.explain(err, c.APIServer)
	}
	c.Say("API server ready; in there: KUBECONFIG=%s %s", c.Kubeconfig, filepath.Join(c.bin.Kubernetes, "kubectl"))
	for _, p := range []*Process{c.ControllerManager, c.Scheduler, c.Kubelet, c.Proxy} {
		if err := p.Start(); err != nil {
			return nil, err
		}
	}
	if err := c.serveDNS(ctx); err != nil {
		return nil, err
	}
	if err := c.WaitNode(ctx); err != nil {
		return nil, c.explain(err, c.Kubelet)
	}
	c.Say("node Ready")
	return c, nil
}

// Say writes a line of progress.
func (c *Cluster) Say(format string, args ...any) { c.progress(format, args...) }

// Stop ends what the bed runs; containers end with the PID namespace.
func (c *Cluster) Stop() {
	for i := len(c.stops) - 1; i >= 0; i-- {
		c.stops[i]()
	}
	for _, p := range []*Process{c.MetricsServer, c.Proxy, c.Kubelet, c.Scheduler, c.ControllerManager, c.APIServer, c.Etcd, c.Containerd} {
		if p != nil {
			_ = p.Kill()
		}
	}
	c.endTasks()
	for range 50 {
		if !c.hasGroups() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// endTasks kills every process that is not this one: inside the PID namespace
// only the bed's own exist.
func (c *Cluster) endTasks() {
	if os.Getpid() == 1 {
		_ = syscall.Kill(-1, syscall.SIGKILL)
	}
}

func (c *Cluster) hasGroups() bool {
	root := "/sys/fs/cgroup/cpu"
	if !cgroupV1() {
		root = "/sys/fs/cgroup"
	}
	busy := false
	_ = filepath.WalkDir(filepath.Join(root, groupName, "kubepods"), func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == "cgroup.procs" {
			b, _ := os.ReadFile(p)
			busy = busy || len(b) > 0
		}
		return nil
	})
	return busy
}

// WaitAPI waits until the API server answers readyz.
func (c *Cluster) WaitAPI(ctx context.Context) error {
	return wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, 3*time.Minute, true, func(ctx context.Context) (bool, error) {
		b, err := c.Client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err == nil && string(b) == "ok", nil
	})
}

// WaitNode waits until the node is Ready and pods may be created.
func (c *Cluster) WaitNode(ctx context.Context) error {
	return wait.PollUntilContextTimeout(ctx, 300*time.Millisecond, 5*time.Minute, true, func(ctx context.Context) (bool, error) {
		if !c.Kubelet.Running() {
			return false, fmt.Errorf("kubelet ended")
		}
		n, err := c.Client.CoreV1().Nodes().Get(ctx, NodeName, metav1.GetOptions{})
		if err != nil {
			return false, nil
		}
		if _, err := c.Client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return false, nil
		}
		return slices.ContainsFunc(n.Status.Conditions, func(cond corev1.NodeCondition) bool {
			return cond.Type == corev1.NodeReady && cond.Status == corev1.ConditionTrue
		}), nil
	})
}

// Kubectl runs kubectl as a user would, with stdin (which may be empty), and
// returns what it printed.
func (c *Cluster) Kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin.Kubernetes, "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// explain adds the end of a process's log to err.
func (c *Cluster) explain(err error, p *Process) error {
	b, _ := os.ReadFile(p.Log)
	if len(b) > 2000 {
		b = b[len(b)-2000:]
	}
	return fmt.Errorf("%w; the end of %s:\n%s", err, p.Log, b)
}

func (c *Cluster) path(elem ...string) string {
	return filepath.Join(append([]string{c.Dir}, elem...)...)
}

func (c *Cluster) define() {
	k := func(name string) string { return filepath.Join(c.bin.Kubernetes, name) }
	pki := c.path("pki")
	f := func(flag, name string) string { return "--" + flag + "=" + filepath.Join(pki, name) }
	path := []string{"PATH=" + c.bin.Node + ":" + c.bin.Kubernetes + ":" + os.Getenv("PATH")}

	c.Etcd = newProcess(c.Logs, "etcd", "etcd", nil,
		"--data-dir="+c.path("etcd"), "--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380", "--unsafe-no-fsync", "--log-level=warn")
	c.APIServer = newProcess(c.Logs, "kube-apiserver", k("kube-apiserver"), nil,
		"--etcd-servers=http://127.0.0.1:2379", "--secure-port=443", "--advertise-address="+nodeIP, "--service-cluster-ip-range="+serviceCIDR,
		f("client-ca-file", "ca.crt"), f("tls-cert-file", "apiserver.crt"), f("tls-private-key-file", "apiserver.key"),
		f("kubelet-client-certificate", "kubelet-client.crt"), f("kubelet-client-key", "kubelet-client.key"), f("kubelet-certificate-authority", "ca.crt"),
		"--kubelet-preferred-address-types=InternalIP",
		f("service-account-key-file", "sa.pub"), f("service-account-signing-key-file", "sa.key"), "--service-account-issuer=https://kubernetes.default.svc",
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		f("requestheader-client-ca-file", "front-proxy-ca.crt"), "--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group", "--requestheader-username-headers=X-Remote-User",
		f("proxy-client-cert-file", "front-proxy-client.crt"), f("proxy-client-key-file", "front-proxy-client.key"), "--enable-aggregator-routing=true")
	admin := "--kubeconfig=" + c.Kubeconfig
	c.ControllerManager = newProcess(c.Logs, "kube-controller-manager", k("kube-controller-manager"), nil,
		admin, f("service-account-private-key-file", "sa.key"), f("root-ca-file", "ca.crt"), "--use-service-account-credentials", "--leader-elect=false")
	c.Scheduler = newProcess(c.Logs, "kube-scheduler", k("kube-scheduler"), nil, admin, "--leader-elect=false")
	c.Proxy = newProcess(c.Logs, "kube-proxy", k("kube-proxy"), nil,
		admin, "--proxy-mode=iptables", "--hostname-override="+NodeName, "--cluster-cidr="+allPodsCIDR, "--conntrack-max-per-core=0",
		"--conntrack-tcp-timeout-established=0s", "--conntrack-tcp-timeout-close-wait=0s")
	c.Containerd = newProcess(c.Logs, "containerd", filepath.Join(c.bin.Node, "containerd"), path, "--config", c.path("containerd.toml"))
	c.Kubelet = newProcess(c.Logs, "kubelet", k("kubelet"), path, c.node().KubeletFlags()...)
}

func (c *Cluster) writeFiles() error {
	pki := c.path("pki")
	var err error
	if c.ca, err = newAuthority(pki, "ca"); err != nil {
		return err
	}
	front, err := newAuthority(pki, "front-proxy-ca")
	if err != nil {
		return err
	}
	for _, err := range []error{
		c.ca.issue("apiserver", "kube-apiserver", nil, []string{apiIP, nodeIP, "127.0.0.1"}, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"),
		c.ca.issue("kubelet-client", "kube-apiserver-kubelet-client", []string{"system:masters"}, nil),
		c.ca.issue("sa", "service-accounts", nil, nil),
		c.ca.issue("metrics-server", "metrics-server", nil, []string{nodeIP}, "metrics-server.kube-system.svc"),
		front.issue("front-proxy-client", "front-proxy-client", nil, nil),
		c.ca.writePublic("sa"),
		c.node().write(c.Dir, c.ca),
	} {
		if err != nil {
			return err
		}
	}
	c.Kubeconfig, err = c.ca.kubeconfigFor("admin", "admin", "system:masters")
	return err
}

// node is the bed's own node.
func (c *Cluster) node() NodeConfig {
	return NodeConfig{
		Name: NodeName, IP: nodeIP, PodCIDR: podCIDR, Dir: c.Dir, Bin: c.bin.Node, CNI: filepath.Join(c.bin.Node, "cni"),
		Groups: "/" + groupName, Traces: c.Traces(), Kubelet: "failCgroupV1: false\nmaxPods: 200\nfeatureGates: {KubeletInUserNamespace: true}\n",
	}
}
