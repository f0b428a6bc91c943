package session

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"pgregory.net/rapid"

	"softhem/api"
	"softhem/internal/suite"
)

func key(t testing.TB, b64 string) *suite.X25519Key {
	t.Helper()
	raw, err := api.DecodeBase64(b64)
	if err != nil {
		t.Fatal(err)
	}
	k, err := suite.NewX25519Key(raw)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func readVectors(t testing.TB, name string, into any) {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatal(err)
	}
}

func TestOpenEJWTAgreesWithVectors(t *testing.T) {
	var v struct {
		SPKPrivate string `json:"spk_private"`
		Cases      []struct {
			Name   string
			Claims api.LoginClaims
			Public string
			Auth   string
		}
	}
	readVectors(t, "login.json", &v)
	if len(v.Cases) == 0 {
		t.Fatal("no cases")
	}
	spk := key(t, v.SPKPrivate)
	for _, c := range v.Cases {
		t.Run(c.Name, func(t *testing.T) {
			var got api.LoginClaims
			issuer, err := OpenEJWT(spk, c.Auth, &got)
			if err != nil {
				t.Fatal(err)
			}
			if got != c.Claims {
				t.Errorf("claims %+v, want %+v", got, c.Claims)
			}
			if b64 := api.EncodeBase64(issuer[:]); b64 != c.Public {
				t.Errorf("issuer %s, want %s", b64, c.Public)
			}
		})
	}
}

func TestOpenEJWTAgreesWithInitVector(t *testing.T) {
	var v struct {
		SPKPrivate string `json:"spk_private"`
		Claims     json.RawMessage
		Init       string
	}
	readVectors(t, "init.json", &v)
	var got, want any
	if _, err := OpenEJWT(key(t, v.SPKPrivate), v.Init, &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(v.Claims, &want); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("claims %v\nwant   %v", got, want)
	}
}

