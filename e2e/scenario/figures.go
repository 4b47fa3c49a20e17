package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Figures holds our counters against cAdvisor's for the same containers, and our
// reported figure against kubectl top's source, each at the same moment by its own
// time stamp.
var Figures = Scenario{Name: "figures against cAdvisor and metrics.k8s.io", Run: figures}

// counters are ours and cAdvisor's names of what the kernel counts.
var counters = [][2]string{
	{"kernel_gossip_cpu_periods_total", "container_cpu_cfs_periods_total"},
	{"kernel_gossip_cpu_throttled_periods_total", "container_cpu_cfs_throttled_periods_total"},
	{"kernel_gossip_cpu_throttled_seconds_total", "container_cpu_cfs_throttled_seconds_total"},
	{"kernel_gossip_cpu_usage_seconds_total", "container_cpu_usage_seconds_total"},
}

// point is a figure and when it was true: at that time or up to late after it, for a
// sampler stamps what it reads as it begins.
type point struct {
	at    time.Time
	value float64
	late  time.Duration
}

// by is when it was true at the latest.
func (p point) by() time.Time { return p.at.Add(p.late) }

// series are the points of one figure of one container, by time.
type series map[string]map[labels][]point

func (s series) add(name string, key labels, p point) {
	if s[name] == nil {
		s[name] = map[labels][]point{}
	}
	points := s[name][key]
	if n := len(points); n == 0 || p.at.After(points[n-1].at) {
		s[name][key] = append(points, p)
	}
}

// take adds the exporter's figures, each at its own time.
func (s series) take(from *scrape, keys []labels) {
	took := time.Duration(from.single("kernel_gossip_exporter_sample_duration_seconds") * float64(time.Second))
	for _, k := range keys {
		for _, c := range counters {
			if v, ok := from.value(c[0], k); ok {
				s.add(c[0], k, point{from.at, v, took})
			}
		}
		cores, ok := from.value("kernel_gossip_cpu_reported_cores", k, "source", "kubelet")
		age, dated := from.value("kernel_gossip_cpu_reported_age_seconds", k, "source", "kubelet")
		if ok && dated {
			// The same figure is told until the next; rounding makes its time the same.
			at := from.at.Add(-time.Duration(age * float64(time.Second))).Round(10 * time.Millisecond)
			s.add("reported", k, point{at: at, value: cores})
		}
	}
}

// podMetrics is what kubectl top reads.
type podMetrics struct {
	Timestamp  time.Time `json:"timestamp"`
	Window     string    `json:"window"`
	Containers []struct {
		Name  string `json:"name"`
		Usage struct {
			CPU resource.Quantity `json:"cpu"`
		} `json:"usage"`
	} `json:"containers"`
}

// podMetrics asks metrics.k8s.io about a pod of one container.
func (e *Env) podMetrics(ctx context.Context, podName string) (podMetrics, error) {
	var m podMetrics
	body, err := e.Set.CoreV1().RESTClient().Get().AbsPath("/apis/metrics.k8s.io/v1beta1/namespaces", e.Namespace, "pods", podName).DoRaw(ctx)
	if err != nil {
		return m, fmt.Errorf("asking metrics.k8s.io about %s: %w", podName, err)
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return m, fmt.Errorf("reading what metrics.k8s.io says of %s: %w", podName, err)
	}
	if len(m.Containers) != 1 {
		return m, fmt.Errorf("metrics.k8s.io has %d containers of %s, not one", len(m.Containers), podName)
	}
	return m, nil
}

