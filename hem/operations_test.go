package hem

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"softhem/api"
)

var (
	kidA = KID{0x03, 0x82, 0xe3, 0xea, 15: 0xa1}
	kidB = KID{15: 0xb2}
)

const (
	textA = "0382e3ea0000000000000000000000a1"
	textB = "000000000000000000000000000000b2"
	useA  = "keymgmt:use:" + textA
)

// bytesN gives n bytes, and b64n their base64.
func bytesN(n int) []byte { return bytes.Repeat([]byte{7}, n) }
func b64n(n int) string   { return api.EncodeBase64(bytesN(n)) }

// An operation is a method of Client as it looks on the wire.
type operation struct {
	name   string
	route  string
	scope  string
	do     func(c *Client, ctx context.Context) (any, error)
	body   string // what must be sent, "" for none
	answer string // what the module says
	want   any    // what do then gives

	// Answers that no module gives.
	strange []string
}

func nothing(err error) (any, error) { return nil, err }

func operations() []operation {
	type c = Client
	type x = context.Context
	spec := KeySpec{Label: "a key", Type: api.SECP256R1, Mode: api.ModeBoth, Descr: []byte("descr")}
	const attributes = `"label":"a key","type":"SECP256R1","mode":"ECDH,ExDSA","descr":"ZGVzY3I="`
	const listed = `{"offset":30,"deleted":2,"total":32,"listed":2,"list":[
		{"kid":"` + textA + `","created":1700000000,"type":"ATT,PKEY,ECDH,ExDSA,SECP256R1","label":"one","descr":"ZGVzY3I=","updated":1700000001},
		{"kid":"000000000000000000000000000000B2","created":1700000002,"type":"ATT,AES256","label":"two","updated":1700000003}]}`
	page := &KeyPage{Offset: 30, Total: 32, Deleted: 2, Keys: []KeyInfo{
		{KID: kidA, Created: time.Unix(1700000000, 0), Updated: time.Unix(1700000001, 0), Label: "one", Descr: []byte("descr"),
			Traits: api.KeyTraits{Made: true, Private: true, ECDH: true, ExDSA: true, Type: api.SECP256R1}},
		{KID: kidB, Created: time.Unix(1700000002, 0), Updated: time.Unix(1700000003, 0), Label: "two",
			Traits: api.KeyTraits{Made: true, Type: api.AES256}},
	}}
	badLists := []string{
		`{"list":[{"kid":"zz"}],"total":1}`, `{"list":[{"kid":"` + textA + `","descr":"!"}],"total":1}`,
		`{"offset":-1}`, `{"total":-1}`, `{"deleted":-1}`, `{"total":4611686018427387904}`, `{"offset":4611686018427387904}`, `{"deleted":4611686018427387904}`,
	}
	badKIDs := []string{`{}`, `{"kid":""}`, `{"kid":"` + textA[1:] + `"}`, `{"kid":"` + textA + `0"}`}
	field := func(name string, more string) []string {
		return []string{`{` + more + `}`, fmt.Sprintf(`{"%s":""%s}`, name, more), fmt.Sprintf(`{"%s":"*"%s}`, name, more)}
	}
	gcm := CipherOptions{AAD: []byte("aad"), Peer: PeerKey(kidB), Context: []byte("ctx")}
	wrap := WrapOptions{Alg: api.AES128, IV: bytesN(8), Peer: PeerPublic([]byte("point")), Context: []byte("ctx")}
	return []operation{
		{name: "ListKeys", route: "GET /api/keymgmt/list/30/2", scope: "keymgmt:list",
			do:     func(c *c, ctx x) (any, error) { return c.ListKeys(ctx, 30, 2) },
			answer: listed, want: page, strange: badLists},
		{name: "SearchKeys", route: "POST /api/keymgmt/search", scope: "keymgmt:search",
			do: func(c *c, ctx x) (any, error) {
				return c.SearchKeys(ctx, KeySearch{Descr: []byte("descr"), Start: true, End: true, Offset: 30, Limit: 2})
			},
			body: `{"descr":"^ZGVzY3I=$","offset":30,"limit":2}`, answer: listed, want: page, strange: badLists},
		{name: "SearchKeysOpen", route: "POST /api/keymgmt/search",
			do: func(c *c, ctx x) (any, error) {
				return c.SearchKeysOpen(ctx, KeySearch{Descr: []byte("descr:"), Start: true})
			},
			body: `{"descr":"^ZGVzY3I6"}`, answer: listed, want: page, strange: badLists},
		{name: "GetKey", route: "GET /api/keymgmt/get/" + textA, scope: "keymgmt:get",
			do:     func(c *c, ctx x) (any, error) { return c.GetKey(ctx, kidA) },
			answer: `{"type":"ED25519","pubkey":"` + b64n(32) + `","updated":1700000000,"descr":"ZGVzY3I="}`,
			want:   &Key{KID: kidA, Type: api.Ed25519, Public: bytesN(32), Updated: time.Unix(1700000000, 0), Descr: []byte("descr")},
			strange: []string{`{}`, `{"type":""}`, `{"type":"ED25519","pubkey":"*"}`, `{"type":"ED25519","descr":"*"}`,
				`{"type":"CERT,GENERIC_DER","der":"*"}`}},
		{name: "CreateKey", route: "POST /api/keymgmt/create", scope: "keymgmt:gen",
			do:   func(c *c, ctx x) (any, error) { return c.CreateKey(ctx, spec) },
			body: `{` + attributes + `}`, answer: `{"kid":"` + textA + `"}`, want: kidA, strange: badKIDs},
		{name: "ImportKey", route: "POST /api/keymgmt/import", scope: "keymgmt:imp",
			do:   func(c *c, ctx x) (any, error) { return c.ImportKey(ctx, spec, bytesN(33)) },
			body: `{` + attributes + `,"pubkey":"` + b64n(33) + `"}`, answer: `{"kid":"` + textA + `"}`, want: kidA, strange: badKIDs},
		{name: "DeriveKey", route: "POST /api/keymgmt/derive", scope: "keymgmt:derive",
			do:   func(c *c, ctx x) (any, error) { return c.DeriveKey(ctx, kidA, PeerKey(kidB), spec) },
			body: `{` + attributes + `,"kid":"` + textA + `","ext_kid":"` + textB + `"}`, answer: `{"kid":"` + textB + `"}`, want: kidB, strange: badKIDs},
		{name: "UpdateKey", route: "POST /api/keymgmt/update", scope: "keymgmt:upd",
			do:   func(c *c, ctx x) (any, error) { return nothing(c.UpdateKey(ctx, kidA, "new", nil)) },
			body: `{"kid":"` + textA + `","label":"new"}`},
		{name: "DeleteKey", route: "DELETE /api/keymgmt/delete/" + textA, scope: "keymgmt:del",
			do: func(c *c, ctx x) (any, error) { return nothing(c.DeleteKey(ctx, kidA)) }},
		{name: "HMAC", route: "POST /api/crypto/hmac/hash", scope: useA,
			do: func(c *c, ctx x) (any, error) {
				return c.HMAC(ctx, kidA, []byte("msg"), &MACOptions{Peer: PeerKey(kidB), Hash: api.SHA3x256})
			},
			body:   `{"kid":"` + textA + `","msg":"bXNn","alg":"SHA3-256","ext_kid":"` + textB + `"}`,
			answer: `{"mac":"` + b64n(32) + `"}`, want: bytesN(32), strange: field("mac", "")},
		{name: "VerifyHMAC", route: "POST /api/crypto/hmac/verify", scope: useA,
			do: func(c *c, ctx x) (any, error) {
				return nothing(c.VerifyHMAC(ctx, kidA, []byte("msg"), bytesN(64), nil))
			},
			body: `{"kid":"` + textA + `","msg":"bXNn","mac":"` + b64n(64) + `"}`},
		{name: "Sign", route: "POST /api/crypto/exdsa/sign", scope: useA,
			do: func(c *c, ctx x) (any, error) {
				return c.Sign(ctx, kidA, []byte("msg"), api.AlgEd25519ctx, []byte("ctx"))
			},
			body:   `{"kid":"` + textA + `","msg":"bXNn","alg":"Ed25519ctx","ctx":"Y3R4"}`,
			answer: `{"sign":"` + b64n(64) + `"}`, want: bytesN(64), strange: field("sign", "")},
		{name: "Verify", route: "POST /api/crypto/exdsa/verify", scope: useA,
			do: func(c *c, ctx x) (any, error) {
				return nothing(c.Verify(ctx, kidA, []byte("msg"), bytesN(148), api.SHA256WithECDSA, nil))
			},
			body: `{"kid":"` + textA + `","msg":"bXNn","alg":"SHA256WithECDSA","sign":"` + b64n(148) + `"}`},
		{name: "SignMLDSA", route: "POST /api/crypto/pqc/mldsa/sign", scope: useA,
			do:     func(c *c, ctx x) (any, error) { return c.SignMLDSA(ctx, kidA, []byte("msg"), []byte("ctx")) },
			body:   `{"kid":"` + textA + `","msg":"bXNn","ctx":"Y3R4"}`,
			answer: `{"alg":"MLDSA44","sign":"` + b64n(2420) + `"}`, want: bytesN(2420), strange: field("sign", "")},
		{name: "VerifyMLDSA", route: "POST /api/crypto/pqc/mldsa/verify", scope: useA,
			do: func(c *c, ctx x) (any, error) {
				return nothing(c.VerifyMLDSA(ctx, kidA, []byte("msg"), bytesN(4627), nil))
			},
			body: `{"kid":"` + textA + `","msg":"bXNn","sign":"` + b64n(4627) + `"}`},
		{name: "Encrypt", route: "POST /api/crypto/cipher/encrypt", scope: useA,
			do:     func(c *c, ctx x) (any, error) { return c.Encrypt(ctx, kidA, AES256GCM, []byte("msg"), &gcm) },
			body:   `{"kid":"` + textA + `","msg":"bXNn","alg":"AES256-GCM","aad":"YWFk","ctx":"Y3R4","ext_kid":"` + textB + `"}`,
			answer: `{"ciphertext":"` + b64n(3) + `","iv":"` + b64n(16) + `","tag":"` + b64n(16) + `"}`,
			want:   &Ciphertext{Data: bytesN(3), IV: bytesN(16), Tag: bytesN(16)},
			strange: append(field("ciphertext", `,"iv":"`+b64n(16)+`","tag":"`+b64n(16)+`"`)[1:],
				`{"ciphertext":"AAAA","tag":"`+b64n(16)+`"}`, `{"ciphertext":"AAAA","iv":"`+b64n(12)+`","tag":"`+b64n(16)+`"}`,
				`{"ciphertext":"AAAA","iv":"`+b64n(16)+`"}`, `{"ciphertext":"AAAA","iv":"`+b64n(16)+`","tag":"`+b64n(17)+`"}`)},
		{name: "Decrypt", route: "POST /api/crypto/cipher/decrypt", scope: useA,
			do: func(c *c, ctx x) (any, error) {
				return c.Decrypt(ctx, kidA, AES128CBC, &Ciphertext{Data: bytesN(16), IV: bytesN(16)}, nil)
			},
			body:   `{"kid":"` + textA + `","msg":"` + b64n(16) + `","alg":"AES128-CBC","iv":"` + b64n(16) + `"}`,
			answer: `{"plaintext":"` + b64n(3) + `"}`, want: bytesN(3), strange: []string{`{"plaintext":"*"}`}},
		{name: "Wrap", route: "POST /api/crypto/cipher/wrap", scope: useA,
			do: func(c *c, ctx x) (any, error) { return c.Wrap(ctx, kidA, bytesN(16), &wrap) },
			body: `{"kid":"` + textA + `","msg":"` + b64n(16) + `","alg":"AES128","iv":"` + b64n(8) + `","ctx":"Y3R4","pubkey":"` +
				api.EncodeBase64([]byte("point")) + `"}`,
			answer: `{"wrapped":"` + b64n(24) + `"}`, want: bytesN(24), strange: field("wrapped", "")},
		{name: "Unwrap", route: "POST /api/crypto/cipher/unwrap", scope: useA,
			do:     func(c *c, ctx x) (any, error) { return c.Unwrap(ctx, kidA, bytesN(24), nil) },
			body:   `{"kid":"` + textA + `","msg":"` + b64n(24) + `"}`,
			answer: `{"unwrapped":"` + b64n(16) + `"}`, want: bytesN(16), strange: field("unwrapped", "")},
		{name: "ECDH", route: "POST /api/crypto/ecdh", scope: useA,
			do:     func(c *c, ctx x) (any, error) { return c.ECDH(ctx, kidA, PeerPublic(bytesN(32)), api.SHA2x512) },
			body:   `{"kid":"` + textA + `","pubkey":"` + b64n(32) + `","alg":"SHA2-512"}`,
			answer: `{"ecdh":"` + b64n(64) + `"}`, want: bytesN(64), strange: field("ecdh", "")},
		{name: "Encapsulate", route: "POST /api/crypto/pqc/mlkem/encaps", scope: useA,
			do: func(c *c, ctx x) (any, error) {
				shared, ciphertext, err := c.Encapsulate(ctx, kidA)
				return [][]byte{shared, ciphertext}, err
			},
			body:   `{"kid":"` + textA + `"}`,
			answer: `{"alg":"MLKEM512","ss":"` + b64n(32) + `","ct":"` + b64n(768) + `"}`, want: [][]byte{bytesN(32), bytesN(768)},
			strange: []string{`{"ct":"AAAA"}`, `{"ss":"` + b64n(31) + `","ct":"AAAA"}`, `{"ss":"` + b64n(32) + `"}`,
				`{"ss":"` + b64n(32) + `","ct":"*"}`}},
		{name: "Decapsulate", route: "POST /api/crypto/pqc/mlkem/decaps", scope: useA,
			do:     func(c *c, ctx x) (any, error) { return c.Decapsulate(ctx, kidA, bytesN(768)) },
			body:   `{"kid":"` + textA + `","ct":"` + b64n(768) + `"}`,
			answer: `{"alg":"` + useA + `","ss":"` + b64n(32) + `"}`, // the alg of firmware 1.2.2
			want:   bytesN(32), strange: append(field("ss", ""), `{"ss":"`+b64n(33)+`"}`)},
	}
}

