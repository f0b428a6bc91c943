package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"softhem/internal/audit"
	"softhem/internal/backup"
	"softhem/internal/build"
	"softhem/internal/control"
	"softhem/internal/module"
	"softhem/internal/seal"
	"softhem/internal/store/sqlitestore"
)

// Backup implements control.Keeper.
//
// One moment is taken hold of, in which operations wait for some microseconds:
// where the log ends, and which state of the store belongs to it. The store is
// then copied beside itself, and copy and log are written to w, at whatever
// speed w has. A crash while it is copied leaves a part of the copy, which the
// next start removes.
func (s *Server) Backup(ctx context.Context, w io.Writer) error {
	i := s.current.Load()
	ctx, done, err := i.keeping.begin(ctx, w)
	if err != nil {
		return err
	}
	defer done()
	if err := i.keeping.backups.take(ctx, "another backup is being made"); err != nil {
		return err
	}
	defer i.keeping.backups.leave()
	start := time.Now()
	if err := cause(ctx, i.backup(ctx, w)); err != nil {
		s.cfg.Logger.Error("a backup was begun and not finished", "error", err)
		return err
	}
	s.cfg.Logger.Info("a backup was handed out", "took", time.Since(start).Round(time.Millisecond))
	return nil
}

func (i *instance) backup(ctx context.Context, w io.Writer) error {
	d := i.data
	if d.dir == "" {
		return errors.New("a module in memory has nothing that could be kept")
	}
	log, copied, err := i.copyStore(ctx)
	if err != nil {
		return err
	}
	defer copied.Close()
	keys, kind, err := d.keyFiles()
	defer func() {
		for _, b := range keys {
			clear(b)
		}
	}()
	if err != nil {
		return err
	}
	m := backup.Manifest{
		Format: backup.Format, Product: build.Product(), Created: time.Now().Unix(), EID: i.module.EID(),
		RootKey: kind, Checkpoint: string(log.Checkpoint),
	}
	add := func(name string, size int64) { m.Files = append(m.Files, backup.File{Name: name, Size: size}) }
	add(backup.NameDataKey, int64(len(keys[backup.NameDataKey])))
	if kind != backup.RootNone {
		add(backup.NameRootKey, int64(len(keys[backup.NameRootKey])))
	}
	frozen := make(map[string]audit.FrozenFile)
	for _, f := range log.Files {
		name := backup.DirAudit + "/" + f.Name
		frozen[name] = f
		add(name, f.Size)
	}
	info, err := copied.Stat()
	if err != nil {
		return err
	}
	add(backup.NameStore, info.Size())
	return backup.Write(ctx, w, m, func(name string) (io.ReadCloser, error) {
		if f, ok := frozen[name]; ok {
			return log.Open(f)
		}
		if name == backup.NameStore {
			return io.NopCloser(copied), nil
		}
		return io.NopCloser(bytes.NewReader(keys[name])), nil
	})
}

// copyStore copies the store to a file that has no name any more, and returns
// that and the log of the same moment.
func (i *instance) copyStore(ctx context.Context) (*audit.Frozen, *os.File, error) {
	path := filepath.Join(i.data.dir, fileCopy)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	n, err := i.data.store.Snapshot(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer n.Close()
	log, err := i.module.Freeze(ctx, n.Pin)
	if err != nil {
		return nil, nil, err
	}
	size, err := n.Size()
	if err == nil {
		err = roomFor(i.data.dir, size)
	}
	if err != nil {
		return nil, nil, err
	}
	if err := n.CopyTo(ctx, path); err != nil {
		return nil, nil, err
	}
	f, err := os.Open(path)
	return log, f, errors.Join(err, os.Remove(path))
}

// keyFiles are the files of the two keys as they are, which belong together, and
// what kind the root key's is. A raw one is what this process could be asked to
// write anywhere by who can read it there; one that is encrypted stays so. The key
// in memory is given to nobody.
func (d *data) keyFiles() (map[string][]byte, string, error) {
	d.keys.Lock()
	defer d.keys.Unlock()
	dataKey, err := os.ReadFile(filepath.Join(d.dir, backup.NameDataKey))
	if err != nil {
		return nil, "", fmt.Errorf("the data key cannot be read: %w", err)
	}
	files := map[string][]byte{backup.NameDataKey: dataKey}
	file, kind, err := seal.ReadRootFile(d.rootFrom, d.root)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return files, backup.RootNone, nil // on a medium that was taken away, as it should be
	}
	if err != nil {
		return nil, "", err
	}
	files[backup.NameRootKey] = file
	return files, map[seal.RootKind]string{seal.RootRaw: backup.RootRaw, seal.RootAge: backup.RootAge}[kind], nil
}

