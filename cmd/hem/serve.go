package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"softhem/internal/build"
	"softhem/internal/module"
	"softhem/internal/seal"
	"softhem/internal/server"
)

const serveLong = `Run a module: a HEM in software with the HEM REST API.

When both listeners accept, one line goes to standard output, and nothing else
ever does:

  ready http=127.0.0.1:8080 https=127.0.0.1:8443 ca=/…/ca.pem eid=<base64>

Standard error has the operator's log. SIGTERM and SIGINT let what runs finish
for up to ten seconds, and a second one ends at once. SIGHUP reads the TLS pair and
the log level again.

Every flag is also a key of the file named with --config, and a variable
HEM_SERVE_…: --login-delay is login-delay and HEM_SERVE_LOGIN_DELAY. The flag beats
the variable, and that the file. Flags that can be repeated are lists in
the file, and parted by commas in the variable.`

func newServeCmd(t terminal) *cobra.Command {
	flags, o := newServeFlags()
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run a module",
		Long:  serveLong,
		Example: `  hem serve --dev
  hem serve --data /var/lib/softhem --root-key /etc/softhem/root.key
  hem serve --config /etc/softhem/serve.toml`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f := clientFlag(c); f != "" {
				return &usageError{c.CommandPath(), "--" + f + " is for commands that talk to a module; leave it out"}
			}
			s := &service{t: t, o: o, settings: settings{flags: flags, env: t.env}}
			return s.run(c.Context())
		},
	}
	c.Flags().SortFlags = false
	c.Flags().AddFlagSet(flags)
	completeServe(c)
	return c
}

// clientFlag is a flag of the client commands that was given to this one, which
// has no use for it.
func clientFlag(c *cobra.Command) (name string) {
	c.InheritedFlags().VisitAll(func(f *pflag.Flag) {
		if f.Changed {
			name = f.Name
		}
	})
	return name
}

// completeServe lets the shell complete the flags that are one of a few names;
// their types are these names.
func completeServe(c *cobra.Command) {
	for flag, names := range map[string][]string{
		"rtc": {"system", "checkin"}, "profile": {"ppa", "epa"}, "quirks": {"off", "fw1.2.2"}, "audit-durability": {"strict", "relaxed"},
		"log-format": {"text", "json"}, "log-level": {"debug", "info", "warn", "error"},
	} {
		complete(c, flag, names...)
	}
}

// service is hem serve as it runs.
type service struct {
	t        terminal
	o        *serveOptions
	settings settings
	level    slog.LevelVar
	log      *slog.Logger
	manager  manager // systemd, or nobody
	server   *server.Server
	backend  *devBackend // nil unless --dev comes with --rtc checkin or --with-broker
}

func (s *service) run(ctx context.Context) error {
	// From here on, a SIGHUP waits for its turn instead of ending the process.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	// The second SIGTERM or SIGINT does what it does to any process.
	defer context.AfterFunc(ctx, func() { signal.Reset(syscall.SIGTERM, syscall.SIGINT) })()

	if err := s.configure(ctx); err != nil {
		return &usageError{"hem serve", err.Error()}
	}
	harden(s.log)
	if _, set := s.t.env("GOGC"); !set {
		server.TuneGC()
	}
	if err := s.launch(); err != nil {
		return err
	}
	if err := s.takeSockets(); err != nil {
		return err
	}
	s.warn()
	if err := s.startDevBackend(ctx); err != nil {
		return err
	}
	defer s.backend.close()

	var err error
	if s.server, err = server.Start(ctx, s.o.Config); err != nil {
		if ctx.Err() != nil { // told to end before it was up: that is done
			return nil
		}
		return err
	}
	err = s.serve(ctx, hup)
	s.manager.notify("STOPPING=1", "STATUS=finishing what runs")
	s.log.Info("the module ends; what runs has ten seconds to finish")
	if stopErr := s.server.Stop(context.WithoutCancel(ctx)); stopErr != nil {
		err = errors.Join(err, fmt.Errorf("the module did not end well: %w", stopErr))
	}
	return err
}

// configure brings the settings together and makes the log.
func (s *service) configure(ctx context.Context) error {
	if err := s.settings.apply(); err != nil {
		return err
	}
	if err := s.o.check(s.settings.source, s.t.env); err != nil {
		return err
	}
	s.level.Set(s.o.logLevel)
	s.log = newServeLogger(s.t.err, s.o.logFormat, &s.level)
	s.o.Logger, s.manager.log = s.log, s.log
	s.o.RootKey.Prompt = func(what string) ([]byte, error) { return s.prompt(ctx, what) }
	return nil
}

// given tells whether a setting was made, wherever.
func (s *service) given(flag string) bool { return s.settings.source(flag) != "" }

func newServeLogger(w io.Writer, format string, level slog.Leveler) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// prompt asks on the terminal for what opens the root key.
func (s *service) prompt(ctx context.Context, what string) ([]byte, error) {
	tty, err := os.OpenFile(terminalDevice, os.O_RDWR, 0)
	if err != nil {
		return nil, errors.New("there is no terminal; give --root-key-passphrase-file")
	}
	tty.Close()
	o := &options{t: s.t, progress: newProgress(s.t.err)}
	return o.prompt(ctx, "--root-key-passphrase-file", "Passphrase of the "+what+": ")
}

