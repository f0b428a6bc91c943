package upgrade

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"softhem/internal/suite"
)

var (
	// ErrBusy: an upload or a check is under way.
	ErrBusy = errors.New("another upload or check is under way")
	// ErrNothing: nothing of this kind was uploaded.
	ErrNothing = errors.New("nothing was uploaded")
	// ErrNotVerified: nothing of this kind was uploaded and found good.
	ErrNotVerified = errors.New("nothing is verified")
	// ErrClosed: the module that the folder was of is gone.
	ErrClosed = errors.New("the module ends")
	// ErrMemory: there is no folder that a next start would find.
	ErrMemory = errors.New("the state is kept in memory, so there is nothing that a next start could find")
)

// Config is what a Folder is made of.
type Config struct {
	// Dir is where images are kept, made when the first one comes. Empty: in a
	// temporary folder, so that no firmware can be installed.
	Dir string
	// Keys are Ed25519 public keys, 32 bytes each, whose word on an image is taken.
	// Without any, none is.
	Keys [][]byte
	// Version is that of this program.
	Version string
	// Launched is the id of the firmware that this process was started from, if
	// it was; see Launch.
	Launched string
	Logger   *slog.Logger
}

// Folder is the folder of upgrades of a running module. Its methods may be called
// concurrently.
type Folder struct {
	cfg Config

	changing sync.Mutex // held from a change until it is recorded or undone
	writing  sync.Mutex // held while the folder is changed; before mu

	mu        sync.Mutex
	dir       string // "" until there is one
	temporary bool
	state     state
	receiving bool
	closed    bool
	slots     map[Kind]*slot
	console   *Files
}

// A slot is what is known of the upload of a kind. It is forgotten with the
// process, so that an image is checked again.
type slot struct {
	checking         bool
	verified, failed string // ids
}

// Open reads what is there and removes what a crash has left. A console that does
// not verify any more is not served.
func Open(cfg Config) (*Folder, error) {
	f := &Folder{cfg: cfg, dir: cfg.Dir, slots: map[Kind]*slot{Firmware: {}, Console: {}}}
	if cfg.Dir == "" {
		f.state = state{}.clone()
		return f, nil
	}
	var err error
	if f.state, err = loadState(cfg.Dir); err != nil {
		return nil, err
	}
	if err := sweep(cfg.Dir, f.state.names()); err != nil {
		return nil, fmt.Errorf("the folder of upgrades: %w", err)
	}
	if id := f.state.Console; id != "" {
		if f.console, err = f.readConsole(id); err != nil {
			cfg.Logger.Error("the web console that was installed cannot be used, and is not served", "error", err)
		}
	}
	return f, nil
}

// Close lets nothing more be changed in the folder: after a wipe it is another
// module's, and an upload may still be under way here. It removes what must not
// outlive the process.
func (f *Folder) Close() error {
	f.writing.Lock()
	defer f.writing.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	if !f.temporary {
		return nil
	}
	return os.RemoveAll(f.dir)
}

// Console is what is served, or nil.
func (f *Folder) Console() *Files {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.console
}

// Reports are changes that the audit log may not know: the process ended between a
// change and its record. See [Folder.Reported].
func (f *Folder) Reports() []Report {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.state.Reports)
}

// Reported forgets reports that were recorded.
func (f *Folder) Reported(done []Report) error {
	f.changing.Lock()
	defer f.changing.Unlock()
	return f.reported(done)
}

func (f *Folder) reported(done []Report) error {
	next := f.now()
	for _, r := range done {
		if i := slices.Index(next.Reports, r); i >= 0 {
			next.Reports = slices.Delete(next.Reports, i, i+1)
		}
	}
	return f.put(next)
}

func (f *Folder) now() state {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state.clone()
}

// usable is nil until Close; with f.writing held it stays so.
func (f *Folder) usable() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return ErrClosed
	}
	return nil
}

// put makes a state the one that holds. f.changing is held.
func (f *Folder) put(next state) error {
	f.writing.Lock()
	defer f.writing.Unlock()
	return f.write(next)
}

// write is put for who holds f.writing too.
func (f *Folder) write(next state) error {
	if err := f.usable(); err != nil {
		return err
	}
	if err := next.save(f.dir); err != nil {
		return err
	}
	f.mu.Lock()
	f.state = next
	f.mu.Unlock()
	return nil
}

