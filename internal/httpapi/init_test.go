package httpapi_test

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"softhem/api"
	"softhem/hemtest"
	"softhem/internal/suite"
)

// admin is the administrator who personalises; local the user.
func admin() persona { return newPersona([]byte("the seed of an administrator ...")) }
func local() persona { return newPersona([]byte("the seed of the local user .....")) }

// initClaims is a right personalisation for a challenge.
func initClaims(ch api.InitChallenge) (claims, cfg map[string]any) {
	cfg = map[string]any{
		"masterkey": admin().public(), "userkey": local().public(), "user": "Ada", "email": "", "hostname": "hem.test",
		"origin": "*", "trusted_ts": true, "trusted_backend": true, "allow_keysearch": false,
	}
	return map[string]any{
		"jti": ch.JTI, "aud": ch.SPK, "exp": ch.Exp, "iat": ch.Exp - 60, "iss": admin().public(), "cfg": cfg,
	}, cfg
}

func (p *peer) initChallenge() api.InitChallenge {
	p.t.Helper()
	var ch api.InitChallenge
	if a := p.get("/api/auth/init", &ch); a.status != 200 {
		p.t.Fatalf("GET init: %d", a.status)
	}
	return ch
}

func (p *peer) postInit(token string) answer {
	p.t.Helper()
	body, err := json.Marshal(api.InitRequest{Init: token})
	if err != nil {
		p.t.Fatal(err)
	}
	return p.do(request{method: "POST", path: "/api/auth/init", body: string(body)})
}

