package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"softhem/internal/control"
	"softhem/internal/server"
)

// A keeper is what the commands share that keep a module on its own host: they
// find its data folder as hem serve does, by the same flags, variables and file.
type keeper struct {
	t     terminal
	o     *options
	serve *service
}

const helpKeep = `The folder and its root key are found as by hem serve, by --config, the variables HEM_SERVE_… and
the flags here.`

// newKeeper gives a command the flags of hem serve that tell where the module is.
func newKeeper(t terminal, o *options, c *cobra.Command) *keeper {
	flags, so := newServeFlags()
	k := &keeper{t: t, o: o, serve: &service{t: t, o: so, settings: settings{flags: flags, env: t.env}}}
	for name, usage := range map[string]string{
		"data":                     "`DIR` of the module (default $XDG_DATA_HOME/softhem)",
		"config":                   "settings `FILE` of hem serve",
		"root-key":                 "`FILE` of its root key (default DIR/root.key)",
		"root-key-identity":        "`FILE` of the age identity that opens the root key",
		"root-key-passphrase-file": "`FILE` of the passphrase that opens the root key",
	} {
		f := flags.Lookup(name)
		f.Usage = usage
		c.Flags().AddFlag(f)
	}
	return k
}

// settle reads the settings.
func (k *keeper) settle(ctx context.Context, c *cobra.Command) error {
	if f := foreignFlag(c); f != "" {
		return &usageError{c.CommandPath(), "--" + f + " is for commands that talk to a module over the network; leave it out"}
	}
	s := k.serve
	err := s.settings.apply()
	if err == nil && s.o.Memory {
		err = fmt.Errorf("%s: a module in memory has nothing that could be kept", s.settings.source("memory"))
	}
	if err == nil {
		err = s.o.checkState(s.settings.source, k.t.env)
	}
	if err != nil {
		return &usageError{c.CommandPath(), err.Error()}
	}
	s.o.RootKey.Prompt = func(what string) ([]byte, error) { return s.prompt(ctx, what) }
	s.o.Logger = newServeLogger(k.t.err, "text", slog.LevelWarn)
	return nil
}

// with has do work on the module: the one that runs on the folder, or else the
// folder itself.
func (k *keeper) with(ctx context.Context, do func(control.Keeper) error) (err error) {
	running, err := control.Dial(ctx, k.serve.o.DataDir)
	if err == nil {
		defer running.Close()
		return do(running)
	}
	if !errors.Is(err, control.ErrNotRunning) {
		return err
	}
	opened, err := server.Offline(ctx, k.serve.o.Config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Stop(context.WithoutCancel(ctx))) }()
	return do(opened)
}

// foreignFlag is a flag of the client commands that was given to a command that
// talks to nobody; --json is for all.
func foreignFlag(c *cobra.Command) (name string) {
	c.InheritedFlags().VisitAll(func(f *pflag.Flag) {
		if f.Changed && f.Name != "json" {
			name = f.Name
		}
	})
	return name
}
