package server_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math/big"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/server"
	"softhem/internal/suite"
)

// lockedBuffer is a log that several goroutines write. The buffer is not
// embedded: its ReadFrom would go round the lock.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// Secrets that are known beforehand pass through a module, in right and wrong
// uses; afterwards none of them is found in any spelling in what it leaves
// behind: its log, its audit log, its database, its error answers.
func TestSecretsLeaveNoTrace(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "data")
	seed := []byte("canary")
	log := new(lockedBuffer)
	cfg := testConfig(dir)
	cfg.Seed = seed
	cfg.Logger = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := server.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)

	// What the module draws for its identity, drawn again.
	stream := rand.NewChaCha8(suite.SHA256(seed))
	identity := make([]byte, 96)
	if _, err := io.ReadFull(stream, identity); err != nil {
		t.Fatal(err)
	}
	eid, err := suite.NewX25519Key(identity[:32])
	if err != nil {
		t.Fatal(err)
	}
	if api.EncodeBase64(eid.Public()) != s.Module().EID() {
		t.Fatal("the canaries are not the module's secrets: it drew another identity")
	}
	const userPass, masterPass, email = "canary passphrase of the user", "canary passphrase of the master", "canary@mail.example"
	user, err := hem.DeriveKey([]byte(userPass), s.Module().EID())
	if err != nil {
		t.Fatal(err)
	}
	master, err := hem.DeriveKey([]byte(masterPass), s.Module().EID())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(s.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	url := "https://" + s.Addresses().HTTPS
	client, err := hem.New(hem.Config{URL: url, CACert: ca, Key: user})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	answer, err := client.Init(ctx, hem.InitParams{UserKey: user, MasterKey: master, Config: api.InitConfig{
		User: "canary user", Email: email, Hostname: "localhost", Origin: "*",
	}})
	if err != nil {
		t.Fatal(err)
	}
	token, err := client.Login(ctx, "canary:scope")
	if err != nil {
		t.Fatal(err)
	}
	// Wrong uses, which make the module complain.
	var headers []string
	for _, req := range []struct{ method, path, bearer, body string }{
		{"GET", "/api/system/config", string(token.Bearer), ""},
		{"GET", "/api/system/config", string(token.Bearer) + "x", ""},
		{"POST", "/api/auth/token", "", `{"auth":"` + string(token.Bearer) + `"}`},
		{"POST", "/api/auth/token", "", `{"auth":"` + userPass + `"}`},
		{"POST", "/api/auth/token", "", `{"auth":"` + userPass},
		{"POST", "/api/auth/init", "", `{"init":"` + answer.Token + `"}`},
		{"POST", "/api/system/checkin", "", `{"checked":"` + answer.Token + `"}`},
		{"GET", "/api/" + userPass, "", ""},
		{"GET", "/api/system/status", answer.Token + answer.Token, ""},
	} {
		r, err := http.NewRequest(req.method, "http://"+s.Addresses().HTTP+strings.ReplaceAll(req.path, " ", "%20"), strings.NewReader(req.body))
		if err != nil {
			t.Fatal(err)
		}
		if req.bearer != "" {
			r.Header.Set("Authorization", "Bearer "+req.bearer)
		}
		resp, err := plainClient().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode < 400 {
			t.Errorf("%s %s: %d, meant to be refused", req.method, req.path, resp.StatusCode)
		}
		raw, _ := json.Marshal(resp.Header)
		headers = append(headers, string(raw)+string(body))
	}
	disk, err := client.Login(ctx, api.ScopeDisk(1, false))
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := http.NewRequest("GET", "http://"+s.Addresses().HTTP+"/api/storage/unlock", nil)
	if err != nil {
		t.Fatal(err)
	}
	unlock.Header.Set("Authorization", "Bearer "+string(disk.Bearer))
	if resp, err := plainClient().Do(unlock); err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	keySecrets, keyAnswers := useKnownKeys(t, client, url, ca)
	headers = append(headers, keyAnswers...)
	if err := client.Reboot(ctx); err != nil {
		t.Fatal(err)
	}
	second, tlsScalar := changeSecrets(t, client)
	rootKey, err := os.ReadFile(filepath.Join(dir, "root.key"))
	if err != nil {
		t.Fatal(err)
	}

	secrets := map[string][]byte{
		"the user's passphrase":   []byte(userPass),
		"the master's passphrase": []byte(masterPass),
		"a bearer token":          []byte(token.Bearer),
		"the new public key":      second.Public(),
		"an imported TLS key":     tlsScalar,
		"the token's MAC":         []byte(string(token.Bearer)[strings.LastIndex(string(token.Bearer), ".")+1:]),
		"the token of the init":   []byte(answer.Token),
		"the user's public key":   user.Public(), // passphrases can be guessed from it
		"the master's public key": master.Public(),
		"the X25519 identity":     identity[:32],
		"the Ed25519 identity":    identity[32:64],
		"the attestation key":     identity[64:96],
		"the root key":            rootKey,
		"the email address":       []byte(email),
	}
	maps.Copy(secrets, keySecrets)
	places := map[string][]byte{"the answers": []byte(strings.Join(headers, "\n"))}
	collect := func() {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || d.Name() == "root.key" {
				return err
			}
			places[d.Name()], err = os.ReadFile(path)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	collect() // with the write-ahead log, while the module runs
	running := places
	places = make(map[string][]byte)
	stop()
	if secrets["the key of disk 1"], err = server.DiskKey(dir); err != nil {
		t.Fatal(err)
	}
	collect()
	places["the operator's log"] = []byte(log.text())
	if _, ok := running["hem.db"]; !ok || len(places["the operator's log"]) == 0 {
		t.Fatal("there is nothing to search")
	}
	for name, content := range running {
		places["running: "+name] = content
	}
	for place, content := range places {
		for what, secret := range secrets {
			for form, spelled := range map[string]string{
				"raw": string(secret), "hex": hex.EncodeToString(secret), "HEX": strings.ToUpper(hex.EncodeToString(secret)),
				"base64": base64.RawStdEncoding.EncodeToString(secret), "base64url": base64.RawURLEncoding.EncodeToString(secret),
			} {
				if bytes.Contains(content, []byte(spelled)) {
					t.Errorf("%s stands in %s (%s)", what, place, form)
				}
			}
		}
	}
	// The search finds what is there.
	if !bytes.Contains(places["the operator's log"], []byte("login refused")) {
		t.Error("the operator was not told of refused logins")
	}
	if !bytes.Contains(places["hem.db"], []byte("canary label")) {
		t.Error("the keys are not in the database")
	}
}

// useKnownKeys makes keys whose material can be worked out, because the other
// half of the pair they are derived with is known here, and uses them rightly
// and wrongly. It returns all that must not be found, and the answers to the
// wrong uses.
func useKnownKeys(t *testing.T, client *hem.Client, url string, ca []byte) (secrets map[string][]byte, answers []string) {
	t.Helper()
	ctx := t.Context()
	secrets = map[string][]byte{
		"a message":      []byte("canary message to be signed and authenticated"),
		"a plaintext":    []byte("canary plaintext, of forty-eight bytes, encrypted"[:48]),
		"a wrapped key":  []byte("canary key to be wrapped, 32 B.."),
		"a context":      []byte("canary context"),
		"aad":            []byte("canary associated data"),
		"the peer's key": suite.Random(32),
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	spec := func(keys api.KeyType) hem.KeySpec {
		return hem.KeySpec{Label: "canary label", Type: keys, Descr: []byte("canary descr")}
	}
	peer, err := suite.NewX25519Key(secrets["the peer's key"])
	check(err)
	source, err := client.CreateKey(ctx, spec(api.Curve25519))
	check(err)
	public, err := client.GetKey(ctx, source)
	check(err)
	secret, err := peer.Shared(public.Public)
	check(err)
	secrets["the ECDH secret"] = secret
	derived := make(map[api.KeyType]hem.KID)
	for _, keys := range []api.KeyType{api.AES256, api.SHA2x256, api.Ed25519, api.SECP256R1} {
		s := spec(keys)
		s.Mode = api.ModeBoth
		derived[keys], err = client.DeriveKey(ctx, source, hem.PeerPublic(peer.Public()), s)
		check(err)
		a, _ := suite.AlgorithmOf(keys)
		okm := suite.HKDFSHA256(secret, []byte("encedo-"+string(keys)), a.DerivedSize())
		secrets["what "+string(keys)+" is derived from"] = okm
		secrets["the material of "+string(keys)], err = a.MaterialFrom(okm)
		check(err)
		// These are the module's: they make the same public key.
		if k, err := a.Open(secrets["the material of "+string(keys)]); err != nil || a.PublicSize > 0 && !bytes.Equal(k.Public(), mustKey(t, client, derived[keys]).Public) {
			t.Fatalf("the canaries are not the module's keys: %s is another, %v", keys, err)
		}
	}

	msg, plain := secrets["a message"], secrets["a plaintext"]
	withPeer := &hem.CipherOptions{AAD: secrets["aad"], Context: secrets["a context"], Peer: hem.PeerPublic(peer.Public())}
	secrets["the key with a peer"] = suite.HKDFSHA256(secret, append([]byte("encedo-aes"), secrets["a context"]...), 32)
	box, err := client.Encrypt(ctx, source, "AES256-GCM", plain, withPeer)
	check(err)
	_, err = client.Decrypt(ctx, source, "AES256-GCM", box, withPeer)
	check(err)
	_, err = client.Encrypt(ctx, derived[api.AES256], "AES256-CBC", plain, nil)
	check(err)
	wrapped, err := client.Wrap(ctx, derived[api.AES256], secrets["a wrapped key"], nil)
	check(err)
	_, err = client.Unwrap(ctx, derived[api.AES256], wrapped, nil)
	check(err)
	secrets["a MAC"], err = client.HMAC(ctx, derived[api.SHA2x256], msg, nil)
	check(err)
	for _, s := range []struct {
		keys api.KeyType
		alg  string
		ctx  []byte
	}{{api.Ed25519, "Ed25519ctx", secrets["a context"]}, {api.SECP256R1, "SHA256WithECDSA", nil}} {
		sig, err := client.Sign(ctx, derived[s.keys], msg, s.alg, s.ctx)
		check(err)
		check(client.Verify(ctx, derived[s.keys], msg, sig, s.alg, s.ctx))
	}
	if _, err = client.ECDH(ctx, source, hem.PeerPublic(peer.Public()), ""); err != nil {
		t.Fatal(err)
	}
	kem, err := client.CreateKey(ctx, spec(api.MLKEM768))
	check(err)
	secrets["an encapsulated secret"], _, err = client.Encapsulate(ctx, kem)
	check(err)
	check(client.UpdateKey(ctx, kem, "canary label 2", nil))

	// Wrong uses. What is secret stands where the module might repeat it.
	b64 := func(name string) string { return api.EncodeBase64(secrets[name]) }
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	raw := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}}}
	defer raw.CloseIdleConnections()
	for _, req := range []struct{ path, scope, body string }{
		{"cipher/decrypt", "use", `{"kid":"KID","msg":"` + b64("a plaintext") + `","alg":"AES256-CBC","iv":"` + api.EncodeBase64(plain[:16]) + `"}`},
		{"cipher/encrypt", "use", `{"kid":"KID","msg":"` + b64("a plaintext") + `","alg":"` + b64("a plaintext") + `"}`},
		{"cipher/encrypt", "use", `{"kid":"KID","msg":"` + b64("a plaintext")},
		{"cipher/wrap", "use", `{"kid":"KID","msg":"` + b64("a wrapped key") + `","ext_kid":"` + b64("a wrapped key") + `"}`},
		{"cipher/unwrap", "use", `{"kid":"KID","msg":"` + b64("a wrapped key") + `"}`},
		{"hmac/verify", "use", `{"kid":"KID","msg":"` + b64("a message") + `","mac":"` + b64("a MAC") + `"}`},
		{"exdsa/sign", "use", `{"kid":"KID","msg":"` + b64("a message") + `","alg":"Ed25519","ctx":"` + b64("a context") + `"}`},
		{"ecdh", "use", `{"kid":"KID","pubkey":"` + b64("the peer's key") + `x"}`},
		{"pqc/mlkem/decaps", "use", `{"kid":"KID","ct":"` + b64("an encapsulated secret") + `"}`},
		{"ecdh", "other", `{"kid":"KID","pubkey":"` + b64("the peer's key") + `"}`},
		{"../keymgmt/derive", "keymgmt:derive", `{"kid":"KID","label":"x","type":"` + b64("the ECDH secret") + `","pubkey":"` + b64("the peer's key") + `"}`},
		{"../keymgmt/import", "keymgmt:imp", `{"label":"` + b64("the ECDH secret") + `","type":"AES256","pubkey":"` + b64("the material of AES256") + `"}`},
		{"../keymgmt/create", "keymgmt:gen", `{"label":"x","type":"` + string(secrets["a message"]) + `"}`},
	} {
		scope := req.scope
		if scope == "use" {
			scope = api.ScopeKeyUse(derived[api.AES256].String())
		}
		token, err := client.Login(ctx, scope)
		check(err)
		path := "/api/crypto/" + req.path
		if rest, ok := strings.CutPrefix(req.path, "../"); ok {
			path = "/api/" + rest
		}
		r, err := http.NewRequest("POST", url+path, strings.NewReader(strings.ReplaceAll(req.body, "KID", derived[api.AES256].String())))
		check(err)
		r.Header.Set("Authorization", "Bearer "+string(token.Bearer))
		resp, err := raw.Do(r)
		check(err)
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		check(err)
		if resp.StatusCode < 400 || resp.StatusCode > 406 {
			t.Errorf("%s %s: %d, meant to be refused", path, req.body, resp.StatusCode)
		}
		header, err := json.Marshal(resp.Header)
		check(err)
		answers = append(answers, string(header)+string(body))
	}
	return secrets, answers
}

