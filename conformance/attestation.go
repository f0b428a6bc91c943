package conformance

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"time"

	"softhem/api"
	"softhem/hem"
)

// needPPAParts is why an EPA is not asked for what only a PPA has.
func needPPAParts(w *walk) string {
	if !w.ppa {
		return "an EPA has none; that it answers 404 is transport.form-factor"
	}
	return ""
}

const (
	pathAttestation  = "/api/system/config/attestation"
	pathProvisioning = "/api/system/config/provisioning"
	attestationForm  = "genuine:str crt?:b64 csr?:str key?:b64"
)

// attestation asks for an attestation, and looks at what is there.
func (s *step) attestation(token *string) object {
	a := s.object(s.want(s.get(pathAttestation, token), 200), attestationForm)
	if a.has("crt") == a.has("csr") || a.has("csr") != a.has("key") {
		s.failf("there is to be crt, or csr and key")
	}
	return a
}

// provisioningGroup gives the attestation key its certificate, as whoever puts a
// module into service does.
func provisioningGroup() group {
	const spec = "api.md#post-apisystemconfigprovisioning"
	certificate := func(s *step, to any) string {
		key, ok := to.(*ecdsa.PublicKey)
		if !ok {
			s.failf("the attestation key is on no curve of the standard library")
		}
		der, err := s.authority.issue(key, "attestation.conform.example")
		s.must(err, "a certificate")
		return b64(der)
	}
	var crt, genuine string
	return group{name: "provisioning", title: "the certificate of the attestation key, on a fresh module", phase: fresh, lacking: needPPAParts, checks: []check{
		{"open", "A fresh module attests to anybody, and asks for a certificate", "api.md#get-apisystemconfigattestation", func(s *step) {
			a := s.attestation(nil)
			if !a.has("csr") {
				s.skipf("the module has a certificate already")
			}
			block, _ := pem.Decode([]byte(a.str("csr")))
			if block == nil {
				s.failf("csr is no PEM")
			}
			csr, err := x509.ParseCertificateRequest(block.Bytes)
			s.must(err, "csr")
			if csr.CheckSignature() != nil {
				s.failf("csr is not signed by its own key")
			}
			genuine, crt = a.str("genuine"), certificate(s, csr.PublicKey)
		}},
		{"refused", "What does not decode is 400, another key's certificate 406", spec, func(s *step) {
			if crt == "" {
				s.skipf("the module has a certificate already")
			}
			for _, body := range []any{"{", "{}", claims{"genuine": genuine}, claims{"genuine": genuine, "crt": "AAAA"}, claims{"crt": crt}} {
				s.want(s.post(pathProvisioning, body, nil), 400)
			}
			s.want(s.post(pathProvisioning, claims{"genuine": genuine, "crt": b64(s.authority.cert.Raw)}, nil), 406)
			if !s.attestation(nil).has("csr") {
				s.failf("one of these was taken")
			}
		}},
		{"once", "The certificate is taken, shown, and not replaced", spec, func(s *step) {
			if crt == "" {
				s.skipf("the module has a certificate already")
			}
			body := claims{"genuine": genuine, "crt": crt}
			s.empty(s.post(pathProvisioning, body, nil), 200)
			if a := s.attestation(nil); a.str("crt") != crt {
				s.failf("crt is not what the module was given")
			}
			s.want(s.post(pathProvisioning, body, nil), 406)
		}},
	}}
}

func attestationGroup() group {
	const spec = "api.md#get-apisystemconfigattestation"
	return group{name: "attestation", title: "attestation", phase: personal, lacking: needPPAParts, checks: []check{
		{"any-token", "Any token opens it, of either role; none is 401", spec, func(s *step) {
			s.empty(s.get(pathAttestation, nil), 401)
			s.attestation(s.as("any"))
			s.attestation(s.token(api.RoleMaster, "any"))
		}},
		{"form", "A token has three segments at least: who, when, and a signature", spec, func(s *step) {
			parts := strings.Split(s.attestation(s.as("any")).str("genuine"), ".")
			if len(parts) < 3 || len(mustBytes(parts[0])) != 20 || len(mustBytes(parts[1])) < 10 || len(mustBytes(parts[2])) < 8 {
				s.failf("genuine is not of that form")
			}
		}},
		{"signature", "It is signed by the key of its certificate, is new, and names genuine_id", "api.md#attestation-tokens", func(s *step) {
			first := s.attestation(s.as("any")).str("genuine")
			g, err := hem.VerifyGenuine(first)
			if err != nil {
				s.failf("genuine does not verify")
			}
			if now := s.statusNow().int("time"); !g.Fresh(time.Unix(now, 0)) {
				s.failf("genuine is not of now")
			}
			if b64(g.SKI) != s.config().str("genuine_id") {
				s.failf("genuine names another key than genuine_id of the configuration")
			}
		}},
		{"provisioned", "A personalised module takes no certificate: 403", "api.md#post-apisystemconfigprovisioning", func(s *step) {
			body := claims{"genuine": s.attestation(s.as("any")).str("genuine"), "crt": b64(s.authority.cert.Raw)}
			s.want(s.post(pathProvisioning, body, s.as(api.ScopeSystemConfig)), 403)
		}},
	}}
}
