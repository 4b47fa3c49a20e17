package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v2"

	"github.com/kernel-gossip/kernel-gossip/operator/intake"
	"github.com/kernel-gossip/kernel-gossip/operator/otlp"
)

// serveOTLP opens the OTLP door. The function that it returns closes it, letting
// requests under way end.
func serveOTLP(ctx context.Context, address, webConfig string, sink intake.Sink, door intake.Options) (func(), error) {
	opts := otlp.Options{Logger: door.Logger, Registerer: door.Registerer, Auth: door.Auth}
	var err error
	if opts.TLS, err = otlpTLS(webConfig, opts.Auth != nil); err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening for OTLP: %w", err)
	}
	server := otlp.New(sink, opts)
	door.Logger.Info("Listening for OTLP over gRPC", "address", listener.Addr(), "tls", opts.TLS != nil, "token", opts.Auth != nil)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(listener); err != nil {
			door.Logger.Error("The OTLP door is closed", "err", err)
		}
	}()
	return func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdown)
		defer cancel()
		server.Shutdown(closing)
		<-ended
	}, nil
}

// otlpTLS takes TLS from exporter-toolkit's file, nil where it asks for none. The
// certificate is read again at each handshake.
func otlpTLS(path string, token bool) (*tls.Config, error) {
	if path == "" {
		return nil, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading --web.config.file for OTLP: %w", err)
	}
	config := web.Config{TLSConfig: web.TLSConfig{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13}}
	if err := yaml.UnmarshalStrict(content, &config); err != nil {
		return nil, fmt.Errorf("reading --web.config.file %s for OTLP: %w", path, err)
	}
	if len(config.Users) > 0 && !token {
		return nil, errors.New("basic_auth_users of --web.config.file do not guard OTLP; set --web.bearer-token-file, or leave --otlp.listen-address out")
	}
	config.TLSConfig.SetDirectory(filepath.Dir(path))
	t := config.TLSConfig
	if t.TLSCert == "" && t.TLSCertPath == "" && t.TLSKey == "" && t.TLSKeyPath == "" && t.ClientAuth == "" && t.ClientCAs == "" && t.ClientCAsText == "" {
		return nil, nil
	}
	conf, err := web.ConfigToTLSConfig(&config.TLSConfig)
	if err != nil {
		return nil, fmt.Errorf("tls_server_config of %s: %w", path, err)
	}
	return conf, nil
}
