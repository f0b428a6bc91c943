//go:build !unix

package sqlitestore

import "time"

func cpuTime() (user, system time.Duration) { return 0, 0 }