// serve answers a route for holders of scope, or for anyone, and checks that no other
// token comes. What is sent goes to *body.
func (f *fake) serve(route, scope string, answer func(w answerWriter), body *string) {
	f.handle(route, func(w answerWriter, r request) {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			f.t.Error(err)
		}
		*body = string(raw)
		bearer := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		f.mu.Lock()
		held, ok := f.live[bearer]
		f.mu.Unlock()
		switch {
		case bearer != "" && !ok:
			w.WriteHeader(401)
		case ok != (scope != "") || held != scope:
			f.t.Errorf("%s is called with the scope %q, not %q", route, held, scope)
			w.WriteHeader(403)
		default:
			answer(w)
		}
	})
}

func says(text string) func(answerWriter) {
	return func(w answerWriter) { io.WriteString(w, text) }
}

func refuses(status int) func(answerWriter) {
	return func(w answerWriter) { w.WriteHeader(status) }
}

func TestOperationsOnTheWire(t *testing.T) {
	f := startFake(t)
	c := newClient(t, Config{URL: f.url, Key: testKey(t)})
	for _, op := range operations() {
		c.Forget() // a token that is held may decide the scope
		var body string
		f.serve(op.route, op.scope, says(op.answer), &body)
		got, err := op.do(c, t.Context())
		if err != nil {
			t.Errorf("%s: %v", op.name, err)
			continue
		}
		if diff := cmp.Diff(op.want, got); diff != "" {
			t.Errorf("%s: %s", op.name, diff)
		}
		if diff := cmp.Diff(decoded(t, op.body), decoded(t, body)); diff != "" {
			t.Errorf("%s sends %s", op.name, diff)
		}
		for _, answer := range append(op.strange, `[]`, `"`, `{"kid":7,"list":7,"type":7,"mac":7,"sign":7,"ciphertext":7,"plaintext":7,`+
			`"wrapped":7,"unwrapped":7,"ecdh":7,"ss":7}`) {
			if op.answer == "" {
				break // nothing is read
			}
			f.serve(op.route, op.scope, says(answer), &body)
			got, err := op.do(c, t.Context())
			var oe *OpError
			if !errors.Is(err, ErrProtocol) || !errors.As(err, &oe) || oe.Path != op.route {
				t.Errorf("%s, told %.80s: %v, %v", op.name, answer, got, err)
			}
		}
	}
}

