package server

import (
	"runtime"
	"runtime/debug"
	rtmetrics "runtime/metrics"
)

// The live heap of a module is a few megabytes, so at Go's usual ratio it
// would be collected many dozen times a second under load. TuneGC lets it grow
// by headroom before it is collected, and by no more than what is alive once
// that is larger: with ten thousand logins waiting it changes nothing.
const (
	headroom    = 16 << 20 // bytes
	usualRatio  = 100      // percent, what GOGC is by default
	widestRatio = 500
)

// TuneGC adjusts the garbage collector of this process after each of its
// cycles. A program calls it once, unless its operator has set GOGC.
func TuneGC() {
	live := []rtmetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	ratio := usualRatio
	var afterCycle func(*sentinel)
	// Unreachable at once, so it is finalized after the next cycle.
	watch := func() { runtime.SetFinalizer(new(sentinel), afterCycle) }
	afterCycle = func(*sentinel) {
		rtmetrics.Read(live)
		want := usualRatio
		if alive := live[0].Value.Uint64(); alive > 0 {
			want = int(min(max(headroom*100/alive, usualRatio), widestRatio))
		}
		// Setting it stops the world for a moment: not for a few percent.
		if want > ratio+ratio/4 || want < ratio-ratio/4 || want == usualRatio && ratio != usualRatio {
			debug.SetGCPercent(want)
			ratio = want
		}
		watch()
	}
	watch()
}

// sentinel is what the collector is watched by. It is larger than the objects
// that share an allocation with others, and live as long as those.
type sentinel [32]byte
