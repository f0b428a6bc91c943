package main

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
)

func newConfigDomainCmd(o *options) *cobra.Command {
	var broker, keyFile string
	var brokerKey bool
	req := api.DomainRegister{}
	c := &cobra.Command{
		Use:   "domain PREFIX",
		Short: "Get a name and a TLS certificate from a broker",
		Long: `Register the name PREFIX.<domain of the broker> for the module and install the certificate for it.
The certificate is for the key the module has, which stays where it is. The name stays this
module's. hem checkin with the same broker brings the next certificate when this one ends soon.

Clients have to trust the broker's CA, which its operator gets by: hem broker domain ca. It can sign
for names under the broker's domain and for nothing else. A broker that has its certificates from a public
CA instead takes a minute or more, and the module's host name has to be the name itself, or add
--broker-key, with which the broker makes the key. Needs a token for system:config.`,
		Example: `  hem config domain vault --broker https://broker.example
  hem config domain vault --broker https://broker.example --domain-key-file key.txt --ip 192.0.2.7`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := o.broker(c, broker)
			if err != nil {
				return err
			}
			authKey := ""
			if keyFile != "" {
				raw, err := o.secret(c.Context(), "--domain-key-file", keyFile, "")
				if err != nil {
					return err
				}
				authKey = string(raw)
			}
			var bundle *api.TLSBundle
			err = o.with(c.Context(), need{scope: api.ScopeSystemConfig}, func(m *hem.Client) error {
				answer, err := m.UpdateConfig(c.Context(), api.ConfigUpdate{GenCSR: true})
				if err != nil {
					return err
				}
				req.CSR, req.Genuine = answer.CSR, answer.Genuine
				if brokerKey {
					req.CSR = ""
				}
				bundle, err = b.RegisterDomain(c.Context(), args[0], authKey, req)
				return explainDomain(err)
			})
			if err != nil {
				return err
			}
			return o.updateConfig(c, api.ConfigUpdate{TLS: bundle})
		},
	}
	c.Flags().StringVar(&broker, "broker", "", "address of the broker; env HEM_BROKER (default: the one that the module names)")
	c.Flags().StringVar(&keyFile, "domain-key-file", "", "`file` with what the broker's operator gave out to register new names with")
	c.Flags().BoolVar(&brokerKey, "broker-key", false, "have the broker make the key, which whoever runs it could keep")
	c.Flags().StringVar(&req.IP, "ip", "", "`address` that the name shall have, for the broker's operator")
	c.Flags().StringVar(&req.CName, "cname", "", "host `name` that the name shall stand for, likewise")
	return c
}

// explainDomain says what a broker's refusal of a name means; other errors are
// handed through.
func explainDomain(err error) error {
	refused, ok := errors.AsType[*api.Error](err)
	if !ok {
		return err
	}
	why := ""
	switch refused.Status {
	case http.StatusNotFound:
		why = "this broker gives no names; its operator has to start it with --domain"
	case http.StatusBadRequest, http.StatusGone, http.StatusServiceUnavailable:
		if why = refused.Reason; why == "" {
			return err
		}
	case http.StatusConflict:
		why = "the name is another module's, or its certificate is under way; take another, or have the broker's operator release it: hem broker domain release"
	case http.StatusUnauthorized:
		why = "the broker does not take the module's proof, or new names want a key here (--domain-key-file); check that and both clocks, and try again"
	default:
		return err
	}
	return &domainError{why, err}
}

// A domainError has a text of its own and the exit code of what is in it.
type domainError struct {
	text  string
	cause error
}

func (e *domainError) Error() string { return fmt.Sprintf("could not register the name: %s", e.text) }
func (e *domainError) Unwrap() error { return e.cause }
