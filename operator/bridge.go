package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/kernel-gossip/kernel-gossip/operator/bridge"
)

const bridgeCommand = "pixie-bridge"

type bridgeOptions struct {
	url, tokenFile, caFile, stateFile string
	patience                          time.Duration
}

func addBridge(app *kingpin.Application, o *bridgeOptions) {
	c := app.Command(bridgeCommand, "Send what `px run -o json` prints, from standard input, to an operator.")
	c.Flag("url", "The operator, e.g. http://localhost:8080.").Required().StringVar(&o.url)
	c.Flag("token-file", "Send the bearer token in this file.").StringVar(&o.tokenFile)
	c.Flag("ca-file", "Trust this CA instead of the system's.").StringVar(&o.caFile)
	c.Flag("state-file", "Remember here which rows arrived, and skip them.").StringVar(&o.stateFile)
	c.Flag("patience", "Give up when the operator can't be reached for this long; 0 is never.").Default("10m").DurationVar(&o.patience)
}

func runBridge(ctx context.Context, o bridgeOptions, rows io.Reader, log *slog.Logger) error {
	config := bridge.Config{URL: o.url, StateFile: o.stateFile, Patience: o.patience, Logger: log}
	if o.tokenFile != "" {
		token, err := os.ReadFile(o.tokenFile)
		if err != nil {
			return fmt.Errorf("reading the bearer token: %w", err)
		}
		config.Token = string(bytes.TrimSpace(token))
	}
	if o.caFile != "" {
		pem, err := os.ReadFile(o.caFile)
		if err != nil {
			return fmt.Errorf("reading the CA: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return fmt.Errorf("reading the CA: %s holds no certificate in PEM", o.caFile)
		}
		config.Client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool},
		}}
	}
	b, err := bridge.New(config)
	if err != nil {
		return err
	}
	result, err := b.Run(ctx, rows)
	log.Info("rows", "sent", result.Sent, "skipped", result.Skipped, "invalid", result.Invalid, "refused", result.Refused)
	if err == nil && result.Invalid+result.Refused > 0 {
		err = errors.New("not every row could be sent; the lines above say why")
	}
	return err
}
