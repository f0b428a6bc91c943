package hem

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"softhem/api"
)

func readVector(t testing.TB, name string, out any) {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, out); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func unbase64(t testing.TB, text string) []byte {
	t.Helper()
	raw, err := api.DecodeBase64(text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return raw
}

type loginVector struct {
	EID   string
	SPK   string
	Cases []struct {
		Name, Passphrase, Seed, Public, Shared, Auth string
		Claims                                       api.LoginClaims
	}
	PublicSample struct {
		Challenge struct{ Exp, Clock int64 }
		Token     string
	} `json:"public_sample"`
}

func TestLoginVectors(t *testing.T) {
	var v loginVector
	readVector(t, "login.json", &v)
	if len(v.Cases) == 0 {
		t.Fatal("no cases")
	}
	for _, tc := range v.Cases {
		t.Run(tc.Name, func(t *testing.T) {
			t.Parallel()
			k, err := DeriveKey([]byte(tc.Passphrase), v.EID)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(k.seed[:], unbase64(t, tc.Seed)) {
				t.Error("seed differs")
			}
			if got := api.EncodeBase64(k.Public()); got != tc.Public {
				t.Errorf("public = %s, want %s", got, tc.Public)
			}
			shared, err := k.shared(unbase64(t, v.SPK))
			if err != nil || !bytes.Equal(shared, unbase64(t, tc.Shared)) {
				t.Errorf("shared secret differs (%v)", err)
			}
			auth, err := signEJWT(k, unbase64(t, v.SPK), tc.Claims)
			if err != nil || auth != tc.Auth {
				t.Errorf("eJWT = %s (%v)\nwant %s", auth, err, tc.Auth)
			}
		})
	}
}

// The client itself, not only its parts, must make the vector's login.
func TestProveVector(t *testing.T) {
	var v loginVector
	readVector(t, "login.json", &v)
	if got := v.PublicSample.Challenge; got.Exp-challengeSeconds != got.Clock {
		t.Errorf("the public challenge lives %d s", got.Exp-got.Clock)
	}
	tc := v.Cases[1]
	var sent api.AuthRequest
	module := startFake(t)
	module.handle("POST "+pathToken, func(w answerWriter, r request) {
		r.decode(t, &sent)
		w.WriteHeader(401)
	})
	k, err := KeyFromSeed(unbase64(t, tc.Seed))
	if err != nil {
		t.Fatal(err)
	}
	const t0 = 1767225600
	c := newClient(t, Config{URL: module.url, Key: k, TTL: seconds(tc.Claims.Exp - t0), TokenContext: tc.Claims.Ctx})
	ch := &api.Challenge{Exp: t0 + challengeSeconds, SPK: v.SPK, JTI: tc.Claims.JTI, EID: v.EID}
	if _, err := c.prove(t.Context(), k, ch, tc.Claims.Scope); !errors.Is(err, api.ErrUnauthorized) {
		t.Fatal(err)
	}
	if sent.Auth != tc.Auth {
		t.Errorf("sent %s\nwant %s", sent.Auth, tc.Auth)
	}
}

type initVector struct {
	EID, SPK         string
	MasterPassphrase string `json:"master_passphrase"`
	UserPassphrase   string `json:"user_passphrase"`
	MasterSeed       string `json:"master_seed"`
	UserSeed         string `json:"user_seed"`
	Claims           api.InitClaims
	Init             string
}

func TestInitVector(t *testing.T) {
	var v initVector
	readVector(t, "init.json", &v)
	ch := &api.InitChallenge{Exp: v.Claims.Exp, SPK: v.SPK, JTI: v.Claims.JTI, EID: v.EID}
	got, err := signInit(InitParams{
		MasterPassphrase: []byte(v.MasterPassphrase), UserPassphrase: []byte(v.UserPassphrase), Config: v.Claims.Cfg,
	}, ch)
	if err != nil {
		t.Fatal(err)
	}
	var claims api.InitClaims
	if err := readSegment(strings.Split(got, ".")[1], &claims); err != nil {
		t.Fatal(err)
	}
	want := v.Claims
	want.Iat -= iatLeadSeconds // the vector dates its claims at the challenge's time
	if diff := cmp.Diff(want, claims); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}

	master, err := KeyFromSeed(unbase64(t, v.MasterSeed))
	if err != nil {
		t.Fatal(err)
	}
	if got, err = signEJWT(master, unbase64(t, v.SPK), v.Claims); err != nil || got != v.Init {
		t.Errorf("eJWT = %s (%v)\nwant %s", got, err, v.Init)
	}
}

