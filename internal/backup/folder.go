package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"softhem/internal/fsync"
)

// Extract puts what is in an archive into the folder dir, which is empty, 0700
// and nobody else's. The root key is not put there but returned, as its file
// was; nil if there is none. room, if not nil, is asked beforehand whether so many
// bytes may be written. When Extract returns nil, everything is on disk.
func Extract(ctx context.Context, r io.Reader, dir string, room func(size int64) error) (m *Manifest, rootKey []byte, err error) {
	logs := filepath.Join(dir, DirAudit)
	if err := os.Mkdir(logs, 0o700); err != nil {
		return nil, nil, err
	}
	m, err = Read(ctx, r, func(m *Manifest, f File, content io.Reader) (err error) {
		if room != nil {
			if err := room(m.size()); err != nil {
				return err
			}
			room = nil
		}
		if f.Name == NameRootKey {
			rootKey, err = io.ReadAll(content) // no longer than maxKeyFile
			return err
		}
		return write(filepath.Join(dir, filepath.FromSlash(f.Name)), f.Size, content)
	})
	if err != nil {
		clear(rootKey)
		return nil, nil, err
	}
	return m, rootKey, errors.Join(fsync.Dir(logs), fsync.Dir(dir))
}

func write(path string, size int64, content io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, content)
	if err == nil && n != size {
		err = damaged("it is cut", nil)
	}
	return errors.Join(orDamaged("it is cut", err), f.Sync(), f.Close())
}

// Remove removes a folder that Extract has filled, or begun to, and what opening
// the store in it has left. It leaves what it does not know, and then the
// folder too, with an error.
func Remove(dir string) error {
	entries, err := os.ReadDir(filepath.Join(dir, DirAudit))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	names := []string{NameDataKey, NameRootKey, NameStore, NameStore + "-wal", NameStore + "-shm", NameStore + "-journal"}
	for _, e := range entries {
		if allowed(DirAudit + "/" + e.Name()) {
			names = append(names, filepath.Join(DirAudit, e.Name()))
		}
	}
	for _, name := range append(names, DirAudit, "") {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("what an earlier attempt has left cannot be removed: %w", err)
		}
	}
	return nil
}
