package module

import (
	"errors"
	"testing"

	"github.com/go-json-experiment/json"

	"softhem/api"
	"softhem/internal/session"
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
