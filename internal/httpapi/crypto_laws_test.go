package httpapi_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"softhem/api"
	"softhem/internal/suite"
)

// A law is a pair of operations, one of which undoes or confirms the other.
type law struct {
	name       string
	keys       api.KeyType
	step, most int // sizes are multiples of step up to most, and at least least
	least      int
	holds      func(msg []byte) error
}

// laws are all of them for the keys of one module.
func laws(k *keeper) (all []law) {
	kids := make(map[api.KeyType]string)
	for _, r := range keyRows {
		kids[r.keys] = k.create(r.keys)
	}
	// answer is a decoded field of a 200.
	answer := func(op, kid, field string, f fields) ([]byte, error) {
		a := k.use(op, kid, f)
		if a.status != 200 {
			return nil, fmt.Errorf("%s: %d (%s)", op, a.status, a.header.Get(api.HeaderError))
		}
		return k.must(a, field), nil
	}
	confirmed := func(op, kid string, f fields) error {
		if a := k.use(op, kid, f); a.status != 200 || len(a.body) != 0 {
			return fmt.Errorf("%s: %d (%s) %q", op, a.status, a.header.Get(api.HeaderError), a.body)
		}
		return nil
	}
	confirms := func(r keyRow, name, op, back, field string, most int, f fields) {
		all = append(all, law{name, r.keys, 1, most, 1, func(msg []byte) error {
			f := f.but(fields{"msg": msg})
			proof, err := answer(op, kids[r.keys], field, f)
			if err != nil {
				return err
			}
			if err := confirmed(back, kids[r.keys], f.but(fields{field: proof})); err != nil {
				return err
			}
			other := bytes.Clone(msg)
			other[len(other)/2] ^= 0x10
			if a := k.use(back, kids[r.keys], f.but(fields{field: proof, "msg": other})); a.status != 406 {
				return fmt.Errorf("%s of another message: %d", back, a.status)
			}
			return nil
		}})
	}
	reverses := func(r keyRow, name, op, out, back, in string, step, least int, f fields) {
		all = append(all, law{name, r.keys, step, 2048, least, func(msg []byte) error {
			a := k.use(op, kids[r.keys], f.but(fields{"msg": msg}))
			if a.status != 200 {
				return fmt.Errorf("%s: %d", op, a.status)
			}
			undo := f.but(fields{"msg": k.must(a, out)})
			for _, part := range []string{"iv", "tag"} {
				if strings.Contains(string(a.body), `"`+part+`"`) {
					undo[part] = k.must(a, part)
				}
			}
			plain, err := answer(back, kids[r.keys], in, undo)
			if err == nil && !bytes.Equal(plain, msg) {
				err = fmt.Errorf("%d bytes came back as %d others", len(msg), len(plain))
			}
			return err
		}})
	}
	for _, r := range keyRows {
		peer := fields{"ext_kid": kids[r.keys], "ctx": []byte("laws")}
		if r.mac {
			confirms(r, "hmac", "hmac/hash", "hmac/verify", "mac", 2048, fields{})
		}
		for _, alg := range r.algs {
			confirms(r, alg, "exdsa/sign", "exdsa/verify", "sign", 2048, fields{"alg": alg, "ctx": []byte("laws")})
		}
		if r.mldsa { // a body of 7300 bytes has to hold the signature too
			most := map[api.KeyType]int{"MLDSA44": 2048, "MLDSA65": 2048, "MLDSA87": 798}[r.keys]
			confirms(r, "mldsa", "pqc/mldsa/sign", "pqc/mldsa/verify", "sign", most, fields{})
		}
		for _, mode := range []string{"ECB", "CBC", "GCM"} {
			step := map[string]int{"ECB": 16, "CBC": 1, "GCM": 1}[mode]
			for _, bits := range []int{128, 192, 256} {
				f := fields{"alg": fmt.Sprintf("AES%d-%s", bits, mode)}
				if mode == "GCM" {
					f["aad"] = []byte("laws")
				}
				if r.aes >= bits {
					reverses(r, f["alg"].(string), "cipher/encrypt", "ciphertext", "cipher/decrypt", "plaintext", step, step, f)
				}
				if r.ecdh {
					reverses(r, f["alg"].(string)+" with a peer", "cipher/encrypt", "ciphertext", "cipher/decrypt", "plaintext", step, step, f.but(peer))
				}
			}
		}
		for _, bits := range []int{128, 192, 256} {
			f := fields{"alg": fmt.Sprintf("AES%d", bits)}
			if r.aes >= bits {
				reverses(r, "wrap "+f["alg"].(string), "cipher/wrap", "wrapped", "cipher/unwrap", "unwrapped", 8, 16, f)
			}
			if r.ecdh {
				reverses(r, "wrap with a peer "+f["alg"].(string), "cipher/wrap", "wrapped", "cipher/unwrap", "unwrapped", 8, 16, f.but(peer).but(fields{"iv": []byte("8 bytes!")}))
			}
		}
		if r.ecdh {
			for _, alg := range []string{"SHA2-256", "SHA2-384", "SHA2-512", "SHA3-256", "SHA3-384", "SHA3-512"} {
				confirms(r, "hmac "+alg+" with a peer", "hmac/hash", "hmac/verify", "mac", 2048, fields{"alg": alg, "ext_kid": kids[r.keys]})
			}
		}
		if r.kem {
			all = append(all, law{"mlkem", r.keys, 1, 1, 1, func([]byte) error {
				a := k.use("pqc/mlkem/encaps", kids[r.keys], fields{})
				if a.status != 200 {
					return fmt.Errorf("encaps: %d", a.status)
				}
				secret, err := answer("pqc/mlkem/decaps", kids[r.keys], "ss", fields{"ct": k.must(a, "ct")})
				if ours := k.must(a, "ss"); err == nil && (len(ours) != 32 || !bytes.Equal(ours, secret)) {
					err = fmt.Errorf("secrets %x and %x", ours, secret)
				}
				return err
			}})
		}
	}
	return all
}

