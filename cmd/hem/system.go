package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
)

func newStatusCmd(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the module's state",
		Long: `Show whether the module is personalised and healthy, since when it runs, and its
clock. No token is needed.`,
		Example: `  hem status
  hem --url http://localhost:8080 status --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var s *api.Status
			err := o.with(c.Context(), need{}, func(m *hem.Client) (err error) {
				s, err = m.Status(c.Context())
				return err
			})
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(o.t.out, s)
			}
			return statusTable(s).print(o.t.out)
		},
	}
}

func statusTable(s *api.Status) *table {
	t := &table{}
	t.addText("personalised", yesNo(s.Inited == nil || *s.Inited))
	t.addText("health", healthInWords(s.FLSState))
	if s.TS != "" {
		t.addText("clock", s.TS)
	} else {
		t.addText("clock", "not set; a check-in sets it")
	}
	if s.TTS != nil && !*s.TTS {
		t.addText("trusted time", "off: logins work with the clock unset")
	}
	t.addText("running for", span(s.Uptime))
	t.addText("https", yesNo(s.HTTPS))
	t.addText("hostname", s.Hostname)
	t.add("ctx", "%d", s.Ctx)
	t.add("temperature", "%d °C", s.Temp)
	for i, disk := range s.Storage {
		t.addText(fmt.Sprintf("disk %d", i), diskInWords(disk))
	}
	t.addText("formatting", s.Format)
	if s.FWUpgrade {
		t.addText("upgrade", "a new version was installed")
	}
	return t
}

// diskInWords reads "<sectors>:rw|ro|-".
func diskInWords(disk string) string {
	sectors, mode, ok := strings.Cut(disk, ":")
	if !ok {
		return disk
	}
	switch mode {
	case "rw":
		mode = "open"
	case "ro":
		mode = "open for reading"
	case "-":
		mode = "locked"
	}
	return sectors + " sectors, " + mode
}

// healthInWords reads the bits of a fail state.
func healthInWords(fls int) string {
	if fls == 0 {
		return "good"
	}
	var causes []string
	for bit, cause := range []string{
		"known-answer test failed", "entropy source failed", "temperature", "stored data damaged",
		"out of memory", "stack", "locked by a check-in", "shut down by a check-in",
	} {
		if fls&(1<<bit) != 0 {
			causes = append(causes, cause)
		}
	}
	if len(causes) == 0 {
		causes = []string{"unknown cause"}
	}
	return fmt.Sprintf("fail state %02x: %s", fls, strings.Join(causes, ", "))
}

func newVersionCmd(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show what the module is made of",
		Long: `Show the module's hardware, firmware and boot loader versions and who signed them. No
token is needed. hem --version is the version of this program.`,
		Example: `  hem version
  hem version --json
  hem --version`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var v *api.Version
			err := o.with(c.Context(), need{}, func(m *hem.Client) (err error) {
				v, err = m.Version(c.Context())
				return err
			})
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(o.t.out, v)
			}
			t := &table{}
			t.addText("hardware", v.HWV)
			t.addText("firmware", v.FWV)
			t.addText("signed by", v.FWK)
			t.addText("boot loader", v.BLV)
			t.addText("signed by", v.BLK)
			t.addText("web console", v.UIS)
			t.addText("card CSD", v.SDCSD)
			t.addText("card CID", v.SDCID)
			return t.print(o.t.out)
		},
	}
}

func newCheckinCmd(o *options) *cobra.Command {
	var broker string
	c := &cobra.Command{
		Use:   "checkin",
		Short: "Have a broker set the module's clock",
		Long: `Carry a check from the module to a broker, and the answer back. It sets the
module's clock; and it brings what the owner ordered: to lock or wipe a lost module, for
instance. Both messages are sealed between module and broker. No token is needed.`,
		Example: `  hem checkin --broker https://broker.example
  HEM_BROKER=https://broker.example hem checkin`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			broker, err := o.brokerURL(c, broker)
			if err != nil {
				return err
			}
			var r *api.CheckinResult
			err = o.with(c.Context(), need{}, func(m *hem.Client) (err error) {
				r, err = m.CheckIn(c.Context(), broker)
				return err
			})
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(o.t.out, r)
			}
			t := &table{}
			t.addText("status", checkinInWords(r.Status))
			t.addText("certificate", r.NewCrt)
			t.addText("new firmware", r.NewFWS)
			t.addText("new console", r.NewUIS)
			return t.print(o.t.out)
		},
	}
	c.Flags().StringVar(&broker, "broker", "", "address of the broker; env HEM_BROKER (default: the one that the module names)")
	return c
}

func checkinInWords(status string) string {
	switch status {
	case "OK":
		return "OK: nothing was ordered"
	case "L":
		return "L: the user is locked out until the master sets a new key"
	case "W":
		return "W: the module wipes itself"
	case "R":
		return "R: a report was asked for"
	case "B":
		return "B: the module stops listening until it is started again"
	case "U":
		return "U: an upgrade was asked for"
	case "???":
		return "???: the time was taken; an order was not understood, or not taken"
	}
	return status
}