func decoded(t testing.TB, text string) (v any) {
	t.Helper()
	if text != "" && json.Unmarshal([]byte(text), &v) != nil {
		t.Fatalf("%s is no JSON", text)
	}
	return v
}

func TestOperationsRefused(t *testing.T) {
	f := startFake(t)
	c := newClient(t, Config{URL: f.url, Key: testKey(t)})
	for _, op := range operations() {
		c.Forget()
		verifies := strings.Contains(op.route, "/verify")
		for _, status := range []int{400, 401, 403, 404, 406, 409, 410, 413, 418, 500, 795} {
			var body string
			f.serve(op.route, op.scope, refuses(status), &body)
			_, err := op.do(c, t.Context())
			var oe *OpError
			if !errors.Is(err, &api.Error{Status: status}) || !errors.As(err, &oe) || oe.Path != op.route || oe.Op == "" {
				t.Errorf("%s, refused with %d: %v", op.name, status, err)
			}
			unverified := verifies && (status == http.StatusNotAcceptable || status == 795 && op.name == "VerifyMLDSA")
			if errors.Is(err, ErrVerification) != unverified {
				t.Errorf("%s, refused with %d: %v", op.name, status, err)
			}
		}
	}
}

func TestArgumentsAreCheckedFirst(t *testing.T) {
	f := startFake(t)
	c := newClient(t, Config{URL: f.url, Key: testKey(t)})
	ctx := t.Context()
	msg, long := []byte("msg"), bytesN(2049)
	spec := KeySpec{Label: "l", Type: api.Ed25519}
	peer := PeerPublic(bytesN(32))
	labels := []string{"", strings.Repeat("x", 33), "tab\t", "ü", "line\n", "\x7f"}
	calls := map[string]func() error{
		"list, offset":    func() error { _, err := c.ListKeys(ctx, -1, 0); return err },
		"list, count":     func() error { _, err := c.ListKeys(ctx, 0, -1); return err },
		"search, empty":   func() error { _, err := c.SearchKeys(ctx, KeySearch{Start: true, End: true}); return err },
		"search, long":    func() error { _, err := c.SearchKeys(ctx, KeySearch{Descr: bytesN(65)}); return err },
		"search, offset":  func() error { _, err := c.SearchKeys(ctx, KeySearch{Descr: msg, Offset: -1}); return err },
		"search, limit":   func() error { _, err := c.SearchKeys(ctx, KeySearch{Descr: msg, Limit: -1}); return err },
		"open, short":     func() error { _, err := c.SearchKeysOpen(ctx, KeySearch{Descr: bytesN(5), Start: true}); return err },
		"open, inside":    func() error { _, err := c.SearchKeysOpen(ctx, KeySearch{Descr: bytesN(6)}); return err },
		"open, end":       func() error { _, err := c.SearchKeysOpen(ctx, KeySearch{Descr: bytesN(6), End: true}); return err },
		"open, long":      func() error { _, err := c.SearchKeysOpen(ctx, KeySearch{Descr: bytesN(65), Start: true}); return err },
		"create, no type": func() error { _, err := c.CreateKey(ctx, KeySpec{Label: "l"}); return err },
		"create, descr": func() error {
			_, err := c.CreateKey(ctx, KeySpec{Label: "l", Type: "T", Descr: bytesN(65)})
			return err
		},
		"import, no type":   func() error { _, err := c.ImportKey(ctx, KeySpec{Label: "l"}, msg); return err },
		"import, empty":     func() error { _, err := c.ImportKey(ctx, spec, nil); return err },
		"derive, no peer":   func() error { _, err := c.DeriveKey(ctx, kidA, Peer{}, spec); return err },
		"derive, no key":    func() error { _, err := c.DeriveKey(ctx, kidA, PeerPublic(nil), spec); return err },
		"derive, no type":   func() error { _, err := c.DeriveKey(ctx, kidA, peer, KeySpec{Label: "l"}); return err },
		"update, descr":     func() error { return c.UpdateKey(ctx, kidA, "l", bytesN(65)) },
		"mac, empty":        func() error { _, err := c.HMAC(ctx, kidA, nil, nil); return err },
		"mac, long":         func() error { _, err := c.HMAC(ctx, kidA, long, nil); return err },
		"mac, no hash":      func() error { _, err := c.HMAC(ctx, kidA, msg, &MACOptions{Peer: peer}); return err },
		"verify mac, long":  func() error { return c.VerifyHMAC(ctx, kidA, msg, bytesN(65), nil) },
		"verify mac, empty": func() error { return c.VerifyHMAC(ctx, kidA, msg, nil, nil) },
		"sign, empty":       func() error { _, err := c.Sign(ctx, kidA, nil, api.AlgEd25519, nil); return err },
		"sign, long":        func() error { _, err := c.Sign(ctx, kidA, long, api.AlgEd25519, nil); return err },
		"sign, no alg":      func() error { _, err := c.Sign(ctx, kidA, msg, "", nil); return err },
		"sign, no context":  func() error { _, err := c.Sign(ctx, kidA, msg, api.AlgEd25519ctx, nil); return err },
		"sign, context":     func() error { _, err := c.Sign(ctx, kidA, msg, api.AlgEd25519, msg); return err },
		"sign, ec context":  func() error { _, err := c.Sign(ctx, kidA, msg, api.SHA512WithECDSA, msg); return err },
		"sign, ctx long":    func() error { _, err := c.Sign(ctx, kidA, msg, api.AlgEd448, bytesN(256)); return err },
		"verify, no alg":    func() error { return c.Verify(ctx, kidA, msg, msg, "", nil) },
		"verify, empty":     func() error { return c.Verify(ctx, kidA, msg, nil, api.AlgEd448, nil) },
		"verify, long":      func() error { return c.Verify(ctx, kidA, msg, bytesN(149), api.AlgEd448, nil) },
		"mldsa, empty":      func() error { _, err := c.SignMLDSA(ctx, kidA, nil, nil); return err },
		"mldsa, ctx long":   func() error { _, err := c.SignMLDSA(ctx, kidA, msg, bytesN(256)); return err },
		"mldsa, sig long":   func() error { return c.VerifyMLDSA(ctx, kidA, msg, bytesN(4628), nil) },
		"mldsa, too much":   func() error { return c.VerifyMLDSA(ctx, kidA, bytesN(1000), bytesN(4627), nil) },
		"encrypt, empty":    func() error { _, err := c.Encrypt(ctx, kidA, AES256GCM, nil, nil); return err },
		"encrypt, long":     func() error { _, err := c.Encrypt(ctx, kidA, AES256GCM, long, nil); return err },
		"encrypt, no alg":   func() error { _, err := c.Encrypt(ctx, kidA, "", msg, nil); return err },
		"encrypt, aad": func() error {
			_, err := c.Encrypt(ctx, kidA, AES256CBC, msg, &CipherOptions{AAD: msg})
			return err
		},
		"encrypt, aad long": func() error {
			_, err := c.Encrypt(ctx, kidA, AES256GCM, msg, &CipherOptions{AAD: bytesN(1025)})
			return err
		},
		"encrypt, context": func() error {
			_, err := c.Encrypt(ctx, kidA, AES256GCM, msg, &CipherOptions{Context: msg})
			return err
		},
		"encrypt, ctx long": func() error {
			_, err := c.Encrypt(ctx, kidA, AES256GCM, msg, &CipherOptions{Peer: peer, Context: bytesN(65)})
			return err
		},
		"decrypt, empty": func() error {
			_, err := c.Decrypt(ctx, kidA, AES256GCM, &Ciphertext{IV: bytesN(16), Tag: bytesN(16)}, nil)
			return err
		},
		"decrypt, long": func() error {
			_, err := c.Decrypt(ctx, kidA, AES256CBC, &Ciphertext{Data: bytesN(2080), IV: bytesN(16)}, nil)
			return err
		},
		"decrypt, iv": func() error {
			_, err := c.Decrypt(ctx, kidA, AES256CBC, &Ciphertext{Data: bytesN(16), IV: bytesN(12)}, nil)
			return err
		},
		"decrypt, no tag": func() error {
			_, err := c.Decrypt(ctx, kidA, AES256GCM, &Ciphertext{Data: msg, IV: bytesN(16)}, nil)
			return err
		},
		"wrap, odd":        func() error { _, err := c.Wrap(ctx, kidA, bytesN(17), nil); return err },
		"wrap, short":      func() error { _, err := c.Wrap(ctx, kidA, bytesN(8), nil); return err },
		"wrap, long":       func() error { _, err := c.Wrap(ctx, kidA, bytesN(2056), nil); return err },
		"wrap, iv":         func() error { _, err := c.Wrap(ctx, kidA, bytesN(16), &WrapOptions{IV: bytesN(16)}); return err },
		"wrap, context":    func() error { _, err := c.Wrap(ctx, kidA, bytesN(16), &WrapOptions{Context: msg}); return err },
		"unwrap, short":    func() error { _, err := c.Unwrap(ctx, kidA, bytesN(16), nil); return err },
		"unwrap, long":     func() error { _, err := c.Unwrap(ctx, kidA, bytesN(2064), nil); return err },
		"ecdh, no peer":    func() error { _, err := c.ECDH(ctx, kidA, Peer{}, ""); return err },
		"decaps, empty":    func() error { _, err := c.Decapsulate(ctx, kidA, nil); return err },
		"decaps, long":     func() error { _, err := c.Decapsulate(ctx, kidA, bytesN(1569)); return err },
		"aead, cbc":        func() error { _, err := c.AEAD(kidA, AES256CBC); return err },
		"aead, no message": func() error { a, _ := c.AEAD(kidA, AES256GCM); _, err := a.Seal(ctx, nil, nil); return err },
		"aead, short":      func() error { a, _ := c.AEAD(kidA, AES256GCM); _, err := a.Open(ctx, bytesN(32), nil); return err },
		"aead, long":       func() error { a, _ := c.AEAD(kidA, AES256GCM); _, err := a.Open(ctx, bytesN(2081), nil); return err },
	}
	for _, label := range labels {
		calls["create, label "+label] = func() error { _, err := c.CreateKey(ctx, KeySpec{Label: label, Type: "T"}); return err }
		calls["import, label "+label] = func() error { _, err := c.ImportKey(ctx, KeySpec{Label: label, Type: "T"}, msg); return err }
		calls["derive, label "+label] = func() error { _, err := c.DeriveKey(ctx, kidA, peer, KeySpec{Label: label, Type: "T"}); return err }
		calls["update, label "+label] = func() error { return c.UpdateKey(ctx, kidA, label, nil) }
	}
	for name, call := range calls {
		var oe *OpError
		if err := call(); !errors.Is(err, ErrArgument) || !errors.As(err, &oe) || oe.Op == "" || oe.Path != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.counts) != 0 {
		t.Errorf("something was sent: %v", f.counts)
	}
}

