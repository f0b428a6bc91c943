package httpapi_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
	"softhem/internal/audit"
)

// An authority issues certificates as a broker would.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newTLSKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	a := authority{key: newTLSKey(t)}
	a.cert = a.sign(t, &a.key.PublicKey, "authority", true)
	return a
}

func (a authority) sign(t testing.TB, public any, name string, ca bool) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true, IsCA: ca,
	}
	parent := a.cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// someCertificate is for a key nobody has.
func someCertificate(t testing.TB) []byte { return newAuthority(t).cert.Raw }

// shown is the certificate the module shows in a new handshake.
func (k *keeper) shown() *x509.Certificate {
	k.t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(k.module.URL, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		k.t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

// trust has the client believe in an authority too.
func (k *keeper) trust(a authority) {
	k.module.CACert = append(k.module.CACert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})...)
	k.client = k.module.HTTPClient()
}

func (k *keeper) request() *x509.CertificateRequest {
	k.t.Helper()
	a, u := k.update(api.RoleUser, `{"gen_csr":true}`)
	block, _ := pem.Decode([]byte(u.CSR))
	if a.status != 200 || u.Updated || block == nil {
		k.t.Fatalf("gen_csr: %d %+v", a.status, u)
	}
	checkGenuine(k.t, u.Genuine)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || csr.CheckSignature() != nil {
		k.t.Fatal(err)
	}
	return csr
}

func bundle(crt []byte, more ...string) string {
	tls := fields{"crt": api.EncodeBase64(crt)}
	if len(more) == 2 {
		tls["emp"], tls["key"] = more[0], more[1]
	}
	raw, _ := json.Marshal(fields{"tls": tls})
	return string(raw)
}

// attestation is the module's attestation key.
func attestation(t testing.TB, genuine string) *ecdh.PublicKey {
	t.Helper()
	der, err := api.DecodeBase64(strings.Split(genuine, ".")[3])
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	public, err := cert.PublicKey.(*ecdsa.PublicKey).ECDH()
	if err != nil {
		t.Fatal(err)
	}
	return public
}

// sealTo encrypts a plaintext to the attestation key, as the interface has it.
func sealTo(t testing.TB, to *ecdh.PublicKey, plain []byte) (emp, key string) {
	t.Helper()
	own, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := own.ECDH(to)
	if err != nil {
		t.Fatal(err)
	}
	aesKey := sha256.Sum256(secret)
	block, err := aes.NewCipher(aesKey[:])
	if err != nil {
		t.Fatal(err)
	}
	iv := make([]byte, 16)
	rand.Read(iv)
	out := make([]byte, len(plain))
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(out, plain)
	return api.EncodeBase64(own.PublicKey().Bytes()), api.EncodeBase64(iv) + "." + api.EncodeBase64(out)
}

func padded(scalar []byte) []byte {
	return append(bytes.Clone(scalar), bytes.Repeat([]byte{16}, 16)...)
}

