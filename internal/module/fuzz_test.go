package module

import (
	"errors"
	"testing"

	"github.com/go-json-experiment/json"

	"softhem/api"
	"softhem/internal/certs"
	"softhem/internal/session"
	"softhem/internal/suite"
)

// FuzzInitConfig reads anything as the configuration of a personalisation. It
// is taken, or refused with 400 or 401; what is taken can be kept.
func FuzzInitConfig(f *testing.F) {
	f.Add([]byte(`{"masterkey":"BaFO8SeJMjJTCKHzZEjYcKyC0jsCESsaz/H8G5HAkD4=","userkey":"brwDChsrSe+gAEhHK5Uqp5EL7gdJE/HB3ZYUa6SoEgc=","user":"Ada","email":"ada@example.com","hostname":"hem.test","ip":"192.168.7.1/24","storage_mode":81,"storage_disk0size":8388608,"dnsd":false,"trusted_ts":true,"trusted_backend":true,"allow_keysearch":true,"gen_csr":true,"origin":"*","ctx":7}`))
	f.Add([]byte(`{}`))
	issuer, ok := session.Decode32("BaFO8SeJMjJTCKHzZEjYcKyC0jsCESsaz/H8G5HAkD4=")
	if !ok {
		f.Fatal("issuer")
	}
	m, p := &Module{}, &Pass{state: &state{config: freshConfig(), boot: session.NewBoot()}, now: 1767225600}
	f.Fuzz(func(t *testing.T, cfg []byte) {
		var c initConfig
		if json.Unmarshal(cfg, &c) != nil {
			return
		}
		next, err := m.initialState(p, &c, issuer)
		if err != nil {
			if !errors.Is(err, api.ErrBadRequest) && !errors.Is(err, api.ErrUnauthorized) {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		kept, err := json.Marshal(next.config)
		if err != nil {
			t.Fatal(err)
		}
		var again config
		if err := json.Unmarshal(kept, &again); err != nil || again != next.config {
			t.Fatalf("config %+v comes back as %+v, %v", next.config, again, err)
		}
	})
}

// FuzzConfigUpdate posts anything to a personalised module. The answers are the
// documented ones; a refusal changes nothing, and what was taken comes back.
func FuzzConfigUpdate(f *testing.F) {
	m := open(f, nil)
	token := personalise(f, m, api.ScopeSystemConfig)
	for _, body := range []string{
		"{}", `{"user":"Ada","email":"a@b.c","origin":"https://x.example","ctx":-1,"trusted_ts":true}`, `{"http_option_dosprot_mode":5}`,
		`{"storage_disk0size":1e30,"dnsd":null}`, `{"gen_csr":true}`, `{"tls":{"crt":"MIIB","emp":"BAAA","key":"AAAA.AAAA"}}`,
		`{"userkey":"we6zW3tNKodXKnS8vu0lbKd8xZiJ34Zt0/cy2JftsmQ=","userkey_hmac":"DSaKEnMRoUwdZJ/8sLBu9eo0Kbd84e0/9u5QNA7mwxk=","userkey_nonce":"ALlVaSrKTUkpf/26JgGh1PFlIxTGGFWtbYX5L1Dn9aQ="}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var req ConfigUpdate
		if json.Unmarshal(body, &req) != nil || req.Wipeout.value {
			return
		}
		before := m.state.Load().config
		out, err := postConfig(m, token, string(body))
		after := m.state.Load().config
		switch {
		case err == nil:
			if out.Answer.Updated != (before != after) || out.Answer.Updated != (after.Uts > before.Uts) || after.validate() != nil {
				t.Fatalf("%s: %+v made %+v of %+v", body, out.Answer, after, before)
			}
		case !errors.Is(err, api.ErrBadRequest) && !errors.Is(err, api.ErrUnauthorized) && !errors.Is(err, api.ErrNotAcceptable):
			t.Fatalf("%s: %v", body, err)
		case before != after:
			t.Fatalf("%s was refused and changed the configuration", body)
		}
	})
}

// FuzzNewCertificate lets a backend send anything for a certificate: it is
// refused, or installed.
func FuzzNewCertificate(f *testing.F) {
	m := open(f, nil)
	good, _ := m.cfg.TLS.(*certs.Manager).GetCertificate(nil)
	f.Add(api.EncodeBase64(good.Certificate[0]))
	f.Add(api.EncodeBase64(good.Certificate[0][:100]))
	f.Add("")
	p := &Pass{state: m.state.Load(), now: 1767225600}
	f.Fuzz(func(t *testing.T, text string) {
		before, _ := m.cfg.TLS.Installed()
		err := m.newCertificate(t.Context(), p, text)
		after, ok := m.cfg.TLS.Installed()
		switch {
		case err == nil:
			if !ok || after.Since <= before.Since {
				t.Fatalf("%q was taken and not installed", text)
			}
		case !errors.Is(err, certs.ErrRefused) || after.Since != before.Since:
			t.Fatalf("%q: %v", text, err)
		}
	})
}

// FuzzTLSBundle opens anything as a bundle.
func FuzzTLSBundle(f *testing.F) {
	m := open(f, nil)
	pair, _ := m.cfg.TLS.(*certs.Manager).GetCertificate(nil)
	crt, emp := api.EncodeBase64(pair.Certificate[0]), api.EncodeBase64(m.state.Load().identity.attest.Point())
	iv := api.EncodeBase64(make([]byte, 16))
	f.Add(crt, emp, iv+"."+api.EncodeBase64(make([]byte, 64)))
	f.Add(crt, emp, iv+"."+api.EncodeBase64(make([]byte, 48)))
	f.Add(crt, "", "")
	f.Fuzz(func(t *testing.T, crt, emp, key string) {
		fields := &fields{}
		b := fields.tlsBundle(given[tlsBundle]{here: true, value: tlsBundle{crt, emp, key}})
		if fields.err != nil {
			if !errors.Is(fields.err, api.ErrBadRequest) {
				t.Fatal(fields.err)
			}
			return
		}
		if b == nil || len(b.chain) == 0 {
			t.Fatal("a bundle without a certificate was taken")
		}
		if b.key == nil {
			return
		}
		if scalar, err := b.scalar(m.state.Load().identity.attest); err == nil && len(scalar) != suite.P256ScalarSize {
			t.Fatalf("a scalar of %d bytes", len(scalar))
		}
	})
}
