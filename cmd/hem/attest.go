package main

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
)

func newAttestCmd(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "attest",
		Short: "See that a module is still the one it was",
		Long: `Every module has an attestation key, and its name, the genuine id. A module in software
shows with it that it is still the one it was; not that it is hardware, undamaged, or
in whose hands it is.`,
		Example: `  hem attest show
  hem attest show --expect U5nC3u3y2D8q0pWJxJ4Yk0o1b2E=`,
	}
	c.AddCommand(newAttestShowCmd(o), newAttestCSRCmd(o), newAttestProvisionCmd(o))
	return c
}

func newAttestShowCmd(o *options) *cobra.Command {
	var expect, caFile string
	c := &cobra.Command{
		Use:   "show",
		Short: "Get an attestation token and verify it",
		Long: `Get a new attestation token, verify its signature and age by this computer's clock, and
show who it names. With --expect the genuine id has to be that one, which you noted
earlier; with --ca the certificate has to lead to one of the authorities in that
file. Exits with 1 if anything is not so. Any token will do; a module that is not
personalised wants none.`,
		Example: `  hem attest show
  hem attest show --expect U5nC3u3y2D8q0pWJxJ4Yk0o1b2E= --ca attestation-ca.pem
  hem attest show --json > genuine.json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var roots *x509.CertPool
			if caFile != "" {
				pem, err := os.ReadFile(caFile)
				if err != nil {
					return fmt.Errorf("the authorities (--ca): %w", err)
				}
				if roots = x509.NewCertPool(); !roots.AppendCertsFromPEM(pem) {
					return &usageError{c.CommandPath(), fmt.Sprintf("%s holds no PEM certificate", caFile)}
				}
			}
			a, err := o.attestation(c)
			if err != nil {
				return err
			}
			g, err := hem.VerifyGenuine(a.Genuine)
			if err != nil {
				return err
			}
			if o.json {
				err = printJSON(o.t.out, a)
			} else {
				err = attestTable(a, g).print(o.t.out)
			}
			if err != nil {
				return err
			}
			return judgeAttestation(a, g, expect, roots)
		},
	}
	c.Flags().StringVar(&expect, "expect", "", "the genuine `id` it has to have")
	c.Flags().StringVar(&caFile, "ca", "", "PEM `file` of authorities, one of which has to have certified the attestation key")
	return c
}

func (o *options) attestation(c *cobra.Command) (a *api.Attestation, err error) {
	err = o.with(c.Context(), need{scope: api.ScopeSystemConfig}, func(m *hem.Client) (err error) {
		a, err = m.Attestation(c.Context())
		return err
	})
	return a, err
}

func attestTable(a *api.Attestation, g *hem.Genuine) *table {
	t := &table{}
	t.addText("genuine id", api.EncodeBase64(g.SKI))
	t.addText("made", g.At.UTC().Format(time.RFC3339))
	t.addText("signature", "holds")
	by := "itself"
	if a.Crt != "" {
		by = g.Certificate.Issuer.String()
	}
	t.addText("certificate of", g.Certificate.Subject.String())
	t.addText("signed by", by)
	return t
}

// judgeAttestation tells whether a token that verifies is the one it should be.
func judgeAttestation(a *api.Attestation, g *hem.Genuine, expect string, roots *x509.CertPool) error {
	if expect != "" {
		want, err := api.DecodeBase64(expect)
		if err != nil {
			return &usageError{"hem attest show", "--expect is no genuine id"}
		}
		if !bytes.Equal(want, g.SKI) {
			return fmt.Errorf("another module: its genuine id is %s", api.EncodeBase64(g.SKI))
		}
	}
	if !g.Fresh(time.Now()) {
		return fmt.Errorf("the token is of %s: an old one, or one of the two clocks is wrong", g.At.UTC().Format(time.RFC3339))
	}
	if roots == nil {
		return nil
	}
	if a.Crt == "" {
		return errors.New("nobody certified the attestation key")
	}
	der, err := api.DecodeBase64(a.Crt)
	if err != nil {
		return errors.New("the certificate of the attestation key is not base64")
	}
	chain, err := x509.ParseCertificates(der)
	if err != nil || len(chain) == 0 || !chain[0].Equal(g.Certificate) {
		return errors.New("the certificate of the attestation key is not that of the token")
	}
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}); err != nil {
		return fmt.Errorf("the attestation key was not certified by these authorities: %w", err)
	}
	return nil
}

func newAttestCSRCmd(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "csr",
		Short: "Get a certificate request for the attestation key",
		Long: `Print a certificate request (PKCS #10, PEM) for the attestation key of a module that was
given no certificate yet. Sign it, and give it back while the module is fresh: hem attest
provision.`,
		Example: `  hem attest csr > attestation.csr`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			a, err := o.attestation(c)
			if err != nil {
				return err
			}
			if a.CSR == "" {
				return errors.New("the attestation key has a certificate, and is given no other")
			}
			if o.json {
				return printJSON(o.t.out, a)
			}
			_, err = io.WriteString(o.t.out, a.CSR)
			return err
		},
	}
}

func newAttestProvisionCmd(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "provision FILE",
		Short: "Give a fresh module a certificate for its attestation key",
		Long: `Give a module that is not personalised yet a certificate for its attestation key, PEM,
with those that lead to its authority after it. Once: it lasts until the module is wiped.`,
		Example: `  hem attest provision attestation.pem`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			chain, err := readPEMChain(c.CommandPath(), args[0])
			if err != nil {
				return err
			}
			ders := make([][]byte, len(chain))
			for i, cert := range chain {
				ders[i] = cert.Raw
			}
			err = o.with(c.Context(), need{}, func(m *hem.Client) error {
				s, err := m.Status(c.Context())
				if err != nil {
					return err
				}
				genuine := ""
				if s.Inited != nil { // else it says no, and nobody need log in to hear that
					a, err := m.Attestation(c.Context())
					if err != nil {
						return err
					}
					genuine = a.Genuine
				}
				return m.Provision(c.Context(), genuine, ders)
			})
			if err == nil {
				o.note("the attestation key of the module at %s is certified", o.address())
			}
			return err
		},
	}
}
