package module

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"softhem/api"
	"softhem/internal/keyring"
	"softhem/internal/session"
	"softhem/internal/suite"
)

type externalVectors struct {
	EIDPrivate string `json:"eid_private"`
	EID        string
	AIDPrivate string `json:"aid_private"`
	AID        string
	EPK        string
	PID        string
	Pairing    struct{ Request, Reply, Code, Descr string }
	MAC        struct{ Nonce, MAC string }
	Events     []struct {
		Name, JTI, Wanted, Authreq, Authreply string
		TokenScope                            string `json:"token_scope"`
		TokenExp                              int64  `json:"token_exp"`
	}
	Tampered string `json:"tampered_scope_mac"`
}

func (v *externalVectors) identity(t *testing.T) *identity {
	t.Helper()
	scalar, err := api.DecodeBase64(v.EIDPrivate)
	if err != nil {
		t.Fatal(err)
	}
	key, err := suite.NewX25519Key(scalar)
	if err != nil {
		t.Fatal(err)
	}
	return &identity{key: key, eid: api.EncodeBase64(key.Public())}
}

func bytes32(t *testing.T, text string) [32]byte {
	t.Helper()
	b, ok := session.Decode32(text)
	if !ok {
		t.Fatalf("%q is not 32 bytes", text)
	}
	return b
}

// What the module sends is the vectors' to the byte, and what it is sent reads
// as they say.
func TestExternalVectors(t *testing.T) {
	var v externalVectors
	readVectors(t, "external.json", &v)
	m := open(t, nil)
	id := v.identity(t)
	p := &Pass{state: &state{identity: id, boot: session.NewBoot()}, now: 1767225600}
	if id.eid != v.EID {
		t.Fatalf("eid %s", id.eid)
	}
	epk, err := m.brokerKey(p, v.EPK)
	if err != nil {
		t.Fatal(err)
	}
	mac := func(b []byte) string { return api.EncodeBase64(suite.HMACSHA256(epk.secret, b)) }

	var asked api.PairingRequestClaims
	claimsOf(t, v.Pairing.Request, &asked)
	if got, err := session.SignEJWT(epk.secret, asked); err != nil || got != v.Pairing.Request {
		t.Errorf("pairing request\n%s, want\n%s, %v", got, v.Pairing.Request, err)
	}
	var reply pairingReplyClaims
	aid, err := session.OpenEJWT(id.key, v.Pairing.Reply, &reply)
	if err != nil || api.EncodeBase64(aid[:]) != v.AID || reply.JTI != asked.JTI || reply.EPK != v.EPK || pairingLabel(*reply.Label) != "Pixel (Android)" {
		t.Errorf("pairing reply of %x: %+v, %v", aid, reply, err)
	}
	if got := mac([]byte(v.Pairing.Reply)); got != v.Pairing.Code {
		t.Errorf("code %s, want %s", got, v.Pairing.Code)
	}
	pid := bytes32(t, v.PID)
	if got := api.EncodeBase64(append([]byte(api.PairingPrefix), pid[:]...)); got != v.Pairing.Descr {
		t.Errorf("descr %s, want %s", got, v.Pairing.Descr)
	}
	nonce := bytes32(t, v.MAC.Nonce)
	if got := mac(nonce[:]); got != v.MAC.MAC {
		t.Errorf("mac %s, want %s", got, v.MAC.MAC)
	}

	one, err := id.openPairing(pairingRecord{KID: keyring.KIDOf(aid[:]), PID: pid, AID: aid})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range v.Events {
		jti := bytes32(t, e.JTI)
		scope, _, _ := strings.Cut(e.Wanted, "#")
		var asked api.AuthReqClaims
		claimsOf(t, e.Authreq, &asked)
		claims := authReqClaims{
			Iss: id.eid, Aud: v.EPK, Iat: p.now, Exp: p.now + requestPurpose(scope).Life(), JTI: e.JTI,
			Scope: sealedScopes{{one.pid, session.SealScope(one.secret, jti, e.Wanted)}},
		}
		if got, err := session.SignEJWT(epk.secret, claims); err != nil || got != e.Authreq {
			t.Errorf("%s: authreq\n%s, want\n%s, %v", e.Name, got, e.Authreq, err)
		}
		var c authReplyClaims
		from, err := session.OpenEJWT(id.key, e.Authreply, &c)
		if err != nil || from != aid || c.PID != v.PID || c.Aud != v.EID || c.JTI != e.JTI || *c.Exp != e.TokenExp {
			t.Errorf("%s: approval by %x: %+v, %v", e.Name, from, c, err)
		}
		granted, err := session.OpenScope(one.secret, jti, c.Scope)
		if granted, _, _ = strings.Cut(granted, "#"); err != nil || granted != e.TokenScope {
			t.Errorf("%s: granted %q, %v; want %q", e.Name, granted, err, e.TokenScope)
		}
	}
	var c authReplyClaims
	if _, err := session.OpenEJWT(id.key, v.Tampered, &c); err != nil {
		t.Fatal(err)
	}
	if _, err := session.OpenScope(one.secret, bytes32(t, c.JTI), c.Scope); err == nil {
		t.Error("the tampered scope opens")
	}
}

