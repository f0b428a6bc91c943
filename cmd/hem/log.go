package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
)

func newLogCmd(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "log",
		Short: "Read and verify the audit log",
		Long: `Read and verify the audit log: one file for each time the module ran, named by the time
it began in hex. Needs a token for logger:get.`,
		Example: `  hem log list
  hem log verify`,
	}
	c.AddCommand(newLogListCmd(o), newLogGetCmd(o), newLogVerifyCmd(o), newLogCheckpointCmd(o), newLogFollowCmd(o))
	return c
}

func newLogListCmd(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the log files",
		Long: `List the names of the log files, oldest first, and when each began. The last is usually
the one being written, which cannot be read yet.`,
		Example: `  hem log list
  hem log list --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var ids []string
			err := o.with(c.Context(), need{scope: api.ScopeLoggerGet}, func(m *hem.Client) (err error) {
				ids, err = allLogs(c.Context(), m)
				return err
			})
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(o.t.out, api.LogList{Total: len(ids), ID: ids})
			}
			t := &table{}
			for _, id := range ids {
				t.add(clean(id), "%s", began(id))
			}
			return t.print(o.t.out)
		},
	}
}

// allLogs is never nil, so that it is a list in JSON.
func allLogs(ctx context.Context, m *hem.Client) ([]string, error) {
	ids := []string{}
	for id, err := range m.AllLogs(ctx) {
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// began reads the time in a log file's name.
func began(id string) string {
	seconds, err := strconv.ParseUint(id, 16, 32)
	if err != nil {
		return ""
	}
	return instant(int64(seconds))
}

func newLogGetCmd(o *options) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "get ID",
		Short: "Fetch a log file",
		Long: `Fetch a log file as it is. The one being written cannot be fetched before the module
reboots.`,
		Example: `  hem log get 6955b900
  hem log get 6955b900 -o 6955b900.log`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			id := strings.ToLower(args[0])
			if output == "" || output == "-" {
				return o.fetchLog(c.Context(), id, o.t.out)
			}
			if info, err := os.Stat(output); err == nil && !info.Mode().IsRegular() {
				return &usageError{c.CommandPath(), "-o is not a file; for anything else use standard output"}
			}
			// All of it or nothing: half a log looks like one that was cut.
			err := writeBeside(output, func(f *os.File) error { return o.fetchLog(c.Context(), id, f) })
			if err == nil {
				o.note("written to %s", output)
			}
			return err
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "`file` to write to instead of standard output")
	return c
}

func (o *options) fetchLog(ctx context.Context, id string, w io.Writer) error {
	return o.with(ctx, need{scope: api.ScopeLoggerGet}, func(m *hem.Client) error {
		file, err := m.LogFile(ctx, id)
		if err != nil {
			return err
		}
		defer file.Close()
		o.progress.end() // the file may go to the same terminal
		if _, err = io.Copy(w, file); err != nil {
			return fmt.Errorf("log %s is incomplete: %w", id, err)
		}
		return nil
	})
}