func TestInit(t *testing.T) {
	p := newPeer(t, hemtest.New(t, &hemtest.Options{Fresh: true}))
	ch := p.initChallenge()
	checkGenuine(t, ch.Genuine)
	claims, cfg := initClaims(ch)
	maps.Copy(cfg, map[string]any{
		"ip": "10.0.0.7", "storage_mode": 81, "storage_disk0size": 1000, "dnsd": false, "ctx": 42, "gen_csr": true, "unknown": []int{1},
	})
	a := p.postInit(admin().sign(t, goodHeader, claims, ch.SPK))
	if a.status != 200 {
		t.Fatalf("%d %s", a.status, a.header.Get(api.HeaderError))
	}
	var got api.InitAnswer
	if err := json.Unmarshal(a.body, &got); err != nil {
		t.Fatal(err)
	}
	if id, err := uuid.Parse(got.InstanceID); err != nil || id.Version() != 4 {
		t.Errorf("instance id %q: %v", got.InstanceID, err)
	}
	checkGenuine(t, got.Genuine)
	if !got.RebootRequired {
		t.Error("an address and a disk size that differ need a reboot")
	}
	block, _ := pem.Decode([]byte(got.CSR))
	if block == nil {
		t.Fatalf("no PEM in csr: %q", got.CSR)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || csr.CheckSignature() != nil || csr.DNSNames[0] != "hem.test" || csr.PublicKeyAlgorithm != x509.ECDSA {
		t.Errorf("csr %+v: %v", csr, err)
	}
	// The token that came with it opens the configuration as the user.
	var c api.Config
	a = p.expect("GET", "/api/system/config", &got.Token, 200)
	if err := json.Unmarshal(a.body, &c); err != nil {
		t.Fatal(err)
	}
	if c.User != "Ada" || c.Hostname != "hem.test" || c.IP != "10.0.0.7/24" || *c.StorageDisk0Size != 1000 || c.Ctx != 42 || c.InstanceID != got.InstanceID || c.AllowKeySearch {
		t.Errorf("config %+v", c)
	}
	// Both can log in, and it cannot be done again.
	for who, role := range map[*persona]string{ptr(local()): "U", ptr(admin()): "M"} {
		ch := p.challenge()
		if ch.Lbl != "Ada" {
			t.Errorf("lbl %q", ch.Lbl)
		}
		claims := p.proof(ch)
		claims["iss"] = who.public()
		if a := p.answerWith(who.sign(t, goodHeader, claims, ch.SPK)); a.status != 200 {
			t.Errorf("login as %s: %d", role, a.status)
		}
	}
	p.expect("GET", "/api/auth/init", nil, 406)
	p.expect("POST", "/api/auth/init", nil, 406)
}

func ptr[T any](v T) *T { return &v }

// checkGenuine verifies an attestation token the way a relying service does.
func checkGenuine(t *testing.T, genuine string) {
	t.Helper()
	parts := strings.Split(genuine, ".")
	if len(parts) != 4 {
		t.Fatalf("genuine has %d segments: %s", len(parts), genuine)
	}
	var raw [4][]byte
	for i := range parts {
		var err error
		if raw[i], err = api.DecodeBase64(parts[i]); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(raw[3])
	if err != nil {
		t.Fatal(err)
	}
	if err := cert.CheckSignature(x509.ECDSAWithSHA256, []byte(parts[0]+"."+parts[1]), raw[2]); err != nil {
		t.Errorf("genuine does not verify: %v", err)
	}
	made, err := strconv.ParseInt(string(raw[1]), 10, 64)
	if age := time.Now().Unix() - made; err != nil || age < -2 || age > 300 {
		t.Errorf("genuine is of %s: %v", raw[1], err)
	}
	if len(raw[0]) != 20 || string(raw[0]) != string(cert.SubjectKeyId) {
		t.Errorf("SKI %x, certificate has %x", raw[0], cert.SubjectKeyId)
	}
}

// A configuration that is incomplete or invalid is 400, a proof that does not
// hold 401; either way nothing is written.
func TestInitRefusals(t *testing.T) {
	p := newPeer(t, hemtest.New(t, &hemtest.Options{Fresh: true}))
	type edit = func(claims, cfg map[string]any)
	cases := map[string]struct {
		want int
		edit edit
	}{
		"no cfg":                    {400, func(c, _ map[string]any) { delete(c, "cfg") }},
		"user empty":                {400, func(_, g map[string]any) { g["user"] = "" }},
		"user of 65 bytes":          {400, func(_, g map[string]any) { g["user"] = strings.Repeat("x", 65) }},
		"userkey of 31 bytes":       {400, func(_, g map[string]any) { g["userkey"] = api.EncodeBase64(make([]byte, 31)) }},
		"userkey of low order":      {400, func(_, g map[string]any) { g["userkey"] = api.EncodeBase64(make([]byte, 32)) }},
		"userkey no base64":         {400, func(_, g map[string]any) { g["userkey"] = "?" }},
		"hostname empty":            {400, func(_, g map[string]any) { g["hostname"] = "" }},
		"hostname with a blank":     {400, func(_, g map[string]any) { g["hostname"] = "a b" }},
		"hostname with markup":      {400, func(_, g map[string]any) { g["hostname"] = "<a>" }},
		"origin no origin":          {400, func(_, g map[string]any) { g["origin"] = "everything" }},
		"ip no address":             {400, func(_, g map[string]any) { g["ip"] = "10.0.0" }},
		"ip with a bad prefix":      {400, func(_, g map[string]any) { g["ip"] = "10.0.0.1/33" }},
		"disk larger than there is": {400, func(_, g map[string]any) { g["storage_disk0size"] = int64(1) << 40 }},
		"disk negative":             {400, func(_, g map[string]any) { g["storage_disk0size"] = -1 }},
		"storage mode":              {400, func(_, g map[string]any) { g["storage_mode"] = 256 }},
		"email too long":            {400, func(_, g map[string]any) { g["email"] = strings.Repeat("x", 255) }},

		"masterkey is not the issuer": {401, func(_, g map[string]any) { g["masterkey"] = local().public() }},
		"iss is not the signer":       {401, func(c, _ map[string]any) { c["iss"] = local().public() }},
		"aud of another":              {401, func(c, _ map[string]any) { c["aud"] = local().public() }},
		"no aud":                      {401, func(c, _ map[string]any) { delete(c, "aud") }},
		"no jti":                      {401, func(c, _ map[string]any) { delete(c, "jti") }},
		"a nonce made up":             {401, func(c, _ map[string]any) { c["jti"] = api.EncodeBase64(suite.Random(32)) }},
		"no exp":                      {401, func(c, _ map[string]any) { delete(c, "exp") }},
		"exp in the past":             {401, func(c, _ map[string]any) { c["exp"] = 1000 }},
		"iat far ahead":               {401, func(c, _ map[string]any) { c["iat"] = c["iat"].(int64) + 200 }},
		"cfg no object":               {401, func(c, _ map[string]any) { c["cfg"] = "x" }},
		"user a number":               {401, func(_, g map[string]any) { g["user"] = 1 }},
	}
	_, all := initClaims(api.InitChallenge{})
	for name := range all {
		cases["without "+name] = struct {
			want int
			edit edit
		}{400, func(_, g map[string]any) { delete(g, name) }}
		cases["null "+name] = struct {
			want int
			edit edit
		}{400, func(_, g map[string]any) { g[name] = nil }}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p := *p
			p.t = t
			ch := p.initChallenge()
			claims, cfg := initClaims(ch)
			c.edit(claims, cfg)
			if a := p.postInit(admin().sign(t, goodHeader, claims, ch.SPK)); a.status != c.want {
				t.Errorf("%d (%s), want %d", a.status, a.header.Get(api.HeaderError), c.want)
			}
			var status api.Status
			if p.get("/api/system/status", &status); status.Inited == nil {
				t.Fatal("the module was personalised")
			}
		})
	}
}