func figures(ctx context.Context, e *Env, seen *Seen) error {
	bursty, steady := pod("bursty", load("app", "150m")), pod("steady", load("app", "100m", "-calm"))
	keys := []labels{{e.Namespace, bursty.Name, "app"}, {e.Namespace, steady.Name, "app"}}
	if err := e.startAll(ctx, bursty, steady); err != nil {
		return err
	}
	for _, k := range keys {
		if _, _, err := e.counts(ctx, k.pod, k.container); err != nil {
			return err
		}
		if _, err := e.until(ctx, 2*time.Minute, "metrics.k8s.io of "+k.pod, func() error {
			_, err := e.podMetrics(ctx, k.pod)
			return err
		}); err != nil {
			return err
		}
	}
	ours, theirs := series{}, series{}
	reports := map[string]podMetrics{}
	const span = 75 * time.Second
	// A poll that fails is one point fewer; what is left is judged.
	repeat := func(every time.Duration, poll func()) func() {
		return func() {
			for began := time.Now(); time.Since(began) < span && ctx.Err() == nil; time.Sleep(every) {
				poll()
			}
		}
	}
	var group sync.WaitGroup
	group.Go(repeat(400*time.Millisecond, func() {
		if s, err := e.scrape(ctx); err == nil {
			ours.take(s, keys)
		}
	}))
	group.Go(repeat(2*time.Second, func() {
		if s, err := e.cadvisor(ctx); err == nil {
			for _, k := range keys {
				for _, c := range counters {
					if m := newest(s, c[1], k); m != nil {
						theirs.add(c[0], k, point{at: time.UnixMilli(m.GetTimestampMs()), value: number(m)})
					}
				}
			}
		}
		for _, k := range keys {
			if m, err := e.podMetrics(ctx, k.pod); err == nil {
				reports[k.pod+m.Timestamp.String()] = m
				cpu := m.Containers[0].Usage.CPU
				theirs.add("reported", k, point{at: m.Timestamp, value: cpu.AsApproximateFloat64()})
			}
		}
	}))
	group.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, k := range keys {
		points, equal := 0, 0
		for _, c := range counters {
			n, same, err := within(ours[c[0]][k], theirs[c[0]][k], c[0], k)
			if err != nil {
				return err
			}
			points, equal = points+n, equal+same
		}
		seen.Add("%s: all %d points of cAdvisor's (periods, throttled periods, throttled seconds, usage) lie between our samples before and after, %d of them where both are equal", k.pod, points, equal)
	}
	for _, k := range keys {
		if err := recompute(ours, reports, k, seen); err != nil {
			return err
		}
		if err := sameReport(ours["reported"][k], theirs["reported"][k], k, seen); err != nil {
			return err
		}
	}
	return e.endAll(ctx, bursty, steady)
}

// newest is cAdvisor's series of the container. For usage it has one per CPU set
// label "total"; a restart of the kubelet may leave an older one beside the new.
func newest(s *scrape, family string, key labels) *dto.Metric {
	var found *dto.Metric
	for _, m := range s.families[family].GetMetric() {
		have := map[string]string{}
		for _, l := range m.GetLabel() {
			have[l.GetName()] = l.GetValue()
		}
		if (labels{have["namespace"], have["pod"], have["container"]}) == key && (found == nil || m.GetTimestampMs() > found.GetTimestampMs()) {
			found = m
		}
	}
	return found
}

// within holds each of their points to our samples right before and after it: a
// counter that only grows must lie between them. It returns how many it compared,
// and for how many of them both samples are equal.
func within(ours, theirs []point, name string, key labels) (compared, equal int, err error) {
	// cAdvisor stamps a reading before it reads, and takes its time, more on a busy machine.
	const late = time.Second
	for _, t := range theirs {
		after := slices.IndexFunc(ours, func(p point) bool { return p.at.After(t.at.Add(late)) })
		before := -1
		for i, p := range ours {
			if p.by().Before(t.at) {
				before = i
			}
		}
		if after < 0 || before < 0 {
			continue // outside of what we sampled
		}
		compared++
		low, high := ours[before].value, ours[after].value
		const rounding = 1e-6 // decimal text of both
		if t.value < low-rounding || t.value > high+rounding {
			return 0, 0, fmt.Errorf("%s of %s/%s at %s: cAdvisor has %g, our samples around it %g (%s before) and %g (%s after)", name, key.pod, key.container,
				t.at.Format(time.TimeOnly), t.value, low, t.at.Sub(ours[before].at).Round(time.Millisecond), high, ours[after].at.Sub(t.at).Round(time.Millisecond))
		}
		if high-low < rounding {
			equal++
		}
	}
	if compared < 2 {
		return 0, 0, fmt.Errorf("%s of %s/%s: %d of cAdvisor's %d points lie between two of our %d samples", name, key.pod, key.container, compared, len(theirs), len(ours))
	}
	return compared, equal, nil
}

