package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/internal/broker"
	"softhem/internal/broker/brokerdb"
)

// brokerFlags are the flags of hem broker.
type brokerFlags struct {
	data, http, https, cert, key, public string
	domain, domainKeyFile                string
	newFWS, newUIS                       []byte
	memory                               bool
	perAddress, perPID                   float64
	acme                                 acmeFlags
}

const brokerLong = `Run a broker: it tells modules the time when they check in, and carries messages between
modules and the authenticators paired with them.

It learns which module talks to which authenticator, and when. It does not learn what was asked
for, and can approve nothing itself. It can keep messages back, and, for an authenticator that
pairs without the secret of the QR code, answer in its place; hem pair then has you compare digits.
docs/operations.md has the whole list of what whoever runs it can do, and cannot.

When it listens, one line goes to standard output:

  ready http=127.0.0.1:8090 key=<base64>

The key is what a module has to trust for check-ins: hem serve --trusted-backend KEY. Put it behind
TLS, its own or a proxy's, when others than this host use it.`

func newBrokerCmd(t terminal) *cobra.Command {
	var f brokerFlags
	c := &cobra.Command{
		Use:   "broker",
		Short: "Run a broker",
		Long:  brokerLong,
		Example: `  hem broker
  hem broker --https :443 --tls-cert broker.pem --tls-key broker.key --public-url https://broker.example
  hem broker order wipe 0b2c7a9e-8f1d-4c59-9f3e-2a6f0d7e5b11`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if name := clientFlag(c); name != "" && !c.LocalFlags().Changed(name) {
				return &usageError{c.CommandPath(), "--" + name + " is for commands that talk to a module; leave it out"}
			}
			return f.run(c.Context(), t)
		},
	}
	v := c.Flags()
	c.PersistentFlags().StringVar(&f.data, "data", "", "`DIR` of the broker's state (default $XDG_DATA_HOME/softhem-broker)")
	v.BoolVar(&f.memory, "memory", false, "state in memory only; the key, and all pairings, end with the process")
	v.StringVar(&f.http, "http", "127.0.0.1:8090", "`ADDR` of the plain listener, or off")
	v.StringVar(&f.https, "https", "off", "`ADDR` of the TLS listener, or off")
	v.StringVar(&f.cert, "tls-cert", "", "PEM `FILE` of the certificate")
	v.StringVar(&f.key, "tls-key", "", "PEM `FILE` of its key")
	v.StringVar(&f.public, "public-url", "", "`URL` under which authenticators reach it (default: what they asked for)")
	v.Float64Var(&f.perAddress, "rate", broker.DefaultPerAddress, "requests a second of one address, with ten times as many at once; 0: no limit")
	v.Float64Var(&f.perPID, "pairing-rate", broker.DefaultPerPID, "requests a second about one pairing; 0: no limit")
	v.StringVar(&f.domain, "domain", "", "`NAME` under which modules get names and certificates, like hem.example (default: they get none)")
	v.StringVar(&f.domainKeyFile, "domain-key-file", "", "`FILE` with what new names are registered with (default: whoever asks gets a name that is free)")
	v.Var(encoded{&f.newFWS, 64}, "announce-fws", "`BASE64` of 64 bytes: tell modules at their check-in that there is a program with this fws")
	v.Var(encoded{&f.newUIS, 32}, "announce-uis", "`BASE64` of 32 bytes: tell them that there is a web console with this uis")
	f.acme.add(v)
	c.AddCommand(newBrokerOrderCmd(t, &f), newBrokerDomainCmd(t, &f))
	return c
}

func newBrokerOrderCmd(t terminal, f *brokerFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "order lock|wipe|report|stop|upgrade|cancel INSTANCEID",
		Short: "Order something of a module",
		Long: `Keep an order for the module with an instance id until it is cancelled. The module is given it at
its next check-in. The instance id, which hem init and hem config get tell, is what makes the
order: without it no broker can order anything. A running broker need not be restarted.`,
		Example: `  hem broker order lock 0b2c7a9e-8f1d-4c59-9f3e-2a6f0d7e5b11
  hem broker order cancel 0b2c7a9e-8f1d-4c59-9f3e-2a6f0d7e5b11`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			db, err := f.state(c.Context(), t)
			if err != nil {
				return err
			}
			return errors.Join(broker.Order(db, args[0], args[1]), db.Close())
		},
	}
}

func (f *brokerFlags) folder(t terminal) (string, error) {
	if f.data != "" {
		return f.data, nil
	}
	dir, err := dataHome(t)
	return filepath.Join(dir, "softhem-broker"), err
}

