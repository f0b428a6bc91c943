package httpapi_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"

	"softhem/api"
	"softhem/internal/suite"
)

// bytesOf are the bytes of an answer as they come over TLS, but the date.
func (k *keeper) bytesOf(path, scope string, f fields) string {
	k.t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(k.module.CACert)
	conn, err := tls.Dial("tcp", strings.TrimPrefix(k.base, "https://"), &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13})
	if err != nil {
		k.t.Fatal(err)
	}
	defer conn.Close()
	body := f.json(k.t)
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		path, *k.as(api.RoleUser, scope), len(body), body)
	all, err := io.ReadAll(conn)
	if err != nil {
		k.t.Fatal(err)
	}
	return regexp.MustCompile(`Date: [^\r]*\r\n`).ReplaceAllString(string(all), "")
}

// Whatever cannot be done with a key is refused in the same bytes: nobody learns
// from an answer whether there is such a key, of which type it is, or how far
// a forgery got.
func TestRefusalsAreOne(t *testing.T) {
	k := newKeeper(t, nil)
	kids := make(map[api.KeyType]string)
	for _, r := range keyRows {
		kids[r.keys] = k.create(r.keys)
	}
	public := k.imports("SECP256R1", freshPublic(t, "SECP256R1"))
	unknown := hex.EncodeToString(suite.Random(16))
	seen := make(map[string][]string) // causes by answer
	refused := func(cause, op, kid string, f fields) {
		t.Helper()
		answer := k.bytesOf("/api/crypto/"+op, api.ScopeKeyUse(kid), f.but(fields{"kid": kid}))
		if !strings.HasPrefix(answer, "HTTP/1.1 406 ") || !strings.HasSuffix(answer, "\r\n\r\n") {
			t.Errorf("%s: %s: %q", op, cause, answer)
		}
		seen[answer] = append(seen[answer], op+": "+cause)
	}
	flipped := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[(at+len(b))%len(b)] ^= 1
		return b
	}
	for _, o := range operations() {
		if o.path == "" || o.path == derive {
			continue
		}
		for _, r := range keyRows {
			if !o.own(r) {
				continue
			}
			kid := kids[r.keys]
			f := o.body(k, r, kid)
			refused("an unknown kid", o.path, unknown, f)
			for _, other := range keyRows {
				if !o.own(other) {
					refused("a key of type "+string(other.keys), o.path, kids[other.keys], f)
					break
				}
			}
			if o.peer {
				refused("an unknown peer", o.path, kid, f.but(fields{"ext_kid": unknown}))
				refused("a peer of another curve", o.path, kid, f.but(fields{"ext_kid": kids[r.kin]}))
				refused("a peer of another type", o.path, kid, f.but(fields{"ext_kid": kids["AES128"]}))
				refused("a peer that is no point", o.path, kid, f.but(fields{"pubkey": []byte{1}}))
				refused("a public key", o.path, public, f)
			}
			if !o.bound {
				break // one type shows it
			}
			for _, name := range []string{"mac", "sign", "tag"} {
				value, ok := f[name].([]byte)
				if !ok || name == "tag" && !strings.HasSuffix(f["alg"].(string), "GCM") {
					continue
				}
				for _, at := range []int{0, len(value) / 2, -1} {
					refused(fmt.Sprintf("%s changed at %d", name, at), o.path, kid, f.but(fields{name: flipped(value, at)}))
				}
				if name != "tag" { // which has one length: 400
					refused(name+" cut", o.path, kid, f.but(fields{name: value[:len(value)-1]}))
				}
			}
		}
	}
	// A ciphertext, its padding, its associated data, its IV.
	gcm := fields{"msg": matrixMsg, "alg": "AES256-GCM", "aad": []byte("aad")}
	a := k.use("cipher/encrypt", kids["AES256"], gcm)
	gcm = gcm.but(fields{"msg": k.must(a, "ciphertext"), "iv": k.must(a, "iv"), "tag": k.must(a, "tag")})
	for _, name := range []string{"msg", "iv", "aad"} {
		refused(name+" changed", "cipher/decrypt", kids["AES256"], gcm.but(fields{name: flipped(gcm[name].([]byte), 0)}))
	}
	cbc := fields{"msg": matrixMsg, "alg": "AES128-CBC"}
	a = k.use("cipher/encrypt", kids["AES256"], cbc)
	cbc = cbc.but(fields{"msg": k.must(a, "ciphertext"), "iv": k.must(a, "iv")})
	ciphertext := cbc["msg"].([]byte)
	for what, wrong := range map[string]byte{"0": 16, "17": 16 ^ 17, "255": 16 ^ 255} { // flips of the last byte, which is 16
		broken := bytes.Clone(ciphertext)
		broken[len(broken)-17] ^= wrong
		refused("padding of "+what, "cipher/decrypt", kids["AES256"], cbc.but(fields{"msg": broken}))
	}
	refused("padding that differs", "cipher/decrypt", kids["AES256"], cbc.but(fields{"msg": flipped(ciphertext, -20)}))
	refused("part of a block", "cipher/decrypt", kids["AES256"], cbc.but(fields{"msg": ciphertext[:40]}))
	refused("a key that is too short", "cipher/decrypt", kids["AES128"], gcm)
	wrapped := k.must(k.use("cipher/wrap", kids["AES256"], fields{"msg": matrixMsg}), "wrapped")
	refused("changed", "cipher/unwrap", kids["AES256"], fields{"msg": flipped(wrapped, 9)})
	refused("another iv", "cipher/unwrap", kids["AES256"], fields{"msg": wrapped, "iv": make([]byte, 8)})
	refused("too short", "cipher/wrap", kids["AES256"], fields{"msg": make([]byte, 8)})
	refused("no alg with a peer", "hmac/hash", kids["CURVE25519"], fields{"msg": matrixMsg, "ext_kid": kids["CURVE25519"]})
	refused("a point of low order", "ecdh", kids["CURVE25519"], fields{"pubkey": make([]byte, 32)})
	refused("a ct of another length", "pqc/mlkem/decaps", kids["MLKEM768"], fields{"ct": make([]byte, 768)})

	if len(seen) != 1 {
		for answer, causes := range seen {
			t.Errorf("%d causes, the first %q, give %q", len(causes), causes[0], answer)
		}
	}
	for answer, causes := range seen {
		t.Logf("%d causes give %q", len(causes), answer)
		if len(causes) < 500 {
			t.Errorf("%d causes were tried", len(causes))
		}
	}
}