// Of many who personalise at once one wins, and the module is that one's.
func TestParallelInits(t *testing.T) {
	p := newPeer(t, hemtest.New(t, &hemtest.Options{Fresh: true}))
	var wg sync.WaitGroup
	var mu sync.Mutex
	statuses, winner := make(map[int]int), ""
	challenges := make([]api.InitChallenge, 50) // all asked for before the first is answered
	for i := range challenges {
		challenges[i] = p.initChallenge()
	}
	for i, ch := range challenges {
		claims, cfg := initClaims(ch)
		cfg["user"] = fmt.Sprint("user ", i)
		token := admin().sign(t, goodHeader, claims, ch.SPK)
		wg.Go(func() {
			a := p.postInit(token)
			mu.Lock()
			defer mu.Unlock()
			if statuses[a.status]++; a.status == 200 {
				winner = cfg["user"].(string)
			}
		})
	}
	wg.Wait()
	if statuses[200] != 1 || statuses[406] != 49 {
		t.Errorf("answers %v, want one 200 and 49 times 406", statuses)
	}
	if lbl := p.challenge().Lbl; lbl != winner {
		t.Errorf("the module is %q's, the winner was %q", lbl, winner)
	}
}

func TestCheckin(t *testing.T) {
	b, stranger := newBackend(), newBackend()
	m := hemtest.New(t, &hemtest.Options{Fresh: true, ClockUnset: true, TrustedBackends: [][]byte{b.key.Public()}})
	p := newPeer(t, m)
	now := time.Unix(1767225600, 0)
	start := func() (c api.Check) { p.get("/api/system/checkin", &c); return c }
	post := func(body string) answer {
		return p.do(request{method: "POST", path: "/api/system/checkin", body: body})
	}
	edit := func(name string, value any) string {
		return b.checked(t, start(), now, func(c map[string]any) { c[name] = value })
	}
	used := b.checked(t, start(), now, nil)
	if a := post(used); a.status != 200 || string(a.body) != `{"status":"OK"}` {
		t.Fatalf("check-in: %d %s", a.status, a.body)
	}
	var login api.InitChallenge
	p.get("/api/auth/init", &login)
	for name, c := range map[string]struct {
		body string
		want int
	}{
		"no JSON":                  {`x`, 400},
		"no checked":               {`{}`, 400},
		"checked null":             {`{"checked":null}`, 400},
		"no eJWT":                  {`{"checked":"x"}`, 401},
		"replayed":                 {used, 401},
		"a stranger's":             {stranger.checked(t, start(), now, nil), 401},
		"a stranger's in its name": {stranger.checked(t, start(), now, func(c map[string]any) { c["iss"] = b.public() }), 401},
		"for another module":       {edit("aud", b.public()), 401},
		"nonce made up":            {edit("jti", api.EncodeBase64(suite.Random(32))), 401},
		"nonce of an init":         {edit("jti", login.JTI), 401},
		"no time":                  {edit("iat", nil), 401},
		"time a string":            {edit("iat", "1"), 401},
		"status not understood":    {edit("status", api.EncodeBase64(suite.Random(32))), 200},
		"no status":                {edit("status", nil), 401},
		"status of 31 bytes":       {edit("status", api.EncodeBase64(suite.Random(31))), 401},
		"a time beyond all":        {b.checked(t, start(), time.Unix(1<<32, 0), nil), 401},
	} {
		a := post(c.body)
		if a.status != c.want {
			t.Errorf("%s: %d, want %d", name, a.status, c.want)
		}
		if c.want == 200 && string(a.body) != `{"status":"???"}` {
			t.Errorf("%s: %s, want ???", name, a.body)
		}
	}
	// The stranger's check-in did not burn the module's nonce.
	check := start()
	post(stranger.checked(t, check, now, nil))
	if a := post(b.checked(t, check, now, nil)); a.status != 200 {
		t.Errorf("a stranger burnt a check-in: %d", a.status)
	}
}