// An epk may not be, in any spelling, a key whose secret with eid means
// something else: not eid, not spk, no authenticator's, and none without a
// secret.
func TestThreat_T90_BrokerKeysAreApart(t *testing.T) {
	m := open(t, nil)
	personalise(t, m, "")
	st := *m.state.Load()
	phone, err := suite.NewX25519Key(suite.Random(32))
	if err != nil {
		t.Fatal(err)
	}
	one, err := st.identity.openPairing(pairingRecord{AID: [32]byte(phone.Public())})
	if err != nil {
		t.Fatal(err)
	}
	st.pairings = []pairing{one}
	p := &Pass{state: &st, now: 1_800_000_000}
	low := make([]byte, 32)
	low[0] = 1
	refused := map[string][]byte{"a low-order point": low, "zero": make([]byte, 32), "31 bytes": phone.Public()[:31]}
	for name, key := range map[string][]byte{"eid": st.identity.key.Public(), "spk": st.boot.Key().Public(), "aid": phone.Public()} {
		other := bytes.Clone(key)
		other[31] |= 0x80 // RFC 7748 section 5: this bit does not count
		refused[name], refused[name+" in another spelling"] = key, other
	}
	for name, key := range refused {
		if _, err := m.brokerKey(p, api.EncodeBase64(key)); !errors.Is(err, api.ErrBadRequest) {
			t.Errorf("%s as epk: %v", name, err)
		}
	}
	good, err := suite.NewX25519Key(suite.Random(32))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.brokerKey(p, api.EncodeBase64(good.Public())); err != nil {
		t.Errorf("a key of its own: %v", err)
	}
}

func TestPairingLabel(t *testing.T) {
	for text, want := range map[string]string{
		"Pixel (Android)": "Pixel (Android)", "": "?", "Téléphone": "T?l?phone", "a\nb\x7f": "a?b?", "手机": "??",
		strings.Repeat("x", 40): strings.Repeat("x", 32), strings.Repeat("é", 40): strings.Repeat("?", 32),
	} {
		if got := pairingLabel(text); got != want {
			t.Errorf("label of %q: %q, want %q", text, got, want)
		}
	}
}

// paired is a personalised module with one authenticator.
func paired(t testing.TB, m *Module) (*suite.X25519Key, *Pass) {
	t.Helper()
	phone, err := suite.NewX25519Key(suite.Random(32))
	if err != nil {
		t.Fatal(err)
	}
	st := *m.state.Load()
	one, err := st.identity.openPairing(pairingRecord{KID: keyring.KIDOf(phone.Public()), AID: [32]byte(phone.Public())})
	if err != nil {
		t.Fatal(err)
	}
	st.pairings = []pairing{one}
	return phone, &Pass{state: &st, now: 1_800_000_000}
}

// FuzzApproval reads anything a paired authenticator may sign as an approval:
// no token comes out but one for what was asked for.
func FuzzApproval(f *testing.F) {
	m := open(f, nil)
	personalise(f, m, "")
	phone, p := paired(f, m)
	id, boot, one := p.state.identity, p.state.boot, p.state.pairings[0]
	shared, err := phone.Shared(id.key.Public())
	if err != nil {
		f.Fatal(err)
	}
	const asked = "storage:disk0:rw"
	f.Add(asked, []byte(`{}`), true)
	f.Add("storage:disk0", []byte(`{"exp":1800003600,"ctx":"x"}`), true)
	f.Add("system:config", []byte(`{"exp":0}`), true)
	f.Add(asked, []byte(`{"exp":1}`), true)
	f.Add(asked, []byte(`{"jti":"x","aud":null}`), false)
	f.Fuzz(func(t *testing.T, scope string, more []byte, own bool) {
		nonce := boot.NewRequestNonce(session.PurposeRequest(), asked, nil, p.now)
		claims := map[string]any{}
		if own {
			claims = map[string]any{"jti": api.EncodeBase64(nonce[:]), "aud": id.eid, "pid": one.pid, "scope": session.SealScope(one.secret, nonce, scope)}
		}
		claims["iss"] = api.EncodeBase64(phone.Public())
		var extra map[string]any
		if json.Unmarshal(more, &extra) == nil {
			for name, value := range extra {
				claims[name] = value
			}
		}
		reply, err := session.SignEJWT(shared, claims)
		if err != nil {
			return
		}
		got, err := m.checkApproval(p, reply, nil)
		_, refusedAfter := errors.AsType[errApproval](err)
		_, refused := errors.AsType[errProof](err)
		switch {
		case err == nil && (!own || got.Scope != asked && got.Scope != "storage:disk0" || got.Sub != one.sub || got.Exp <= p.now || got.Exp > p.now+86_400):
			t.Fatalf("scope %q, claims %s: token %+v", scope, more, got)
		case err != nil && !refused && !refusedAfter && !errors.Is(err, session.ErrToken):
			t.Fatalf("refused with %v", err)
		}
	})
}

