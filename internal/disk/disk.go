// Package disk keeps the module's two disks as sparse image files, and serves
// the unlocked ones to the host: an NBD export each, on a unix socket that only
// the module's own user can open.
package disk

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"softhem/internal/nbd"
	"softhem/internal/suite"
)

const (
	// Count is how many disks there are; their numbers are 0 and 1.
	Count = 2
	// SectorSize is the unit of their sizes in bytes.
	SectorSize = suite.SectorSize
)

// A Mode is how a disk is unlocked, as the status shows it.
type Mode string

const (
	Locked   Mode = "-"
	ReadOnly Mode = "ro"
	Writable Mode = "rw"
)

// Name is what a disk is called, as an NBD export too.
func Name(n int) string { return fmt.Sprintf("disk%d", n) }

// ImageFile and SocketFile are the names of a disk's files.
func ImageFile(n int) string  { return Name(n) + ".img" }
func SocketFile(n int) string { return Name(n) + ".sock" }

// ErrSocketPath is for a folder whose name is too long for a socket in it.
var ErrSocketPath = errors.New("the folder's name is too long for a unix socket in it")

// ErrKeyLost is for an image whose key is gone.
var ErrKeyLost = errors.New("the image was sealed under a key that is gone; remove it, or restore the module's data that it belongs to")

// Config says where the disks are.
type Config struct {
	// Images is the folder of the image files; empty keeps them in memory, which
	// only Linux does.
	Images string
	// Sockets is the folder of the sockets. Nobody else may look into either.
	Sockets string
	Logger  *slog.Logger
}

// Disks are the two. Methods may be called concurrently.
type Disks struct {
	cfg   Config
	disks [Count]disk
}

type disk struct {
	mu     sync.Mutex // over unlocking and locking, which take as long as the disk does
	server *nbd.Server
	file   *os.File // open while unlocked; in memory, for good
	shown  atomic.Pointer[shown]
}

// shown is what Mode sees without waiting.
type shown struct {
	mode    Mode
	allowed func() bool
}

// Open gets the disks ready, locked, and removes the sockets that a process left
// which was killed.
func Open(cfg Config) (*Disks, error) {
	for n := range Count {
		if err := os.Remove(filepath.Join(cfg.Sockets, SocketFile(n))); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("what is left of a disk's socket cannot be removed: %w", err)
		}
	}
	return &Disks{cfg: cfg}, nil
}

// Unlocking says how a disk is to be served.
type Unlocking struct {
	Sectors  int64
	Writable bool
	// Key seals the disk, DiskKeySize bytes; nil is a disk in clear. It is not
	// kept.
	Key []byte
	// NewKey says that Key is good from commit on. An image that has anything in it
	// is refused with ErrKeyLost: it was sealed under another.
	NewKey bool
	// Allowed is asked at every command; false cuts who has attached the disk off.
	Allowed func() bool
}

func (u Unlocking) mode() Mode {
	if u.Writable {
		return Writable
	}
	return ReadOnly
}

// Unlock serves a disk. When everything else is ready it calls commit, and only
// if that succeeds the first command is looked at; else the disk is locked, also
// if it was unlocked the other way before. One that is served in this way already
// goes on, after commit.
func (d *Disks) Unlock(n int, u Unlocking, commit func() error) error {
	k := &d.disks[n]
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.server != nil {
		if d.Mode(n) == u.mode() {
			return commit()
		}
		if err := k.lock(true, d.cfg.Images == ""); err != nil {
			return err
		}
	}
	if u.Sectors <= 0 {
		return fmt.Errorf("%s has no sectors", Name(n))
	}
	device, err := d.open(n, u)
	if err != nil {
		return err
	}
	listener, err := d.listen(n)
	if err == nil {
		if err = commit(); err == nil {
			k.server = nbd.Start(listener, nbd.Config{
				Device: device, Name: Name(n), ReadOnly: !u.Writable, Allowed: u.Allowed, Logger: d.cfg.Logger,
			})
			k.shown.Store(&shown{u.mode(), u.Allowed})
			return nil
		}
		err = errors.Join(err, listener.Close())
	}
	return errors.Join(err, k.release(d.cfg.Images == ""))
}

// open opens the image. One that is larger than the disk, because that once was,
// keeps what lies behind the end.
func (d *Disks) open(n int, u Unlocking) (nbd.Device, error) {
	k := &d.disks[n]
	var cipher *suite.DiskCipher
	if u.Key != nil {
		var err error
		if cipher, err = suite.NewDiskCipher(u.Key); err != nil {
			return nil, err
		}
	}
	if k.file == nil {
		var err error
		if d.cfg.Images == "" {
			k.file, err = memoryFile(Name(n))
		} else {
			k.file, err = imageFile(d.cfg.Images, ImageFile(n))
		}
		if err != nil {
			return nil, err
		}
	}
	if info, err := k.file.Stat(); err != nil || u.NewKey && info.Size() > 0 {
		if err == nil {
			err = ErrKeyLost
		}
		return nil, errors.Join(fmt.Errorf("the image of %s: %w", Name(n), err), k.release(d.cfg.Images == ""))
	}
	clear := &image{file: k.file, size: u.Sectors * SectorSize}
	if cipher == nil {
		return clear, nil
	}
	return &sealed{image: clear, cipher: cipher}, nil
}

// listen makes the socket, which the folder keeps from others until its own
// mode does.
func (d *Disks) listen(n int) (net.Listener, error) {
	path := filepath.Join(d.cfg.Sockets, SocketFile(n))
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("%w: %s", ErrSocketPath, d.cfg.Sockets)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("the socket of %s: %w", Name(n), err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// maxSocketPath is the shortest of what systems take, without the zero.
const maxSocketPath = 103

// Lock has what was written put on disk, and cuts off who has attached the disk.
// An error says that something could not be written; it is locked all the same.
func (d *Disks) Lock(n int) error { return d.close(n, true) }

// Drop locks all disks without waiting for what was written: nobody is to read
// it again.
func (d *Disks) Drop() error {
	return errors.Join(d.close(0, false), d.close(1, false))
}

func (d *Disks) close(n int, flush bool) error {
	k := &d.disks[n]
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lock(flush, d.cfg.Images == "")
}

// lock is for who holds mu. keep: the image is in memory, and is gone when its
// file is closed.
func (k *disk) lock(flush, keep bool) error {
	if k.server == nil {
		return nil
	}
	err := k.server.Close(flush)
	k.server = nil
	k.shown.Store(nil)
	return errors.Join(err, k.release(keep))
}

func (k *disk) release(keep bool) error {
	if keep || k.file == nil {
		return nil
	}
	err := k.file.Close()
	k.file = nil
	return err
}

// Mode tells how a disk is unlocked. It does not wait for an Unlock or Lock that
// is under way.
func (d *Disks) Mode(n int) Mode {
	s := d.disks[n].shown.Load()
	if s == nil || s.allowed != nil && !s.allowed() {
		return Locked
	}
	return s.mode
}

// Close locks all disks, and forgets those in memory. Nil disks are closed.
func (d *Disks) Close() error {
	if d == nil {
		return nil
	}
	var errs []error
	for n := range d.disks {
		k := &d.disks[n]
		k.mu.Lock()
		errs = append(errs, k.lock(true, true), k.release(false))
		k.mu.Unlock()
	}
	return errors.Join(errs...)
}
