package module

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/build"
	"softhem/internal/certs"
	"softhem/internal/session"
	"softhem/internal/suite"
)

// CheckinStart is the first leg of a check-in: what the module tells its
// backend.
func (m *Module) CheckinStart(p *Pass) (api.Check, error) {
	p.must(OpCheckinStart)
	st, backend := p.state, m.cfg.TrustedBackends[0]
	nonce := st.boot.NewNonce(session.PurposeCheckin(), nil, p.now)
	claims := api.CheckClaims{
		JTI: api.EncodeBase64(nonce[:]),
		Iss: st.boot.SPK(),
		QID: api.EncodeBase64(checkinQID(st.config.InstanceID, nonce)),
		Aud: api.EncodeBase64(backend),
		FWS: build.Firmware().Signature,
		BLS: build.Runtime().Signature,
		CSN: api.EncodeBase64(m.cfg.TLS.Serial()),
	}
	if m.cfg.Profile == PPA {
		claims.UIS = m.consoleHash()
	}
	secret, err := st.boot.Key().Shared(backend)
	if err != nil {
		return api.Check{}, fmt.Errorf("the key of the trusted backend: %w", err)
	}
	defer clear(secret)
	token, err := session.SignEJWT(secret, claims)
	return api.Check{Check: token}, err
}

// checkinQID names the module to a backend that knows the instance id, and to
// nobody else: HMAC-SHA256(instance id, nonce). A fresh module has 16 zero
// bytes for an instance id.
func checkinQID(instance [16]byte, nonce session.Nonce) []byte {
	return suite.HMACSHA256(instance[:], nonce[:])
}

// checkinActions are the orders an owner can give through a backend.
const checkinActions = orderLock + orderWipe + orderReport + orderBlock + orderUpgrade

// checkinStatus reads the status of a backend's answer: "OK", an action
// letter, or "???". Only who was told the instance id can have made an action.
func checkinStatus(instance [16]byte, nonce session.Nonce, status []byte) string {
	qid := checkinQID(instance, nonce)
	if suite.Equal(status, suite.HMACSHA256(qid, []byte("OK"))) {
		return checkinOK
	}
	for _, letter := range []byte(checkinActions) {
		if suite.Equal(status, suite.HMACSHA256(instance[:], []byte{letter}, nonce[:])) {
			return string(letter)
		}
	}
	return checkinUnknown
}

const (
	checkinOK = "OK" // the time was taken, and there is no order
	// checkinUnknown: the time was taken, the status was not understood, nothing
	// was done.
	checkinUnknown = "???"
)

type checkedClaims struct {
	proofClaims `json:",inline"`
	Iat         *int64 `json:"iat"`
	Status      string `json:"status"`
	NewCrt      string `json:"newcrt"`
	NewFWS      string `json:"newfws"`
	NewUIS      string `json:"newuis"`
}

// CheckinFinish is the last leg: it believes a trusted backend's time, and takes
// a certificate for the module's TLS key, and word of what there is to upgrade to.
// It carries out what the owner ordered through that backend.
func (m *Module) CheckinFinish(ctx context.Context, p *Pass, req api.Checked) (CheckinOutcome, error) {
	p.must(OpCheckinFinish)
	if req.Checked == "" {
		return CheckinOutcome{}, api.ErrBadRequest.Because("checked is missing")
	}
	c, nonce, err := m.checkChecked(p, req.Checked)
	if err != nil {
		m.log.InfoContext(ctx, "check-in refused", "cause", err, "address", p.caller.Addr)
		return CheckinOutcome{}, api.ErrUnauthorized
	}
	if err := m.setClock(ctx, p, *c.Iat, p.now-nonce.Made()); err != nil {
		return CheckinOutcome{}, err
	}
	raw, _ := session.Decode32(c.Status) // checkChecked decoded it
	status := checkinStatus(p.state.config.InstanceID, nonce, raw[:])
	out := CheckinOutcome{Answer: api.CheckinResult{Status: status}}
	switch status {
	case checkinOK:
	case checkinUnknown:
		m.log.WarnContext(ctx, "check-in brought a status that is not understood")
		return out, nil
	default:
		return m.order(ctx, p, status)
	}
	out.Answer.NewFWS, out.Answer.NewUIS = m.news(ctx, claimNewFWS, c.NewFWS), m.news(ctx, claimNewUIS, c.NewUIS)
	if c.NewCrt == "" {
		return out, nil
	}
	out.Answer.NewCrt = "OK"
	if m.cfg.Quirks.dropsNewCertificate() {
		return out, nil
	}
	if err := m.newCertificate(ctx, p, c.NewCrt); errors.Is(err, certs.ErrRefused) {
		out.Answer.NewCrt = "ERROR"
	} else if err != nil {
		return CheckinOutcome{}, err
	}
	return out, nil
}

func (m *Module) checkChecked(p *Pass, token string) (c checkedClaims, nonce session.Nonce, err error) {
	issuer, err := p.state.boot.OpenEJWT(token, &c)
	if err != nil {
		return c, nonce, err
	}
	// The issuer is looked up before the nonce is used: anybody can make a MAC
	// that holds, and only a trusted backend may burn a check-in.
	trusted := false
	for _, backend := range m.cfg.TrustedBackends {
		trusted = suite.Equal(issuer[:], backend) || trusted
	}
	if !trusted {
		return c, nonce, errProof("iss is no trusted backend")
	}
	if err := m.useProof(p, session.PurposeCheckin(), c.proofClaims); err != nil {
		return c, nonce, err
	}
	if c.Iat == nil || *c.Iat <= 0 || *c.Iat > latestClock {
		return c, nonce, errProof("iat is missing, or no time this module can live in")
	}
	if _, ok := session.Decode32(c.Status); !ok {
		return c, nonce, errProof("status is not 32 bytes")
	}
	raw, _ := session.Decode32(c.JTI) // useProof decoded it
	return c, session.Nonce(raw), nil
}

// latestClock is the last second the module's clock may be set to: ten years
// before the 32 bits of nonces and log file names are used up (in 2106).
const latestClock = 1<<32 - 10*365*24*3600

// setClock takes a backend's time, if the clock is one that is set by
// check-in. A step back ends all nonces and tokens, before anybody is given the
// earlier time and again after. Without its record the clock stays as it was.
func (m *Module) setClock(ctx context.Context, p *Pass, unix, elapsed int64) error {
	trusted := p.state.config.TrustedTS
	if !trusted && p.state.config.Inited {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.clock.plan(unix, elapsed, trusted)
	if !s.changes {
		m.clock.apply(s)
		return nil
	}
	if s.stepsBack {
		m.renewBoot()
		defer m.renewBoot()
	}
	m.clock.apply(s)
	m.audit.ClockSet()
	arg := binary.LittleEndian.AppendUint32(nil, uint32(s.old))
	err := m.append(ctx, audit.Record{Type: audit.RTCSet, Arg: arg})
	if err != nil {
		m.clock.revert(s)
		m.audit.ClockSet()
	}
	return err
}
