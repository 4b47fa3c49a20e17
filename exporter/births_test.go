package main

import (
	"fmt"
	"strings"
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

// What is told is written to the API server, which takes CPU time: pods that start go first.
func TestCertificatesWaitForOtherBirths(t *testing.T) {
	b := &births{waiting: []untold{{*crowd(1, 0, 0, 0), time.Minute}}}
	assert.Empty(t, b.due(time.Minute+patience-1, 1), "another birth is in flight")
	b.waiting = append(b.waiting, untold{*crowd(2, 0, 0, 0), time.Minute + time.Second})
	due := b.due(time.Minute+patience, 1)
	require.Len(t, due, 1, "but not for longer than a while")
	assert.Len(t, due[0].Steps, 1)
	due = b.due(time.Minute+patience, 0)
	require.Len(t, due, 1, "no birth is in flight")
	assert.Len(t, due[0].Steps, 2)

	b.pods = ofPod{uid: "another"}
	b.waiting = []untold{{*crowd(1, 0, 0, 0), 0}}
	assert.Empty(t, b.due(patience-1, 0), "the API server does not know the pod yet")
	assert.Len(t, b.due(patience, 0), 1)
	assert.Empty(t, b.waiting)
}

// With the systemd driver it is systemd, which belongs to no birth, that makes the cgroups
// and moves the processes into them; CRI-O has conmon between itself and the runtime.
func TestBirthBySystemd(t *testing.T) {
	const uid, underscored = "5f0c9a3e-4b7d-4c53-9a51-0d6c1f2b3a4d", "5f0c9a3e_4b7d_4c53_9a51_0d6c1f2b3a4d"
	slice := "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + underscored + ".slice"
	id, sandbox := strings.Repeat("0123456789abcdef", 4), strings.Repeat("5", 64)
	for _, tc := range []struct {
		name, scope, daemon, shim, sandbox string
		arguments                          []string
	}{
		{"containerd", "cri-containerd-", "containerd", "/usr/bin/containerd-shim-runc-v2", sandbox, []string{"-namespace", "k8s.io", "-id", sandbox, "start"}},
		{"CRI-O", "crio-", "crio", "/usr/libexec/crio/conmon", "", []string{"-b", "/run", "-c", id, "-n", "k8s_app"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := birth.New(birth.Config{PodsOnly: true, Identify: identify, Expect: func(pod string) (int, bool) { return 1, pod == uid }})
			at := time.Duration(0)
			tell := func(e birth.Event) {
				at += time.Millisecond
				e.At = at
				a.Event(&e)
			}
			words := func(all ...string) string { return strings.Join(all, "\x00") + "\x00" }
			tell(birth.Event{Kind: birth.Exec, Image: 1, PID: 100, Root: 100, Daemon: true, File: tc.daemon})
			tell(birth.Event{Kind: birth.Mkdir, PID: 1, Path: slice})
			require.True(t, a.Counting(), "from the pod's slice on")
			a.Counted(true, at)
			tell(birth.Event{Kind: birth.Fork, Image: 1, PID: 100, Root: 100, Daemon: true, Child: 2, ChildPID: 20})
			tell(birth.Event{Kind: birth.Exec, Image: 3, Previous: 2, PID: 20, Root: 20, File: tc.shim, Arguments: words(append([]string{tc.shim}, tc.arguments...)...)})
			if tc.sandbox != "" {
				tell(birth.Event{Kind: birth.Mkdir, PID: 1, Path: slice + "/" + tc.scope + tc.sandbox + ".scope"})
			}
			tell(birth.Event{Kind: birth.Fork, Image: 3, PID: 20, Root: 20, Child: 4, ChildPID: 21})
			tell(birth.Event{Kind: birth.Exec, Image: 5, Previous: 4, PID: 21, Root: 20, File: "/usr/sbin/runc", Arguments: words("runc", "--systemd-cgroup", "create", id)})
			tell(birth.Event{Kind: birth.Fork, Image: 5, PID: 21, Root: 20, Child: 6, ChildPID: 22})
			tell(birth.Event{Kind: birth.Mkdir, PID: 1, Path: slice + "/" + tc.scope + id + ".scope"})
			tell(birth.Event{Kind: birth.Attach, PID: 1, Task: 22, Path: slice + "/" + tc.scope + id + ".scope"})
			tell(birth.Event{Kind: birth.Call, Image: 6, PID: 22, Root: 20, Name: "mount"})
			tell(birth.Event{Kind: birth.Exec, Image: 7, Previous: 6, PID: 22, Root: 20, File: "/app", Entrypoint: true})
			tell(birth.Event{Kind: birth.Returned, Image: 7, PID: 22, Root: 20})
			tell(birth.Event{Kind: birth.Exit, Image: 5, PID: 21, Root: 20})
			all := a.Tick(at+time.Minute, func() []birth.Count {
				return []birth.Count{{Image: 3, Name: "openat", N: 10, First: at}, {Image: 5, Name: "openat", N: 20, First: at}, {Image: 6, Name: "mount", N: 1, First: at}}
			}, birth.Losses{})
			require.Len(t, all, 1)
			c := all[0]
			assert.Equal(t, uid, c.PodUID)
			assert.Empty(t, c.Failure)
			assert.Empty(t, c.Incomplete)
			require.Len(t, c.Containers, 1)
			assert.Equal(t, id, c.Containers[0].ID)
			assert.Equal(t, "/app", c.Containers[0].Entrypoint)
			assert.EqualValues(t, 31, c.Total, "the shim's, the runtime's and the container's")
			assert.EqualValues(t, 1, c.Mounts)
		})
	}
}
