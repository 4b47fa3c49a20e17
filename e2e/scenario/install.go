package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kernel-gossip/kernel-gossip/e2e/cluster"
	"github.com/kernel-gossip/kernel-gossip/e2e/libraries"
)

const (
	// LoadImage is the workload's image, StressImage the same with Debian's stress-ng.
	LoadImage   = "bed.test/load:1"
	StressImage = "bed.test/stress:1"
)

// built are the images' binaries: where their source is, and who runs them.
var built = []struct{ name, module, pkg, image, user string }{
	{"kernel-gossip-exporter", "", "./exporter", "kernel-gossip-exporter:dev", "0"},
	{"kernel-gossip-operator", "", "./operator", "kernel-gossip-operator:dev", "65532:65532"},
	{"load", "e2e", "./cmd/load", LoadImage, "65532:65532"},
	{"pause", "e2e", "./cmd/pause", cluster.PauseImage, "65535:65535"},
}

// Build builds the product's binaries and the workload, static, from the repository
// at root into dir, where those that are current stay as they are.
func Build(ctx context.Context, root, dir string) error {
	var all sync.WaitGroup
	errs := make([]error, len(built))
	for i, b := range built {
		all.Go(func() {
			cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", filepath.Join(dir, b.name), b.pkg)
			cmd.Dir = filepath.Join(root, b.module)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				errs[i] = fmt.Errorf("building %s: %w: %s", b.name, err, out)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// Images are the images of what Build left in dir, under the names that the manifests use.
// Those of a worker are without the operator's.
func Images(dir string, worker bool) []cluster.Image {
	images := make([]cluster.Image, 0, len(built))
	for _, b := range built {
		if worker && b.name == "kernel-gossip-operator" {
			continue
		}
		images = append(images, cluster.Image{
			Reference: b.image, User: b.user,
			Files: map[string]string{b.name: filepath.Join(dir, b.name)}, Entrypoint: []string{"/" + b.name},
		})
	}
	return images
}

// Stress is StressImage, of what Build left in dir and of this machine's stress-ng with
// the libraries that it needs.
func Stress(dir string) (cluster.Image, error) {
	files, err := libraries.With("stress-ng")
	if err != nil {
		return cluster.Image{}, fmt.Errorf("%w (Debian's package stress-ng has it)", err)
	}
	image := cluster.Image{
		Reference: StressImage, User: "65532:65532", Entrypoint: []string{"/load"},
		Files: map[string]string{"load": filepath.Join(dir, "load"), "bin/stress-ng": files[0]},
	}
	for _, file := range files[1:] {
		image.Files[strings.TrimPrefix(file, "/")] = file
	}
	return image, nil
}

// Apply applies deploy/manifests of the repository at root, as the README says.
func (e *Env) Apply(ctx context.Context, root string) error {
	_, err := e.Kubectl(ctx, "", "apply", "-k", filepath.Join(root, "deploy", "manifests"))
	return err
}

// Ready waits until the node's exporter and the operator are ready, and makes the
// scenarios' namespace. The images must be on the node.
func (e *Env) Ready(ctx context.Context) error {
	if _, err := e.exporter(ctx, ""); err != nil {
		return err
	}
	limit := time.Duration(float64(2*time.Minute) * max(e.Patience, 1))
	if _, err := e.Kubectl(ctx, "", "-n", System, "rollout", "status", "deployment/kernel-gossip-operator", "--timeout="+limit.String()); err != nil {
		return err
	}
	return e.MakeNamespace(ctx)
}

// MakeNamespace makes the scenarios' namespace, unless it is there.
func (e *Env) MakeNamespace(ctx context.Context) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: e.Namespace}}
	if err := e.asked(ctx, "making namespace "+e.Namespace, func() error { return client.IgnoreAlreadyExists(e.API.Create(ctx, ns)) }); err != nil {
		return err
	}
	_, err := e.until(ctx, 30*time.Second, "the namespace's service account", func() error {
		_, err := e.Set.CoreV1().ServiceAccounts(e.Namespace).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	return err
}

// exporter waits until an exporter is ready on the node, other than the pod of that UID.
func (e *Env) exporter(ctx context.Context, not types.UID) (*corev1.Pod, error) {
	var found *corev1.Pod
	_, err := e.until(ctx, 2*time.Minute, "an exporter ready on node "+e.NodeName, func() error {
		pods, err := e.exporters(ctx)
		if err != nil {
			return err
		}
		for i, p := range pods {
			if p.UID != not && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
				return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
			}) {
				found = &pods[i]
				return nil
			}
		}
		return fmt.Errorf("none of %d", len(pods))
	})
	return found, err
}

// exporters are those that run on the node: two while one replaces the other.
func (e *Env) exporters(ctx context.Context) ([]corev1.Pod, error) {
	pods, err := e.Set.CoreV1().Pods(Nodes).List(ctx, metav1.ListOptions{
		LabelSelector: "app.kubernetes.io/name=kernel-gossip-exporter", FieldSelector: "spec.nodeName=" + e.NodeName + ",status.phase=Running",
	})
	if err != nil {
		return nil, fmt.Errorf("finding the exporter: %w", err)
	}
	return pods.Items, nil
}

// WaitExporter waits until the node's exporter has taken a sample.
func (e *Env) WaitExporter(ctx context.Context) error {
	_, err := e.until(ctx, 2*time.Minute, "the exporter on node "+e.NodeName, func() error {
		s, err := e.scrape(ctx)
		if err == nil && s.single("kernel_gossip_exporter_last_sample_timestamp_seconds") == 0 {
			err = fmt.Errorf("it has no sample yet")
		}
		return err
	})
	return err
}