// The check token of the vectors is reproduced to the byte: header order,
// claim order, encoding and MAC.
func TestSignEJWTReproducesCheckVector(t *testing.T) {
	var v struct {
		SPKPrivate string `json:"spk_private"`
		Backend    string
		Check      string
	}
	readVectors(t, "checkin.json", &v)
	backend, err := api.DecodeBase64(v.Backend)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := key(t, v.SPKPrivate).Shared(backend)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(v.Check, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims api.CheckClaims
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	got, err := SignEJWT(secret, claims)
	if err != nil || got != v.Check {
		t.Errorf("SignEJWT = %s, %v\nwant       %s", got, err, v.Check)
	}
}

type generations map[api.Role]uint64

func (g generations) Generation(sub api.Role) (uint64, bool) {
	gen, ok := g[sub]
	return gen, ok
}

// The payload of the vendor's public sample is written as there, claim by
// claim in that order. Its MAC key is the device's own.
func TestBearerPayloadIsThePublicSample(t *testing.T) {
	var v struct {
		Sample struct {
			Challenge struct {
				JTI   string
				Clock int64
			}
			Token string
		} `json:"public_sample"`
	}
	readVectors(t, "login.json", &v)
	parts := strings.Split(v.Sample.Token, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims api.TokenClaims
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	got, err := NewBoot().IssueToken(claims, generations{api.RoleUser: 1})
	if err != nil {
		t.Fatal(err)
	}
	if mine := strings.Split(got, "."); mine[0] != parts[0] || mine[1] != parts[1] {
		t.Errorf("header and payload %s.%s\nwant %s.%s", mine[0], mine[1], parts[0], parts[1])
	}
	nonce, ok := Decode32(v.Sample.Challenge.JTI)
	if clock := int64(binary.LittleEndian.Uint32(nonce[:4])); !ok || clock != v.Sample.Challenge.Clock {
		t.Errorf("clock in the sample nonce %d, want %d", clock, v.Sample.Challenge.Clock)
	}
}

func TestBearerTokens(t *testing.T) {
	boot, gens := NewBoot(), generations{api.RoleUser: 1, api.RoleMaster: 1}
	claims := api.TokenClaims{Scope: "logger:get", Sub: api.RoleUser, Iat: 1000, Exp: 2000, JTI: "x"}
	token, err := boot.IssueToken(claims, gens)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := boot.OpenToken(token, gens, 1999); err != nil || got != claims {
		t.Fatalf("OpenToken = %+v, %v", got, err)
	}
	parts := strings.Split(token, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	none := b64([]byte(`{"typ":"JWT","alg":"none"}`))
	foreign, err := NewBoot().IssueToken(claims, gens)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		token string
		gens  generations
		now   int64
	}{
		"expired":                 {token, gens, 2000},
		"another generation":      {token, generations{api.RoleUser: 2}, 1999},
		"unknown sub":             {token, generations{}, 1999},
		"another boot":            {foreign, gens, 1999},
		"empty":                   {"", gens, 1999},
		"alg none without MAC":    {none + "." + parts[1] + ".", gens, 1999},
		"alg none with the MAC":   {none + "." + parts[1] + "." + parts[2], gens, 1999},
		"two segments":            {parts[0] + "." + parts[1], gens, 1999},
		"four segments":           {token + ".", gens, 1999},
		"line break":              {parts[0] + "." + parts[1] + ".\n" + parts[2], gens, 1999},
		"padding":                 {token + "=", gens, 1999},
		"another spelling of MAC": {token[:len(token)-1] + next(token[len(token)-1]), gens, 1999},
		"payload of another":      {parts[0] + "." + b64([]byte(`{"scope":"","sub":"U","iat":1000,"exp":2000,"jti":"x"}`)) + "." + parts[2], gens, 1999},
	} {
		if got, err := boot.OpenToken(c.token, c.gens, c.now); err == nil {
			t.Errorf("%s: taken, %+v", name, got)
		}
	}
	if _, err := boot.Renewed().OpenToken(token, gens, 1999); err == nil {
		t.Error("a token outlived the renewal of the boot's secrets")
	}
}

// next is the character after c in the base64url alphabet: it changes only the
// spare bits when c ends a 32-byte value.
func next(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[(strings.IndexByte(alphabet, c)+1)%64])
}

// go-jose reads what is signed here and refuses what is refused here, and the
// other way round.
func TestJWSAgreesWithGoJose(t *testing.T) {
	t.Parallel()
	const tokens = 10_000
	boot := NewBoot()
	peer := NewBoot().key
	secret, err := boot.key.Shared(peer.Public())
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: secret},
		(&jose.SignerOptions{}).WithHeader("ecdh", "x25519").WithType("JWT"))
	if err != nil {
		t.Fatal(err)
	}
	verify := func(token string) ([]byte, bool) {
		parsed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.HS256})
		if err != nil {
			return nil, false
		}
		payload, err := parsed.Verify(secret)
		return payload, err == nil
	}
	random := func(n int64) int64 {
		i, err := rand.Int(rand.Reader, big.NewInt(n))
		if err != nil {
			t.Fatal(err)
		}
		return i.Int64()
	}
	for range tokens {
		claims := map[string]any{
			"iss": api.EncodeBase64(peer.Public()), "exp": random(1 << 40),
			"scope": string(suite.Random(int(random(40)))), "n": random(2) == 0,
		}
		claims["scope"] = strings.ToValidUTF8(claims["scope"].(string), "�")

		ours, err := SignEJWT(secret, claims)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := verify(ours); !ok {
			t.Fatalf("go-jose refuses %s", ours)
		}
		body, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := signer.Sign(body)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := signed.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if _, err := OpenEJWT(boot.key, theirs, &got); err != nil {
			t.Fatalf("we refuse %s: %v", theirs, err)
		}
		if got["scope"] != claims["scope"] {
			t.Fatalf("scope %q, want %q", got["scope"], claims["scope"])
		}
		// One changed character: neither may take it. (Spare bits and padding,
		// which go-jose lets pass, are avoided by not touching a segment's end.)
		i := random(int64(len(ours) - 2))
		broken := []byte(ours)
		if broken[i] == '.' || broken[i+1] == '.' {
			continue
		}
		broken[i] = next(broken[i])[0]
		if _, ok := verify(string(broken)); ok {
			t.Fatalf("go-jose takes %s", broken)
		}
		var into map[string]any
		if _, err := OpenEJWT(boot.key, string(broken), &into); err == nil {
			t.Fatalf("we take %s", broken)
		}
	}
}

