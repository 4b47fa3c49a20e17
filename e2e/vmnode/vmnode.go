// Package vmnode adds to the bed's cluster a node in a virtual machine: a Debian
// kernel in QEMU with containerd, runc, the CNI plugins and the kubelet on a disk of
// its own. It is what the bed's own node may not be: a kernel with the unified cgroup
// v2 alone and with fentry, so that both are proven with a real kubelet.
//
// The node has no kube-proxy: its way out is the bed's node, whose rules translate
// Services for it, too. Time in there is an emulator's; counts and agreement are not.
package vmnode

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kernel-gossip/kernel-gossip/e2e/cluster"
	"github.com/kernel-gossip/kernel-gossip/e2e/kernels"
)

const (
	// Name is the node's.
	Name = "guest"
	// Taint keeps away the pods that do not tolerate it.
	Taint = "kernel-gossip.dev/guest"

	series    = "6.1"
	ip        = "10.0.2.15"
	podCIDR   = "10.244.1.0/24"
	dir       = "/node" // in the guest
	memoryMiB = 2048
	diskMiB   = 1500

	silence = 90 * time.Second // the guest says every 10 s that it is alive
	patient = 5 * time.Minute  // from its start to Ready
)

var (
	//go:embed loader.sh
	loaderScript []byte
	//go:embed init.sh
	initScript []byte
)

// Parts are what is fetched or found on the host.
type Parts struct {
	Kernel  string   `json:"kernel"`  // path of its image
	Package string   `json:"package"` // the kernel's package and version
	Modules []string `json:"modules"` // paths, in the order of loading
	Busybox string   `json:"busybox"` // path of a static one

	Emulator kernels.Emulator `json:"emulator"`
}

// Fetch finds the emulator and fetches what is not in the cache. It needs the network.
func Fetch(ctx context.Context, progress io.Writer) (Parts, error) {
	var p Parts
	var err error
	if p.Emulator, err = kernels.FindEmulator(ctx); err != nil {
		return p, err
	}
	cache, err := kernels.UserCache(ctx, kernels.Mirrors{}, progress)
	if err != nil {
		return p, err
	}
	var pkg kernels.Package
	if p.Kernel, pkg, err = cache.Kernel(ctx, series); err != nil {
		return p, fmt.Errorf("fetching kernel %s: %w", series, err)
	}
	p.Package = pkg.Name + " " + pkg.Version
	if p.Modules, err = cache.Modules(ctx, series, "virtio_pci", "virtio_blk", "virtio_net", "bridge", "veth", "overlay", "sch_netem"); err != nil {
		return p, fmt.Errorf("fetching modules of kernel %s: %w", series, err)
	}
	if p.Busybox, err = cache.Busybox(ctx); err != nil {
		return p, fmt.Errorf("fetching busybox: %w", err)
	}
	return p, nil
}

// Threads tells how the emulator runs the guest's CPUs.
func (p Parts) Threads() string {
	if p.Emulator.PatchesText() {
		return "multi"
	}
	return "single"
}

// Node is the node, its disk made.
type Node struct {
	c       *cluster.Cluster
	parts   Parts
	threads string
	work    string

	machine *kernels.Running
	console *console
	starts  int
}

// New admits the node to the cluster and makes its disk, with the images on it.
func New(ctx context.Context, c *cluster.Cluster, bin cluster.Binaries, parts Parts, images []cluster.Image) (*Node, error) {
	n := &Node{c: c, parts: parts, threads: parts.Threads(), work: filepath.Join(c.Dir, Name)}
	root := filepath.Join(n.work, "root")
	config := cluster.NodeConfig{
		Name: Name, IP: ip, PodCIDR: podCIDR, Dir: dir, Bin: "/bin", CNI: "/bin/cni", Groups: "/",
		Kubelet: fmt.Sprintf("registerWithTaints: [{key: %s, effect: NoSchedule}]\n", Taint),
	}
	if err := c.Admit(config, filepath.Join(root, dir)); err != nil {
		return nil, err
	}
	if err := fill(root, bin, parts, config, images); err != nil {
		return nil, fmt.Errorf("gathering what node %s has on its disk: %w", Name, err)
	}
	if err := (kernels.Loader{Busybox: parts.Busybox, Init: loaderScript, Modules: parts.Modules}).Write(n.initrd()); err != nil {
		return nil, err
	}
	return n, nil
}

func (n *Node) initrd() string { return filepath.Join(n.work, "loader.cpio") }

