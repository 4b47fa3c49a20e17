package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kernel-gossip/kernel-gossip/e2e/recording"
)

// RecordEvery is the time between scrapes of a recording, that of deploy/prometheus.
const RecordEvery = 15 * time.Second

// recordFor is the length of a recording: two minutes at one CPU limit, as long at
// another, for what was predicted to be checked.
const recordFor = 285 * time.Second

// Record keeps what the node's exporter exposes, beside pods with every trouble that it
// knows, for the dashboards' tests. On this machine the operator's replicas are scraped
// as well, and pods come, fail and go meanwhile; in the virtual machine it is half as long.
func Record(file string) Scenario {
	return Scenario{Name: "a recording for the dashboards' tests", Run: func(ctx context.Context, e *Env, seen *Seen) error {
		return record(ctx, e, seen, file)
	}}
}

const (
	liar       = "liar"
	allowedIn  = "kube-system" // whose agents may make namespaces, by default
	whatIfFlag = "--collector.whatif"
)

// plight is the pods that are there all the time.
func (e *Env) plight() []*corev1.Pod {
	pods := []*corev1.Pod{
		// 0.4 s of every 1.2 s, in most of whose periods it is stopped.
		pod(liar, load("app", "400m", "-threads=1", "-busy=400ms", "-idle=800ms")),
		pod("busy", load("app", "100m", "-threads=1", "-busy=1h")),
		hungry("short", "-stress="+files),
	}
	if e.Node == nil {
		return pods
	}
	net := load("app", "500m", "-network=calm,loss,queue,refuse,flood")
	root := int64(0)
	net.SecurityContext = &corev1.SecurityContext{RunAsUser: &root, Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN"}}}
	pods = append(pods, pod("lossy", net))
	for _, m := range misdeeds() {
		pods = append(pods, pod("sec-"+m.kind, load("app", "200m", "-misbehave="+m.kind, fmt.Sprint("-times=", m.times))))
	}
	return pods
}

func record(ctx context.Context, e *Env, seen *Seen, file string) error {
	length := recordFor
	if e.Node == nil {
		length /= 2
	} else if err := e.predict(ctx); err != nil {
		return err
	}
	pods := e.plight()
	if err := e.startAll(ctx, pods...); err != nil {
		return err
	}
	if e.Node != nil {
		agent := e.place(pod("agent", load("app", "100m", "-misbehave=unshare")))
		agent.Namespace = allowedIn
		if err := e.API.Create(ctx, agent); err != nil {
			return fmt.Errorf("making pod %s: %w", agent.Name, err)
		}
	}
	kept := &recording.Recording{}
	tick := time.NewTicker(RecordEvery)
	defer tick.Stop()
	n := int(length / RecordEvery)
	for i := range n {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		scrapes, err := e.scrapeAll(ctx)
		if err != nil {
			return err
		}
		if err := kept.Add(scrapes, e.keep); err != nil {
			return err
		}
		if e.Node == nil {
			continue
		}
		if err := e.happen(ctx, i, n); err != nil {
			return err
		}
	}
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("writing the recording: %w", err)
	}
	node := &corev1.Node{}
	if err := e.API.Get(ctx, client.ObjectKey{Name: e.NodeName}, node); err != nil {
		return errors.Join(err, f.Close())
	}
	err = kept.Write(f, fmt.Sprintf("Scrapes of a real exporter%s on a node with Linux %s, %s.\nWritten by make record. Do not edit.",
		map[bool]string{true: " and of the operator"}[e.Node != nil], node.Status.NodeInfo.KernelVersion, time.Now().UTC().Format(time.DateOnly)), RecordEvery)
	seen.Add("%d scrapes in %s", n, file)
	return errors.Join(err, f.Close())
}

