// Package apiserver runs a real kube-apiserver with etcd on loopback, for tests
// that must see what Kubernetes does and not what a fake remembers.
//
// There is no controller-manager: nothing collects garbage by owner reference,
// finalises namespaces or makes default service accounts.
package apiserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

const (
	startTimeout = 90 * time.Second
	stopTimeout  = 30 * time.Second
	module       = "github.com/kernel-gossip/kernel-gossip/e2e"
)

// Options of a control plane.
type Options struct {
	// CRDs are files or directories of CustomResourceDefinitions, established
	// before Start returns.
	CRDs []string
	// Progress takes one line per stage, and kube-apiserver's build if it has
	// to be built; os.Stderr where nil.
	Progress io.Writer
}

// Server is a running control plane. Its methods may be called from any goroutine.
type Server struct {
	dir        string
	bin        string
	kubeconfig string
	env        *envtest.Environment
	config     *rest.Config
	logs       []*os.File

	mu      sync.Mutex // guards serving and the processes
	serving bool
}

// Start runs etcd and kube-apiserver with certificates, ports and a directory of
// their own, and returns once /readyz is true and the CRDs are established. The
// caller stops it with Stop. kube-apiserver is built first if the cache lacks it;
// etcd is the one on the PATH.
func Start(ctx context.Context, opts Options) (_ *Server, err error) {
	progress := opts.Progress
	if progress == nil {
		progress = os.Stderr
	}
	began := time.Now()
	stage := func(what string) {
		_, _ = fmt.Fprintf(progress, "%6.1fs %s\n", time.Since(began).Seconds(), what)
	}

	etcd, err := exec.LookPath("etcd")
	if err != nil {
		return nil, fmt.Errorf("finding etcd: %w; install it (Debian: apt-get install etcd-server)", err)
	}
	bin, err := binaries(ctx, progress)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "kernel-gossip-apiserver-")
	if err != nil {
		return nil, fmt.Errorf("making the control plane's directory: %w", err)
	}
	s := &Server{dir: dir, bin: bin, kubeconfig: filepath.Join(dir, "admin.kubeconfig")}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()

	s.env = &envtest.Environment{
		BinaryAssetsDirectory:    bin,
		CRDDirectoryPaths:        opts.CRDs,
		ErrorIfCRDPathMissing:    true,
		ControlPlaneStartTimeout: startTimeout,
		ControlPlaneStopTimeout:  stopTimeout,
	}
	api := s.env.ControlPlane.GetAPIServer()
	// A directory of ours keeps certificates, and so every client, valid when
	// the API server is stopped and started again.
	api.CertDir = filepath.Join(dir, "pki")
	if err := os.Mkdir(api.CertDir, 0o700); err != nil {
		return nil, fmt.Errorf("making the certificates' directory: %w", err)
	}
	api.Configure().
		Set("shutdown-delay-duration", "0s").
		// Ends watches after two seconds, too, where they would hold the end up for a
		// minute: those of Events have no cache whose end would end them.
		Set("shutdown-send-retry-after", "true").
		Set("profiling", "false")
	if api.Err, err = s.log("kube-apiserver.log"); err != nil {
		return nil, err
	}
	s.env.ControlPlane.Etcd = &envtest.Etcd{Path: etcd}
	if s.env.ControlPlane.Etcd.Err, err = s.log("etcd.log"); err != nil {
		return nil, err
	}

	stage("starting etcd and kube-apiserver")
	if s.config, err = s.env.Start(); err != nil {
		return nil, fmt.Errorf("starting the control plane: %w%s", err, s.tail("kube-apiserver.log"))
	}
	s.serving = true
	// The default rate limit of a client is a test's first bottleneck.
	s.config.QPS = -1
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	admin, err := s.env.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, s.config)
	if err != nil {
		return nil, fmt.Errorf("making the admin user: %w", err)
	}
	content, err := admin.KubeConfig()
	if err != nil {
		return nil, fmt.Errorf("making the admin kubeconfig: %w", err)
	}
	if err := os.WriteFile(s.kubeconfig, content, 0o600); err != nil {
		return nil, fmt.Errorf("writing the admin kubeconfig: %w", err)
	}
	stage("kube-apiserver ready at " + s.config.Host)
	return s, nil
}

// Config is an administrator's client configuration, without a rate limit.
func (s *Server) Config() *rest.Config { return rest.CopyConfig(s.config) }

// Kubeconfig is the path of an administrator's kubeconfig; it goes with Stop.
func (s *Server) Kubeconfig() string { return s.kubeconfig }