// What was encrypted, wrapped, signed, hashed or encapsulated is decrypted,
// unwrapped, verified and decapsulated, whatever the message and its length.
func TestLawsOfOperations(t *testing.T) {
	all := laws(newKeeper(t, nil))
	t.Run("every law at its ends", func(t *testing.T) {
		for _, l := range all {
			for _, size := range []int{l.least, l.least + l.step, l.most - l.step, l.most} {
				if size < l.least || size > l.most {
					continue
				}
				if err := l.holds(suite.Random(size)); err != nil {
					t.Errorf("%s with %s, %d bytes: %v", l.name, l.keys, size, err)
				}
			}
		}
	})
	t.Run("every size", func(t *testing.T) {
		next := make(map[int]int) // of the laws with that step, whose turn it is
		for size := 1; size <= 2048; size++ {
			for _, step := range []int{1, 8, 16} {
				if size%step != 0 {
					continue
				}
				for range all { // the next law that takes this size
					l := all[next[step]%len(all)]
					next[step]++
					if l.step == step && size >= l.least && size <= l.most {
						if err := l.holds(suite.Random(size)); err != nil {
							t.Fatalf("%s with %s, %d bytes: %v", l.name, l.keys, size, err)
						}
						break
					}
				}
			}
		}
	})
	t.Run("rapid", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			l := rapid.SampledFrom(all).Draw(t, "law")
			n := rapid.IntRange((l.least+l.step-1)/l.step, l.most/l.step).Draw(t, "size") * l.step
			msg := rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "message")
			if err := l.holds(msg); err != nil {
				t.Fatalf("%s with %s: %v", l.name, l.keys, err)
			}
		})
	})
	if len(all) < 100 {
		t.Errorf("%d laws", len(all))
	}
	t.Logf("%d laws", len(all))
}