// Of the scopes that open an endpoint, the one is used that a token is held for.
func TestHeldScopeIsUsed(t *testing.T) {
	f := startFake(t)
	search := func(c *Client) error {
		_, err := c.SearchKeys(t.Context(), KeySearch{Descr: []byte("x")})
		return err
	}
	get := func(c *Client) error { _, err := c.GetKey(t.Context(), kidA); return err }
	derive := func(c *Client) error {
		_, err := c.DeriveKey(t.Context(), kidA, PeerKey(kidB), KeySpec{Label: "l", Type: api.AES128})
		return err
	}
	for _, tc := range []struct {
		route, answer string
		do            func(*Client) error
		held, used    string
	}{
		{"POST /api/keymgmt/search", `{}`, search, "", api.ScopeKeySearch},
		{"POST /api/keymgmt/search", `{}`, search, api.ScopeKeyList, api.ScopeKeyList},
		{"POST /api/keymgmt/search", `{}`, search, api.ScopeExtPair, api.ScopeExtPair},
		{"POST /api/keymgmt/search", `{}`, search, api.ScopeKeyGet, api.ScopeKeySearch},
		{"GET /api/keymgmt/get/" + textA, `{"type":"AES128"}`, get, "", api.ScopeKeyGet},
		{"GET /api/keymgmt/get/" + textA, `{"type":"AES128"}`, get, api.ScopeKeyGen, api.ScopeKeyGen},
		{"GET /api/keymgmt/get/" + textA, `{"type":"AES128"}`, get, useA, useA},
		{"GET /api/keymgmt/get/" + textA, `{"type":"AES128"}`, get, api.ScopeKeyUse(textB), api.ScopeKeyGet},
		{"POST /api/keymgmt/derive", `{"kid":"` + textB + `"}`, derive, "", api.ScopeKeyDerive},
		{"POST /api/keymgmt/derive", `{"kid":"` + textB + `"}`, derive, api.ScopeKeyGen, api.ScopeKeyGen},
		{"POST /api/keymgmt/derive", `{"kid":"` + textB + `"}`, derive, useA, api.ScopeKeyDerive},
	} {
		c := newClient(t, Config{URL: f.url, Key: testKey(t)})
		if tc.held != "" {
			if _, err := c.Login(t.Context(), tc.held); err != nil {
				t.Fatal(err)
			}
		}
		var body string
		f.serve(tc.route, tc.used, says(tc.answer), &body)
		if err := tc.do(c); err != nil {
			t.Errorf("%s with a token for %q: %v", tc.route, tc.held, err)
		}
	}
	// One that is about to end is not worth it.
	now := time.Now()
	c := newClient(t, Config{URL: f.url, Key: testKey(t), Now: func() time.Time { return now }})
	if _, err := c.Login(t.Context(), api.ScopeKeyList); err != nil {
		t.Fatal(err)
	}
	now = now.Add(8*time.Hour - 59*time.Second)
	var body string
	f.serve("POST /api/keymgmt/search", api.ScopeKeySearch, says(`{}`), &body)
	if err := search(c); err != nil {
		t.Error(err)
	}
}

