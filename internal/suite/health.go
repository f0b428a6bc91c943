package suite

import (
	"errors"
	"fmt"
)

// The health tests of SP 800-90B section 4.4 on 8-bit samples, for a source that
// is to have 8 bits of min-entropy in each (H) and a chance of 2^-40 (alpha) of a
// false alarm:
//
//	repetition count     1 + ceil(40 / H)                       = 6
//	adaptive proportion  1 + CRITBINOM(512, 2^-H, 1 - alpha)    = 19
//
// where CRITBINOM(n, p, q) is the least k with P(X <= k) >= q for a binomial X.
// health_test.go works both out again, exactly.
const (
	// EntropySamples is how many bytes one run looks at: what section 4.3 asks
	// of a test at start.
	EntropySamples = 1024

	entropyWindow    = 512 // samples of one adaptive proportion test
	repetitionCutoff = 6   // equal samples in a row
	proportionCutoff = 19  // samples of a window that equal its first, which counts
)

// ErrTooFewSamples: a run wants EntropySamples at least.
var ErrTooFewSamples = errors.New("too few samples for the health tests")

// CheckEntropy runs both health tests over consecutive bytes of a random source
// and returns how they failed. They find a source that is stuck, repeats a value
// or prefers one by far. Of a generator that is seeded badly and works well they
// see nothing.
func CheckEntropy(samples []byte) error {
	if len(samples) < EntropySamples {
		return ErrTooFewSamples
	}
	run, first, same := 0, 0, 0
	for i, s := range samples {
		if i > 0 && s == samples[i-1] {
			run++
		} else {
			run = 1
		}
		if run >= repetitionCutoff {
			return fmt.Errorf("repetition count test: a value came %d times in a row", run)
		}
		if i%entropyWindow == 0 {
			first, same = i, 0
		}
		if s == samples[first] {
			same++
		}
		if same >= proportionCutoff {
			return fmt.Errorf("adaptive proportion test: a value came %d times in %d samples", same, i-first+1)
		}
	}
	return nil
}