func TestEJWTHeaders(t *testing.T) {
	boot, peer := NewBoot(), NewBoot().key
	secret, err := boot.key.Shared(peer.Public())
	if err != nil {
		t.Fatal(err)
	}
	claims := map[string]any{"iss": api.EncodeBase64(peer.Public())}
	for header, ok := range map[string]bool{
		`{"ecdh":"x25519","alg":"HS256","typ":"JWT"}`:              true,
		`{"typ":"JWT","alg":"HS256","ecdh":"x25519"}`:              true,
		`{"alg":"HS256","ecdh":"x25519"}`:                          true,
		`{"alg":"HS256","ecdh":"x25519","kid":"1"}`:                true,
		`{"alg":"none","ecdh":"x25519"}`:                           false,
		`{"alg":"hs256","ecdh":"x25519"}`:                          false,
		`{"alg":"HS512","ecdh":"x25519"}`:                          false,
		`{"alg":"HS256"}`:                                          false,
		`{"alg":"HS256","ecdh":"X25519"}`:                          false,
		`{"alg":"HS256","ECDH":"x25519"}`:                          false,
		`{"Alg":"HS256","ecdh":"x25519"}`:                          false,
		`{"alg":"none","alg":"HS256","ecdh":"x25519"}`:             false,
		`{"alg":"HS256","ecdh":"x25519","crit":["x"],"x":1}`:       false,
		`{"alg":"HS256","ecdh":"x25519"} `:                         true,
		`{"alg":"HS256","ecdh":"x25519"}{}`:                        false,
		`["alg","HS256"]`:                                          false,
		`{"alg":["HS256"],"ecdh":"x25519"}`:                        false,
		"{\"alg\":\"HS256\",\"ecdh\":\"x25519\",\"typ\":\"\xff\"}": false,
	} {
		token, err := sign(base64.RawURLEncoding.EncodeToString([]byte(header)), claims, suite.NewMACKey(secret))
		if err != nil {
			t.Fatal(err)
		}
		var into map[string]any
		if _, err := OpenEJWT(boot.key, token, &into); (err == nil) != ok {
			t.Errorf("header %s: %v, want taken=%v", header, err, ok)
		}
	}
}

func TestEJWTClaimNamesAreExact(t *testing.T) {
	boot, peer := NewBoot(), NewBoot().key
	secret, err := boot.key.Shared(peer.Public())
	if err != nil {
		t.Fatal(err)
	}
	iss := `"iss":"` + api.EncodeBase64(peer.Public()) + `"`
	for payload, ok := range map[string]bool{
		`{` + iss + `,"scope":"a"}`:                    true,
		`{` + iss + `,"scope":"a","scope":"b"}`:        false,
		`{` + iss + `,` + iss + `}`:                    false,
		`{` + strings.ToUpper(iss[:5]) + iss[5:] + `}`: false,
		`{"scope":"a"}`:                                false,
		`{"iss":null}`:                                 false,
		`{"iss":"AAAA"}`:                               false,
		`{"iss":1}`:                                    false,
		`{` + iss + `,"scope":1}`:                      false,
		`{` + iss + `,"exp":"1"}`:                      false,
		`{` + iss + `,"exp":1e400}`:                    false,
		`{` + iss + `,"exp":1.5}`:                      false,
		`{` + iss + `,"unknown":[{}]}`:                 true,
		`{` + iss + `}x`:                               false,
		`{` + iss + `,"scope":"` + "\xff" + `"}`:       false,
	} {
		signed := base64.RawURLEncoding.EncodeToString([]byte(personaHeader)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
		token := signed + "." + base64.RawURLEncoding.EncodeToString(suite.HMACSHA256(secret, []byte(signed)))
		var into struct {
			Scope string `json:"scope"`
			Exp   int64  `json:"exp"`
		}
		if _, err := OpenEJWT(boot.key, token, &into); (err == nil) != ok {
			t.Errorf("claims %s: %v, want taken=%v", payload, err, ok)
		}
	}
}

func TestNonceIsTiedToWhatItWasMadeFor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		boot := NewBoot()
		now := int64(rapid.Uint32Range(0, 1<<32-1000).Draw(t, "now"))
		ctx := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "context")
		age := rapid.Int64Range(-5, 700).Draw(t, "age")
		n := boot.NewNonce(PurposeLogin(), ctx, now)
		alive := age >= 0 && age < 60
		if got := boot.CheckNonce(PurposeLogin(), ctx, n, now+age); got != alive {
			t.Fatalf("age %d: taken=%v", age, got)
		}
		for name, taken := range map[string]bool{
			"another purpose": boot.CheckNonce(PurposeCheckin(), ctx, n, now),
			"another context": boot.CheckNonce(PurposeLogin(), append([]byte{1}, ctx...), n, now),
			"another boot":    NewBoot().CheckNonce(PurposeLogin(), ctx, n, now),
			"a token id":      boot.CheckNonce(PurposeTokenID(), ctx, boot.NewNonce(PurposeTokenID(), ctx, now), now),
		} {
			if taken {
				t.Fatalf("a nonce was taken for %s", name)
			}
		}
		n[rapid.IntRange(0, 31).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if boot.CheckNonce(PurposeLogin(), ctx, n, now) {
			t.Fatal("a changed nonce was taken")
		}
	})
}