// User makes a client certificate for a user, who may do what RBAC gives the name
// and the groups. A service account is "system:serviceaccount:<namespace>:<name>"
// with the group "system:serviceaccounts".
func (s *Server) User(name string, groups ...string) (*rest.Config, error) {
	user, err := s.env.AddUser(envtest.User{Name: name, Groups: groups}, s.config)
	if err != nil {
		return nil, fmt.Errorf("making user %s: %w", name, err)
	}
	return rest.CopyConfig(user.Config()), nil
}

// UserKubeconfig writes a kubeconfig for a user, as User makes it, and returns its
// path; it goes with Stop.
func (s *Server) UserKubeconfig(name string, groups ...string) (string, error) {
	user, err := s.env.AddUser(envtest.User{Name: name, Groups: groups}, s.config)
	if err != nil {
		return "", fmt.Errorf("making user %s: %w", name, err)
	}
	content, err := user.KubeConfig()
	if err != nil {
		return "", fmt.Errorf("making the kubeconfig of %s: %w", name, err)
	}
	file, err := os.CreateTemp(s.dir, "*.kubeconfig")
	if err != nil {
		return "", fmt.Errorf("writing the kubeconfig of %s: %w", name, err)
	}
	_, err = file.Write(content)
	if err := errors.Join(err, file.Close()); err != nil {
		return "", fmt.Errorf("writing the kubeconfig of %s: %w", name, err)
	}
	return file.Name(), nil
}

// Kubectl runs kubectl as the administrator, with stdin (which may be nil), and
// returns its standard output. The error holds what it wrote to standard error.
func (s *Server) Kubectl(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "kubectl"), append([]string{"--kubeconfig", s.kubeconfig}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// StopAPI ends kube-apiserver alone; connections to it are refused until StartAPI.
// etcd keeps what it has.
func (s *Server) StopAPI() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.serving {
		return nil
	}
	if err := s.env.ControlPlane.GetAPIServer().Stop(); err != nil {
		return fmt.Errorf("stopping kube-apiserver: %w", err)
	}
	s.serving = false
	return nil
}

// StartAPI starts kube-apiserver again after StopAPI, at the same address with the
// same certificates, and returns when /readyz is true.
func (s *Server) StartAPI(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving {
		return nil
	}
	if err := s.env.ControlPlane.GetAPIServer().Start(); err != nil {
		return fmt.Errorf("starting kube-apiserver again: %w%s", err, s.tail("kube-apiserver.log"))
	}
	s.serving = true
	return s.ready(ctx)
}

// ready waits until the API server's /readyz is true.
func (s *Server) ready(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(s.config)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	var last error
	err = wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, startTimeout, true, func(ctx context.Context) (bool, error) {
		_, last = client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for /readyz: %w%s", errors.Join(err, last), s.tail("kube-apiserver.log"))
	}
	return nil
}

// Stop ends both processes and removes the directory. It may be called twice.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	if s.env != nil {
		errs = append(errs, s.env.Stop())
		s.env = nil
	}
	s.serving = false
	for _, log := range s.logs {
		errs = append(errs, log.Close())
	}
	s.logs = nil
	errs = append(errs, os.RemoveAll(s.dir))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stopping the control plane: %w", err)
	}
	return nil
}

func (s *Server) log(name string) (*os.File, error) {
	file, err := os.Create(filepath.Join(s.dir, name))
	if err != nil {
		return nil, fmt.Errorf("making a log: %w", err)
	}
	s.logs = append(s.logs, file)
	return file, nil
}

// tail is the end of a log, for an error about the process that wrote it.
func (s *Server) tail(name string) string {
	const most = 2000
	content, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil || len(content) == 0 {
		return ""
	}
	return fmt.Sprintf("\n--- end of %s ---\n%s", name, content[max(0, len(content)-most):])
}

// binaries has kube-apiserver and kubectl built if needed, and returns their directory.
func binaries(ctx context.Context, progress io.Writer) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("finding the directory of module %s (run this from within e2e/): %w", module, err)
	}
	build := exec.CommandContext(ctx, filepath.Join(strings.TrimSpace(string(root)), "servers", "build"), "kube-apiserver", "kubectl")
	build.Stderr = progress
	bin, err := build.Output()
	if err != nil {
		return "", fmt.Errorf("building kube-apiserver and kubectl: %w", err)
	}
	return strings.TrimSpace(string(bin)), nil
}
