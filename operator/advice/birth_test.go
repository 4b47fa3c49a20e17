package advice

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

func ms(n float64) *time.Duration {
	d := time.Duration(n * float64(time.Millisecond))
	return &d
}

func count(n uint64) *uint64 { return &n }

// A birth as a prototype measured it on a real node.
func aBirth() *signal.Creation {
	return &signal.Creation{
		TotalSyscalls: 14918, SetupSyscalls: count(8473), NamespaceOps: 15, CgroupWrites: 64, Duration: 924 * time.Millisecond,
		Timeline: []signal.Step{
			{Offset: 0, Actor: "kubelet", Action: "pod cgroup made"},
			{Offset: *ms(198), Actor: "kubelet", Action: "token volume mounted"},
			{Offset: *ms(311), Duration: ms(47), Actor: "cni", Action: "bridge"},
			{Offset: *ms(430), Duration: ms(273), Actor: "runtime", Action: "runc create"},
			{Offset: *ms(791), Duration: ms(112), Actor: "runtime", Action: "runc create", Container: "app"},
			{Offset: *ms(912), Duration: ms(11), Actor: "runtime", Action: "runc start", Container: "app"},
		},
		Containers: []signal.BirthContainer{{Name: "app", Created: ms(791), Started: ms(912), Entered: ms(924), Entrypoint: "/bin/app"}},
	}
}

func TestBirth(t *testing.T) {
	second := time.Second
	yes, no := true, false
	for name, c := range map[string]struct {
		change   func(*signal.Creation)
		want     []string // after the first
		severity Severity
	}{
		"a good one": {func(c *signal.Creation) { c.Complete = &yes }, []string{
			"The longest stage: runc create (runtime), 273ms of 924ms, 30 %",
		}, Info},
		"an image is pulled": {func(c *signal.Creation) {
			c.Duration += 9 * second
			for i := range c.Timeline[4:] {
				c.Timeline[4+i].Offset += 9 * second
			}
			for _, at := range []*time.Duration{c.Containers[0].Created, c.Containers[0].Started, c.Containers[0].Entered} {
				*at += 9 * second
			}
		}, []string{
			"The longest stage: runc create (runtime), 273ms of 9.924s, 3 %",
			"From 703ms on, nothing of it was seen in the kernel for 9.088s, 92 % of the time: so look image pulls, volumes and the kubelet's own waits",
		}, Info},
		"a slow plugin": {func(c *signal.Creation) {
			c.Duration, c.Timeline[2].Duration = 40*second, ms(39000)
			for i := range c.Timeline[3:] {
				c.Timeline[3+i].Offset += 39 * second
			}
		}, []string{
			"The longest stage: bridge (cni), 39s of 40s, 98 %",
		}, Warning},
		"nothing runs on the node while it waits": {func(c *signal.Creation) {
			c.Timeline = append(c.Timeline, signal.Step{Offset: -12 * second, Duration: ms(11000), Precision: &second, Actor: "scheduler", Action: "find a node"})
		}, []string{
			"Before that it waited about 11s for a node",
			"The longest stage: runc create (runtime), 273ms of 924ms, 30 %",
		}, Info},
		"no entrypoint": {func(c *signal.Creation) {
			c.Failed, c.Failure = true, "1 of 1 containers never ran"
			c.Containers[0].Entered, c.Containers[0].Failure = nil, `exec: "/bin/nope": no such file`
		}, []string{
			`Container app never reached its entrypoint: exec: "/bin/nope": no such file`,
			"The longest stage: runc create (runtime), 273ms of 924ms, 30 %",
		}, Warning},
		"a runtime that does it all": {func(c *signal.Creation) {
			c.Timeline[4].Container, c.Timeline[5].Container = "app", "app"
			c.Timeline = append(c.Timeline, signal.Step{Offset: *ms(1), Duration: ms(990), Actor: "runtime", Action: "runc run", Container: "app"})
		}, []string{"The longest stage: runc create (runtime), 273ms of 924ms, 30 %"}, Info},
		"nothing else is known": {func(c *signal.Creation) {
			c.Timeline = []signal.Step{{Offset: 0, Duration: ms(990), Actor: "runtime", Action: "runc run", Container: "app"}}
		}, []string{"The longest stage: runc run of container app (runtime), 924ms of 924ms, 100 %"}, Info},
		"a failure in the sender's words": {func(c *signal.Creation) {
			c.Timeline, c.Failed, c.Containers[0].Failure = nil, true, "it never reached its entrypoint"
		}, []string{"Container app never reached its entrypoint"}, Warning},
		"a failure with its cause": {func(c *signal.Creation) {
			c.Timeline, c.Failed, c.Containers[0].Failure = nil, true, "it never reached its entrypoint: runc init was killed by signal 9 (killed)"
		}, []string{"Container app never reached its entrypoint: runc init was killed by signal 9 (killed)"}, Warning},
		"no container to blame": {func(c *signal.Creation) { c.Failed, c.Failure, c.Timeline = true, "the sandbox failed", nil }, []string{"The birth failed: the sandbox failed"}, Warning},
		"partly seen, with others": {func(c *signal.Creation) {
			c.Timeline, c.Complete, c.IncompleteReasons = nil, &no, []string{"3 events were lost", "the shim is older than the exporter"}
			c.SharedSyscalls, c.SharedBy = count(5120), count(3)
		}, []string{
			"Not all of it was seen: 3 events were lost; the shim is older than the exporter",
			"Daemons made 5120 more syscalls meanwhile, for 3 births at once",
		}, Info},
		"alone": {func(c *signal.Creation) { c.Timeline, c.SharedSyscalls, c.SharedBy = nil, count(7), count(1) }, []string{"Daemons made 7 more syscalls meanwhile"}, Info},
		"the API's times are no measure": {func(c *signal.Creation) {
			c.Timeline = []signal.Step{{Offset: 0, Duration: &second, Precision: &second, Actor: "kubelet", Action: "ready"}}
		}, nil, Info},
	} {
		birth := aBirth()
		c.change(birth)
		a := For(signal.Signal{Type: signal.PodCreation, Creation: birth})
		assert.Equal(t, c.severity, a.Severity, name)
		assert.Contains(t, a.Insights[0], "14918 syscalls (8473 of them set-up), 15 namespace operations, 64 cgroup writes", name)
		assert.Equal(t, c.want, append([]string(nil), a.Insights[1:]...), name)
	}
}

// Whatever passes the door fits into the object.
func TestBirthInsightsAreBounded(t *testing.T) {
	no := false
	c := &signal.Creation{Failed: true, Complete: &no, Failure: strings.Repeat("é", signal.MaxDetailsBytes/2)}
	for range signal.MaxReasons {
		c.IncompleteReasons = append(c.IncompleteReasons, strings.Repeat("r", signal.MaxDetailsBytes))
	}
	for i := range signal.MaxContainers {
		c.Containers = append(c.Containers, signal.BirthContainer{Name: fmt.Sprint("c", i), Failure: c.Failure})
	}
	a := For(signal.Signal{Type: signal.PodCreation, Creation: c})
	assert.LessOrEqual(t, len(a.Insights), 16)
	for _, line := range a.Insights {
		assert.Less(t, len(line), 1024)
		assert.Equal(t, strings.ToValidUTF8(line, ""), line)
	}
}
