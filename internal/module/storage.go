package module

import (
	"context"
	"errors"
	"fmt"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/disk"
	"softhem/internal/records"
	"softhem/internal/store"
	"softhem/internal/suite"
)

// Disks are the two disks of a PPA; *disk.Disks are the ones there are.
type Disks interface {
	Unlock(n int, u disk.Unlocking, commit func() error) error
	Lock(n int) error
	Drop() error
	Mode(n int) disk.Mode
}

// kindDisk has the key of disk 1, a record under its number. It is made in the
// commit of the first unlocking, and ends with a wipe.
const kindDisk store.Kind = "disk"

type diskKeyRecord struct {
	Key []byte `json:"key"` // suite.DiskKeySize
}

const (
	clearDisk  = 0 // in clear
	sealedDisk = 1

	// modeBootReadOnly, as storage_mode, unlocks disk 0 read-only at every boot.
	modeBootReadOnly = defaultStorageMode
)

// diskSectors are the sizes that a configuration gives the disks.
func (c *config) diskSectors() [disk.Count]int64 {
	return [disk.Count]int64{c.StorageDisk0Size, storageCapacity - c.StorageDisk0Size}
}

// storageStatus shows the disks of this boot as "<sectors>:rw|ro|-".
func (m *Module) storageStatus(st *state) []string {
	all := make([]string, 0, disk.Count)
	for n, sectors := range st.sectors {
		mode := disk.Locked
		if m.cfg.Disks != nil {
			mode = m.cfg.Disks.Mode(n)
		}
		all = append(all, fmt.Sprintf("%d:%s", sectors, mode))
	}
	return all
}

// How a disk is to be unlocked.
type UnlockMode int

const (
	UnlockAsScoped UnlockMode = iota // as the scope of the token says
	UnlockReadOnly
	UnlockWritable // wants a scope that ends in :rw
)

