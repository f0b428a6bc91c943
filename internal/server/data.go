package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"softhem/internal/backup"
	"softhem/internal/disk"
	"softhem/internal/fsync"
	"softhem/internal/seal"
	"softhem/internal/store/sqlitestore"
	"softhem/internal/upgrade"
)

// The data folder:
//
//	lock        held by the one process that runs on the folder
//	root.key    the root key, unless it is kept elsewhere
//	data.key    the data key, sealed by the root key
//	hem.db      the records, sealed by the data key (and its -wal, -shm)
//	audit/      the log, a file a boot
//	ca.pem      the certificate clients have to trust
//	quarantine/ what hem repair took out of the store
//	upgrade/    firmware and console images; see package upgrade
//	disk0.img   disk 0, and disk1.img, sealed by a key in hem.db
//	disk0.sock  where disk 0 is served while it is unlocked, and disk1.sock
//
// and while it runs, see internal/control and backup.go:
//
//	control.sock  for those who keep the module
//	backup.new    the copy of hem.db that a backup is made from
//	check.new/    a backup that is being tried out
const (
	fileLock   = "lock"
	fileRoot   = backup.NameRootKey
	fileDB     = backup.NameStore
	dirAudit   = backup.DirAudit
	fileCA     = "ca.pem"
	dirUpgrade = "upgrade"
	dirRepair  = "quarantine"
	fileCopy   = "backup.new"
	dirCheck   = "check.new"
	newSuffix  = ".new"
	dirMode    = 0o700
	othersBit  = 0o077
)

// ownFiles are what the module keeps in the data folder besides the keys: all of
// it goes with a wipe. The lock stays, and so do the root key, which is the
// operator's, what was installed as an upgrade, and what others have put there.
func ownFiles() []string {
	return []string{
		fileDB, fileDB + "-wal", fileDB + "-shm", fileDB + "-journal",
		dirAudit, fileCA, fileCA + newSuffix, fileCopy, dirCheck, dirRepair,
		disk.ImageFile(0), disk.SocketFile(0), disk.ImageFile(1), disk.SocketFile(1),
	}
}

// data is an opened data folder.
type data struct {
	dir    string // "" in memory
	lock   *os.File
	sealer *seal.Sealer
	store  *sqlitestore.Store

	keys     sync.Mutex      // held while the files of the two keys are read together, or changed
	root     seal.Secret     // kept for a wipe, after which the file may not be at hand, nor anybody to ask
	rootFrom seal.RootSource // where it was read
}