// A certificate for the module's own key, from the request to the handshake; it
// stays over a reboot and a restart.
func TestCertificateForTheModulesKey(t *testing.T) {
	dir := t.TempDir() + "/data"
	k := newKeeper(t, &hemtest.Options{DataDir: dir})
	ca, first := newAuthority(t), k.shown()
	csr := k.request()
	if csr.Subject.CommonName != "localhost" || !bytes.Equal(csr.RawSubjectPublicKeyInfo, first.RawSubjectPublicKeyInfo) {
		t.Errorf("the request is for %s and another key than the module's", csr.Subject)
	}
	if a, _ := k.update(api.RoleUser, bundle(someCertificate(t))); a.status != 406 || len(a.body) != 0 {
		t.Errorf("a certificate for another key: %d", a.status)
	}
	if !k.shown().Equal(first) {
		t.Error("a refused certificate is shown")
	}
	leaf := ca.sign(t, csr.PublicKey, "module", false)
	before := k.settings()
	a, u := k.update(api.RoleMaster, bundle(append(bytes.Clone(leaf.Raw), ca.cert.Raw...)))
	if a.status != 200 || u != (api.ConfigUpdated{Updated: true, RebootRequired: true}) {
		t.Fatalf("%d %+v (%s)", a.status, u, a.header.Get(api.HeaderError))
	}
	if !k.shown().Equal(leaf) {
		t.Error("the new certificate is not shown at once")
	}
	k.trust(ca)
	if uts := k.settings().Uts; uts <= before.Uts {
		t.Error("uts did not grow")
	}
	k.reboot()
	if !k.shown().Equal(leaf) {
		t.Error("the certificate did not survive a reboot")
	}
	// Together with another setting, one of them wrong: neither.
	other := ca.sign(t, csr.PublicKey, "other", false)
	if a, _ := k.update(api.RoleUser, `{"user":"",`+bundle(other.Raw)[1:]); a.status != 400 || !k.shown().Equal(leaf) {
		t.Errorf("a pair beside an invalid field: %d", a.status)
	}
	if a, _ := k.update(api.RoleUser, `{"user":"Grace",`+bundle(someCertificate(t))[1:]); a.status != 406 || k.configuration().User == "Grace" {
		t.Errorf("a setting beside a pair that does not fit: %d", a.status)
	}
	if got := k.recordsOf(audit.ConfigUpdated); len(got) != 1 || got[0] != "CONFIG_UPDATED FAILED U" {
		t.Errorf("records %q", got)
	}
}

// A key that comes along, in both forms, and every way to get it wrong.
func TestKeyAndCertificate(t *testing.T) {
	k := newKeeper(t, nil)
	ca := newAuthority(t)
	k.trust(ca)
	_, u := k.update(api.RoleUser, `{"gen_csr":true}`)
	genuine, to := u.Genuine, attestation(t, u.Genuine)
	for name, plain := range map[string]func(scalar []byte) []byte{
		"hex": func(s []byte) []byte { return []byte(hex.EncodeToString(s)) }, "raw": padded,
	} {
		key := newTLSKey(t)
		scalar, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		leaf := ca.sign(t, &key.PublicKey, name, false)
		emp, sealed := sealTo(t, to, plain(scalar))
		if want := map[string]int{"hex": 113, "raw": 89}[name]; len(sealed) != want {
			t.Fatalf("%s: key of %d characters", name, len(sealed))
		}
		a, u := k.update(api.RoleUser, bundle(leaf.Raw, emp, sealed))
		if a.status != 200 || !u.Updated || !u.RebootRequired || !k.shown().Equal(leaf) {
			t.Errorf("%s: %d %+v (%s)", name, a.status, u, a.header.Get(api.HeaderError))
		}
		// The request is for the new key from now on, so a certificate alone fits it.
		if again := ca.sign(t, k.request().PublicKey, "again", false); !bytes.Equal(again.RawSubjectPublicKeyInfo, leaf.RawSubjectPublicKeyInfo) {
			t.Errorf("%s: the request is for another key", name)
		} else if a, _ := k.update(api.RoleUser, bundle(again.Raw)); a.status != 200 || !k.shown().Equal(again) {
			t.Errorf("%s, certificate alone: %d", name, a.status)
		}
	}
	// As the SDK seals it.
	key := newTLSKey(t)
	leaf := ca.sign(t, &key.PublicKey, "sdk", false)
	emp, sealed, err := hem.SealTLSKey(genuine, key)
	if err != nil {
		t.Fatal(err)
	}
	if a, _ := k.update(api.RoleUser, bundle(leaf.Raw, emp, sealed)); a.status != 200 || !k.shown().Equal(leaf) {
		t.Errorf("sealed by the SDK: %d", a.status)
	}

	scalar, _ := key.Bytes()
	digits := []byte(hex.EncodeToString(scalar))
	other, _ := newTLSKey(t).ECDH()
	wrong := func(edit func(b []byte)) []byte {
		b := bytes.Clone(digits)
		edit(b)
		return b
	}
	crt := leaf.Raw
	for name, tc := range map[string]struct {
		status   int
		emp, key string
	}{
		"for another module":   {406, "", ""},
		"no hex":               {406, "", ""},
		"padding":              {406, "", ""},
		"short padding":        {406, "", ""},
		"zero":                 {406, "", ""},
		"another scalar":       {406, "", ""},
		"no point":             {406, api.EncodeBase64(append([]byte{4}, make([]byte, 64)...)), sealed},
		"short point":          {400, api.EncodeBase64([]byte{4, 1, 2}), sealed},
		"emp alone":            {400, emp, ""},
		"key alone":            {400, "", sealed},
		"no dot":               {400, emp, strings.ReplaceAll(sealed, ".", "")},
		"short IV":             {400, emp, "AAAA" + sealed[strings.Index(sealed, "."):]},
		"another length":       {400, emp, sealed[:25] + api.EncodeBase64(make([]byte, 32))},
		"no base64":            {400, emp, "!" + sealed[1:]},
		"ciphertext is random": {406, emp, sealed[:25] + api.EncodeBase64(bytes.Repeat([]byte{7}, 64))},
	} {
		switch name {
		case "for another module":
			tc.emp, tc.key = sealTo(t, other.PublicKey(), digits)
		case "no hex":
			tc.emp, tc.key = sealTo(t, to, wrong(func(b []byte) { b[5] = 'x' }))
		case "padding":
			tc.emp, tc.key = sealTo(t, to, append(bytes.Clone(scalar), make([]byte, 16)...))
		case "short padding":
			tc.emp, tc.key = sealTo(t, to, append(bytes.Clone(scalar), append(make([]byte, 15), 1)...))
		case "zero":
			tc.emp, tc.key = sealTo(t, to, []byte(strings.Repeat("0", 64)))
		case "another scalar":
			tc.emp, tc.key = sealTo(t, to, wrong(func(b []byte) { b[63] ^= 1 }))
		}
		a, _ := k.update(api.RoleUser, bundle(crt, tc.emp, tc.key))
		if a.status != tc.status || !k.shown().Equal(leaf) {
			t.Errorf("%s: %d, want %d", name, a.status, tc.status)
		}
		if reason := a.header.Get(api.HeaderError); tc.status == 406 && name != "another scalar" && reason != "the key of tls does not open" {
			t.Errorf("%s: the refusal tells %q", name, reason)
		}
	}
}

