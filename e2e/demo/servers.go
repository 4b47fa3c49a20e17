package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/kernel-gossip/kernel-gossip/rules"
)

// speed is how much faster time runs in the rules: 10 minutes become 20 seconds.
const speed = 30

// servers are the programs that run; addresses are host:port, those of Prometheus
// and Alertmanager empty where they are not installed.
type servers struct {
	dir                                          string
	exporter, operator, prometheus, alertmanager string
	running                                      []*exec.Cmd
}

// startServers starts everything but the workload. It returns what was started also
// with an error, so that it can be stopped.
func startServers(ctx context.Context, bin, dir string, exporterArgs []string) (*servers, error) {
	s := &servers{dir: dir}
	var err error
	for _, a := range []*string{&s.exporter, &s.operator} {
		if *a, err = freeAddress(ctx); err != nil {
			return s, err
		}
	}
	if err := s.start(filepath.Join(bin, "kernel-gossip-operator"),
		"--web.listen-address="+s.operator, "--store.directory="+filepath.Join(dir, "whispers")); err != nil {
		return s, err
	}
	if err := s.start(filepath.Join(bin, "kernel-gossip-exporter"), append([]string{"run", "--kubernetes=off", "--web.listen-address=" + s.exporter,
		"--whisper.url=http://" + s.operator, "--syscalls.names=getppid,read,write,futex,openat", "--birth.count-always"}, exporterArgs...)...); err != nil {
		return s, err
	}
	prometheus, alertmanager := installed("prometheus"), installed("prometheus-alertmanager", "alertmanager")
	if prometheus == "" || alertmanager == "" {
		return s, nil
	}
	for _, a := range []*string{&s.prometheus, &s.alertmanager} {
		if *a, err = freeAddress(ctx); err != nil {
			return s, err
		}
	}
	if err := s.configure(); err != nil {
		return s, fmt.Errorf("configure Prometheus and Alertmanager: %w", err)
	}
	if err := s.start(alertmanager, "--config.file="+filepath.Join(dir, "alertmanager.yml"), "--storage.path="+filepath.Join(dir, "alerts"),
		"--web.listen-address="+s.alertmanager, "--cluster.listen-address="); err != nil {
		return s, err
	}
	return s, s.start(prometheus, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "tsdb"),
		"--web.listen-address="+s.prometheus, "--enable-feature=native-histograms")
}

// installed is the path of the first of the programs that is there, or empty.
func installed(names ...string) string {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// configure writes the shipped rules, with their durations scaled, and configurations.
func (s *servers) configure() error {
	shipped := rules.Files()
	names, err := fs.Glob(shipped, rules.Pattern)
	if err != nil {
		return err
	}
	for _, name := range names {
		b, err := fs.ReadFile(shipped, name)
		if err == nil {
			b, err = rules.Scale(b, speed)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(s.dir, name), b, 0o644); err != nil {
			return err
		}
	}
	b, err := fs.ReadFile(shipped, rules.Alertmanager)
	if err != nil {
		return err
	}
	const service = "kernel-gossip-operator.kernel-gossip.svc:8080"
	if !strings.Contains(string(b), service) {
		return fmt.Errorf("%s does not name %s", rules.Alertmanager, service)
	}
	b = []byte(strings.ReplaceAll(string(b), service, s.operator))
	return errors.Join(os.WriteFile(filepath.Join(s.dir, "alertmanager.yml"), b, 0o644),
		os.WriteFile(filepath.Join(s.dir, "prometheus.yml"), fmt.Appendf(nil, `global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
alerting: {alertmanagers: [{static_configs: [{targets: [%q]}]}]}
scrape_configs:
  - job_name: kernel-gossip-exporter
    static_configs: [{targets: [%q]}]
`, rules.Pattern, s.alertmanager, s.exporter), 0o644))
}

// start starts a program whose output goes to a file.
func (s *servers) start(path string, args ...string) error {
	log, err := os.Create(s.log(path))
	if err != nil {
		return fmt.Errorf("start %s: %w", path, err)
	}
	defer log.Close()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	ownGroup(cmd)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", filepath.Base(path), err)
	}
	s.running = append(s.running, cmd)
	return nil
}

func (s *servers) log(path string) string {
	return filepath.Join(s.dir, filepath.Base(path)+".log")
}

// dead is the name and last words of a program that ended by itself.
func (s *servers) dead() error {
	for _, cmd := range s.running {
		var status syscall.WaitStatus
		if pid, err := syscall.Wait4(cmd.Process.Pid, &status, syscall.WNOHANG, nil); err != nil || pid == 0 {
			continue
		}
		b, err := os.ReadFile(s.log(cmd.Path))
		if err != nil {
			return err
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		return fmt.Errorf("%s ended by itself: %s", filepath.Base(cmd.Path), lines[len(lines)-1])
	}
	return nil
}

// stop ends what was started, the last first.
func (s *servers) stop() {
	for i := len(s.running) - 1; i >= 0; i-- {
		cmd := s.running[i]
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		kill.Stop()
	}
	s.running = nil
}

// tell prints where everything is.
func (s *servers) tell(out *screen) {
	out.heading("Open until Ctrl-C")
	out.pair("exporter", "http://"+s.exporter)
	out.pair("operator", "http://"+s.operator+"/metrics")
	if s.prometheus != "" {
		out.pair("Prometheus", "http://"+s.prometheus+"/alerts")
		out.pair("Alertmanager", "http://"+s.alertmanager)
	}
	out.pair("whispers", filepath.Join(s.dir, "whispers"))
	out.pair("logs", s.dir)
}

func freeAddress(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}