// Check implements control.Keeper. It works in the data folder, where what it
// unpacks is no news; the root key of the archive stays in memory.
func (s *Server) Check(ctx context.Context, r io.Reader) (control.Report, error) {
	i := s.current.Load()
	ctx, done, err := i.keeping.begin(ctx, r)
	if err != nil {
		return control.Report{}, err
	}
	defer done()
	if err := i.keeping.checks.take(ctx, "another backup is being checked"); err != nil {
		return control.Report{}, err
	}
	defer i.keeping.checks.leave()
	report, err := i.check(ctx, r)
	return report, cause(ctx, err)
}

func (i *instance) check(ctx context.Context, r io.Reader) (report control.Report, err error) {
	d := i.data
	dir := filepath.Join(d.dir, dirCheck)
	if err := os.RemoveAll(dir); err != nil {
		return report, err
	}
	if err := os.Mkdir(dir, dirMode); err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	m, rootFile, err := backup.Extract(ctx, r, dir, func(size int64) error { return roomFor(d.dir, size) })
	if err != nil {
		return report, err
	}
	defer clear(rootFile)
	root := seal.Secret(rootFile)
	if m.RootKey != backup.RootRaw { // what opens it may be in nobody's reach here
		d.keys.Lock()
		root = bytes.Clone(d.root)
		d.keys.Unlock()
		defer root.Wipe()
	}
	return inspect(ctx, dir, root, m, true)
}

// roomFor refuses to put so many bytes into a data folder if the module could run
// out of space by that: it would refuse operations.
func roomFor(dir string, size int64) error {
	spare, err := audit.Spare(dir)
	if err == nil && spare < uint64(size) {
		err = fmt.Errorf("there is no room in %s for a copy of %d MiB beside what the module needs", dir, size>>20+1)
	}
	return err
}

// inspect opens a module that was unpacked into dir, and all that is in it.
func inspect(ctx context.Context, dir string, root seal.Secret, m *backup.Manifest, gently bool) (report control.Report, err error) {
	sealer, err := seal.Open(dir, root)
	if err != nil {
		return report, err
	}
	db, err := sqlitestore.Open(ctx, sqlitestore.Config{Path: filepath.Join(dir, fileDB)})
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.Check(ctx); err != nil {
		return report, err
	}
	whole, err := module.AtRest{
		Store: db, Sealer: sealer, AuditDir: filepath.Join(dir, dirAudit), Checkpoint: []byte(m.Checkpoint), Gently: gently,
	}.Check(ctx)
	if err != nil {
		return report, err
	}
	if whole.EID != m.EID {
		return report, fmt.Errorf("it says that it is of the module %s, and holds %s", m.EID, whole.EID)
	}
	files := 0
	for _, f := range m.Files {
		if strings.HasPrefix(f.Name, backup.DirAudit+"/") && !strings.Contains(f.Name, ".") {
			files++
		}
	}
	return control.Report{
		EID: whole.EID, Created: m.Created, Keys: whole.Keys, Records: whole.Records, Files: files, RootKey: m.RootKey,
	}, nil
}
