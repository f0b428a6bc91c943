package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/load"
	"softhem/internal/server"
)

func newBenchCmd(o *options) *cobra.Command {
	var (
		names       []string
		connections []int
		took        time.Duration
		keys        int
		ceiling     bool
	)
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure a module",
		Long: `Measure how many operations a second a module does, and how long they take, over
keep-alive connections with TLS 1.3. It makes keys for that, whose descr begins with
hem-bench, and deletes them in the end; an interrupt ends it the same way. It loads the
module as much as it can bear: others will notice.

The load is made on this machine. Next to a module on the same machine it takes a part
of its processors, so compare figures of one run, or add --ceiling: it starts, on this
machine, a bare HTTPS server that does the same primitive on the same JSON without
tokens, checks and audit, and measures both by turns.

It logs in with the passphrase, for several scopes: a token will not do.

Measurements:
  ` + strings.Join(load.Names(), "\n  "),
		Example: `  hem bench --ceiling
  hem bench --only ed25519-sign,hmac-sha256 --connections 64 --time 10s
  hem bench --only list,search-prefix,search-contains --keys 100000 --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			for _, name := range names {
				if !slices.Contains(load.Names(), name) {
					return &usageError{"hem bench", fmt.Sprintf("there is no measurement %q; hem bench --help lists them", name)}
				}
			}
			if len(connections) == 0 || slices.Min(connections) < 1 || slices.Max(connections) > 1000 || took < 100*time.Millisecond || keys < 0 {
				return &usageError{"hem bench", "want 1 to 1000 connections, 100ms at least, and no negative number of keys"}
			}
			target, err := o.benchTarget()
			if err != nil {
				return err
			}
			mark := make([]byte, 4)
			rand.Read(mark)
			b := &load.Bench{
				Target: target, Names: names, Connections: connections, Time: took, Keys: keys,
				Mark: []byte("hem-bench-" + hex.EncodeToString(mark)), Progress: o.progress.say,
			}
			if ceiling {
				bare, stop, err := startCeiling(c.Context())
				if err != nil {
					return err
				}
				defer stop()
				b.Ceiling = &bare
			}
			rows := []load.Row{}
			err = o.with(c.Context(), need{scope: api.ScopeKeyGen}, func(m *hem.Client) error {
				b.Client = m
				return b.Run(c.Context(), func(r load.Row) { rows = append(rows, r) })
			})
			if err != nil && len(rows) == 0 {
				return err
			}
			if o.json {
				if printed := printJSON(o.t.out, rows); printed != nil {
					return printed
				}
				return err
			}
			if printed := printRows(o, rows, ceiling); printed != nil {
				return printed
			}
			return err
		},
	}
	f := c.Flags()
	f.StringSliceVar(&names, "only", load.Names(), "`names` of the measurements to make")
	f.IntSliceVar(&connections, "connections", []int{8, 64}, "`numbers` of connections to use operations over; the largest creates and deletes")
	f.DurationVar(&took, "time", 5*time.Second, "how long each measurement takes")
	f.IntVar(&keys, "keys", 1000, "`number` of keys there are at least when lists and searches are measured")
	f.BoolVar(&ceiling, "ceiling", false, "measure a bare HTTPS server on this machine beside")
	f.Lookup("only").DefValue = "all"
	return c
}

func printRows(o *options, rows []load.Row, ceiling bool) error {
	tw := tabwriter.NewWriter(o.t.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	head := "measurement\tconnections\top/s\tp50 ms\tp99 ms\tkeys\t"
	if ceiling {
		head += "ceiling op/s\tof it\tits p99 ms\t"
	}
	fmt.Fprintln(tw, head)
	for _, r := range rows {
		count := ""
		if r.Keys > 0 {
			count = fmt.Sprint(r.Keys)
		}
		fmt.Fprintf(tw, "%s\t%d\t%.0f\t%.2f\t%.2f\t%s\t", r.Name, r.Connections, r.Rate, r.P50, r.P99, count)
		if ceiling && r.Ceiling > 0 {
			fmt.Fprintf(tw, "%.0f\t%.0f %%\t%.2f\t", r.Ceiling, 100*r.Rate/r.Ceiling, r.CeilingP99)
		}
		fmt.Fprintln(tw)
	}
	return tw.Flush()
}

// benchTarget is the module as the load reaches it.
func (o *options) benchTarget() (load.Target, error) {
	cfg := &tls.Config{InsecureSkipVerify: o.insecure}
	if path := o.setting("cacert", o.caCert, "HEM_CACERT"); path != "" && !o.insecure {
		roots, err := readRoots(path)
		if err != nil {
			return load.Target{}, fmt.Errorf("the CA certificate (--cacert, HEM_CACERT): %w", err)
		}
		cfg.RootCAs = roots
	}
	t, err := load.TargetOf(o.address(), cfg)
	if err != nil {
		return t, &usageError{"hem bench", err.Error()}
	}
	return t, nil
}

func readRoots(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no PEM certificate", path)
	}
	return roots, nil
}

// ceilingCmd is the hidden command that serves the ceiling.
const ceilingCmd = "bench-ceiling"

// startCeiling runs the ceiling in a process of its own, as the module is.
func startCeiling(ctx context.Context) (t load.Target, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return t, nil, err
	}
	cmd := exec.CommandContext(ctx, self, ceilingCmd)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // it ends when this is closed, also by our death
	if err != nil {
		return t, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return t, nil, err
	}
	if err := cmd.Start(); err != nil {
		return t, nil, err
	}
	stop = func() { in.Close(); _ = cmd.Wait() }
	line, err := bufio.NewReader(out).ReadString('\n')
	addr, ca, ok := strings.Cut(strings.TrimSpace(line), " ")
	if err != nil || !ok {
		stop()
		return t, nil, fmt.Errorf("the ceiling did not start: %w", err)
	}
	roots, err := readRoots(ca)
	if err != nil {
		stop()
		return t, nil, err
	}
	t, err = load.TargetOf("https://"+addr, &tls.Config{RootCAs: roots})
	return t, stop, err
}

// newCeilingCmd serves the ceiling of hem bench until its standard input ends.
func newCeilingCmd(t terminal) *cobra.Command {
	return &cobra.Command{
		Use: ceilingCmd, Hidden: true, Args: cobra.NoArgs,
		Short: "Serve what hem bench --ceiling compares with",
		RunE: func(c *cobra.Command, _ []string) error {
			h, err := load.BareHandler()
			if err != nil {
				return err
			}
			// Its certificate is a module's, so that the handshakes are the same.
			cfg := server.DefaultConfig()
			cfg.Memory, cfg.LoopbackOnly, cfg.HTTPAddr, cfg.HTTPSAddr = true, true, "", "127.0.0.1:0"
			s, err := server.Start(c.Context(), cfg)
			if err != nil {
				return err
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			go func() {
				_, _ = bufio.NewReader(t.in).ReadByte()
				l.Close()
			}()
			fmt.Fprintf(t.out, "%s %s\n", l.Addr(), s.CAFile())
			_ = load.ServeBare(l, h, s.Certificate) // it ends by the listener's being closed
			return s.Stop(c.Context())
		},
	}
}
