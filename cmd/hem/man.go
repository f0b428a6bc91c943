package main

import (
	"os"
	"strings"

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
			forManPages(c.Root())
			return doc.GenManTree(c.Root(), &doc.GenManHeader{
				Section: "1", Source: build.Product(), Manual: "SoftHEM",
			}, args[0])
		},
	}
}

// forManPages turns the texts of all commands into the Markdown that manual pages are
// made from: what is indented stays as it is, and what stands in angle brackets is
// no HTML, which would be left out.
func forManPages(c *cobra.Command) {
	parts := strings.Split(c.Long, "\n\n")
	for i, part := range parts {
		if strings.HasPrefix(part, "  ") {
			parts[i] = "    " + strings.ReplaceAll(part, "\n", "\n    ")
		} else {
			parts[i] = strings.ReplaceAll(part, "<", `\<`)
		}
	}
	c.Long = strings.Join(parts, "\n\n")
	for _, sub := range c.Commands() {
		forManPages(sub)
	}
}