// happen is what comes between two scrapes on this machine, of n in all: every half
// minute a pod is born in the place of the one before, and one in three fails; those that
// misbehave do so again; once the liar's limit is raised, and a process is killed for
// memory now and then.
func (e *Env) happen(ctx context.Context, i, n int) error {
	if i == n*9/20 {
		if _, err := e.Kubectl(ctx, "", "-n", e.Namespace, "patch", "pod", liar, "--subresource=resize", "-p",
			`{"spec":{"containers":[{"name":"app","resources":{"limits":{"cpu":"600m"}}}]}}`); err != nil {
			return fmt.Errorf("raising the CPU limit of %s: %w", liar, err)
		}
	}
	if i%4 == 1 {
		for _, m := range misdeeds() {
			if err := e.tell(ctx, e.Namespace, "sec-"+m.kind, "burst"); err != nil {
				return err
			}
		}
		if err := e.tell(ctx, allowedIn, "agent", "burst"); err != nil {
			return err
		}
	}
	if i%2 != 0 {
		return nil
	}
	born := pod(fmt.Sprintf("born-%d", i), load("app", "100m", "-calm"))
	switch i / 2 % 3 {
	case 1:
		born.Spec.Containers[0].Command = []string{"/no/such/program"}
	case 2:
		born = hungry(born.Name, "-stress="+hog)
	}
	if i > 0 {
		before := e.place(pod(fmt.Sprintf("born-%d", i-2)))
		if err := client.IgnoreNotFound(e.API.Delete(ctx, before)); err != nil {
			return fmt.Errorf("deleting pod %s: %w", before.Name, err)
		}
	}
	if err := e.API.Create(ctx, e.place(born)); err != nil {
		return fmt.Errorf("making pod %s: %w", born.Name, err)
	}
	return nil
}

// predict turns what-if predictions on, as helm's exporter.collectors.whatif does.
func (e *Env) predict(ctx context.Context) error {
	before, err := e.exporter(ctx, "")
	if err != nil {
		return err
	}
	if _, err := e.Kubectl(ctx, "", "-n", Nodes, "patch", "daemonset", "kernel-gossip-exporter", "--type=json", "-p",
		`[{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "`+whatIfFlag+`"}]`); err != nil {
		return err
	}
	if _, err := e.exporter(ctx, before.UID); err != nil {
		return err
	}
	return e.WaitExporter(ctx)
}

// keep keeps the pods above, and what the programs tell of themselves and of the node.
func (e *Env) keep(name string, labels map[string]string) bool {
	if container, ok := labels["container"]; ok {
		return container == "app" && (labels["namespace"] == e.Namespace || labels["namespace"] == allowedIn)
	}
	return name == "up" || strings.HasPrefix(name, "kernel_gossip_") ||
		name == "process_cpu_seconds_total" || name == "process_resident_memory_bytes" || name == "process_start_time_seconds"
}

// scrapeAll asks the node's exporter, and on this machine the operator's replicas.
func (e *Env) scrapeAll(ctx context.Context) ([]recording.Scrape, error) {
	exporter, err := e.exporter(ctx, "")
	if err != nil {
		return nil, err
	}
	families, err := e.native(ctx, Nodes, exporter.Name, "9955")
	if err != nil {
		return nil, err
	}
	scrapes := []recording.Scrape{{Target: recording.Target{Job: "kernel-gossip-exporter", Instance: e.NodeName}, Families: families}}
	if e.Node == nil {
		return scrapes, nil
	}
	operators, err := e.Set.CoreV1().Pods(System).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=kernel-gossip-operator", FieldSelector: "status.phase=Running"})
	if err != nil {
		return nil, fmt.Errorf("finding the operator: %w", err)
	}
	slices.SortFunc(operators.Items, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	for i, p := range operators.Items {
		families, err := e.native(ctx, System, p.Name, "8080")
		if err != nil {
			return nil, err
		}
		scrapes = append(scrapes, recording.Scrape{Target: recording.Target{Job: "kernel-gossip-operator", Instance: fmt.Sprintf("operator-%d", i+1)}, Families: families})
	}
	return scrapes, nil
}

// native scrapes a pod through the API server as Prometheus does when it wants native
// histograms.
func (e *Env) native(ctx context.Context, namespace, name, port string) ([]*dto.MetricFamily, error) {
	format := expfmt.NewFormat(expfmt.TypeProtoDelim)
	body, err := e.Set.CoreV1().RESTClient().Get().Namespace(namespace).Resource("pods").Name(name+":"+port).SubResource("proxy").Suffix("metrics").
		SetHeader("Accept", string(format)).DoRaw(ctx)
	if err != nil {
		return nil, fmt.Errorf("scraping %s: %w", name, err)
	}
	var families []*dto.MetricFamily
	decoder := expfmt.NewDecoder(bytes.NewReader(body), format)
	for {
		f := &dto.MetricFamily{}
		switch err := decoder.Decode(f); {
		case errors.Is(err, io.EOF):
			return families, nil
		case err != nil:
			return nil, fmt.Errorf("reading the scrape of %s: %w", name, err)
		}
		families = append(families, f)
	}
}
