package suite

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"runtime"
	"strings"
	"testing"

	"softhem/api"
)

// maxMaterial is the room for key material in a record of the store, in bytes.
const maxMaterial = 86

// The table of part 3 of the protocol.
func TestTable(t *testing.T) {
	want := []struct {
		keys             api.KeyType
		material, public int
		derived          int
		mode             bool
		ecdh, exdsa      bool
		mac, cipher      bool
		kem, mldsa       bool
	}{
		{keys: "SECP256R1", material: 32, public: 33, derived: 48, mode: true, ecdh: true, exdsa: true},
		{keys: "SECP384R1", material: 48, public: 49, derived: 64, mode: true, ecdh: true, exdsa: true},
		{keys: "SECP521R1", material: 66, public: 67, derived: 82, mode: true, ecdh: true, exdsa: true},
		{keys: "SECP256K1", material: 32, public: 33, derived: 48, mode: true, ecdh: true, exdsa: true},
		{keys: "CURVE25519", material: 32, public: 32, derived: 32, ecdh: true},
		{keys: "CURVE448", material: 56, public: 56, derived: 56, ecdh: true},
		{keys: "ED25519", material: 32, public: 32, derived: 32, exdsa: true},
		{keys: "ED448", material: 57, public: 57, derived: 57, exdsa: true},
		{keys: "SHA2-256", material: 32, derived: 32, mac: true},
		{keys: "SHA2-384", material: 48, derived: 48, mac: true},
		{keys: "SHA2-512", material: 64, derived: 64, mac: true},
		{keys: "SHA3-256", material: 32, derived: 32, mac: true},
		{keys: "SHA3-384", material: 48, derived: 48, mac: true},
		{keys: "SHA3-512", material: 64, derived: 64, mac: true},
		{keys: "AES128", material: 16, derived: 16, cipher: true},
		{keys: "AES192", material: 24, derived: 24, cipher: true},
		{keys: "AES256", material: 32, derived: 32, cipher: true},
		{keys: "MLKEM512", material: 64, public: 800, kem: true},
		{keys: "MLKEM768", material: 64, public: 1184, kem: true},
		{keys: "MLKEM1024", material: 64, public: 1568, kem: true},
		{keys: "MLDSA44", material: 32, public: 1312, mldsa: true},
		{keys: "MLDSA65", material: 32, public: 1952, mldsa: true},
		{keys: "MLDSA87", material: 32, public: 2592, mldsa: true},
	}
	all := Algorithms()
	if len(all) != len(want) || len(all) != len(api.KeyTypes()) {
		t.Fatalf("%d rows, want %d", len(all), len(want))
	}
	for i, a := range all {
		w := want[i]
		if a.Type != api.KeyTypes()[i] || a.Type != w.keys {
			t.Errorf("row %d is %s, want %s", i, a.Type, w.keys)
		}
		if found, ok := AlgorithmOf(a.Type); !ok || found != a {
			t.Errorf("AlgorithmOf(%s) is another row", a.Type)
		}
		if a.MaterialSize != w.material || a.MinSecret() != w.material || a.PublicSize != w.public || a.DerivedSize() != w.derived {
			t.Errorf("%s: material %d, public %d, derived %d; want %d, %d, %d",
				a.Type, a.MaterialSize, a.PublicSize, a.DerivedSize(), w.material, w.public, w.derived)
		}
		if a.MaterialSize > maxMaterial {
			t.Errorf("%s: material of %d bytes does not fit into a record", a.Type, a.MaterialSize)
		}
		if a.HasMode != w.mode || a.ECDH != w.ecdh || a.ExDSA != w.exdsa || a.MAC != w.mac || a.Cipher != w.cipher ||
			a.KEM != w.kem || a.MLDSA != w.mldsa {
			t.Errorf("%s may do something else than the protocol says: %+v", a.Type, *a)
		}
	}
	if _, ok := AlgorithmOf("SECP192R1"); ok {
		t.Error("an unknown type was found")
	}
}

