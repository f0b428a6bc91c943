package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"softhem/internal/build"
)

func newManCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write manual pages",
		Long: `Write one manual page for each command into a folder, which is made if need be.

The pages say what --help says. SOURCE_DATE_EPOCH, where set, is their date.`,
		Example: `  hem man ~/.local/share/man/man1`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return doc.GenManTree(c.Root(), &doc.GenManHeader{
				Section: "1", Source: build.Product(), Manual: "SoftHEM",
			}, args[0])
		},
	}
}