// warn says what the operator asked for and may regret.
func (s *service) warn() {
	for _, name := range s.settings.strayVariables(os.Environ()) {
		s.log.Warn("this variable looks like a setting, and this version has none of that name", "variable", name)
	}
	if s.o.unsafeFast {
		s.log.Warn("UNSAFE: logins are not slowed down as they should be, and the limits per address are off; passphrases can be guessed. For tests and benches only")
	}
	if s.o.dev && s.o.devAllowRemote {
		s.log.Warn("UNSAFE: this development module can be reached from elsewhere, by anyone and by any web page, and its passphrases are no secret")
	}
	if s.o.Diag {
		s.log.Warn("DIAG: anybody who reaches this module can break it and wipe all its keys, without a token, under /api/diag; it is for tests, and holds nothing that is worth anything")
		if s.o.DiagRemote {
			s.log.Warn("UNSAFE: these diagnostics can be reached from elsewhere, and by any web page")
		}
	}
	if s.o.Quirks != module.NoQuirks {
		s.log.Warn("QUIRKS: this module imitates the faults of a firmware, wrong answers among them; it is for tests of clients, and not to be relied on", "quirks", string(s.o.Quirks))
	}
	for _, target := range s.o.AuditSyslog {
		if target.Open() {
			s.log.Warn("records of the log go over the network in clear; who listens in learns who does what with which key, and who is on the way can change them; take tls://", "sink", target.String())
		}
	}
	if !s.o.RequireTLSLogin {
		s.log.Warn("logins are taken over plain HTTP from everywhere; who listens in can use their tokens, and test guesses of the passphrases")
	}
}

// warnRootKey says what a root key beside the data is worth. An age file,
// which is longer than a raw key, may lie there.
func (s *service) warnRootKey() {
	if s.o.Memory {
		return
	}
	file := s.o.RootKey.File
	if file == "" {
		file = filepath.Join(s.o.DataDir, "root.key")
	}
	info, err := os.Stat(file)
	if err != nil || info.Size() != seal.KeySize {
		return
	}
	beside, err := os.Stat(filepath.Dir(file))
	data, dataErr := os.Stat(s.o.DataDir)
	if err == nil && dataErr == nil && os.SameFile(beside, data) {
		s.log.Warn("the root key lies beside the data, so it protects nothing if the whole folder is stolen; move it elsewhere and name it with --root-key, or encrypt it with age",
			"file", file)
	}
}

// serve tells the world that the module is up and stays until it shall end.
func (s *service) serve(ctx context.Context, hup <-chan os.Signal) error {
	if s.o.dev {
		if err := s.personalise(ctx); ctx.Err() != nil {
			return nil
		} else if err != nil {
			return err
		}
		s.sayWhatNext()
	}
	addrs, inited := s.server.Addresses(), s.server.Module().Inited()
	s.log.Info("the module is up", "version", build.Version(), "http", addrs.HTTP, "https", addrs.HTTPS, "metrics", addrs.Metrics,
		"data", s.o.DataDir, "personalised", inited)
	if !inited {
		s.log.Info("it belongs to nobody yet, and will to the first who runs: hem init")
	}
	s.warnRootKey()
	if err := s.server.Ready(ctx); err != nil {
		return fmt.Errorf("the upgrade cannot be kept: %w", err)
	}
	if _, err := fmt.Fprintln(s.t.out, s.readyLine()); err != nil {
		return fmt.Errorf("the ready line cannot be written: %w", err)
	}
	s.manager.notify("READY=1", s.status())

	ended := make(chan error, 1)
	go func() { ended <- s.server.Wait(ctx) }()
	watchdog, stop := s.manager.watchdog()
	defer stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-hup:
			s.reload(ctx)
		case <-watchdog:
			// Asking the module for its state shows that it is not stuck.
			s.manager.notify("WATCHDOG=1", s.status())
		}
	}
}

// status is one line for the service manager.
func (s *service) status() string {
	if err := s.server.Module().Ready(); err != nil {
		return "STATUS=not ready: " + err.Error()
	}
	return "STATUS=" + s.readyLine()
}

// reload reads certificates and log level again. What cannot be read stays as
// it was.
func (s *service) reload(ctx context.Context) {
	s.manager.notifyReloading()
	defer func() { s.manager.notify("READY=1", s.status()) }()
	fresh, o := newServeFlags()
	if err := s.settings.again(fresh); err != nil {
		s.log.Error("the settings cannot be read again and stay as they are", "error", err)
	} else if !s.settings.onLine["log-level"] {
		s.level.Set(o.logLevel)
	}
	if err := s.server.Reload(ctx); err != nil {
		s.log.Error("the certificate cannot be read again and stays as it is", "error", err)
		return
	}
	s.log.Info("certificate and log level were read again", "level", s.level.Level().String())
}
