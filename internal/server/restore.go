package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"softhem/internal/backup"
	"softhem/internal/control"
	"softhem/internal/seal"
)

// restoring ends the name of the folder that a backup is unpacked into, beside
// the one it is for.
const restoring = ".restoring"

// A RestoreConfig says where a backup is to go.
type RestoreConfig struct {
	// Dir is the folder of the module that will be. It must not be there, or be
	// empty; what it is in must be writable.
	Dir string
	// RootKey says where the root key will be, by default in Dir, and what opens
	// it if it is an age file. When there is a file already, that is the root
	// key, and the one in the backup is left there.
	RootKey seal.RootSource
}

// Restore makes a data folder of an archive: it unpacks it beside, opens
// everything in it as Check does, and then gives it its name. Whatever goes
// wrong before that, a crash included, leaves no folder of that name; what was
// unpacked is removed, by the next Restore at the latest. A crash may leave the
// root key at a place of its own, where the next Restore uses it.
//
// The module is what it was at that moment. Nothing in it can know that it went
// on elsewhere, and whoever saw more of its log sees a log that was cut.
func Restore(ctx context.Context, r io.Reader, cfg RestoreConfig) (report control.Report, err error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return report, err
	}
	if err := emptyFolder(dir); err != nil {
		return report, err
	}
	temp := dir + restoring
	held, err := claim(temp)
	if err != nil {
		return report, err
	}
	defer held.Close()
	defer func() {
		if err != nil {
			if removeErr := backup.Remove(temp); removeErr != nil && !errors.Is(removeErr, fs.ErrNotExist) {
				err = errors.Join(err, removeErr)
			}
		}
	}()
	m, rootFile, err := backup.Extract(ctx, r, temp, nil)
	if err != nil {
		return report, err
	}
	defer clear(rootFile)
	root, made, err := cfg.placeRoot(temp, m, rootFile)
	defer func() {
		if err != nil && made != "" {
			err = errors.Join(err, os.Remove(made))
		}
	}()
	if err != nil {
		return report, err
	}
	defer root.Wipe()
	if report, err = inspect(ctx, temp, root, m, false); err != nil {
		return report, err
	}
	// What opening the store has changed is on disk before the folder counts.
	if err := errors.Join(syncFile(filepath.Join(temp, fileDB)), syncFile(temp)); err != nil {
		return report, err
	}
	// Over a folder that is there and empty, which os.Rename refuses.
	if err := unix.Rename(temp, dir); err != nil {
		return report, fmt.Errorf("the folder cannot be put in its place; if %s is where a file system is mounted, name a folder in it: %w", dir, err)
	}
	return report, syncFile(filepath.Dir(dir))
}

// placeRoot puts the root key where it is to be and loads it. made is its file,
// if it was made here, beside nothing else that was.
func (cfg RestoreConfig) placeRoot(temp string, m *backup.Manifest, rootFile []byte) (root seal.Secret, made string, err error) {
	source, named := cfg.RootKey, cfg.RootKey.File
	if named == "" {
		source.File = filepath.Join(temp, fileRoot)
	}
	_, err = os.Stat(source.File)
	switch {
	case err == nil:
		root, err = seal.LoadRoot(source)
		return root, "", err
	case !errors.Is(err, fs.ErrNotExist):
		return nil, "", err
	case m.RootKey == backup.RootNone:
		return nil, "", errors.New("the root key is not in the backup; name it with --root-key")
	}
	if err := seal.PutRootFile(source.File, rootFile); err != nil {
		return nil, "", err
	}
	root, err = seal.LoadRoot(source)
	return root, named, err
}

// emptyFolder refuses a folder that has something in it.
func emptyFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(filepath.Dir(dir)); err != nil {
			return fmt.Errorf("the folder that %s is to be in: %w", dir, err)
		}
		return nil
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("%s is not empty; restore into a new folder", dir)
	}
	return nil
}

// claim makes the folder to unpack into, and empties it of what a process that
// was killed has left. Only one process at a time has it.
func claim(temp string) (*os.File, error) {
	for range 2 {
		if err := os.Mkdir(temp, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		// A link would have that emptied which it leads to.
		held, err := os.OpenFile(temp, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return nil, fmt.Errorf("the backup is unpacked in %s, and that is no folder that can be used; remove it: %w", temp, err)
		}
		if err := unix.Flock(int(held.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			held.Close()
			return nil, fmt.Errorf("another process restores into %s", temp)
		}
		entries, err := os.ReadDir(temp)
		if err == nil && len(entries) == 0 {
			if err := privateDir(temp); err != nil {
				held.Close()
				return nil, err
			}
			return held, nil
		}
		if err = errors.Join(err, backup.Remove(temp)); err != nil {
			held.Close()
			return nil, err
		}
		held.Close() // of a folder that is gone
	}
	return nil, fmt.Errorf("%s cannot be used to unpack the backup", temp)
}

// syncFile makes a file, or the names in a folder, durable.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
