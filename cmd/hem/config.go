package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
)

func newConfigCmd(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Read and change the module's configuration",
		Long:  "Read and change the module's configuration and its TLS certificate.",
		Example: `  hem config get
  hem config set http_option_hsts=true`,
	}
	c.AddCommand(newConfigGetCmd(o), newConfigSetCmd(o), newConfigCSRCmd(o), newConfigCertificateCmd(o), newConfigDomainCmd(o))
	return c
}

func newConfigGetCmd(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "get",
		Short: "Show the configuration",
		Long: `Show the module's configuration and identity. Needs a token for system:config.

With --json it has eid_sign, the key that log files are verified with.`,
		Example: `  hem config get
  hem config get --json > module.json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var conf *api.Config
			err := o.with(c.Context(), need{scope: api.ScopeSystemConfig}, func(m *hem.Client) (err error) {
				conf, err = m.Config(c.Context())
				return err
			})
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(o.t.out, conf)
			}
			return configTable(conf).print(o.t.out)
		},
	}
}

func configTable(c *api.Config) *table {
	t := &table{}
	t.addText("user", c.User)
	t.addText("email", c.Email)
	t.addText("hostname", c.Hostname)
	t.addText("address", c.IP)
	t.addText("origins allowed", c.Origin)
	t.add("ctx", "%d", c.Ctx)
	t.addText("personalised", instant(c.Iat))
	t.addText("last change", instant(c.Uts))
	t.addText("trusted time", yesNo(c.TrustedTS))
	t.addText("trusted backend", yesNo(c.TrustedBackend))
	t.addText("key search", yesNo(c.AllowKeySearch))
	t.addText("DNS server", yesNo(c.DNSD))
	t.addText("HSTS", yesNo(c.HTTPOptionHSTS))
	t.add("DoS protection", "%d", c.HTTPOptionDoS)
	t.addText("device id", c.DevID)
	t.addText("instance id", c.InstanceID)
	t.addText("eid", c.EID)
	t.addText("eid_sign", c.EIDSign)
	t.addText("genuine id", c.GenuineID)
	if c.StorageMode != nil {
		t.add("storage mode", "%d", *c.StorageMode)
	}
	for _, size := range []struct {
		name    string
		sectors *int64
	}{{"disk 0", c.StorageDisk0Size}, {"storage", c.StorageCapacity}} {
		if size.sectors != nil {
			t.addText(size.name, fmt.Sprintf("%d sectors", *size.sectors))
		}
	}
	return t
}