// What a key is made of opens, and its public key opens to the same bytes.
func TestOpen(t *testing.T) {
	for _, a := range Algorithms() {
		material := a.NewMaterial()
		if len(material) != a.MaterialSize || bytes.Equal(material, a.NewMaterial()) {
			t.Errorf("%s: material of %d bytes, or the same twice", a.Type, len(material))
		}
		k, err := a.Open(material)
		if err != nil {
			t.Errorf("%s: %v", a.Type, err)
			continue
		}
		clear(material) // the key has its own copy
		if k.Algorithm() != a || !k.Private() || len(k.Public()) != a.PublicSize {
			t.Errorf("%s: opened as %s, private %t, %d bytes public", a.Type, k.Algorithm().Type, k.Private(), len(k.Public()))
		}
		if symmetric := a.PublicSize == 0; symmetric != (len(k.Secret()) == a.MaterialSize) || symmetric != (k.Public() == nil) {
			t.Errorf("%s: secret of %d bytes, public %v", a.Type, len(k.Secret()), k.Public())
		}
		for _, n := range []int{0, a.MaterialSize - 1, a.MaterialSize + 1} {
			if _, err := a.Open(make([]byte, n)); !errors.Is(err, ErrKey) {
				t.Errorf("%s: %d bytes of material: %v", a.Type, n, err)
			}
		}
		if a.PublicSize == 0 {
			if _, err := a.OpenPublic(nil); !errors.Is(err, ErrKey) {
				t.Errorf("%s has a public key: %v", a.Type, err)
			}
			continue
		}
		raw := bytes.Clone(k.Public())
		pub, err := a.OpenPublic(raw)
		if err != nil {
			t.Errorf("%s: its own public key: %v", a.Type, err)
			continue
		}
		clear(raw)
		if pub.Algorithm() != a || pub.Private() || pub.Secret() != nil || !bytes.Equal(pub.Public(), k.Public()) {
			t.Errorf("%s: the public key opened as another", a.Type)
		}
		for _, n := range []int{0, 1, a.PublicSize - 1, a.PublicSize + 1, 2*a.PublicSize - 1} {
			long := append(bytes.Clone(k.Public()), make([]byte, a.PublicSize)...)
			if _, err := a.OpenPublic(long[:n]); !errors.Is(err, ErrKey) {
				t.Errorf("%s: a public key of %d bytes: %v", a.Type, n, err)
			}
		}
	}
}

// Scalars outside [1, n-1] are no keys, and those at the ends are.
func TestScalarRange(t *testing.T) {
	one := big.NewInt(1)
	for _, a := range Algorithms() {
		if a.order == nil {
			continue
		}
		bytesOf := func(d *big.Int) []byte { return d.FillBytes(make([]byte, a.MaterialSize)) }
		for _, d := range []*big.Int{new(big.Int), a.order, new(big.Int).Add(a.order, one)} {
			if _, err := a.Open(bytesOf(d)); !errors.Is(err, ErrKey) {
				t.Errorf("%s: scalar %x: %v", a.Type, d, err)
			}
		}
		for _, d := range []*big.Int{one, new(big.Int).Sub(a.order, one)} {
			if _, err := a.Open(bytesOf(d)); err != nil {
				t.Errorf("%s: scalar %x: %v", a.Type, d, err)
			}
		}
	}
}

// MaterialFrom at the ends of the reduction: 0 and n-1 give 1, n-2 gives n-1.
func TestMaterialFrom(t *testing.T) {
	for _, a := range Algorithms() {
		n := a.DerivedSize()
		for _, wrong := range []int{0, n - 1, n + 1} {
			if wrong < 0 {
				continue
			}
			if _, err := a.MaterialFrom(make([]byte, wrong)); !errors.Is(err, ErrKey) && (wrong != n || n == 0) {
				t.Errorf("%s: %d bytes of okm: %v", a.Type, wrong, err)
			}
		}
		if n == 0 {
			continue
		}
		okm := bytes.Repeat([]byte{0xff}, n)
		got, err := a.MaterialFrom(okm)
		if err != nil {
			t.Errorf("%s: %v", a.Type, err)
			continue
		}
		if _, err := a.Open(got); err != nil {
			t.Errorf("%s: derived material does not open: %v", a.Type, err)
		}
		if a.order == nil {
			if !bytes.Equal(got, okm) || &got[0] == &okm[0] {
				t.Errorf("%s: okm was changed or kept", a.Type)
			}
			continue
		}
		order := new(big.Int).Set(a.order)
		for _, c := range []struct{ okm, want int64 }{{0, 1}, {1, 2}} {
			got, _ := a.MaterialFrom(big.NewInt(c.okm).FillBytes(make([]byte, n)))
			if new(big.Int).SetBytes(got).Int64() != c.want {
				t.Errorf("%s: okm %d gives %x", a.Type, c.okm, got)
			}
		}
		for sub, want := range map[int64]int64{1: 1, 2: -1} { // n-1 → 1, n-2 → n-1
			got, _ := a.MaterialFrom(new(big.Int).Sub(order, big.NewInt(sub)).FillBytes(make([]byte, n)))
			w := big.NewInt(want)
			if want < 0 {
				w.Add(w, order)
			}
			if new(big.Int).SetBytes(got).Cmp(w) != 0 {
				t.Errorf("%s: okm n-%d gives %x", a.Type, sub, got)
			}
		}
	}
}