// A fresh module takes a pair from anybody, and nothing else.
func TestFreshModuleTakesAPair(t *testing.T) {
	p := newPeer(t, hemtest.New(t, &hemtest.Options{Fresh: true, Seed: "fresh pair"}))
	k := &keeper{p, &tokens{held: map[string]*string{}}}
	post := func(body string) answer { return p.plain().do(request{method: "POST", path: pathConfig, body: body}) }
	for body, want := range map[string]int{
		"": 400, "{": 400, "{}": 406, `{"tls":null}`: 406, `{"user":"Grace"}`: 406, `{"wipeout":true}`: 406, `{"gen_csr":true}`: 406,
		`{"tls":{}}`: 400, `{"tls":7}`: 400, bundle(someCertificate(t)): 406,
	} {
		if a := post(body); a.status != want || len(a.body) != 0 {
			t.Errorf("%.40s: %d %s, want %d", body, a.status, a.body, want)
		}
	}
	ca, key := newAuthority(t), newTLSKey(t)
	leaf := ca.sign(t, &key.PublicKey, "first", false)
	var ch api.InitChallenge
	p.get("/api/auth/init", &ch)
	scalar, _ := key.Bytes()
	emp, sealed := sealTo(t, attestation(t, ch.Genuine), padded(scalar))
	if a := post(`{"user":"ignored",` + bundle(leaf.Raw, emp, sealed)[1:]); a.status != 200 || len(a.body) != 0 {
		t.Fatalf("%d %s (%s)", a.status, a.body, a.header.Get(api.HeaderError))
	}
	if !k.shown().Equal(leaf) {
		t.Error("the pair is not in use")
	}
	k.trust(ca)
	p.client = k.client
	if _, err := k.module.Personalise(); err != nil {
		t.Fatal(err)
	}
	if k.configuration().User == "ignored" {
		t.Error("a fresh module took a setting")
	}
	if a := post(bundle(leaf.Raw)); a.status != 401 {
		t.Errorf("personalised, without a token: %d", a.status)
	}
}

