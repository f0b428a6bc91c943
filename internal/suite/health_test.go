package suite

import (
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// binomialTail is 256^n times P(X >= k) for a binomial X of n samples that hit with
// probability 1/256: exact.
func binomialTail(n, k int64) *big.Int {
	sum, miss := new(big.Int), big.NewInt(255)
	for i := k; i <= n; i++ {
		term := new(big.Int).Exp(miss, big.NewInt(n-i), nil)
		sum.Add(sum, term.Mul(term, new(big.Int).Binomial(n, i)))
	}
	return sum
}

// rarer tells whether P(X >= k) <= 2^-bits.
func rarer(n, k int64, bits uint) bool {
	return new(big.Int).Lsh(binomialTail(n, k), bits).Cmp(new(big.Int).Lsh(big.NewInt(1), uint(8*n))) <= 0
}

// The cut-offs are those of SP 800-90B 4.4.1 and 4.4.2 for H = 8 and alpha = 2^-40.
func TestHealthCutoffs(t *testing.T) {
	const alphaBits, minEntropy = 40, 8
	if want := 1 + (alphaBits+minEntropy-1)/minEntropy; repetitionCutoff != want {
		t.Errorf("repetition count: %d, want %d", repetitionCutoff, want)
	}
	critical := int64(0) // least k with P(X <= k) >= 1 - alpha, so P(X >= k+1) <= alpha
	for !rarer(entropyWindow, critical+1, alphaBits) {
		critical++
	}
	if proportionCutoff != 1+critical {
		t.Errorf("adaptive proportion: %d, want %d", proportionCutoff, 1+critical)
	}
	// What docs/decisions.md says of a window whose first sample counts as well.
	if !rarer(entropyWindow-1, proportionCutoff-1, 37) || rarer(entropyWindow-1, proportionCutoff-1, 38) {
		t.Error("the chance that a window of a perfect source fails is not between 2^-38 and 2^-37")
	}
}

// What a perfect source gives passes, and each kind of failure is found where it
// begins, and not one sample sooner.
func TestEntropyHealth(t *testing.T) {
	stream := rand.New(rand.NewPCG(1, 2))
	draw := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(stream.Uint32())
		}
		return b
	}
	for range 2000 {
		if err := CheckEntropy(draw(EntropySamples)); err != nil {
			t.Fatalf("a sound source: %v", err)
		}
	}
	if err := CheckEntropy(Random(EntropySamples)); err != nil {
		t.Errorf("the system's source: %v", err)
	}
	if err := CheckEntropy(draw(EntropySamples - 1)); err != ErrTooFewSamples {
		t.Errorf("too few samples: %v", err)
	}
	// No value twice in a row, and none more than four times in a window.
	quiet := make([]byte, EntropySamples)
	for i := range quiet {
		quiet[i] = byte(i)
	}
	// with puts n times value into a copy, each step samples after the last.
	with := func(at, n, step int, value byte) []byte {
		b := slices.Clone(quiet)
		for i := range n {
			b[at+i*step] = value
		}
		return b
	}
	for _, c := range []struct {
		name    string
		samples []byte
		want    string
	}{
		{"five in a row", with(300, repetitionCutoff-1, 1, 7), ""},
		{"six in a row", with(300, repetitionCutoff, 1, 7), "repetition"},
		{"six over the border of the windows", with(entropyWindow-3, repetitionCutoff, 1, 7), "repetition"},
		{"six at the end", with(EntropySamples-repetitionCutoff, repetitionCutoff, 1, 7), "repetition"},
		// The first sample of a window is 0, which comes once more in it.
		{"one less than too often", with(2, proportionCutoff-3, 2, 0), ""},
		{"too often", with(2, proportionCutoff-2, 2, 0), "proportion"},
		{"too often in the second window", with(entropyWindow+2, proportionCutoff-2, 2, 0), "proportion"},
		{"often, over two windows", with(entropyWindow-18, proportionCutoff-2, 2, 0), ""},
		{"often, and not the first of the window", with(2, 40, 2, 9), ""},
		{"stuck", make([]byte, EntropySamples), "repetition"},
	} {
		err := CheckEntropy(c.samples)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
