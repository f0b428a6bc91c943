package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"softhem/internal/broker"
)

// acmeFlags say that certificates come from a CA that speaks ACME.
type acmeFlags struct {
	directory, email, ca, hook string
	agree                      bool
	perHour                    int
}

func (f *acmeFlags) add(v *pflag.FlagSet) {
	v.StringVar(&f.directory, "acme", "", "with --domain: get certificates from the CA with the ACME directory `URL`, such as https://acme-v02.api.letsencrypt.org/directory (default: from a CA of the broker's own)")
	v.BoolVar(&f.agree, "acme-agree-tos", false, "with --acme: you agree to that CA's terms")
	v.StringVar(&f.email, "acme-email", "", "with --acme: `ADDRESS` under which the CA reaches you")
	v.StringVar(&f.hook, "acme-dns-hook", "", "with --acme: `PROGRAM` that makes DNS records, for dns-01; called as PROGRAM present|cleanup NAME VALUE (default: http-01, answered on port 80 of the name)")
	v.StringVar(&f.ca, "acme-ca", "", "with --acme: PEM `FILE` of authorities for its directory (default: the system's)")
	v.IntVar(&f.perHour, "acme-rate", broker.DefaultACMEPerHour, "with --acme: certificates asked for in an hour")
}

const acmePatience = time.Minute // for one exchange with the CA

// config checks the flags.
func (f *acmeFlags) config(domain string, log *slog.Logger) (cfg broker.ACME, err error) {
	switch {
	case f.directory == "" && (f.agree || f.email != "" || f.hook != "" || f.ca != ""):
		return cfg, &usageError{"hem broker", "--acme-… goes with --acme"}
	case f.directory == "":
		return cfg, nil
	case domain == "":
		return cfg, &usageError{"hem broker", "--acme goes with --domain; it says where the certificates for its names come from"}
	case !f.agree:
		return cfg, &usageError{"hem broker", "--acme needs --acme-agree-tos: read the CA's terms first"}
	case f.perHour < 1:
		return cfg, &usageError{"hem broker", "--acme-rate must be at least 1"}
	}
	cfg = broker.ACME{Directory: f.directory, Email: f.email, PerHour: f.perHour}
	if f.hook != "" {
		if cfg.DNSHook, err = dnsHook(f.hook, log); err != nil {
			return cfg, err
		}
	}
	roots := (*x509.CertPool)(nil)
	if f.ca != "" {
		raw, err := os.ReadFile(f.ca)
		if err != nil {
			return cfg, fmt.Errorf("--acme-ca: %w", err)
		}
		if roots = x509.NewCertPool(); !roots.AppendCertsFromPEM(raw) {
			return cfg, errors.New("--acme-ca: the file holds no PEM certificate")
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	cfg.HTTPClient = &http.Client{Transport: transport, Timeout: acmePatience}
	return cfg, nil
}

const (
	hookPatience = 5 * time.Minute // DNS takes its time
	hookOutput   = 500             // bytes of what it says that the log gets
)

// dnsHook runs the operator's program. What it says is for the log, and only if it
// fails.
func dnsHook(program string, log *slog.Logger) (func(ctx context.Context, action, name, value string) error, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, fmt.Errorf("--acme-dns-hook: %w", err)
	}
	return func(ctx context.Context, action, name, value string) error {
		ctx, end := context.WithTimeout(ctx, hookPatience)
		defer end()
		cmd := exec.CommandContext(ctx, path, action, name, value)
		cmd.WaitDelay = brokerPatience
		out, err := cmd.CombinedOutput()
		if err == nil {
			return nil
		}
		said := clean(strings.TrimSpace(string(out[:min(len(out), hookOutput)])))
		log.Error("the DNS hook failed", "action", action, "name", name, "error", err, "output", said)
		return fmt.Errorf("%s: %w", action, err)
	}, nil
}