// What was installed counts as two keys, that can be listed, found and read, and
// neither used nor changed.
func TestInstalledPairIsListed(t *testing.T) {
	k := newKeeper(t, nil)
	for range 17 { // more than a page
		k.create(api.AES128)
	}
	if page := k.page(""); page.Total != 17 {
		t.Fatalf("a pair that the module made is listed: %+v", page)
	}
	ca := newAuthority(t)
	k.trust(ca)
	leaf := ca.sign(t, k.request().PublicKey, "module", false)
	if a, _ := k.update(api.RoleUser, bundle(leaf.Raw)); a.status != 200 {
		t.Fatal(a.status)
	}
	var all []api.KeyInfo
	for offset := int64(0); ; {
		page := k.page("/" + decimal(offset) + "/4")
		all = append(all, page.List...)
		if offset += int64(page.Listed); page.Total != 19 {
			t.Fatalf("total %d", page.Total)
		} else if offset >= page.Total {
			break
		}
	}
	seen := map[string]bool{}
	for _, info := range all {
		seen[info.KID] = true
	}
	if len(all) != 19 || len(seen) != 19 {
		t.Fatalf("%d keys listed, %d of them different", len(all), len(seen))
	}
	if one := k.page("/0/1"); one.Listed != 1 || one.List[0] != all[0] || one.Total != 19 {
		t.Errorf("the first alone: %+v", one)
	}
	if last := k.page("/1/3"); last.Listed != 3 || last.List[0] != all[1] || last.List[2] != all[3] {
		t.Errorf("from the second on: %+v", last)
	}
	private, cert := all[0], all[1]
	descr := api.EncodeBase64([]byte("DNS:localhost"))
	if private.Label != "TLS PrivateKey" || private.Type != "ATT,PKEY,GENERIC_DER" || private.Descr != descr ||
		cert.Label != "TLS Certificate" || cert.Type != "CERT,GENERIC_DER" || cert.Descr != descr {
		t.Errorf("listed as %+v and %+v", private, cert)
	}
	if sum := sha1.Sum(leaf.Raw); cert.KID != hex.EncodeToString(sum[:16]) {
		t.Error("the certificate's kid is not of its DER")
	}
	for needle, want := range map[string]int{
		"^" + descr + "$": 2, "^" + api.EncodeBase64([]byte("DNS:lo")): 2, api.EncodeBase64([]byte("calhost")) + "$": 2, api.EncodeBase64([]byte("NS:")): 2,
		"^" + api.EncodeBase64([]byte("DNS:other")): 0,
	} {
		if found := k.list(k.post("/api/keymgmt/search", api.ScopeKeySearch, fields{"descr": needle})); int(found.Total) != want || found.Listed != want {
			t.Errorf("search %s: %+v", needle, found)
		}
	}
	got := k.key(cert.KID)
	if got.DER != api.EncodeBase64(leaf.Raw) || got.PubKey != "" || got.Type != "CERT,GENERIC_DER" {
		t.Errorf("certificate %+v", got)
	}
	point, err := leaf.PublicKey.(*ecdsa.PublicKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	public := append([]byte{2 | point[64]&1}, point[1:33]...)
	if got = k.key(private.KID); got.PubKey != api.EncodeBase64(public) || got.DER != "" || got.Type != "GENERIC_DER" {
		t.Errorf("private key %+v", got)
	}
	for _, kid := range []string{private.KID, cert.KID} {
		k.want("delete", k.delete(kid), 406)
		k.want("update", k.post("/api/keymgmt/update", api.ScopeKeyUpdate, fields{"kid": kid, "label": "x"}), 406)
		k.want("use", k.use("exdsa/sign", kid, fields{"msg": []byte("x"), "alg": "SHA256WithECDSA"}), 406)
	}
	// The same public key imported is another key.
	k.imports("SECP256R1", public)
	if page := k.page(""); page.Total != 20 {
		t.Errorf("after the import %d keys", page.Total)
	}
	// Another certificate is another entry.
	leaf = ca.sign(t, leaf.PublicKey, "module", false)
	if a, _ := k.update(api.RoleUser, bundle(leaf.Raw)); a.status != 200 {
		t.Fatal(a.status)
	}
	if page := k.page(""); page.List[0].KID != private.KID || page.List[0].Updated <= private.Updated || page.List[1].KID == cert.KID || page.Total != 20 {
		t.Errorf("after another certificate: %+v", page.List[:2])
	}
}

// A check-in brings a certificate; it is installed when it fits, and only with a
// status that was understood.
func TestCheckinBringsACertificate(t *testing.T) {
	b, ca := newBackend(), newAuthority(t)
	k := newKeeper(t, &hemtest.Options{TrustedBackends: [][]byte{b.key.Public()}})
	checkIn := func(edit func(map[string]any)) (r api.CheckinResult) {
		t.Helper()
		var check api.Check
		k.get("/api/system/checkin", &check)
		a := k.do(request{method: "POST", path: "/api/system/checkin", body: b.checked(t, check, time.Now(), edit)})
		if err := json.Unmarshal(a.body, &r); err != nil || a.status != 200 {
			t.Fatalf("%d %v", a.status, err)
		}
		return r
	}
	first, uts := k.shown(), k.configuration().Uts
	leaf := ca.sign(t, first.PublicKey, "new", false)
	good := api.EncodeBase64(append(bytes.Clone(leaf.Raw), ca.cert.Raw...))
	for name, tc := range map[string]struct {
		edit func(map[string]any)
		want api.CheckinResult
	}{
		"another key":    {func(c map[string]any) { c["newcrt"] = api.EncodeBase64(someCertificate(t)) }, api.CheckinResult{Status: "OK", NewCrt: "ERROR"}},
		"no certificate": {func(c map[string]any) { c["newcrt"] = "AAAA" }, api.CheckinResult{Status: "OK", NewCrt: "ERROR"}},
		"no base64":      {func(c map[string]any) { c["newcrt"] = "!" }, api.CheckinResult{Status: "OK", NewCrt: "ERROR"}},
		"empty":          {func(c map[string]any) { c["newcrt"] = "" }, api.CheckinResult{Status: "OK"}},
		"null":           {func(c map[string]any) { c["newcrt"] = nil }, api.CheckinResult{Status: "OK"}},
		"status not understood": {func(c map[string]any) {
			c["newcrt"], c["status"] = good, api.EncodeBase64(make([]byte, 32))
		}, api.CheckinResult{Status: "???"}},
	} {
		if got := checkIn(tc.edit); got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
		if !k.shown().Equal(first) || k.configuration().Uts != uts {
			t.Fatalf("%s: something changed", name)
		}
	}
	if got := checkIn(func(c map[string]any) { c["newcrt"] = good }); got != (api.CheckinResult{Status: "OK", NewCrt: "OK"}) {
		t.Fatalf("%+v", got)
	}
	if !k.shown().Equal(leaf) {
		t.Error("the certificate is not in use")
	}
	k.trust(ca)
	if k.configuration().Uts <= uts {
		t.Error("uts did not grow")
	}
	got := k.recordsOf(audit.ConfigUpdated, audit.TLSError)
	if len(got) != 4 || got[0] != "TLS_ERROR FAILED" || got[3] != "CONFIG_UPDATED OK" {
		t.Errorf("records %q", got)
	}
}