// place makes the folder if there is none. f.mu is held.
func (f *Folder) place() (err error) {
	if f.dir != "" {
		return os.MkdirAll(f.dir, dirMode)
	}
	if f.dir, err = os.MkdirTemp("", "softhem-upgrade-"); err == nil {
		f.temporary = true
	}
	return err
}

// A Change has been made and awaits its record. Exactly one of its methods must be
// called.
type Change struct {
	f       *Folder
	old     state
	report  Report
	console *Files // served from then on, if not nil
}

// change makes a change and its report one. Its caller records it next.
func (f *Folder) change(r Report, edit func(*state) error) (*Change, error) {
	f.changing.Lock()
	old := f.now()
	next := old.clone()
	f.writing.Lock()
	err := f.usable()
	if err == nil {
		err = edit(&next)
	}
	if err == nil {
		next.report(r)
		err = f.write(next)
	}
	f.writing.Unlock()
	if err != nil {
		f.changing.Unlock()
		return nil, err
	}
	return &Change{f: f, old: old, report: r}, nil
}

// Report is what the log is to be told.
func (c *Change) Report() Report { return c.report }

// Recorded ends a change whose record is on disk. An error means that it will be
// recorded once more at the next start.
func (c *Change) Recorded() error {
	defer c.f.changing.Unlock()
	if c.console != nil {
		c.f.mu.Lock()
		c.f.console = c.console
		c.f.mu.Unlock()
	}
	return errors.Join(c.f.reported([]Report{c.report}), c.f.sweep())
}

// Undo takes a change back that could not be recorded.
func (c *Change) Undo() error {
	defer c.f.changing.Unlock()
	return errors.Join(c.f.put(c.old), c.f.sweep())
}

// sweep removes images that are out of use. f.changing is held.
func (f *Folder) sweep() error {
	f.writing.Lock()
	defer f.writing.Unlock()
	if err := f.usable(); err != nil {
		return err
	}
	keep := f.now().names()
	for k := range f.slots {
		keep[string(k)+partSuffix] = true
	}
	return sweep(f.dir, keep)
}

// Received is an upload that has arrived whole and is on disk. Close must be called.
type Received struct {
	ID   string
	f    *Folder
	kind Kind
	part string
	file *os.File
}

// Receive writes an upload of so many bytes to disk, one at a time. The image goes
// through memory in pieces.
func (f *Folder) Receive(k Kind, size int64, body io.Reader) (*Received, error) {
	if size <= FooterSize || size > MaxImage {
		return nil, ErrShort
	}
	r, err := f.begin(k)
	if err != nil {
		return nil, err
	}
	if err := r.write(size, body); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// begin makes the file of an upload.
func (f *Folder) begin(k Kind) (*Received, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return nil, ErrClosed
	case f.receiving || f.slots[k].checking:
		return nil, ErrBusy
	}
	if err := f.place(); err != nil {
		return nil, err
	}
	r := &Received{f: f, kind: k, part: filepath.Join(f.dir, string(k)+partSuffix)}
	var err error
	r.file, err = os.OpenFile(r.part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fileMode)
	f.receiving = err == nil
	return r, err
}

func (r *Received) write(size int64, body io.Reader) error {
	sum := suite.NewSHA512()
	arrived := &sourceError{from: body}
	n, err := io.Copy(io.MultiWriter(r.file, sum), io.LimitReader(arrived, size))
	switch {
	case arrived.err != nil:
		err = fmt.Errorf("%w: %w", ErrShort, arrived.err)
	case err == nil && n < size:
		err = ErrShort
	case err == nil:
		err = r.file.Sync()
	}
	r.ID = idOf(sum.Sum(nil))
	return errors.Join(err, r.file.Close())
}

// sourceError keeps apart what went wrong with the reading of an upload from what
// did with its writing.
type sourceError struct {
	from io.Reader
	err  error
}