// MemoryBytes bounds a cache, so it has to be near the truth: not under it by
// more than a fifth, not over twice of it.
func TestMemory(t *testing.T) {
	const keys = 64
	heap := func() int64 {
		runtime.GC()
		runtime.GC() // what sync.Pool holds goes at the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	msg := []byte("x")
	ecdsa, _ := SignatureAlgOf(api.SHA256WithECDSA)
	eddsa, _ := SignatureAlgOf(api.AlgEd25519)
	check := func(name string, open func() *Key) {
		used := func() *Key {
			k := open()
			if k.Private() && k.Algorithm().ECDH { // makes what is made late
				k.SharedSecret(k)
			}
			k.Sign(ecdsa, msg, nil)
			k.Sign(eddsa, msg, nil)
			return k
		}
		used() // also the libraries make something late, for all keys
		held := make([]*Key, keys)
		before := heap()
		for i := range held {
			held[i] = used()
		}
		got := (heap() - before) / keys
		said := int64(held[0].MemoryBytes())
		runtime.KeepAlive(held)
		t.Logf("%-20s %6d bytes, says %6d", name, got, said)
		// Go keeps a second form of some keys beside them and drops it some
		// time after they are gone, so small figures are not exact.
		if said*5 < got*4 || said > 2*max(got, 0)+300 {
			t.Errorf("%s: %d bytes, says %d", name, got, said)
		}
	}
	for _, a := range Algorithms() {
		check(string(a.Type), func() *Key {
			k, err := a.Open(a.NewMaterial())
			if err != nil {
				t.Fatal(err)
			}
			return k
		})
		if a.PublicSize == 0 {
			continue
		}
		k, _ := a.Open(a.NewMaterial())
		check(string(a.Type)+" public", func() *Key {
			pub, err := a.OpenPublic(k.Public())
			if err != nil {
				t.Fatal(err)
			}
			return pub
		})
	}
}

// No way of printing shows a secret: not the key, a struct with it in an
// exported or an unexported field, JSON or a log.
func TestKeysDoNotShowThemselves(t *testing.T) {
	for _, a := range Algorithms() {
		material := a.NewMaterial()
		k, err := a.Open(material)
		if err != nil {
			t.Fatal(err)
		}
		type holder struct {
			Shown  *Key
			hidden *Key
			value  Key //nolint:unused // printed by reflection
		}
		h := holder{k, k, Key{k.alg, k.private, k.opened}}
		var out strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p", "%T"} {
			fmt.Fprintf(&out, verb+"\n", k)
			fmt.Fprintf(&out, verb+"\n", h)
			fmt.Fprintf(&out, verb+"\n", &h)
		}
		for _, v := range []any{k, h, map[string]any{"k": k}} {
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			out.Write(b)
		}
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "key", k, "holder", h)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "key", k, "holder", h)
		for _, form := range []string{
			fmt.Sprintf("%x", material[:8]), fmt.Sprintf("%X", material[:8]), strings.Trim(fmt.Sprint(material[:8]), "[]"),
			strings.Trim(fmt.Sprintf("%#v", material[:8]), "[]byte{}"), string(material[:8]),
		} {
			if strings.Contains(out.String(), form) {
				t.Errorf("%s: the secret is printed as %q", a.Type, form)
			}
		}
	}
}