// A key's many uses cost one login, and a reboot one more.
func TestUsesShareAToken(t *testing.T) {
	f := startFake(t)
	c := newClient(t, Config{URL: f.url, Key: testKey(t)})
	var body string
	f.serve("POST "+pathSign, useA, says(`{"sign":"AAAA"}`), &body)
	f.serve("POST "+pathVerify, useA, says(""), &body)
	for range 2 {
		for range 20 {
			if _, err := c.Sign(t.Context(), kidA, []byte("msg"), api.AlgEd25519, nil); err != nil {
				t.Fatal(err)
			}
			if err := c.Verify(t.Context(), kidA, []byte("msg"), bytesN(64), api.AlgEd25519, nil); err != nil {
				t.Fatal(err)
			}
		}
		f.reboot()
	}
	if logins, signs := f.count("POST "+pathToken), f.count("POST "+pathSign); logins != 2 || signs != 41 {
		t.Errorf("%d logins and %d calls to sign", logins, signs)
	}
}

// Tokens that ended are not kept for ever, whatever number of keys was used.
func TestEndedTokensGo(t *testing.T) {
	f := startFake(t)
	now := time.Now()
	c := newClient(t, Config{URL: f.url, Key: testKey(t), TTL: time.Hour, Now: func() time.Time { return now }})
	for i := range byte(5) {
		if _, err := c.Login(t.Context(), KID{i}.scopeUse()); err != nil {
			t.Fatal(err)
		}
		now = now.Add(30 * time.Minute)
	}
	if len(c.tokens) != 2 { // the last, and the one half an hour older
		t.Errorf("%d tokens are kept", len(c.tokens))
	}
}