// openData opens the state: the folder is private and nobody else's, the keys
// open it, the store fits this program. On first start all of it is made. A
// crash in between leaves a folder the next start completes: the root key is
// made before the data key, that before the store.
func openData(ctx context.Context, cfg Config) (*data, error) {
	if cfg.Memory {
		d := &data{sealer: seal.InMemory()}
		return d, d.openStore(ctx)
	}
	if err := privateDir(cfg.DataDir); err != nil {
		return nil, err
	}
	lock, err := lockDir(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	d := &data{dir: cfg.DataDir, lock: lock}
	if err := errors.Join(d.removeLeftovers(), d.unseal(cfg)); err != nil {
		return nil, errors.Join(err, d.close())
	}
	if err := d.openStore(ctx); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// removeLeftovers removes what a process that was killed was about to copy.
func (d *data) removeLeftovers() error {
	for _, name := range []string{fileCopy, dirCheck} {
		if err := os.RemoveAll(filepath.Join(d.dir, name)); err != nil {
			return fmt.Errorf("what an interrupted backup has left cannot be removed: %w", err)
		}
	}
	return nil
}

func (d *data) openStore(ctx context.Context) error {
	cfg := sqlitestore.Config{}
	if d.dir != "" {
		cfg.Path = filepath.Join(d.dir, fileDB)
	}
	db, err := sqlitestore.Open(ctx, cfg)
	if err != nil {
		return err
	}
	d.store = db
	return nil
}

// renew is the data after a wipe: the folder is emptied of everything but the
// lock, the root key and what is not ours, and begun anew. It is called when
// the sealing key has been destroyed and nobody uses the old data any more,
// which it takes over. A crash in between leaves what openData finishes.
func (d *data) renew(ctx context.Context) (*data, error) {
	fresh := &data{dir: d.dir, lock: d.lock, root: d.root, rootFrom: d.rootFrom}
	err := d.store.Close()
	d.store, d.lock, d.root = nil, nil, nil
	if err == nil {
		err = fresh.begin(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, fresh.close())
	}
	return fresh, nil
}

func (d *data) begin(ctx context.Context) (err error) {
	if d.dir == "" {
		d.sealer = seal.InMemory()
	} else if err := d.clear(); err != nil {
		return err
	} else if d.sealer, err = seal.Create(d.dir, d.root); err != nil {
		return err
	}
	return d.openStore(ctx)
}

// clear removes what a wiped module has left. The mark of the wipe goes last,
// with the making of the new data key.
func (d *data) clear() error {
	for _, name := range ownFiles() {
		if err := os.RemoveAll(filepath.Join(d.dir, name)); err != nil {
			return fmt.Errorf("the module was wiped, and what can no longer be opened cannot be removed: %w", err)
		}
	}
	if err := upgrade.Forget(d.upgradeDir()); err != nil {
		return fmt.Errorf("the module was wiped, and what was uploaded to it cannot be removed: %w", err)
	}
	return fsync.Dir(d.dir)
}

// unseal loads the root key and with it the data key.
func (d *data) unseal(cfg Config) error {
	source, own := cfg.RootKey, cfg.RootKey.File == ""
	if own {
		source.File = filepath.Join(d.dir, fileRoot)
	}
	sealed := seal.Exists(d.dir)
	made := false
	if own && !sealed && d.neverStarted(source.File) {
		// A first start that was cut off while it made the key; nothing hangs on it.
		if err := os.Remove(source.File); err != nil {
			return err
		}
	}
	if _, err := os.Stat(source.File); errors.Is(err, os.ErrNotExist) {
		switch {
		case sealed:
			return fmt.Errorf("the data in %s is sealed, and there is no root key at %s; put the key back, or name it with --root-key", d.dir, source.File)
		case !own:
			return fmt.Errorf("there is no root key at %s; make one with: (umask 077; head -c 32 /dev/urandom > %s)", source.File, source.File)
		}
		if err := seal.CreateRoot(source.File); err != nil {
			return err
		}
		made = true
	}
	root, told, unfinished, err := seal.LoadSettled(d.dir, source)
	if err != nil {
		return err
	}
	if unfinished != nil {
		cfg.Logger.Error("the root key is not where it should be", "error", unfinished)
	} else if told != "" {
		cfg.Logger.Warn(told)
	}
	d.root, d.rootFrom = root, source
	if sealed {
		d.sealer, err = seal.Open(d.dir, root)
		return err
	}
	switch wiped, err := seal.Wiped(d.dir); {
	case err != nil:
		return err
	case wiped: // a wipe that was cut off
		if err := d.clear(); err != nil {
			return err
		}
		cfg.Logger.Warn("a wipe that was interrupted has been finished; the module is fresh")
	}
	if _, err := os.Stat(filepath.Join(d.dir, fileDB)); err == nil {
		return fmt.Errorf("%s holds a store and no data.key, so nothing in it can be opened; restore the file, or move the folder away to start anew", d.dir)
	}
	d.sealer, err = seal.Create(d.dir, root)
	if made && err == nil {
		cfg.Logger.Info("a new root key was made; keep a copy elsewhere", "file", source.File)
	}
	return err
}

// neverStarted tells whether the root key is an empty file beside no store.
func (d *data) neverStarted(rootKey string) bool {
	info, err := os.Stat(rootKey)
	if err != nil || info.Size() != 0 {
		return false
	}
	_, err = os.Stat(filepath.Join(d.dir, fileDB))
	return errors.Is(err, os.ErrNotExist)
}

func (d *data) auditDir() string {
	if d.dir == "" {
		return ""
	}
	return filepath.Join(d.dir, dirAudit)
}

func (d *data) upgradeDir() string {
	if d.dir == "" {
		return ""
	}
	return filepath.Join(d.dir, dirUpgrade)
}

func (d *data) close() error {
	var errs []error
	d.root.Wipe()
	if d.store != nil {
		errs = append(errs, d.store.Close())
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close()) // releases it
	}
	return errors.Join(errs...)
}

// privateDir makes the folder, or refuses one that others can look into.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return fmt.Errorf("the data folder cannot be made: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder; name another with --data", dir)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
		return fmt.Errorf("the data folder %s belongs to another user (id %d), who can read it; run as that user, or: chown -R %d %s", dir, owner.Uid, os.Geteuid(), dir)
	}
	if info.Mode().Perm()&othersBit != 0 {
		return fmt.Errorf("others can look into the data folder (mode %04o); run: chmod 700 %s", info.Mode().Perm(), dir)
	}
	return nil
}

// lockDir makes this the one process on the folder. The kernel releases the
// lock however the process ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, fileLock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another process runs on %s; stop it, or name another folder with --data", dir)
		}
		return nil, fmt.Errorf("lock the data folder: %w", err)
	}
	return f, nil
}
