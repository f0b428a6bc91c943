package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"

	"softhem/api"
	"softhem/hem"
)

// devUserName is whom a development module belongs to.
const devUserName = "dev"

// devURL is where clients on this host find the module: over TLS unless that
// is off. A listener on all addresses is called localhost, which its
// certificate names.
func (s *service) devURL() string {
	addrs := s.server.Addresses()
	scheme, addr := "https", addrs.HTTPS
	if addr == "" {
		scheme, addr = "http", addrs.HTTP
	}
	return scheme + "://" + onThisHost(addr)
}

// onThisHost is how clients on this host name a listener.
func onThisHost(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort("localhost", port)
	}
	return addr
}

// personalise sets the module up as anyone would, through the API.
func (s *service) personalise(ctx context.Context) error {
	cfg := hem.Config{URL: s.devURL(), EID: s.server.Module().EID()}
	if file := s.server.CAFile(); file != "" {
		var err error
		if cfg.CACert, err = os.ReadFile(file); err != nil {
			return fmt.Errorf("the CA certificate: %w", err)
		}
	}
	client, err := hem.New(cfg)
	if err != nil {
		return err
	}
	defer client.Close()

	if err := s.backend.setClock(ctx, client); err != nil {
		return err
	}
	// Each key takes a third of a second.
	var user, master *hem.PersonaKey
	var userErr, masterErr error
	var wg sync.WaitGroup
	wg.Go(func() { user, userErr = hem.DeriveKey([]byte(s.o.devUser), cfg.EID) })
	wg.Go(func() { master, masterErr = hem.DeriveKey([]byte(s.o.devMaster), cfg.EID) })
	wg.Wait()
	if err := errors.Join(userErr, masterErr); err != nil {
		return fmt.Errorf("the keys of the development module: %w", err)
	}
	defer user.Wipe()
	defer master.Wipe()
	_, err = client.Init(ctx, hem.InitParams{
		UserKey: user, MasterKey: master,
		Config: api.InitConfig{
			User: devUserName, Hostname: "localhost", Origin: "*", // LoopbackOnly narrows it
			TrustedTS: true, TrustedBackend: true, AllowKeySearch: true,
		},
	})
	if err != nil {
		return fmt.Errorf("the development module cannot be personalised: %w", err)
	}
	return nil
}

// sayWhatNext prints what the module can be reached with, and lines to paste
// into a shell.
func (s *service) sayWhatNext() {
	url, ca := s.devURL(), s.server.CAFile()
	reach, curl := " --url "+shellQuote(url), "curl -sS"
	if ca != "" {
		reach += " --cacert " + shellQuote(ca)
		curl += " --cacert " + shellQuote(ca)
	}
	hemCmd := "printf %s " + shellQuote(s.o.devUser) + " | " + shellQuote(ownCommand())

	var b strings.Builder
	fmt.Fprintf(&b, "\nThis is a module to play with. What it knows is gone when it ends.\n\n")
	fmt.Fprintf(&b, "  URL                    %s\n", url)
	if ca != "" {
		fmt.Fprintf(&b, "  CA certificate         %s\n", ca)
	}
	fmt.Fprintf(&b, "  user's passphrase      %s\n", s.o.devUser)
	fmt.Fprintf(&b, "  master's passphrase    %s\n", s.o.devMaster)
	if s.o.withBroker != "" {
		fmt.Fprintf(&b, "  broker                 %s\n", s.backend.url)
	} else if s.backend != nil {
		fmt.Fprintf(&b, "  backend for check-ins  %s\n", s.backend.url)
	}
	fmt.Fprintf(&b, "\nTry, in another shell:\n\n")
	fmt.Fprintf(&b, "  %s %s/api/auth/token\n", curl, shellQuote(url))
	fmt.Fprintf(&b, "  %s login%s --scope %s --passphrase-file -\n", hemCmd, reach, api.ScopeSystemConfig)
	fmt.Fprintf(&b, "  %s config get%s --passphrase-file -\n", hemCmd, reach)
	if s.o.withBroker != "" {
		broker := " --broker " + shellQuote(s.backend.url)
		fmt.Fprintf(&b, "\nTo approve from another device, pair one, paste the offer there, and have it asked:\n\n")
		fmt.Fprintf(&b, "  %s pair%s%s --passphrase-file -\n", hemCmd, reach, broker)
		fmt.Fprintf(&b, "  %s authenticator pair\n", shellQuote(ownCommand()))
		fmt.Fprintf(&b, "  %s authenticator watch\n", shellQuote(ownCommand()))
		fmt.Fprintf(&b, "  %s login --remote%s --scope %s%s\n", shellQuote(ownCommand()), reach, api.ScopeSystemConfig, broker)
	}
	fmt.Fprintf(&b, "\nCtrl-C ends it.\n\n")
	io.WriteString(s.t.err, b.String())
}

// ownCommand is what a shell has to call to run this program: its name, if
// that leads here, or else its path.
func ownCommand() string {
	self, err := os.Executable()
	if err != nil {
		return "hem"
	}
	if found, err := exec.LookPath("hem"); err == nil {
		a, errA := os.Stat(self)
		b, errB := os.Stat(found)
		if errA == nil && errB == nil && os.SameFile(a, b) {
			return "hem"
		}
	}
	return self
}

// shellQuote writes s as one word of sh.
func shellQuote(s string) string {
	special := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/.:-_+,@%", r))
	}
	if s != "" && !strings.ContainsFunc(s, special) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