// dataHome is where a user's data is kept.
func dataHome(t terminal) (string, error) {
	if dir, _ := t.env("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return dir, nil
	}
	home, _ := t.env("HOME")
	if !filepath.IsAbs(home) {
		return "", errors.New("neither XDG_DATA_HOME nor HOME names a folder")
	}
	return filepath.Join(home, ".local", "share"), nil
}

// readDomainKey reads what new names are registered with; it stands in paths.
func (f *brokerFlags) readDomainKey() (string, error) {
	if f.domainKeyFile == "" {
		return "", nil
	}
	if f.domain == "" {
		return "", &usageError{"hem broker", "--domain-key-file goes with --domain"}
	}
	file, err := os.Open(f.domainKeyFile)
	if err != nil {
		return "", fmt.Errorf("--domain-key-file: %w", err)
	}
	defer file.Close()
	raw, err := readSecret(file)
	if err != nil {
		return "", fmt.Errorf("--domain-key-file: %w", err)
	}
	key := string(trimNewline(raw))
	if key == "" || strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		return "", errors.New("--domain-key-file: the key is one line of letters, digits, - and _; make one by: openssl rand -hex 16")
	}
	return key, nil
}

const (
	brokerPatience = 10 * time.Second // for a request's head, and for what runs at the end
	brokerRead     = time.Minute      // for a whole request; net/http ends a poll that waits longer
	brokerIdle     = 2 * time.Minute
)

func (f *brokerFlags) run(ctx context.Context, t terminal) error {
	if f.http == "off" && f.https == "off" {
		return &usageError{"hem broker", "--http and --https are both off, so nobody could reach it"}
	}
	if (f.https == "off") != (f.cert == "") || (f.cert == "") != (f.key == "") {
		return &usageError{"hem broker", "--https, --tls-cert and --tls-key belong together"}
	}
	domainKey, err := f.readDomainKey()
	if err != nil {
		return err
	}
	log := newServeLogger(t.err, "text", nil)
	acme, err := f.acme.config(f.domain, log)
	if err != nil {
		return err
	}
	dir := ""
	if !f.memory {
		if dir, err = f.folder(t); err != nil {
			return err
		}
	}
	db, err := brokerdb.Open(ctx, dir)
	if err != nil {
		return err
	}
	defer db.Close()
	b, err := broker.New(ctx, broker.Config{
		DB: db, Now: time.Now, Logger: log, PublicURL: strings.TrimSuffix(f.public, "/"),
		Domain: strings.ToLower(f.domain), DomainKey: domainKey, ACME: acme, PerAddress: f.perAddress, PerPID: f.perPID,
		NewFWS: f.newFWS, NewUIS: f.newUIS,
	})
	if err != nil {
		return err
	}
	defer b.Close()

	waiting, endWaiting := context.WithCancel(context.WithoutCancel(ctx))
	defer endWaiting()
	server := &http.Server{
		Handler: b.Handler(), ReadHeaderTimeout: brokerPatience, ReadTimeout: brokerRead, IdleTimeout: brokerIdle,
		BaseContext: func(net.Listener) context.Context { return waiting },
		// What strangers send is not worth a line each.
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	ready, ended := "ready", make(chan error, 2)
	if f.http != "off" {
		l, err := net.Listen("tcp", f.http)
		if err != nil {
			return fmt.Errorf("--http: %w", err)
		}
		ready += " http=" + l.Addr().String()
		go func() { ended <- server.Serve(l) }()
	}
	if f.https != "off" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return fmt.Errorf("--tls-cert, --tls-key: %w", err)
		}
		l, err := net.Listen("tcp", f.https)
		if err != nil {
			return fmt.Errorf("--https: %w", err)
		}
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
		ready += " https=" + l.Addr().String()
		go func() { ended <- server.ServeTLS(l, "", "") }()
	}
	if _, err := fmt.Fprintln(t.out, ready+" key="+b.Key()); err != nil {
		return fmt.Errorf("the ready line cannot be written: %w", err)
	}
	select {
	case err = <-ended:
	case <-ctx.Done():
	}
	endWaiting() // who waits for news is told to ask again
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), brokerPatience)
	defer cancel()
	if stopErr := server.Shutdown(stop); err == nil {
		err = stopErr
	}
	return err
}

// encoded is a flag of so many bytes, in base64.
type encoded struct {
	to   *[]byte
	size int
}

func (e encoded) Set(text string) error {
	raw, err := api.DecodeBase64(text)
	if err != nil || len(raw) != e.size {
		return fmt.Errorf("want base64 of %d bytes", e.size)
	}
	*e.to = raw
	return nil
}

func (e encoded) String() string {
	if e.to == nil {
		return ""
	}
	return api.EncodeBase64(*e.to)
}

func (encoded) Type() string { return "base64" }
