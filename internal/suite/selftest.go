package suite

import (
	"bytes"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"

	"github.com/cloudflare/circl/kem/mlkem/mlkem512"

	"softhem/api"
)

// SelfTest runs a known answer through every primitive and every key type and
// returns the first that fails. A module whose self-test fails must not work.
// It takes about 10 ms on two cores, half of it for P-521.
func SelfTest() error { return runKnownAnswers(knownAnswers()) }

// A knownAnswer is what a primitive must give, and the way to find out whether
// it does. holds sees the answer only as its argument, so that a test can
// change one and see that it is noticed.
type knownAnswer struct {
	name  string
	want  string // hex
	holds func(want []byte) bool
}

// runKnownAnswers works on all cores: nothing can be served before it is done,
// and half of its time is that of P-521.
func runKnownAnswers(answers []knownAnswer) error {
	failed := make([]bool, len(answers))
	var running sync.WaitGroup
	for i, a := range answers {
		running.Go(func() {
			want, err := hex.DecodeString(a.want)
			failed[i] = err != nil || !a.holds(want)
		})
	}
	running.Wait()
	if i := slices.Index(failed, true); i >= 0 {
		return fmt.Errorf("known answer of %s failed", answers[i].name)
	}
	return nil
}

// equals is for answers that are the output of compute, nil if it fails.
func equals(compute func() []byte) func([]byte) bool {
	return func(want []byte) bool {
		got := compute()
		return got != nil && bytes.Equal(got, want)
	}
}

// testMessage and testContext are the input of most answers.
const (
	testMessage = "abc"
	testContext = "context"
)

// testKeys are opened keys whose material is the bytes 1, 2, 3 and so on.
// Opening one is part of the test, and done once.
type testKeys map[api.KeyType]func() *Key

func newTestKeys() testKeys {
	keys := make(testKeys)
	for _, a := range algorithms {
		keys[a.Type] = sync.OnceValue(func() *Key {
			k, _ := a.Open(counting(1, a.MaterialSize))
			return k
		})
	}
	return keys
}

// open returns nil if the key cannot be opened.
func (keys testKeys) open(t api.KeyType) *Key { return keys[t]() }

// mac is the MAC of the test message under a stored key.
func (keys testKeys) mac(t api.KeyType, want string) knownAnswer {
	return knownAnswer{"HMAC with " + string(t), want, equals(func() []byte {
		k := keys.open(t)
		if k == nil {
			return nil
		}
		mac, err := k.MAC([]byte(testMessage))
		if err != nil {
			return nil
		}
		return mac
	})}
}

// agree is the test key's public key and its secret with peer.
func (keys testKeys) agree(t api.KeyType, peer, want string) knownAnswer {
	return knownAnswer{"ECDH on " + string(t), want, equals(func() []byte {
		k := keys.open(t)
		if k == nil {
			return nil
		}
		p, err := k.alg.OpenPublic(unhex(peer))
		if err != nil {
			return nil
		}
		secret, err := k.SharedSecret(p)
		if err != nil {
			return nil
		}
		return slices.Concat(k.Public(), secret)
	})}
}

// sign has no answer: the key must take its own signature. It is for P-384 and
// P-521, whose verifications are too slow for more than one at each start;
// their arithmetic has its known answer in agree, ECDSA around it in ecdsa.
func (keys testKeys) sign(t api.KeyType, alg string) knownAnswer {
	return knownAnswer{alg + " on " + string(t), "", func([]byte) bool {
		s, ok := SignatureAlgOf(alg)
		k := keys.open(t)
		if k == nil || !ok {
			return false
		}
		sig, err := k.Sign(s, []byte(testMessage), nil)
		return err == nil && k.Verify(s, []byte(testMessage), nil, sig) == nil
	}}
}

// ecdsa is a signature of the test message, one of many that are valid. The
// key must take it, but for no other message, and take its own.
func (keys testKeys) ecdsa(t api.KeyType, alg, want string) knownAnswer {
	return knownAnswer{alg + " on " + string(t), want, func(want []byte) bool {
		s, ok := SignatureAlgOf(alg)
		k := keys.open(t)
		if k == nil || !ok {
			return false
		}
		own, err := k.Sign(s, []byte(testMessage), nil)
		return err == nil && k.Verify(s, []byte(testMessage), nil, own) == nil &&
			k.Verify(s, []byte(testMessage), nil, want) == nil && k.Verify(s, []byte("abd"), nil, want) != nil
	}}
}

// eddsa is the test key's public key and its signature of the test
// message, with the test context where there may be one. The key must take the
// signature, but for no other message.
func (keys testKeys) eddsa(t api.KeyType, alg, want string) knownAnswer {
	return knownAnswer{alg, want, equals(func() []byte {
		s, ok := SignatureAlgOf(alg)
		k := keys.open(t)
		if k == nil || !ok {
			return nil
		}
		sig, err := k.Sign(s, []byte(testMessage), []byte(testContext))
		if err != nil || k.Verify(s, []byte(testMessage), []byte(testContext), sig) != nil ||
			k.Verify(s, []byte("abd"), []byte(testContext), sig) == nil {
			return nil
		}
		return slices.Concat(k.Public(), sig)
	})}
}