// recompute takes the figure of metrics.k8s.io from our counter over its own window.
func recompute(ours series, reports map[string]podMetrics, key labels, seen *Seen) error {
	usage := ours["kernel_gossip_cpu_usage_seconds_total"][key]
	compared := 0
	worst := 0.0
	for name, m := range reports {
		if name != key.pod+m.Timestamp.String() {
			continue
		}
		window, err := time.ParseDuration(m.Window)
		if err != nil {
			return fmt.Errorf("metrics.k8s.io of %s: window %q: %w", key.pod, m.Window, err)
		}
		// The API gives both times in whole seconds, cut off.
		lowEnd, highEnd, ok := around(usage, m.Timestamp, m.Timestamp.Add(time.Second))
		lowBegin, highBegin, also := around(usage, m.Timestamp.Add(-window-time.Second), m.Timestamp.Add(-window+time.Second))
		if !ok || !also {
			continue
		}
		told := m.Containers[0].Usage.CPU.AsApproximateFloat64()
		least := (lowEnd - highBegin) / (window + time.Second).Seconds()
		most := (highEnd - lowBegin) / window.Seconds()
		compared++
		if told < least-0.001 || told > most+0.001 {
			return fmt.Errorf("kubectl top has %.4f cores for %s over the %s before %s; our counter grew by %.4f to %.4f", told, key.pod, window,
				m.Timestamp.Format(time.TimeOnly), least, most)
		}
		worst = math.Max(worst, most-least)
	}
	if compared == 0 {
		return fmt.Errorf("none of the %d figures of metrics.k8s.io lies within our samples of %s", len(reports), key.pod)
	}
	seen.Add("%s: %d figures of metrics.k8s.io recomputed from our counter over their own windows (bounds at most %.1f mcores apart)", key.pod, compared, 1000*worst)
	return nil
}

// around bounds a counter between two moments: the last sample before the first and
// the first after the second.
func around(points []point, from, to time.Time) (low, high float64, ok bool) {
	after := slices.IndexFunc(points, func(p point) bool { return !p.at.Before(to) })
	before := -1
	for i, p := range points {
		if !p.by().After(from) {
			before = i
		}
	}
	if after < 0 || before < 0 {
		return 0, 0, false
	}
	return points[before].value, points[after].value, true
}

// sameReport compares our reported figure with metrics.k8s.io's where both end on the
// same point of the kubelet's. A steady load has the same figure then; a bursty one
// only where both windows begin on the same point, too, which is counted.
func sameReport(ours, theirs []point, key labels, seen *Seen) error {
	compared, equal := 0, 0
	worst := 0.0
	for _, t := range theirs {
		for _, o := range ours {
			// Their time is cut to whole seconds.
			if o.at.Before(t.at) || !o.at.Before(t.at.Add(time.Second)) {
				continue
			}
			compared++
			off := math.Abs(o.value - t.value)
			worst = math.Max(worst, off)
			if off <= math.Max(0.001, 0.02*t.value) {
				equal++
			}
		}
	}
	if key.pod == "steady" && (compared == 0 || worst > 0.005) {
		return fmt.Errorf("reported figure of the steady pod: %d of our %d and of metrics.k8s.io's %d end on the same point, and differ by up to %.4f cores", compared, len(ours), len(theirs), worst)
	}
	seen.Add("%s: our reported figure and metrics.k8s.io's end on the same point %d times: %d equal within 2 %%, off by at most %.1f mcores", key.pod, compared, equal, 1000*worst)
	return nil
}