// fill makes the tree of the disk.
func fill(root string, bin cluster.Binaries, parts Parts, config cluster.NodeConfig, images []cluster.Image) error {
	for _, d := range []string{"bin/cni", "sbin", "proc", "sys", "dev", "run", "tmp", "etc", "var/lib", "var/log", "images"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	flags := strings.Join(config.KubeletFlags(), " ")
	for name, body := range map[string]string{
		"etc/passwd": "root:x:0:0::/:/bin/sh\n", "etc/group": "root:x:0:\n", "etc/resolv.conf": "",
		"etc/hosts": "127.0.0.1 localhost " + Name + "\n", "etc/hostname": Name + "\n",
		"etc/os-release": "ID=kernel-gossip-e2e\nPRETTY_NAME=\"kernel-gossip e2e guest\"\n",
		"etc/machine-id": "6b65726e656c2d676f737369702d6532\n",
		"node/address":   ip + "\n", "node/kubelet-flags": flags + "\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(body), 0o644); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(root, "sbin/init"), initScript, 0o755); err != nil {
		return err
	}
	programs := map[string]string{"busybox": parts.Busybox, "kubelet": filepath.Join(bin.Kubernetes, "kubelet")}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr", "runc", "cni/bridge", "cni/host-local", "cni/loopback"} {
		programs[name] = filepath.Join(bin.Node, name)
	}
	for name, from := range programs {
		if err := copyProgram(filepath.Join(root, "bin", name), from); err != nil {
			return err
		}
	}
	for i, im := range images {
		if err := im.Write(filepath.Join(root, "images", fmt.Sprintf("%d.tar", i))); err != nil {
			return err
		}
	}
	return nil
}

func copyProgram(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// Start boots the node from a fresh disk and returns when it is Ready, or why it is
// not.
func (n *Node) Start(ctx context.Context) error {
	n.starts++
	if err := n.forget(ctx); err != nil {
		return err
	}
	disk := filepath.Join(n.work, "disk.img")
	if err := makeDisk(ctx, disk, filepath.Join(n.work, "root")); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(n.c.Logs, fmt.Sprintf("guest-console-%d.log", n.starts)))
	if err != nil {
		return fmt.Errorf("making the console's log: %w", err)
	}
	n.console = &console{say: n.c.Say}
	n.machine, err = kernels.Machine{
		Kernel: n.parts.Kernel, Initrd: n.initrd(), MemoryMiB: memoryMiB, Threads: n.threads,
		Devices: []string{
			"-drive", "file=" + disk + ",if=virtio,format=raw,cache=unsafe",
			"-nic", "tap,ifname=" + cluster.Tap + ",script=no,downscript=no,model=virtio-net-pci",
			"-serial", "file:" + filepath.Join(n.c.Logs, fmt.Sprintf("guest-node-%d.log", n.starts)),
		},
		Monitor: filepath.Join(n.work, "monitor"), Silence: silence, Log: log, Line: n.console.line,
	}.Start(ctx)
	if err != nil {
		return errors.Join(err, log.Close())
	}
	go func() { <-n.machine.Done(); _ = log.Close() }()
	return n.wait(ctx)
}

// makeDisk makes a file system of a tree. It is thrown away with the run.
func makeDisk(ctx context.Context, path, root string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	out, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-O", "^has_journal", "-d", root, path, fmt.Sprintf("%dM", diskMiB)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("making the guest's disk: mkfs.ext4: %w: %s", err, out)
	}
	return nil
}

// forget deletes what an earlier start has left in the API server.
func (n *Node) forget(ctx context.Context) error {
	err := n.c.Client.CoreV1().Nodes().Delete(ctx, Name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("forgetting the node of an earlier start: %w", err)
	}
	pods, err := n.c.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + Name})
	if err != nil {
		return fmt.Errorf("forgetting the pods of an earlier start: %w", err)
	}
	now := int64(0)
	for _, p := range pods.Items {
		err := n.c.Client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("forgetting the pods of an earlier start: %w", err)
		}
	}
	return nil
}

// wait waits until the node is Ready and has its images.
func (n *Node) wait(ctx context.Context) error {
	limit := time.After(patient)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for node %s: %w", Name, context.Cause(ctx))
		case <-n.machine.Done():
			return n.Fault()
		case <-limit:
			return fmt.Errorf("node %s is not Ready after %s", Name, patient)
		case <-tick.C:
		}
		node, err := n.c.Client.CoreV1().Nodes().Get(ctx, Name, metav1.GetOptions{})
		if err == nil && slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		}) {
			return nil
		}
	}
}

// Fault tells why the machine is no more; nil while it runs.
func (n *Node) Fault() error {
	select {
	case <-n.machine.Done():
	default:
		return nil
	}
	err := n.machine.Wait()
	if crash := n.console.crash(); crash != "" {
		return errors.Join(errors.New("kernel crashed: "+crash), err)
	}
	if err == nil {
		err = errors.New("the guest powered off")
	}
	return err
}

// Stop ends the machine.
func (n *Node) Stop() {
	if n.machine != nil {
		n.machine.Stop()
	}
}

// Kernel is the guest's uname -r.
func (n *Node) Kernel() string {
	n.console.mu.Lock()
	defer n.console.mu.Unlock()
	return n.console.said.Release
}

// Describe says what the node is, for a table.
func (n *Node) Describe() string {
	return fmt.Sprintf("Debian's %s in %s (TCG, %s-threaded, two CPUs, %d MiB)", n.Kernel(), n.parts.Emulator, n.threads, memoryMiB)
}
