package scenario

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kernel-gossip/kernel-gossip/e2e/cluster"
)

// LoadImage is the workload's image.
const LoadImage = "bed.test/load:1"

// built are the images' binaries: where their source is, and who runs them.
var built = []struct{ name, module, pkg, image, user string }{
	{"kernel-gossip-exporter", "", "./exporter", "kernel-gossip-exporter:dev", "0"},
	{"kernel-gossip-operator", "", "./operator", "kernel-gossip-operator:dev", "65532:65532"},
	{"load", "e2e", "./cmd/load", LoadImage, "65532:65532"},
	{"pause", "e2e", "./cmd/pause", cluster.PauseImage, "65535:65535"},
}

// Build builds the product's binaries and the workload, static, from the repository
// at root into dir.
func Build(ctx context.Context, root, dir string) error {
	for _, b := range built {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, b.name), b.pkg)
		cmd.Dir = filepath.Join(root, b.module)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w: %s", b.name, err, out)
		}
	}
	return nil
}

// Images are the images of what Build left in dir, under the names that the manifests use.
func Images(dir string) []cluster.Image {
	images := make([]cluster.Image, 0, len(built))
	for _, b := range built {
		images = append(images, cluster.Image{
			Reference: b.image, User: b.user,
			Files: map[string]string{b.name: filepath.Join(dir, b.name)}, Entrypoint: []string{"/" + b.name},
		})
	}
	return images
}

// Install applies deploy/manifests of the repository at root, as the README says,
// and waits until everything is ready. The images must be on the node.
func (e *Env) Install(ctx context.Context, root string) error {
	if _, err := e.Kubectl(ctx, "", "apply", "-k", filepath.Join(root, "deploy", "manifests")); err != nil {
		return err
	}
	limit := 2 * time.Minute
	if e.Patience > 1 {
		limit = time.Duration(float64(limit) * e.Patience)
	}
	for what, namespace := range map[string]string{"daemonset/kernel-gossip-exporter": Nodes, "deployment/kernel-gossip-operator": System} {
		if _, err := e.Kubectl(ctx, "", "-n", namespace, "rollout", "status", what, "--timeout="+limit.String()); err != nil {
			return err
		}
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: Namespace}}
	if err := e.API.Create(ctx, ns); err != nil {
		return fmt.Errorf("making namespace %s: %w", Namespace, err)
	}
	_, err := e.until(ctx, 30*time.Second, "the namespace's service account", func() error {
		_, err := e.Set.CoreV1().ServiceAccounts(Namespace).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	return err
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
