//go:build !(linux || darwin || freebsd)

package sqlitestore

// diskFull cannot be asked here: only what SQLite itself calls full is.
func diskFull(string) bool { return false }
