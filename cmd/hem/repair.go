package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"softhem/internal/server"
)

// repaired is what hem repair prints with --json.
type repaired struct {
	Data     string          `json:"data"`
	Keys     int64           `json:"keys"`    // looked at
	Records  int64           `json:"records"` // looked at
	Damaged  []repairedThing `json:"damaged"`
	Database []string        `json:"database,omitempty"` // what it says of itself
	Indexes  bool            `json:"indexes,omitzero"`   // had to be made anew
	Repaired bool            `json:"repaired"`
	// Quarantine is the file with what was taken out.
	Quarantine string `json:"quarantine,omitempty"`
}

type repairedThing struct {
	What  string `json:"what"` // key, or the kind of the record
	ID    string `json:"id,omitempty"`
	Label string `json:"label,omitempty"`
	Type  string `json:"type,omitempty"`
	Why   string `json:"why"`
	Means string `json:"means,omitempty"`
	Kept  bool   `json:"kept,omitzero"` // cannot be repaired
}

func newRepairCmd(t terminal, o *options) *cobra.Command {
	var dryRun, yes bool
	c := &cobra.Command{
		Use:   "repair",
		Short: "Take what is damaged out of a module that does not run",
		Long: `Take what is damaged out of the store of a module that does not run, so that it starts, and works with
the keys that are whole. One damaged key stops a module (fail state 08), since who or what
changed one may have changed others: find out what it was first.

Every key and record is opened. What does not open is listed, and, after a question, moved to a file in
DIR/quarantine; nothing can be made of it but by who finds out what was changed. Indexes and counts that
disagree with the keys are made anew. The log says what was done: KEY_INTEGRITY_ERROR and
KEY_DELETE for each key, NON_SECURE_STATE for all else. Its end is repaired as by any start.

What the module cannot be without, its identity, configuration and the keys of those who log in, stays as it
is, and neither is a database repaired whose structure is damaged: restore a backup.

Exit status: 0 if nothing is damaged, or all of it was repaired; else 1, with --dry-run also when there is
something to be repaired.

` + helpKeep,
		Example: `  hem repair --data /var/lib/softhem --dry-run
  hem repair --config /etc/softhem/serve.toml`,
		Args: cobra.NoArgs,
	}
	k := newKeeper(t, o, c)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "list what is damaged, and change nothing")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	exclude(c, "dry-run", "yes")
	c.RunE = func(c *cobra.Command, _ []string) (err error) {
		ctx := c.Context()
		if err := k.settle(ctx, c); err != nil {
			return err
		}
		r, err := server.OpenRepair(ctx, k.serve.o.Config)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.Close(context.WithoutCancel(ctx))) }()
		return o.repair(ctx, k.serve.o.DataDir, r, dryRun, yes)
	}
	return c
}

func (o *options) repair(ctx context.Context, dir string, r *server.Repair, dryRun, yes bool) error {
	found := foundBy(dir, r)
	if !o.json {
		if err := found.print(o); err != nil {
			return err
		}
	}
	err := error(nil)
	if r.Any() && !dryRun {
		if err = o.confirmRepair(ctx, yes, found); err == nil {
			found.Quarantine, err = r.Do(ctx)
			found.Repaired = err == nil
		}
	}
	if o.json {
		if err := printJSON(o.t.out, found); err != nil {
			return err
		}
	} else if found.Repaired {
		if found.Quarantine != "" {
			o.note("what was damaged is in %s now", found.Quarantine)
		}
		o.note("the module was repaired; its log says what was done")
	}
	switch {
	case err != nil:
		return err
	case r.Lost():
		return errors.New("some of it cannot be repaired; restore a backup")
	case r.Any() && dryRun:
		return errors.New("this can be repaired: hem repair without --dry-run")
	}
	return nil
}

func foundBy(dir string, r *server.Repair) repaired {
	f := repaired{Data: dir, Keys: r.KeysChecked, Records: r.RecordsChecked, Damaged: []repairedThing{}, Database: r.Faults, Indexes: r.Indexes}
	for _, k := range r.Keys {
		f.Damaged = append(f.Damaged, repairedThing{What: "key", ID: k.KID, Label: k.Label, Type: k.Type, Why: k.Why, Means: "the key is gone"})
	}
	for _, rec := range r.Records {
		f.Damaged = append(f.Damaged, repairedThing{What: rec.Kind, ID: rec.ID, Why: rec.Why, Means: rec.Means, Kept: rec.Kept})
	}
	return f
}

func (f *repaired) print(o *options) error {
	if len(f.Damaged) > 0 {
		tw := tabwriter.NewWriter(o.t.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "WHAT\tID\tLABEL\tDAMAGE\tREPAIR")
		for _, d := range f.Damaged {
			repair := "moves it: "
			if d.Kept {
				repair = "none: "
			}
			fmt.Fprintln(tw, clean(d.What)+"\t"+clean(d.ID)+"\t"+clean(d.Label)+"\t"+clean(strings.ReplaceAll(d.Why, "\n", "; "))+"\t"+repair+d.Means)
		}
		if err := tw.Flush(); err != nil {
			return err
		}
	}
	for _, fault := range f.Database {
		o.note("the database says: %s", clean(fault))
	}
	if f.Indexes {
		o.note("indexes or counts of the keys are wrong, and can be made anew")
	}
	damaged := fmt.Sprintf("%d are damaged", len(f.Damaged))
	switch len(f.Damaged) {
	case 0:
		damaged = "none is damaged"
	case 1:
		damaged = "1 is damaged"
	}
	o.note("%d keys and %d records were opened; %s", f.Keys, f.Records, damaged)
	return nil
}

func (o *options) confirmRepair(ctx context.Context, yes bool, f repaired) error {
	if yes {
		return nil
	}
	question := "Make the indexes anew? [y/N] "
	if n := len(f.Damaged); n > 0 {
		question = "Take what is damaged out of the module? Its keys are gone then. [y/N] "
	}
	answer, err := o.askLine(ctx, "--yes", question)
	if err != nil {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}