// FuzzPairingReply signs anything as a reply to a pairing request.
func FuzzPairingReply(f *testing.F) {
	m := open(f, nil)
	personalise(f, m, "")
	phone, p := paired(f, m)
	p.state.pairings = nil
	broker, err := suite.NewX25519Key(suite.Random(32))
	if err != nil {
		f.Fatal(err)
	}
	shared, err := phone.Shared(p.state.identity.key.Public())
	if err != nil {
		f.Fatal(err)
	}
	epk := api.EncodeBase64(broker.Public())
	f.Add([]byte(`{"label":"phone"}`))
	f.Add([]byte(`{"label":"é\n","kp":"x","aud":"x"}`))
	f.Add([]byte(`{"label":null,"epk":null}`))
	f.Fuzz(func(t *testing.T, more []byte) {
		nonce := p.state.boot.NewNonce(session.PurposePairing(), broker.Public(), p.now)
		claims := map[string]any{"jti": api.EncodeBase64(nonce[:]), "epk": epk, "iss": api.EncodeBase64(phone.Public())}
		var extra map[string]any
		if json.Unmarshal(more, &extra) == nil {
			for name, value := range extra {
				claims[name] = value
			}
		}
		reply, err := session.SignEJWT(shared, claims)
		if err != nil {
			return
		}
		aid, got, label, err := m.checkPairingReply(p, reply)
		if err != nil {
			return
		}
		if !bytes.Equal(aid[:], phone.Public()) || !bytes.Equal(got.public[:], broker.Public()) || label == "" || len(label) > api.MaxLabelChars || strings.Trim(label, " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~") != "" {
			t.Fatalf("aid %x, epk %x, label %q", aid, got.public, label)
		}
	})
}

// FuzzExtRequest asks for anything: it is refused, or what is sealed is what was
// asked for and nothing that looks like the module's own words.
func FuzzExtRequest(f *testing.F) {
	ctx := context.Background()
	m := open(f, nil)
	personalise(f, m, "")
	phone, p := paired(f, m)
	p.op, p.caller.Addr = OpExtRequest, netip.MustParseAddr("127.0.0.1")
	shared, err := phone.Shared(p.state.identity.key.Public())
	if err != nil {
		f.Fatal(err)
	}
	secret := suite.NewMACKey(shared)
	broker, err := suite.NewX25519Key(suite.Random(32))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("system:config", "", "", "")
	f.Add("keymgmt:use:"+strings.Repeat("0", 32), "c", "n", "x")
	f.Add("a#eyJ0IjoieCIsImwiOiJ5In0=", "", "", "")
	f.Add("system:config", "\xc3", "\xa9", "") // neither is UTF-8, both together are
	f.Fuzz(func(t *testing.T, scope, ctxText, note, bind string) {
		answer, err := m.ExtRequest(ctx, p, api.ExtRequest{EPK: api.EncodeBase64(broker.Public()), Scope: scope, Ctx: ctxText, Note: note, Bind: bind})
		if err != nil {
			// A text that is no UTF-8 cannot be signed; no JSON has one.
			if !errors.Is(err, api.ErrBadRequest) && utf8.ValidString(ctxText) && utf8.ValidString(note) {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		var claims api.AuthReqClaims
		if _, err := session.OpenEJWT(broker, answer.AuthReq, &claims); err != nil {
			t.Fatal(err)
		}
		jti, _ := session.Decode32(claims.JTI)
		shown, err := session.OpenScope(secret, jti, claims.Scope[p.state.pairings[0].pid])
		if err != nil || shown != scope || strings.Contains(shown, "#") {
			t.Fatalf("asked for %q, shown %q, %v", scope, shown, err)
		}
	})
}

// The log names an authenticator by its kid.
func TestAuditName(t *testing.T) {
	kid := [16]byte{1, 2}
	for sub, want := range map[api.Role]string{"U": "U", "M": "M", subOf(kid): hex.EncodeToString(kid[:])} {
		if got := auditName(sub); got != want {
			t.Errorf("%s is named %q, want %q", sub, got, want)
		}
	}
}