func TestMasterSecret(t *testing.T) {
	var v struct {
		Seed64 string `json:"seed64_hex"`
		Secret string `json:"secret_hex"`
	}
	readVector(t, "master_secret.json", &v)
	seed64, err := hex.DecodeString(v.Seed64)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := SecretFromSeed64(seed64); err != nil || hex.EncodeToString(got) != v.Secret {
		t.Errorf("SecretFromSeed64 = %x (%v), want %s", got, err, v.Secret)
	}

	// The BIP39 seed of the all-zero entropy, without a passphrase, is well known.
	const zeroSeed = "408b285c123836004f4b8842c89324c1f01382450c0d439af345ba7fc49acf70" +
		"5489c6fc77dbd4e3dc1dd8cc6bc9f043db8ada1e243c4a0eafb290d399480840"
	phrase := strings.Repeat("abandon ", 23) + "art"
	for _, spelled := range []string{phrase, "\t" + strings.ReplaceAll(phrase, " ", "  \n") + " "} {
		got, err := MasterSecret(spelled)
		if err != nil || hex.EncodeToString(got) != zeroSeed[1:65] {
			t.Errorf("MasterSecret = %x (%v), want %s", got, err, zeroSeed[1:65])
		}
	}
	for _, bad := range []string{
		"", "abandon", phrase + " art", strings.Repeat("abandon ", 23) + "Art",
		strings.Repeat("abandon ", 23) + "żaba", strings.Repeat("abandon ", 23) + "a-b",
	} {
		_, err := MasterSecret(bad)
		if !errors.Is(err, ErrArgument) {
			t.Errorf("MasterSecret(%q) = %v", bad, err)
		} else if strings.Contains(err.Error(), "aba") || strings.Contains(err.Error(), "Art") {
			t.Errorf("%v repeats words of the phrase", err)
		}
	}
}

func TestSecretFromSeed64IsHexDigits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.SliceOfN(rapid.Byte(), seed64Size, seed64Size).Draw(t, "seed")
		got, err := SecretFromSeed64(seed)
		if want := hex.EncodeToString(seed)[1:65]; err != nil || hex.EncodeToString(got) != want {
			t.Fatalf("%x (%v), want %s", got, err, want)
		}
	})
	if _, err := SecretFromSeed64(make([]byte, 63)); !errors.Is(err, ErrArgument) {
		t.Error(err)
	}
}

func TestInspectToken(t *testing.T) {
	var v loginVector
	readVector(t, "login.json", &v)
	got, err := InspectToken(v.PublicSample.Token)
	want := api.TokenClaims{
		Scope: "logger:get", Sub: api.RoleUser, Iat: 1647871445, Exp: 1647900245,
		JTI: "1YU4YpnVy5rXauwxT2IXRX91hTCxaUEtGdOBK25zA40=",
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	parts := strings.Split(v.PublicSample.Token, ".")
	none := segment([]byte(`{"typ":"JWT","alg":"none"}`))
	for _, bad := range []string{
		"", ".", "..", "a.b.c", parts[0] + "." + parts[1], parts[0] + "." + parts[1] + ".", v.PublicSample.Token + ".",
		v.PublicSample.Token + "\n", none + "." + parts[1] + "." + parts[2], strings.Repeat("A", maxTokenBytes+1),
		parts[0] + "." + segment([]byte(`{"exp":"never"}`)) + "." + parts[2],
	} {
		claims, err := InspectToken(bad)
		if err == nil || claims != (api.TokenClaims{}) {
			t.Errorf("InspectToken(%.60q) = %v, %v", bad, claims, err)
		}
	}
}

func TestKeysAreChecked(t *testing.T) {
	if _, err := KeyFromSeed(make([]byte, 31)); !errors.Is(err, ErrArgument) {
		t.Error(err)
	}
	for _, eid := range []string{"", "AAAA", "not base64!", api.EncodeBase64(make([]byte, 33))} {
		if _, err := DeriveKey(nil, eid); !errors.Is(err, ErrArgument) {
			t.Errorf("DeriveKey(%q) = %v", eid, err)
		}
	}
	k, _ := KeyFromSeed(bytes.Repeat([]byte{7}, keySize))
	if _, err := k.shared(make([]byte, keySize)); err == nil {
		t.Error("shared a secret with a point of low order")
	}
	k.Wipe()
	k.Wipe()
	if _, err := k.shared(k.Public()); !errors.Is(err, ErrForgotten) {
		t.Error(err)
	}
	if _, err := new(PersonaKey).shared(k.Public()); !errors.Is(err, ErrForgotten) {
		t.Error(err)
	}
}

// Every verb, a struct around it, slog and JSON: no way shows a secret.
func TestSecretsDoNotPrint(t *testing.T) {
	seed := []byte("seed-seed-seed-seed-seed-seed-se")
	k, err := KeyFromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	const text = "aaa.secret-token.bbb"
	config := Config{URL: "https://hem.test", Token: text}
	client := newClient(t, config)
	values := []any{
		k, struct{ K *PersonaKey }{k}, struct{ k *PersonaKey }{k}, []*PersonaKey{k},
		Bearer(text), Token{Bearer: text}, &Token{Bearer: text}, config, &config, client, struct{ C *Client }{client},
	}
	var out strings.Builder
	logger := slog.New(slog.NewJSONHandler(&out, nil))
	plain := slog.New(slog.NewTextHandler(&out, nil))
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		logger.Info("x", "v", v)
		plain.Info("x", "v", v)
		if raw, err := json.Marshal(v); err == nil {
			out.Write(raw)
		}
	}
	for _, secret := range []string{"seed-seed", "secret-token", hex.EncodeToString(seed[:8]), hex.EncodeToString([]byte("secret-token")), "115 101 101 100"} {
		if i := strings.Index(out.String(), secret); i >= 0 {
			t.Errorf("printed %q: …%s", secret, out.String()[max(0, i-80):min(out.Len(), i+40)])
		}
	}
}