func (s *sourceError) Read(p []byte) (int, error) {
	n, err := s.from.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// Close gives way to the next upload, and removes this one unless it was kept.
func (r *Received) Close() {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	if !r.f.closed { // else a file of this name is not ours any more
		_ = os.Remove(r.part) // it is gone if it was kept
	}
	r.f.receiving = false
}

// Keep makes it the upload of its kind, in the place of an earlier one.
func (r *Received) Keep(who string) (*Change, error) {
	report := Report{"upload_" + string(r.kind), r.ID, true, who}
	return r.f.change(report, func(s *state) error {
		if err := os.Rename(r.part, filepath.Join(r.f.dir, imageName(r.kind, r.ID))); err != nil {
			return err
		}
		s.Uploads[r.kind] = r.ID
		r.f.mu.Lock()
		defer r.f.mu.Unlock()
		*r.f.slots[r.kind] = slot{}
		return nil
	})
}

// A Check is a check under way.
type Check struct {
	ID   string
	f    *Folder
	kind Kind
	dir  string
}

// Progress is how far the check of an upload is.
type Progress int

const (
	Started Progress = iota + 1 // by this call
	Running
	Verified
)

// Check tells how far the check of an upload is, and begins one if there was none:
// then the caller has to run it. ErrImage: it failed.
func (f *Folder) Check(k Kind) (Progress, *Check, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, ok := f.state.Uploads[k]
	s := f.slots[k]
	switch {
	case !ok:
		return 0, nil, ErrNothing
	case s.checking:
		return Running, nil, nil
	case s.verified == id:
		return Verified, nil, nil
	case s.failed == id:
		return 0, nil, ErrImage
	}
	s.checking = true
	return Started, &Check{id, f, k, f.dir}, nil
}

// Run does the check. [Check.End] must be called after it.
func (c *Check) Run() error {
	file, payload, err := open(filepath.Join(c.dir, imageName(c.kind, c.ID)), c.f.cfg.Keys)
	if err != nil {
		return err
	}
	defer file.Close()
	return Validate(c.kind, payload)
}

// End says what came of it.
func (c *Check) End(verified bool) {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if verified {
		*c.f.slots[c.kind] = slot{verified: c.ID}
	} else {
		*c.f.slots[c.kind] = slot{failed: c.ID}
	}
}

// Report is what the log is told of it.
func (c *Check) Report(verified bool, who string) Report {
	return Report{"check_" + string(c.kind), c.ID, verified, who}
}

// Install puts a verified upload to use: a console at once, firmware to be tried at
// the next start of the process.
func (f *Folder) Install(k Kind, who string) (*Change, error) {
	f.mu.Lock()
	id, uploaded := f.state.Uploads[k]
	s := *f.slots[k]
	busy, memory := s.checking || f.receiving, f.cfg.Dir == ""
	f.mu.Unlock()
	switch {
	case busy:
		return nil, ErrBusy
	case !uploaded || s.verified != id:
		return nil, ErrNotVerified
	case k == Firmware && memory:
		return nil, ErrMemory
	}
	var files *Files
	if k == Console {
		var err error
		if files, err = f.readConsole(id); err != nil {
			return nil, err
		}
	}
	c, err := f.change(Report{"install_" + string(k), id, true, who}, func(s *state) error {
		if s.Uploads[k] != id {
			return ErrBusy // another was uploaded meanwhile
		}
		delete(s.Uploads, k)
		if k == Console {
			s.Console = id
		} else {
			s.Trial = &trial{Image: id, From: f.cfg.Version}
		}
		return nil
	})
	if err == nil {
		c.console = files
	}
	return c, err
}

func (f *Folder) readConsole(id string) (*Files, error) {
	file, payload, err := open(filepath.Join(f.dir, imageName(Console, id)), f.cfg.Keys)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readArchive(payload)
}

// Proven is called when a program that was started from firmware is ready: if that
// was on trial, it is what is started from now on. It returns nil if there was
// nothing to prove.
func (f *Folder) Proven() (*Change, error) {
	id := f.cfg.Launched
	if s := f.now(); id == "" || s.Trial == nil || s.Trial.Image != id {
		return nil, nil
	}
	return f.change(Report{"run_fw", id, true, ""}, func(s *state) error {
		s.Firmware, s.Trial = id, nil
		return nil
	})
}

// Forget is for a wipe: uploads and installations under way go. What was installed
// and proven stays, as the programs of a machine do.
func Forget(dir string) error {
	s, err := loadState(dir)
	if err != nil {
		return err
	}
	if len(s.Uploads) == 0 && s.Trial == nil && len(s.Reports) == 0 {
		return nil
	}
	s.Uploads, s.Trial, s.Reports = nil, nil, nil
	if err := s.save(dir); err != nil {
		return err
	}
	return sweep(dir, s.names())
}
