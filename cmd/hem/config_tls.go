package main

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
)

func newConfigCSRCmd(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "csr",
		Short: "Get a certificate request for the module's TLS key",
		Long: `Print a certificate request (PKCS #10, PEM) for the module's host name and TLS key, to
be signed by a certificate authority. The key stays where it is. Needs a token for
system:config.`,
		Example: `  hem config csr > module.csr`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var answer *api.ConfigUpdated
			err := o.with(c.Context(), need{scope: api.ScopeSystemConfig}, func(m *hem.Client) (err error) {
				answer, err = m.UpdateConfig(c.Context(), api.ConfigUpdate{GenCSR: true})
				return err
			})
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(o.t.out, answer)
			}
			_, err = io.WriteString(o.t.out, answer.CSR)
			return err
		},
	}
}

func newConfigCertificateCmd(o *options) *cobra.Command {
	var keyFile string
	c := &cobra.Command{
		Use:   "certificate FILE",
		Short: "Install a TLS certificate",
		Long: `Install a TLS certificate, PEM, with those that lead to its authority after it. It must be
for the module's own TLS key (hem config csr) or, with --key, for the key in that
file, a P-256 key in PEM, which goes to the module encrypted to its attestation key.
New connections use it at once. Needs a token for system:config.`,
		Example: `  hem config certificate module.pem
  hem config certificate module.pem --key module-key.pem`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			u, err := readCertificate(args[0])
			if err != nil {
				return err
			}
			if keyFile == "" {
				return o.updateConfig(c, u)
			}
			key, err := readTLSKey(args[0], keyFile)
			if err != nil {
				return err
			}
			err = o.with(c.Context(), need{scope: api.ScopeSystemConfig}, func(m *hem.Client) error {
				answer, err := m.UpdateConfig(c.Context(), api.ConfigUpdate{GenCSR: true}) // for the attestation token
				if err != nil {
					return err
				}
				u.TLS.Emp, u.TLS.Key, err = hem.SealTLSKey(answer.Genuine, key)
				return err
			})
			if err != nil {
				return err
			}
			return o.updateConfig(c, u)
		},
	}
	c.Flags().StringVar(&keyFile, "key", "", "PEM `file` of the key that the certificate is for")
	return c
}

// readCertificate reads a chain of certificates.
func readCertificate(file string) (u api.ConfigUpdate, err error) {
	chain, err := readPEMChain("hem config certificate", file)
	if err != nil {
		return u, err
	}
	var der []byte
	for _, cert := range chain {
		der = append(der, cert.Raw...)
	}
	u.TLS = &api.TLSBundle{Crt: api.EncodeBase64(der)}
	return u, nil
}

// readPEMChain reads certificates from a file, of which command wants at least one.
func readPEMChain(command, file string) ([]*x509.Certificate, error) {
	rest, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("the certificate: %w", err)
	}
	var der []byte
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			der = append(der, block.Bytes...)
		}
	}
	chain, err := x509.ParseCertificates(der)
	if err != nil || len(chain) == 0 {
		return nil, &usageError{command, fmt.Sprintf("%s holds no PEM certificate", file)}
	}
	return chain, nil
}

// readTLSKey reads the key of a certificate.
func readTLSKey(certificate, file string) (crypto.PrivateKey, error) {
	pair, err := tls.LoadX509KeyPair(certificate, file)
	if err != nil {
		return nil, fmt.Errorf("the key (--key): %w", err)
	}
	return pair.PrivateKey, nil
}
