package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kernel-gossip/kernel-gossip/exporter/birth"
	"github.com/kernel-gossip/kernel-gossip/exporter/pods"
	"github.com/kernel-gossip/kernel-gossip/operator/signal"
)

// ofPod is an API server that knows of one pod, by its UID.
type ofPod struct {
	pods.None
	uid   string
	birth pods.Birth
}

func (p ofPod) Birth(uid string) (pods.Birth, bool) { return p.birth, uid == p.uid }

// crowd is a birth with so many of each; it is told without a kernel.
func crowd(steps, roles, containers, unseen int) *birth.Certificate {
	c := &birth.Certificate{PodUID: "uid-1", Namespace: "shop", Pod: "cart-1", Duration: time.Minute}
	for i := range steps {
		c.Steps = append(c.Steps, birth.Step{Offset: time.Duration(i) * time.Millisecond, Actor: birth.ActorKernel, Action: fmt.Sprint("step ", i)})
	}
	for i := range roles {
		c.Roles = append(c.Roles, birth.Role{Name: fmt.Sprint("cni ", i), Syscalls: 1})
	}
	for i := range containers {
		c.Containers = append(c.Containers, birth.Container{ID: fmt.Sprintf("%064x", i)})
	}
	for i := range unseen {
		c.Incomplete = append(c.Incomplete, fmt.Sprint("reason ", i))
	}
	return c
}

func TestCertificateIsOfTheSizeThatTheOperatorTakes(t *testing.T) {
	assert.Equal(t, []int{signal.MaxTimeline, signal.MaxRoles, signal.MaxContainers, signal.MaxReasons},
		[]int{mostSteps, mostRoles, mostContainers, mostReasons})
}

// A certificate that leaves something out says so: what is cut is not complete.
func TestCertificateTellsWhatItLeavesOut(t *testing.T) {
	now := time.Now()
	wall := func(at time.Duration) time.Time { return now.Add(at - time.Minute) }
	for _, tc := range []struct {
		name                             string
		steps, roles, containers, unseen int
		kubernetes                       bool // tells two steps more
		want                             []string
	}{
		{name: "all fits", steps: mostSteps, roles: mostRoles, containers: mostContainers},
		{name: "steps", steps: mostSteps + 44, want: []string{"44 further steps are not listed"}},
		{name: "with the API server's", steps: mostSteps, kubernetes: true, want: []string{"2 further steps are not listed"}},
		{name: "roles", roles: mostRoles + 1, want: []string{"1 further roles are not listed"}},
		{name: "containers", containers: mostContainers + 3, want: []string{"3 further containers are not listed"}},
		{name: "beside what was not seen", steps: mostSteps + 1, unseen: 2, want: []string{"reason 0", "reason 1", "1 further steps are not listed"}},
		{name: "reasons fit", unseen: mostReasons, want: crowd(0, 0, 0, mostReasons).Incomplete},
		{name: "reasons", unseen: mostReasons + 1, want: append(crowd(0, 0, 0, mostReasons-1).Incomplete, "2 further reasons are not listed")},
		{name: "everything", steps: 300, roles: 200, containers: 100, unseen: 20, want: append(crowd(0, 0, 0, 12).Incomplete,
			"44 further steps are not listed", "72 further roles are not listed", "36 further containers are not listed", "8 further reasons are not listed")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := &births{node: "node-1", namespace: "default"}
			if tc.kubernetes {
				b.pods = ofPod{uid: "uid-1", birth: pods.Birth{Created: wall(0), Accepted: wall(time.Second)}}
			}
			c := crowd(tc.steps, tc.roles, tc.containers, tc.unseen)
			e := b.event(c, wall)
			assert.Equal(t, tc.want, e.IncompleteReasons)
			require.NotNil(t, e.Complete)
			assert.Equal(t, len(tc.want) == 0, *e.Complete)
			assert.LessOrEqual(t, len(e.Timeline), mostSteps)
			assert.LessOrEqual(t, len(e.Roles), mostRoles)
			assert.LessOrEqual(t, len(e.Containers), mostContainers)
			assert.LessOrEqual(t, len(e.IncompleteReasons), mostReasons)
			assert.Len(t, c.Incomplete, tc.unseen, "the certificate itself is as it was")
			for i := range c.Incomplete {
				assert.Equal(t, fmt.Sprint("reason ", i), c.Incomplete[i])
			}
		})
	}
}
