package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kernel-gossip/kernel-gossip/e2e/cluster"
	"github.com/kernel-gossip/kernel-gossip/e2e/scenario"
	"github.com/kernel-gossip/kernel-gossip/e2e/stages"
	"github.com/kernel-gossip/kernel-gossip/e2e/vmnode"
)

// guestStarts is how often the virtual machine is started before it counts as failed.
const guestStarts = 3

// guestScenarios are those of the node in the virtual machine, for -run "guest: …".
func guestScenarios(o options) []scenario.Scenario {
	if o.record != "" {
		return []scenario.Scenario{scenario.Record(filepath.Join(o.record, "recording-v2.promql"))}
	}
	return slices.DeleteFunc(scenario.OnGuest(), func(s scenario.Scenario) bool {
		return o.only != nil && !o.only.MatchString("guest: "+s.Name)
	})
}

// tryGuest adds the node in the virtual machine to the cluster and runs its scenarios
// there, again on a new machine if that crashes or hangs. Each one that did is told in
// the group's text. What it needs of e is there once ready is closed.
func tryGuest(ctx context.Context, c *cluster.Cluster, e *scenario.Env, ready <-chan struct{}, o options, parts vmnode.Parts, log *stages.Log) (scenario.Group, error) {
	group := scenario.Group{Title: "On a node in a virtual machine"}
	made := log.Begin("guest: its disk")
	images := scenario.Images(o.images, true)
	if o.record != "" {
		stress, err := scenario.Stress(o.images)
		if err != nil {
			return group, err
		}
		images = append(images, stress)
	}
	node, err := vmnode.New(ctx, c, o.bin, parts, images)
	if err != nil {
		return group, err
	}
	made()
	env := func(ctx context.Context) (*scenario.Env, error) {
		select {
		case <-ready:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		guest := *e
		guest.NodeName, guest.Taint, guest.Namespace, guest.Node = vmnode.Name, vmnode.Taint, "guest", nil
		// An emulator is several times slower than a machine, and overshoots quotas by
		// more: longer rests keep what metrics say of the pod below 60 % of its limit.
		guest.Patience, guest.Load = 6, []string{"-busy=4s", "-idle=12s"}
		return &guest, guest.MakeNamespace(ctx)
	}
	var faults []string
	for n := 1; ; n++ {
		results, fault := tryGuestOnce(ctx, node, env, o, log)
		group.Results = results
		if fault == nil || ctx.Err() != nil || n == guestStarts {
			break
		}
		faults = append(faults, fmt.Sprintf("start %d: %v", n, fault))
		log.Say("guest: start %d of %d: %v", n, guestStarts, fault)
	}
	group.About = node.Describe() + ", joined to the same control plane by its kubelet: the unified cgroup v2 alone, and\na kernel with fentry. Seconds are an emulator's."
	if len(faults) > 0 {
		group.About += " Starts before the one that counts: " + strings.Join(faults, "; ") + "."
	}
	return group, nil
}

// tryGuestOnce starts the machine and runs the scenarios. A fault is of the machine;
// what the scenarios found is in the results.
func tryGuestOnce(ctx context.Context, node *vmnode.Node, env func(context.Context) (*scenario.Env, error), o options, log *stages.Log) ([]scenario.Result, error) {
	todo := guestScenarios(o)
	results := make([]scenario.Result, len(todo))
	began := time.Now()
	failed := func(err error) ([]scenario.Result, error) {
		for i, s := range todo {
			results[i] = scenario.Result{Name: s.Name, Took: time.Since(began), Err: err}
		}
		return results, err
	}
	ready := log.Begin("guest: from its start to Ready")
	defer node.Stop()
	if err := node.Start(ctx); err != nil {
		return failed(err)
	}
	ready()
	e, err := env(ctx)
	if err != nil {
		return failed(err)
	}
	rolled := log.Begin("guest: its exporter")
	if err := e.WaitExporter(ctx); err != nil {
		if fault := node.Fault(); fault != nil {
			err = fault
		}
		return failed(err)
	}
	rolled()
	tried := log.Begin("guest: the scenarios")
	var group sync.WaitGroup
	for i, s := range todo {
		group.Go(func() { results[i] = attempt(ctx, "guest: ", s, e, log.Say) })
	}
	group.Wait()
	tried()
	if slices.ContainsFunc(results, func(r scenario.Result) bool { return r.Err != nil }) {
		return results, node.Fault()
	}
	return results, nil
}