// A check-in far behind the clock sets it back and ends every token.
func TestCheckinSetsTheClock(t *testing.T) {
	b := newBackend()
	m := withoutClock(t, b)
	p := newPeer(t, m)
	now := time.Now().Add(24 * time.Hour)
	clock := func() int64 {
		var s api.Status
		p.get("/api/system/status", &s)
		if s.Time == nil {
			return 0
		}
		return *s.Time
	}
	if clock() != 0 {
		t.Error("the clock is set after a reboot")
	}
	near := func(name string, want time.Time) {
		t.Helper()
		if d := clock() - want.Unix(); d < 0 || d > 3 {
			t.Errorf("%s: the clock is %d s off", name, d)
		}
	}
	p.checkIn(b, now)
	near("first", now)
	token := p.token(api.RoleUser, "system:config")
	p.checkIn(b, now.Add(-30*time.Second))
	near("half a minute behind", now)
	p.expect("GET", "/api/system/config", token, 200)
	p.checkIn(b, now.Add(time.Minute))
	near("forward", now.Add(time.Minute))
	p.expect("GET", "/api/system/config", token, 200)
	p.checkIn(b, now.Add(-time.Hour))
	near("an hour behind", now.Add(-time.Hour))
	p.expect("GET", "/api/system/config", token, 401)
}

func TestCheckinWithoutBackends(t *testing.T) {
	p := newPeer(t, hemtest.New(t, nil))
	p.expect("GET", "/api/system/checkin", nil, 406)
	p.expect("POST", "/api/system/checkin", nil, 406)
}

// The claims of a check tell the backend what it may know, and no more.
func TestCheckClaims(t *testing.T) {
	b := newBackend()
	p := newPeer(t, hemtest.New(t, &hemtest.Options{TrustedBackends: [][]byte{b.key.Public()}}))
	var check api.Check
	p.get("/api/system/checkin", &check)
	var v api.Version
	p.get("/api/system/version", &v)
	parts := strings.Split(check.Check, ".")
	if header := decodeSegment(t, parts[0]); string(header) != `{"ecdh":"x25519","typ":"JWT","alg":"HS256"}` {
		t.Errorf("header %s", header)
	}
	payload := decodeSegment(t, parts[1])
	if names := strings.Join(namesOf(t, payload), " "); names != "jti iss qid aud fws bls uis csn" {
		t.Errorf("claims %s", names)
	}
	var c api.CheckClaims
	if err := json.Unmarshal(payload, &c); err != nil {
		t.Fatal(err)
	}
	ch := p.challenge()
	csn, err := api.DecodeBase64(c.CSN)
	if c.Iss != ch.SPK || c.Aud != b.public() || c.FWS != v.FWS || c.BLS != v.BLS || c.UIS != v.UIS || err != nil || len(csn) != 16 {
		t.Errorf("claims %s", payload)
	}
	spk, _ := api.DecodeBase64(c.Iss)
	secret, err := b.key.Shared(spk)
	if err != nil {
		t.Fatal(err)
	}
	if mac := decodeSegment(t, parts[2]); !suite.Equal(mac, suite.HMACSHA256(secret, []byte(parts[0]+"."+parts[1]))) {
		t.Error("the MAC does not verify for the backend")
	}
}

func decodeSegment(t *testing.T, s string) []byte {
	t.Helper()
	raw, err := api.DecodeBase64(s)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
