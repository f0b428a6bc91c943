package module

import (
	"context"
	"sync"

	"softhem/api"
	"softhem/internal/build"
	"softhem/internal/suite"
)

// announced is what backends last said there is to upgrade to. It is for the
// operator's log alone: nothing is fetched, and nothing is trusted for it.
type announced struct {
	mu   sync.Mutex
	last map[string]string // by claim
}

// news takes a claim of a backend's answer that says what there is: newfws, the fws
// of a program, or newuis, the uis of a console. It returns what the caller is told
// of it: OK when it was understood, ERROR when not, and nothing of what is absent.
func (m *Module) news(ctx context.Context, claim, value string) string {
	if value == "" {
		return ""
	}
	size, have, there := suite.Ed25519Sig, build.Firmware().Signature, true
	if claim == claimNewUIS {
		size, have, there = len(m.Console().ConsoleHash()), m.consoleHash(), m.cfg.Profile == PPA
	}
	raw, err := api.DecodeBase64(value)
	if err != nil || len(raw) != size || !there {
		m.log.WarnContext(ctx, "a check-in announces something to upgrade to, which is not understood", "claim", claim)
		return "ERROR"
	}
	text := api.EncodeBase64(raw)
	m.announced.mu.Lock()
	defer m.announced.mu.Unlock()
	if before := m.announced.last[claim]; text != have && text != before {
		m.log.WarnContext(ctx, "a check-in announces something to upgrade to", "claim", claim, "announced", text, "here", have)
	}
	m.announced.last[claim] = text
	return "OK"
}

const (
	claimNewFWS = "newfws"
	claimNewUIS = "newuis"
)
