package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// container is the name of the one that is born for the picture.
const container = "web"

// birth lets runc start a container while the exporter watches, and fetches the picture
// that the operator draws of its certificate.
func birth(ctx context.Context) (picture []byte, err error) {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	dir, err := os.MkdirTemp("", "birth")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	var urls []string
	for range 2 {
		address, err := freeAddress(ctx)
		if err != nil {
			return nil, err
		}
		urls = append(urls, address)
	}
	operator, exporter := urls[0], urls[1]
	var log bytes.Buffer
	for _, args := range [][]string{
		{"bin/kernel-gossip-operator", "--web.listen-address=" + operator, "--store.directory=" + filepath.Join(dir, "store")},
		{"bin/kernel-gossip-exporter", "--web.listen-address=" + exporter, "--kubernetes=off", "--whisper.url=http://" + operator, "--birth.count-always"},
	} {
		program := exec.CommandContext(ctx, args[0], args[1:]...)
		program.Stdout, program.Stderr = &log, &log
		program.Cancel = func() error { return program.Process.Signal(os.Interrupt) }
		program.WaitDelay = 10 * time.Second
		if err := program.Start(); err != nil {
			return nil, fmt.Errorf("starting %s (make build): %w", args[0], err)
		}
		defer func() {
			stop()
			_ = program.Wait() // interrupted
		}()
	}
	defer func() {
		if err != nil {
			slog.Info("What the exporter and the operator said.", "log", log.String())
		}
	}()
	for ready(ctx, "http://"+exporter) != nil || ready(ctx, "http://"+operator) != nil {
		if err := pause(ctx); err != nil {
			return nil, fmt.Errorf("waiting for the exporter: %w", err)
		}
	}
	bundle, err := makeBundle(ctx, filepath.Join(dir, "bundle"))
	if err != nil {
		return nil, err
	}
	runc := exec.CommandContext(ctx, "runc", "run", "--bundle", bundle, container)
	if out, err := runc.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("running a container: %w: %s", err, out)
	}
	for {
		picture, err := fetch(ctx, "http://"+operator+"/birth/kernel-gossip/"+container)
		if err == nil {
			return picture, nil
		}
		if pause(ctx) != nil {
			return nil, fmt.Errorf("waiting for the certificate: %w", err)
		}
	}
}

// makeBundle is an OCI bundle whose program is the operator, which says its version and ends.
func makeBundle(ctx context.Context, dir string) (string, error) {
	program, err := os.ReadFile("bin/kernel-gossip-operator")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "rootfs", container), program, 0o755); err != nil {
		return "", err
	}
	spec := exec.CommandContext(ctx, "runc", "spec")
	spec.Dir = dir
	if out, err := spec.CombinedOutput(); err != nil {
		return "", fmt.Errorf("making the container's specification: %w: %s", err, out)
	}
	path := filepath.Join(dir, "config.json")
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var config map[string]any
	if err := json.Unmarshal(raw, &config); err != nil {
		return "", fmt.Errorf("reading the container's specification: %w", err)
	}
	process, ok := config["process"].(map[string]any)
	if !ok {
		return "", errors.New("runc spec wrote no process")
	}
	process["args"], process["terminal"] = []string{"/" + container, "--version"}, false
	if raw, err = json.Marshal(config); err != nil {
		return "", err
	}
	return dir, os.WriteFile(path, raw, 0o644)
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return body, err
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(200 * time.Millisecond):
		return nil
	}
}