func mustKey(t *testing.T, client *hem.Client, kid hem.KID) *hem.Key {
	t.Helper()
	k, err := client.GetKey(t.Context(), kid)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// changeSecrets gives a module another user key and another TLS key, wrongly and
// then rightly.
func changeSecrets(t *testing.T, client *hem.Client) (user *hem.PersonaKey, tlsScalar []byte) {
	t.Helper()
	ctx := context.Background()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if tlsScalar, err = key.Bytes(); err != nil {
		t.Fatal(err)
	}
	answer, err := client.UpdateConfig(ctx, api.ConfigUpdate{GenCSR: true})
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(crand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	bundle := api.TLSBundle{Crt: api.EncodeBase64(der)}
	if bundle.Emp, bundle.Key, err = hem.SealTLSKey(answer.Genuine, key); err != nil {
		t.Fatal(err)
	}
	if again, _ := key.Bytes(); !bytes.Equal(again, tlsScalar) || bytes.Equal(again, make([]byte, 32)) {
		t.Fatal("sealing the key has changed it")
	}
	other := bundle
	pem, _ := pem.Decode([]byte(answer.CSR))
	other.Crt = api.EncodeBase64(pem.Bytes) // no certificate at all
	if _, err := client.UpdateConfig(ctx, api.ConfigUpdate{TLS: &other}); !errors.Is(err, api.ErrBadRequest) {
		t.Errorf("a request for a certificate: %v", err)
	}
	if user, err = hem.KeyFromSeed(suite.Random(32)); err != nil {
		t.Fatal(err)
	}
	wrong := api.ConfigUpdate{UserKey: api.EncodeBase64(user.Public()), UserKeyHMAC: api.EncodeBase64(make([]byte, 32)), UserKeyNonce: api.EncodeBase64(make([]byte, 32))}
	if _, err := client.UpdateConfig(ctx, wrong); !errors.Is(err, api.ErrUnauthorized) {
		t.Errorf("a user key that is not proven: %v", err)
	}
	if _, err := client.UpdateConfig(ctx, api.ConfigUpdate{TLS: &bundle}); err != nil {
		t.Fatal(err)
	}
	if err := client.ChangeUserKey(ctx, nil, user); err != nil { // the connection is from before the other pair
		t.Fatal(err)
	}
	return user, tlsScalar
}