// cipherAnswer is ciphertext and tag under the key 1, 2, 3 and so on and the IV
// 41 42 43... (hex), of the test message, or with ECB of the block 61 62 63...
// Associated data is the test context.
func cipherAnswer(alg, want string) knownAnswer {
	return knownAnswer{alg, want, equals(func() []byte {
		c, ok := CipherAlgOf(alg)
		if !ok {
			return nil
		}
		key, iv, plain := counting(1, c.KeySize()), counting(0x41, cipherIVSize), []byte(testMessage)
		if c.Blocks() {
			plain = counting(0x61, 16)
		}
		ciphertext, tag, err := c.encrypt(key, plain, iv, []byte(testContext))
		if err != nil {
			return nil
		}
		again, err := c.Decrypt(key, ciphertext, iv, tag, []byte(testContext))
		if err != nil || !bytes.Equal(again, plain) {
			return nil
		}
		return slices.Concat(ciphertext, tag)
	})}
}

// wrapAnswer is the 24 bytes 61 62 63... (hex) under the key 1, 2, 3 and so on.
func wrapAnswer(alg, want string) knownAnswer {
	return knownAnswer{"key wrap with " + alg, want, equals(func() []byte {
		w, ok := WrapAlgOf(alg)
		if !ok {
			return nil
		}
		kek, plain := counting(1, w.KeySize()), counting(0x61, 24)
		wrapped, err := w.Wrap(kek, plain, nil)
		if err != nil {
			return nil
		}
		again, err := w.Unwrap(kek, wrapped, nil)
		if err != nil || !bytes.Equal(again, plain) {
			return nil
		}
		return wrapped
	})}
}

// mlkem is four values of 32 bytes: the SHA-256 of the test key's public
// key, that of the ciphertext made with the randomness 81 82 83... (hex), the
// secret in it, and the secret that a ciphertext gives whose first bit was
// changed. A secret encapsulated at random must come out again as well.
func (keys testKeys) mlkem(t api.KeyType, want string) knownAnswer {
	return knownAnswer{"ML-KEM with " + string(t), want, equals(func() []byte {
		k := keys.open(t)
		if k == nil {
			return nil
		}
		secret, ciphertext := encapsulateWith(k, counting(0x81, 32))
		if secret == nil {
			return nil
		}
		same, err := k.Decapsulate(ciphertext)
		if err != nil || !bytes.Equal(same, secret) {
			return nil
		}
		digest := sha256.Sum256(ciphertext)
		ciphertext[0] ^= 1
		rejected, err := k.Decapsulate(ciphertext)
		if err != nil {
			return nil
		}
		fresh, sent, err := k.Encapsulate()
		if err != nil {
			return nil
		}
		if received, err := k.Decapsulate(sent); err != nil || !bytes.Equal(received, fresh) {
			return nil
		}
		public := sha256.Sum256(k.Public())
		return slices.Concat(public[:], digest[:], secret, rejected)
	})}
}

// encapsulateWith is Encapsulate with given randomness (ML-KEM.Encaps_internal
// of FIPS 203), which is for known answers and nothing else. It returns nil if
// it fails.
func encapsulateWith(k *Key, random []byte) (secret, ciphertext []byte) {
	m, ok := k.opened().(*mlkemKey)
	if !ok {
		return nil, nil
	}
	switch pub := m.public.(type) {
	case *encapsulator512:
		secret = make([]byte, mlkem512.SharedKeySize)
		ciphertext = make([]byte, mlkem512.CiphertextSize)
		(*mlkem512.PublicKey)(pub).EncapsulateTo(ciphertext, secret, random)
	case *mlkem.EncapsulationKey768:
		secret, ciphertext, _ = mlkemtest.Encapsulate768(pub, random)
	case *mlkem.EncapsulationKey1024:
		secret, ciphertext, _ = mlkemtest.Encapsulate1024(pub, random)
	}
	return secret, ciphertext
}

// mldsa is the SHA-256 of the test key's public key and that of its
// deterministic signature of the test message with the test context. The key
// must take this signature and a hedged one, but for no other message.
func (keys testKeys) mldsa(t api.KeyType, want string) knownAnswer {
	return knownAnswer{"ML-DSA with " + string(t), want, equals(func() []byte {
		k := keys.open(t)
		if k == nil {
			return nil
		}
		msg, ctx := []byte(testMessage), []byte(testContext)
		sig, err := k.opened().(messageSigner).signMessage(msg, ctx, false)
		if err != nil {
			return nil
		}
		hedged, err := k.SignMLDSA(msg, ctx)
		if err != nil || k.VerifyMLDSA(msg, ctx, hedged) != nil ||
			k.VerifyMLDSA(msg, ctx, sig) != nil || k.VerifyMLDSA([]byte("abd"), ctx, sig) == nil {
			return nil
		}
		public, digest := sha256.Sum256(k.Public()), sha256.Sum256(sig)
		return slices.Concat(public[:], digest[:])
	})}
}

// counting is the n bytes first, first+1, ...
func counting(first byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

// unhex is for constants; wrong hex gives a wrong answer, which the test then
// reports.
func unhex(s string) []byte {
	b, _ := hex.DecodeString(s)
	return b
}
