package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
)

const (
	// bornArg has the demo be the program in a container: it ends at once.
	bornArg  = "born"
	bornName = "kernel-gossip-demo-born"
	// bornStages are shown of a certificate, of which the file has all.
	bornStages = 10
)

// birth has the runtime of this machine make a container, and shows its certificate.
func (v *view) birth(ctx context.Context) error {
	runc := installed("runc")
	if v.tape != nil || os.Getuid() != 0 {
		return nil
	}
	if runc == "" {
		v.out.note("no runc is installed: no birth certificate is shown")
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := v.bear(ctx, runc); err != nil {
		v.out.note("no birth certificate: %v", err)
		return context.Cause(ctx)
	}
	path := filepath.Join(v.dir, "whispers", "kernel-gossip", "podbirthcertificates", bornName+"-birth.yaml")
	for {
		b, err := os.ReadFile(path)
		switch {
		case err == nil:
			var c v1alpha1.PodBirthCertificate
			if err := yaml.Unmarshal(b, &c); err != nil {
				return fmt.Errorf("read the birth certificate: %w", err)
			}
			v.certificate(&c.Spec, strings.TrimPrefix(path, v.dir+"/"))
			return nil
		case !errors.Is(err, os.ErrNotExist):
			return fmt.Errorf("read the birth certificate: %w", err)
		}
		select {
		case <-ctx.Done():
			v.out.note("no birth certificate came: kernel-gossip-exporter doctor tells whether births can be followed here")
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// bear runs a container that has nothing in it but this program.
func (v *view) bear(ctx context.Context, runc string) error {
	bundle := filepath.Join(v.dir, "bundle")
	if err := os.MkdirAll(filepath.Join(bundle, "rootfs"), 0o755); err != nil {
		return err
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bundle, "rootfs", "app"), self, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, runc, "spec", "--bundle", bundle)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("runc spec: %w: %s", err, out)
	}
	config := filepath.Join(bundle, "config.json")
	raw, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	var spec map[string]any
	if err := json.Unmarshal(raw, &spec); err != nil {
		return fmt.Errorf("%s: %w", config, err)
	}
	process, ok := spec["process"].(map[string]any)
	if !ok {
		return fmt.Errorf("%s has no process", config)
	}
	process["args"], process["terminal"] = []string{"/app", bornArg}, false
	if raw, err = json.Marshal(spec); err != nil {
		return err
	}
	if err := os.WriteFile(config, raw, 0o644); err != nil {
		return err
	}
	cmd = exec.CommandContext(ctx, runc, "--root", filepath.Join(v.dir, "runc"), "run", "--bundle", bundle, bornName)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("runc can't run a container here: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

func (v *view) certificate(c *v1alpha1.PodBirthCertificateSpec, path string) {
	out := v.out
	out.heading("A container was born")
	calls := grouped(float64(c.TotalSyscalls)) + " system calls until its program ran"
	if c.SetupSyscalls != nil {
		calls += fmt.Sprintf(", %s of them to set it up", grouped(float64(*c.SetupSyscalls)))
	}
	out.pair("runc run", fmt.Sprintf("%s, in %s", calls, c.Duration.Round(time.Millisecond)))
	var made []string
	for _, n := range c.Namespaces {
		if n.Created > 0 {
			made = append(made, n.Kind)
		}
	}
	if c.Mounts != nil {
		out.pair("made", fmt.Sprintf("namespaces %s; %d mounts; %d writes to its cgroup's files", strings.Join(made, ", "), *c.Mounts, c.CgroupWrites))
	}
	if c.Complete == nil || !*c.Complete {
		out.pair("missing", strings.Join(c.IncompleteReasons, "; "))
	}
	for _, s := range c.Stages[:min(len(c.Stages), bornStages)] {
		out.print(fmt.Sprintf("%s%8.1f ms  %-8s %s", indent, float64(s.Offset.Microseconds())/1000, s.Actor, strings.TrimSpace(s.Action+" "+s.Details)))
	}
	out.pair("certificate", path)
}
