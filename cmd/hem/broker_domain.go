package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"softhem/internal/broker"
	"softhem/internal/broker/brokerdb"
)

// state opens the database of a broker that was started before; it may run.
func (f *brokerFlags) state(ctx context.Context, t terminal) (*brokerdb.DB, error) {
	dir, err := f.folder(t)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, "broker.db")); err != nil {
		return nil, fmt.Errorf("there is no broker in %s; name its folder with --data", dir)
	}
	return brokerdb.Open(ctx, dir)
}

func newBrokerDomainCmd(t terminal, f *brokerFlags) *cobra.Command {
	c := &cobra.Command{
		Use:   "domain",
		Short: "See and release the names given to modules",
		Long: `See and release the names and certificates that a broker started with --domain gave to modules. A
running broker need not be restarted.`,
		Example: `  hem broker domain list
  hem broker domain ca > broker-ca.pem`,
	}
	c.AddCommand(newBrokerDomainListCmd(t, f), newBrokerDomainCACmd(t, f), newBrokerDomainReleaseCmd(t, f))
	return c
}

func newBrokerDomainListCmd(t terminal, f *brokerFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the names",
		Long: `List the names that modules were given: the end of the newest certificate, and the address or name
that the module said it shall lead to. Putting that into the DNS is the operator's. With --acme, what
became of the last request to the CA.`,
		Example: "  hem broker domain list\n  hem broker domain list --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			db, err := f.state(c.Context(), t)
			if err != nil {
				return err
			}
			all, err := broker.Domains(c.Context(), db)
			if err = errors.Join(err, db.Close()); err != nil {
				return err
			}
			if asJSON, _ := c.Flags().GetBool("json"); asJSON {
				return printJSON(t.out, append([]broker.Domain{}, all...))
			}
			for _, d := range all {
				leads := d.IP
				if d.CName != "" {
					leads = d.CName
				}
				if leads == "" {
					leads = "-"
				}
				ends := "-"
				if !d.Ends.IsZero() {
					ends = d.Ends.Format(time.RFC3339)
				}
				line := d.Name + "\t" + ends + "\t" + leads
				if d.State != "" {
					line += "\t" + d.State
				}
				if d.Why != "" {
					line += ": " + clean(d.Why)
				}
				if _, err := fmt.Fprintln(t.out, line); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func newBrokerDomainCACmd(t terminal, f *brokerFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "ca",
		Short:   "Print the CA certificate that clients have to trust",
		Long:    "Print the certificate (PEM) of the broker's CA. It is good for names under the broker's domain alone.",
		Example: "  hem broker domain ca > broker-ca.pem",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			db, err := f.state(c.Context(), t)
			if err != nil {
				return err
			}
			ca, err := broker.DomainCA(c.Context(), db)
			if err = errors.Join(err, db.Close()); err != nil {
				return err
			}
			if ca == nil {
				return errors.New("this broker has no CA; it makes one when it is started with --domain and without --acme")
			}
			_, err = t.out.Write(ca)
			return err
		},
	}
}

func newBrokerDomainReleaseCmd(t terminal, f *brokerFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "release PREFIX",
		Short: "Make a name free",
		Long: `Make a name free for whichever module registers it next; a module that was wiped cannot get its old
name back without this. What was issued for the name is not renewed, and stays good until it ends:
there is no list of revoked certificates.`,
		Example: "  hem broker domain release vault",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			db, err := f.state(c.Context(), t)
			if err != nil {
				return err
			}
			return errors.Join(broker.ReleaseDomain(c.Context(), db, args[0]), db.Close())
		},
	}
}
