// Package fsync makes changes of folders durable.
package fsync

import (
	"errors"
	"os"
)

// Dir returns when the names that were created, renamed or removed in a folder are
// on disk. Syncing a file does not do that: after a loss of power what was written
// would be there under no name, or under its old one.
func Dir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