// Without a credential a search is sent bare, and the module decides.
func TestSearchWithoutCredential(t *testing.T) {
	f := startFake(t)
	c := newClient(t, Config{URL: f.url})
	var body string
	f.serve("POST /api/keymgmt/search", "", says(`{"total":0}`), &body)
	p, err := c.SearchKeys(t.Context(), KeySearch{Descr: []byte("descr:"), Start: true})
	if err != nil || len(p.Keys) != 0 || !p.Last() || f.count("GET "+pathToken) != 0 {
		t.Error(p, err)
	}
	f.serve("POST /api/keymgmt/search", "", refuses(401), &body)
	if _, err = c.SearchKeysOpen(t.Context(), KeySearch{Descr: []byte("descr:"), Start: true}); !errors.Is(err, api.ErrUnauthorized) {
		t.Error(err)
	}
}

// A fixed token is used for what it opens, and its scope is not second-guessed.
func TestKeysWithAFixedToken(t *testing.T) {
	f := startFake(t)
	token := fakeToken(t, api.TokenClaims{Scope: useA, Sub: "U", Exp: 1})
	f.live[token] = useA
	c := newClient(t, Config{URL: f.url, Token: Bearer(token)})
	var body string
	f.serve("GET /api/keymgmt/get/"+textA, useA, says(`{"type":"AES128"}`), &body)
	if _, err := c.GetKey(t.Context(), kidA); err != nil {
		t.Error(err)
	}
	if f.count("GET "+pathToken) != 0 {
		t.Error("it logged in")
	}
}