// StorageUnlock serves a disk to the host, until it is locked. The token's scope
// says which. A disk that is unlocked in another way changes to this one, which
// cuts off who has attached it.
func (m *Module) StorageUnlock(ctx context.Context, p *Pass, how UnlockMode) error {
	p.must(OpStorageUnlock)
	n, writable, ok := api.DiskOf(p.claims.Scope)
	switch {
	case !ok:
		return m.noSuchDisk(ctx, p)
	case how == UnlockWritable && !writable:
		return m.notDone(ctx, p, audit.ConfigUpdated, "the token's scope does not end in :rw", diskArg(n, disk.Writable))
	case how == UnlockReadOnly:
		writable = false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now, err := m.storageState(p)
	if err != nil {
		return err
	}
	mode := disk.ReadOnly
	if writable {
		mode = disk.Writable
	}
	unlocking := disk.Unlocking{Sectors: now.sectors[n], Writable: writable, Allowed: now.healthy}
	if n == sealedDisk {
		if unlocking.Key, unlocking.NewKey, err = m.diskKey(ctx); err != nil {
			return m.refusal(err)
		}
		defer clear(unlocking.Key)
	}
	err = m.cfg.Disks.Unlock(n, unlocking, func() error {
		done := audit.Record{Type: audit.ConfigUpdated, Who: p.who(), Arg: diskArg(n, mode)}
		if !unlocking.NewKey {
			return m.append(ctx, done)
		}
		return m.commit(ctx, func(ctx context.Context, tx store.Tx) ([]audit.Record, error) {
			return []audit.Record{done}, records.Save(ctx, tx, m.cfg.Sealer, kindDisk, diskID(n), diskKeyRecord{unlocking.Key})
		})
	})
	if told, ok := errors.AsType[*api.Error](err); ok {
		return told // the log, or the room for it
	}
	if err != nil {
		m.log.ErrorContext(ctx, "a disk cannot be unlocked", "disk", n, "error", err)
		if err := m.append(ctx, audit.Record{Type: audit.ConfigUpdated, Result: audit.Failed, Who: p.who(), Arg: diskArg(n, mode)}); err != nil {
			return err
		}
		return api.ErrConflict.Because("the disk cannot be served")
	}
	m.log.InfoContext(ctx, "a disk was unlocked", "disk", n, "mode", mode, "who", p.who())
	return nil
}

// StorageLock has what was written to a disk put on disk, and cuts off who has
// attached it. It is done whatever else fails: a disk must not stay open because
// that cannot be recorded.
func (m *Module) StorageLock(ctx context.Context, p *Pass) error {
	p.must(OpStorageLock)
	n, _, ok := api.DiskOf(p.claims.Scope)
	if !ok {
		return m.noSuchDisk(ctx, p)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.storageState(p); err != nil {
		return err
	}
	done := audit.Record{Type: audit.ConfigUpdated, Who: p.who(), Arg: diskArg(n, disk.Locked)}
	var told error
	if err := m.cfg.Disks.Lock(n); err != nil {
		m.log.ErrorContext(ctx, "a disk was locked, and not all that was written to it is on disk", "disk", n, "error", err)
		done.Result = audit.Failed
		told = api.ErrConflict.Because("the disk is locked, and not all that was written to it could be kept")
	}
	if err := m.append(ctx, done); err != nil {
		return err
	}
	m.log.InfoContext(ctx, "a disk was locked", "disk", n, "who", p.who())
	return told
}

// storageState is the state of now, if what let the caller in holds in it: a
// reboot, a wipe or a fail state may have come first. m.mu is held.
func (m *Module) storageState(p *Pass) (*state, error) {
	now := m.state.Load()
	if err := m.stillEntered(p, now); err != nil {
		return nil, err
	}
	if fls := now.fls(); fls != 0 {
		return nil, api.ErrConflict.Becausef("fail state %02x", fls)
	}
	if m.cfg.Disks == nil {
		return nil, api.ErrConflict.Because("there are no disks in this module")
	}
	return now, nil
}

func (m *Module) noSuchDisk(ctx context.Context, p *Pass) error {
	return m.notDone(ctx, p, audit.ConfigUpdated, "the token's scope is for no disk that there is", []byte(api.ScopeDisks))
}

// diskArg is what the log says of a disk: disk<N>:rw|ro|-.
func diskArg(n int, mode disk.Mode) []byte { return []byte(disk.Name(n) + ":" + string(mode)) }

func diskID(n int) string { return fmt.Sprint(n) }

// diskKey is the key of disk 1, a new one if none was made yet. m.mu is held.
func (m *Module) diskKey(ctx context.Context) (key []byte, made bool, err error) {
	var rec diskKeyRecord
	err = m.cfg.Store.View(ctx, func(r store.Reader) (err error) {
		rec, err = records.Load[diskKeyRecord](ctx, r, m.cfg.Sealer, kindDisk, diskID(sealedDisk))
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return suite.Random(suite.DiskKeySize), true, nil
	}
	return rec.Key, false, err
}

// lockDisks locks all disks, at the end of a boot or on an order.
func (m *Module) lockDisks() {
	if m.cfg.Disks == nil {
		return
	}
	for n := range disk.Count {
		if err := m.cfg.Disks.Lock(n); err != nil {
			m.log.Error("a disk was locked, and not all that was written to it is on disk", "disk", n, "error", err)
		}
	}
}

// unlockAtBoot does what storage_mode says. It is part of the boot, and its record
// is that of the boot. A disk that cannot be served is no reason not to boot.
func (m *Module) unlockAtBoot(st *state) {
	if m.cfg.Disks == nil || st.config.StorageMode != modeBootReadOnly || st.fls() != 0 || st.sectors[clearDisk] == 0 {
		return
	}
	err := m.cfg.Disks.Unlock(clearDisk, disk.Unlocking{Sectors: st.sectors[clearDisk], Allowed: st.healthy}, func() error { return nil })
	if err != nil {
		m.log.Warn("disk 0 cannot be unlocked, as the storage mode wants it to be", "error", err)
	}
}
