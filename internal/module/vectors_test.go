package module

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"softhem/api"
	"softhem/internal/session"
	"softhem/internal/suite"
)

func readVectors(t *testing.T, name string, into any) {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatal(err)
	}
}

// claimsOf decodes the payload of a token without checking it.
func claimsOf(t *testing.T, token string, into any) {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(payload, into); err != nil {
		t.Fatal(err)
	}
}

func TestCheckinVectors(t *testing.T) {
	var v struct {
		Instance   string `json:"instance_id_hex"`
		SPKPrivate string `json:"spk_private"`
		Backend    string
		Shared     string
		QID        string
		Check      string
		OK         string `json:"checked_ok"`
		Actions    map[string]string
		FreshQID   string `json:"fresh_module_qid"`
	}
	readVectors(t, "checkin.json", &v)
	raw, err := hex.DecodeString(v.Instance)
	if err != nil {
		t.Fatal(err)
	}
	instance := [16]byte(raw)
	var check api.CheckClaims
	claimsOf(t, v.Check, &check)
	jti, ok := session.Decode32(check.JTI)
	if !ok {
		t.Fatal("jti")
	}
	if got := api.EncodeBase64(checkinQID(instance, jti)); got != v.QID || got != check.QID {
		t.Errorf("qid %s, want %s", got, v.QID)
	}
	if got := api.EncodeBase64(checkinQID([16]byte{}, jti)); got != v.FreshQID {
		t.Errorf("qid of a fresh module %s, want %s", got, v.FreshQID)
	}
	scalar, err := api.DecodeBase64(v.SPKPrivate)
	if err != nil {
		t.Fatal(err)
	}
	spk, err := suite.NewX25519Key(scalar)
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Actions) != len(checkinActions) {
		t.Errorf("%d actions in the vectors, %d here", len(v.Actions), len(checkinActions))
	}
	v.Actions["OK"] = v.OK
	for want, token := range v.Actions {
		var c checkedClaims
		issuer, err := session.OpenEJWT(spk, token, &c)
		if err != nil {
			t.Fatalf("%s: %v", want, err)
		}
		if api.EncodeBase64(issuer[:]) != v.Backend || c.JTI != check.JTI || c.Iat == nil || *c.Iat != 1767225601 {
			t.Errorf("%s: issuer %x, claims %+v", want, issuer, c)
		}
		status, err := api.DecodeBase64(c.Status)
		if err != nil {
			t.Fatal(err)
		}
		if got := checkinStatus(instance, jti, status); got != want {
			t.Errorf("status of %s reads as %q", want, got)
		}
		other := instance
		other[0] ^= 1
		if got := checkinStatus(other, jti, status); got != checkinUnknown {
			t.Errorf("status of %s for another module reads as %q", want, got)
		}
	}
}

// The vector's personalisation, read as the module reads it.
func TestInitVector(t *testing.T) {
	var v struct {
		SPKPrivate string `json:"spk_private"`
		Claims     api.InitClaims
		Init       string
	}
	readVectors(t, "init.json", &v)
	scalar, err := api.DecodeBase64(v.SPKPrivate)
	if err != nil {
		t.Fatal(err)
	}
	spk, err := suite.NewX25519Key(scalar)
	if err != nil {
		t.Fatal(err)
	}
	var c initClaims
	issuer, err := session.OpenEJWT(spk, v.Init, &c)
	if err != nil {
		t.Fatal(err)
	}
	m := &Module{}
	p := &Pass{state: &state{config: freshConfig(), boot: session.NewBoot()}, now: 1767225600}
	next, err := m.initialState(p, c.Cfg, issuer)
	if err != nil {
		t.Fatal(err)
	}
	want := v.Claims.Cfg
	got := next.config
	if c.JTI != v.Claims.JTI || c.Aud != v.Claims.Aud || *c.Exp != v.Claims.Exp || c.Iat != v.Claims.Iat ||
		api.EncodeBase64(next.user.Key) != want.UserKey || api.EncodeBase64(next.master.Key) != want.MasterKey ||
		got.User != want.User || got.Email != want.Email || got.Hostname != want.Hostname || got.Origin != want.Origin ||
		got.IP != *want.IP || got.StorageMode != *want.StorageMode || got.StorageDisk0Size != *want.StorageDisk0Size ||
		got.DNSD != *want.DNSD || got.TrustedTS != want.TrustedTS || got.TrustedBackend != want.TrustedBackend ||
		got.AllowKeySearch != want.AllowKeySearch || !*c.Cfg.GenCSR || !got.Inited || got.InstanceID == [16]byte{} {
		t.Errorf("claims %+v, config %+v\nwant %+v", c, got, want)
	}
}
