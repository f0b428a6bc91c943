// Command hem is a HEM in software (hem serve) and a client of any HEM.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, terminal{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.LookupEnv}, os.Args[1:]))
}

// terminal is where a command reads and writes: data to out, talk to err. It
// is handed down so that nothing reaches for the process's own.
type terminal struct {
	in  io.Reader
	out io.Writer
	err io.Writer
	env func(name string) (string, bool)
}

// run is the whole program but the process: it returns the exit code.
func run(ctx context.Context, t terminal, args []string) int {
	root := newRootCmd(t)
	root.SetArgs(args)
	root.SetIn(t.in)
	root.SetOut(t.out)
	root.SetErr(t.err)
	err := root.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(t.err, "hem:", explain(err))
	}
	return exitCode(err)
}