func TestNonceIsUsedOnce(t *testing.T) {
	boot := NewBoot()
	n := boot.NewNonce(PurposeLogin(), nil, 1000)
	var first atomic.Int32
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(func() {
			if boot.UseNonce(PurposeLogin(), n, 1001) {
				first.Add(1)
			}
		})
	}
	wg.Wait()
	if first.Load() != 1 {
		t.Errorf("%d of 1000 were first", first.Load())
	}
	// It is remembered for as long as it would be taken.
	for now := int64(1002); boot.CheckNonce(PurposeLogin(), nil, n, now); now++ {
		boot.UseNonce(PurposeLogin(), boot.NewNonce(PurposeLogin(), nil, now), now) // sweeps
		if boot.UseNonce(PurposeLogin(), n, now) {
			t.Fatalf("a used nonce was forgotten at %d", now)
		}
	}
}

// What has ended does not stay in memory.
func TestUsedNoncesAreForgotten(t *testing.T) {
	var m memNonces
	for now := int64(0); now < 3600; now++ {
		for range 20 {
			m.Use([16]byte(suite.Random(16)), now+60, now)
		}
	}
	held := 0
	for i := range m {
		for _, set := range m[i].ends {
			held += len(set)
		}
	}
	if most := 20 * 60 * 4; held > most { // a minute of life, one more, and two of sets that round up
		t.Errorf("%d nonces are held after an hour, at most %d are alive", held, most)
	}
}

func FuzzOpenEJWT(f *testing.F) {
	var v struct {
		SPKPrivate string `json:"spk_private"`
		Cases      []struct{ Auth string }
	}
	readVectors(f, "login.json", &v)
	for _, c := range v.Cases {
		f.Add(c.Auth)
	}
	f.Add("..")
	spk := key(f, v.SPKPrivate)
	f.Fuzz(func(t *testing.T, token string) {
		var claims map[string]any
		issuer, err := OpenEJWT(spk, token, &claims)
		if err != nil {
			return
		}
		// What is taken was made with the secret of the issuer it names.
		secret, err := spk.Shared(issuer[:])
		if err != nil {
			t.Fatalf("taken from an issuer without a secret: %s", token)
		}
		dot := strings.LastIndexByte(token, '.')
		mac, err := base64.RawURLEncoding.DecodeString(token[dot+1:])
		if err != nil || !suite.Equal(mac, suite.HMACSHA256(secret, []byte(token[:dot]))) {
			t.Fatalf("taken with a wrong MAC: %s", token)
		}
	})
}

func FuzzOpenToken(f *testing.F) {
	boot, gens := NewBoot(), generations{api.RoleUser: 1}
	good, err := boot.IssueToken(api.TokenClaims{Scope: "s", Sub: api.RoleUser, Exp: 10}, gens)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := boot.OpenToken(token, gens, 1); err == nil && token != good {
			t.Fatalf("a token nobody issued was taken: %s", token)
		}
	})
}
