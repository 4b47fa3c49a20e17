package scenario

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kernel-gossip/kernel-gossip/e2e/cluster"
	"github.com/kernel-gossip/kernel-gossip/exporter/birth/straced"
	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
)

// BirthTraced holds the certificate of a pod whose runc runs under strace to what strace
// counted. The pod is on the node's network: without CNI all of its birth is the
// runtime's.
var BirthTraced = Scenario{Name: "birth certificate against strace", After: []string{Births.Name}, Run: birthTraced}

// Executed around each runc: the script that calls strace, and strace. The shim is
// executed to be started, and to stay.
const (
	execsAround = 2
	execsShim   = 2
)

func birthTraced(ctx context.Context, e *Env, seen *Seen) error {
	class := &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: cluster.TracedHandler}, Handler: cluster.TracedHandler}
	err := e.asked(ctx, "making the runtime class", func() error { return client.IgnoreAlreadyExists(e.API.Create(ctx, class)) })
	if err != nil {
		return err
	}
	p := pod("born-traced", load("app", "500m", "-calm", "-rest=1s"))
	p.Spec.HostNetwork, p.Spec.RuntimeClassName = true, &class.Name
	p.Spec.AutomountServiceAccountToken = new(bool) // for it the kubelet executes mount
	before := ahead("born-before")
	for _, p := range []*corev1.Pod{before, p} {
		if err := e.start(ctx, p); err != nil {
			return err
		}
	}
	n := newborn{pod: p, containers: []string{"app"}}
	var c *v1alpha1.PodBirthCertificate
	_, err = e.until(ctx, 4*time.Minute, "the birth certificate of "+p.Name, func() (err error) {
		if c, err = e.certificate(ctx, p.Name); err != nil {
			return err
		}
		return n.judge(c)
	})
	if err != nil {
		return err
	}
	if err := againstStrace(&c.Spec, e.Node.Traces(), seen); err != nil {
		return err
	}
	return e.endAll(ctx, p, before)
}

// againstStrace compares a certificate with the logs in dir: calls within a hundredth for
// each container's create and start, mounts, namespaces and execs exactly.
func againstStrace(c *v1alpha1.PodBirthCertificateSpec, dir string, seen *Seen) error {
	var problems []error
	execs, mounts, calls, counted := execsShim, 0, 0, int64(0)
	created, entered := map[string]int{}, map[string]int{}
	for _, x := range c.Containers {
		for _, verb := range []string{"create", "start"} {
			want, err := readTrace(dir, verb, x)
			if err != nil {
				return err
			}
			n := want.Calls - 1 // the first execve is still strace's
			got := callsOf(c, x.Name, verb)
			if math.Abs(float64(got)-float64(n)) > 0.01*float64(n) {
				problems = append(problems, fmt.Errorf("runc %s of %s: %d system calls, by strace %d", verb, x.Name, got, n))
			}
			calls, counted = calls+n, counted+got
			made := mountsOf(c, x.Name, verb)
			if made != want.Mounts() {
				problems = append(problems, fmt.Errorf("runc %s of %s: %d mounts, by strace %d", verb, x.Name, made, want.Mounts()))
			}
			mounts, execs = mounts+made, execs+want.Execs()+execsAround
			for kind, n := range want.Created {
				created[kind] += n
			}
			for kind, n := range want.Entered {
				entered[kind] += n
			}
		}
	}
	gotCreated, gotEntered := map[string]int{}, map[string]int{}
	for _, k := range c.Namespaces {
		if k.Created > 0 {
			gotCreated[k.Kind] = int(k.Created)
		}
		if k.Entered > 0 {
			gotEntered[k.Kind] = int(k.Entered)
		}
	}
	if !maps.Equal(created, gotCreated) || !maps.Equal(entered, gotEntered) {
		problems = append(problems, fmt.Errorf("namespaces made %v, by strace %v; entered %v, by strace %v", gotCreated, created, gotEntered, entered))
	}
	if int(*c.Execs) != execs {
		problems = append(problems, fmt.Errorf("%d execs, by strace %d", *c.Execs, execs))
	}
	seen.Add("runc's system calls of %d containers: %d, by strace %d (%+.2f %%)", len(c.Containers), counted, calls, 100*(float64(counted)/float64(calls)-1))
	seen.Add("%d mounts, %d execs, namespaces made %v, entered %v: as by strace", mounts, execs, created, entered)
	return errors.Join(problems...)
}

// readTrace finds the log of a container's create or start, which begins with that command.
func readTrace(dir, verb string, x v1alpha1.BirthContainer) (*straced.Counts, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return nil, err
	}
	entrypoint := ""
	if verb == "create" {
		entrypoint = x.Entrypoint
	}
	for _, name := range files {
		head, err := firstLine(name)
		if err != nil {
			return nil, err
		}
		if !strings.Contains(head, fmt.Sprintf(`"%s"`, verb)) || !strings.Contains(head, fmt.Sprintf(`"%s"]`, x.ContainerID)) {
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return straced.Read(f, entrypoint)
	}
	return nil, fmt.Errorf("of %d logs of strace none is of runc %s of %s (%s)", len(files), verb, x.Name, x.ContainerID)
}

func firstLine(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	head := make([]byte, 4096)
	n, _ := f.Read(head) // a log may be empty still
	line, _, _ := strings.Cut(string(head[:n]), "\n")
	return line, nil
}

// rolesOf are the roles on a certificate of a call of runc; its child, the container's
// first process, is init.
func rolesOf(verb string) []string {
	if verb == "create" {
		return []string{"runc create", "runc init"}
	}
	return []string{"runc " + verb}
}

func callsOf(c *v1alpha1.PodBirthCertificateSpec, container, verb string) (n int64) {
	for _, r := range c.Roles {
		if r.Container == container && slices.Contains(rolesOf(verb), r.Role) {
			n += r.Syscalls
		}
	}
	return n
}

func mountsOf(c *v1alpha1.PodBirthCertificateSpec, container, verb string) (n int) {
	for _, s := range c.Stages {
		number, role, _ := strings.Cut(s.Details, ", by ")
		if made := 0; s.Action == "mounts" && s.Container == container && slices.Contains(rolesOf(verb), role) {
			if _, err := fmt.Sscan(number, &made); err == nil {
				n += made
			}
		}
	}
	return n
}
