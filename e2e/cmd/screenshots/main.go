// Command screenshots makes the pictures in docs/images: the exporter's page in a
// headless chromium and its top in a terminal, over workloads that this machine's
// kernel really throttles, and the birth of a container that runc starts. It takes root,
// a cgroup hierarchy that may be written, runc and the programs in bin.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/kernel-gossip/kernel-gossip/e2e/terminal"
	"github.com/kernel-gossip/kernel-gossip/e2e/throttled"
)

// settle fills the trailing window and the sparklines.
const settle = 68 * time.Second

// The workloads: one that only looks half idle, one that is honestly at its limit and
// one that is well.
func workloads() map[string]struct {
	quota time.Duration
	args  []string
} {
	type w = struct {
		quota time.Duration
		args  []string
	}
	return map[string]w{
		"shop-checkout": {20 * time.Millisecond, []string{"-threads=2", "-busy=3600ms", "-idle=3900ms"}},
		"shop-reports":  {25 * time.Millisecond, []string{"-threads=1", "-busy=1h", "-idle=1ms"}},
		"shop-web":      {50 * time.Millisecond, []string{"-calm", "-rest=5ms"}},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		slog.Error("The pictures could not be made.", "err", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	ctx, stop := context.WithTimeout(ctx, 5*time.Minute)
	defer stop()
	images := filepath.Join("docs", "images")
	if err := os.MkdirAll(images, 0o755); err != nil {
		return err
	}
	born, err := birth(ctx)
	if err != nil {
		return fmt.Errorf("picturing a birth: %w", err)
	}
	if err := os.WriteFile(filepath.Join(images, "birth.svg"), born, 0o644); err != nil {
		return err
	}
	load, err := filepath.Abs("bin/load")
	if err != nil {
		return err
	}
	for name, w := range workloads() {
		group, err := throttled.New(name, w.quota, append([]string{load}, w.args...)...)
		if err != nil {
			return fmt.Errorf("making workload %s: %w", name, err)
		}
		defer func() {
			if err := group.Close(); err != nil {
				slog.Warn("A workload left something behind.", "workload", name, "err", err)
			}
		}()
		if err := group.Work(); err != nil {
			return err
		}
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	var log bytes.Buffer
	exporter := exec.CommandContext(ctx, "bin/kernel-gossip-exporter", "--web.listen-address="+address)
	exporter.Stdout, exporter.Stderr = &log, &log
	exporter.Cancel = func() error { return exporter.Process.Signal(os.Interrupt) }
	exporter.WaitDelay = 10 * time.Second
	if err := exporter.Start(); err != nil {
		return fmt.Errorf("starting the exporter (make build): %w", err)
	}
	defer func() {
		stop()
		_ = exporter.Wait() // interrupted
		if err != nil {
			slog.Info("What the exporter said.", "log", log.String())
		}
	}()
	screen := make(chan error, 1)
	var frame string
	go func() {
		var err error
		frame, err = lastFrame(ctx)
		screen <- err
	}()
	slog.Info("Watching the workloads until the window is full.", "for", settle)
	select {
	case err := <-screen:
		if err != nil {
			return fmt.Errorf("running top: %w", err)
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := os.WriteFile(filepath.Join(images, "top.svg"), drawn("kernel-gossip-exporter top", frame), 0o644); err != nil {
		return err
	}
	url := "http://" + address
	if err := ready(ctx, url); err != nil {
		return err
	}
	return shoot(ctx, url, images)
}

// lastFrame runs top in a terminal until it has seen a whole window, and returns what
// it showed last.
func lastFrame(ctx context.Context) (string, error) {
	top := exec.CommandContext(ctx, "bin/kernel-gossip-exporter", "top")
	top.Env = append(os.Environ(), "TERM=xterm-256color", "NO_COLOR=")
	term, err := terminal.Start(top, 112, 12)
	if err != nil {
		return "", err
	}
	defer term.Close()
	select {
	case <-ctx.Done():
	case <-time.After(settle):
	}
	last := term.Screen()
	if err := term.Press("q"); err != nil {
		return "", err
	}
	if err := term.Wait(ctx); err != nil {
		return "", fmt.Errorf("%w: %s", err, term.Output())
	}
	if !strings.Contains(last, "shop-checkout") {
		return "", fmt.Errorf("it never showed the workload: %q", last)
	}
	return last, nil
}

func freeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("finding a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func ready(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/-/ready", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("asking the exporter: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New("the exporter is not ready: " + resp.Status)
	}
	return nil
}
