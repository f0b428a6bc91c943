// Package audit writes the module's log: what was done, by whom, and how it
// ended, one text file per boot.
//
// # What holds
//
//   - A record is on disk before Append or Commit returns (Strict), or within a
//     second (Relaxed).
//   - A state change and its record are one: after a crash the log has the
//     record exactly if the store has the change (Commit).
//   - What cannot be written is refused. Nothing is dropped silently, and
//     nothing found damaged at a start is thrown away.
//
// # Who holds what
//
//	committing   one batch of changes in the store at a time, and one checkpoint
//	  turn       the end of the file: the next line's place, seq, time and key
//	    syncing  the file to be synced, against a sync in the background
//	      mu     queues, names, state; never held over I/O
//
// Locks are taken in this order. Callers queue under mu alone, so they never
// wait for a disk to get in line; the first of a batch takes the turn and
// writes and syncs for all that queued meanwhile.
package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"softhem/internal/records"
	"softhem/internal/store"
)

// The error contract; test with errors.Is.
var (
	// ErrBroken: writing the log failed. It stays so until the next Open.
	ErrBroken = errors.New("audit: the log is broken")
	// ErrFull: there is no room for the record. Nothing was written; the log
	// works on once there is room again.
	ErrFull = errors.New("audit: no space left for the log")
	// ErrNoBoot: StartBoot was not called yet.
	ErrNoBoot = errors.New("audit: no boot was started")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("audit: the log is closed")
	// ErrCurrent: the file is still being written.
	ErrCurrent = errors.New("audit: the file is being written")
	// ErrNoFile: there is no log file of that name.
	ErrNoFile = errors.New("audit: no such file")
)

// Durability says when Append returns.
type Durability uint8

const (
	Strict  Durability = iota // when the record is on disk
	Relaxed                   // when it is written; it is on disk within 1 s
)

// relaxedDelay is how long a written record waits for its sync under Relaxed;
// the rest of the second is for the sync itself.
const relaxedDelay = 500 * time.Millisecond

// Config says how a log is kept.
type Config struct {
	// Dir is the folder of the files; it is made if missing, and belongs to
	// one log at a time. "" keeps the files in memory.
	Dir string
	// Store is where Commit changes state. It keeps the log tail, and size and
	// root of the tree, which Sealer seals.
	Store  store.Store
	Sealer records.Sealer
	// Sign is eid_sign: Ed25519 over msg. EIDSign is its public key, 32 bytes.
	Sign    func(msg []byte) []byte
	EIDSign []byte
	// Origin names the log in its checkpoints; see the function of that name.
	Origin string
	// Product is the header of each file, such as "softhem v0.1.0".
	Product string
	// Now is the module's clock in Unix seconds. It may run behind the log:
	// a record is never dated before its predecessor (but see ClockSet). It
	// must not call the log.
	Now func() int64
	// Durability is Strict unless set.
	Durability Durability
	// A checkpoint is signed and kept once there are CheckpointRecords new
	// records, and CheckpointInterval after the first of them; 0 = 10 000 and
	// 10 s. So much of the log's end may be put back unnoticed by the module.
	CheckpointRecords  int
	CheckpointInterval time.Duration
	// Sink hears of every record beside the files; nil = nobody does.
	Sink Sink
	// Logger takes what the operator should know; nil = nothing.
	Logger *slog.Logger
	// FreeSpace returns the bytes that are free for the log; nil = asks the
	// file system of Dir. Below 64 MiB anonymous failures are not written.
	FreeSpace func() (uint64, error)
}

// Log is an audit log. Its methods may be called concurrently.
type Log struct {
	cfg Config
	dir folder

	committing sync.Mutex
	adopted    map[string]past // to be kept with the next head

	rolledBack bool // set at Open

	turn  sync.Mutex
	seg   *segment // the file being written; nil before StartBoot
	tree  tree     // over all lines
	total int64    // bytes of the files before seg
	buf   []byte   // lines on their way, reused
	carry []Record // what recovery has to say, for the next StartBoot
	prev  int64    // no file may be named below prev+1; -1 if any may

	syncing sync.Mutex
	active  file // of seg
	dirty   bool // active has lines that no sync covered

	lastTime atomic.Int64
	lastSync atomic.Int64 // nanoseconds the last sync took

	mu    sync.Mutex
	queue *batch // appends waiting for the turn
	gathering
	changes  *changeBatch // changes waiting for the store
	broken   error
	closing  bool // no new background work
	closed   bool
	ids      []string // of all files, oldest first
	current  string
	failures map[Type]uint32 // counted, not written
	clerk    bool            // a goroutine sees to failures
	lateSync *time.Timer     // planned sync under Relaxed
	lateHead *time.Timer     // planned checkpoint
	// uncovered counts records since the last planned checkpoint ran.
	uncovered uint64
	places    []place // where readers of the tail will go on; see remember

	quit chan struct{}  // closed by Close
	work sync.WaitGroup // clerk, lateSync, lateHead
}

// A segment is the file being written.
//
//	# product version\n
//	0|…|mac\n
//	…
//	n|…|mac\n            <- end
//	00 00 00 …           <- filled: room taken ahead, cut when the file is closed
//
// A crash leaves the zeros, and of the lines written since the last sync any
// part; all lines before are whole.
type segment struct {
	cursor
	id     string
	f      file
	end    int64 // of the lines, in bytes
	filled int64 // size of the file
}

// Open opens the log and repairs what a crash left: see recovery. It starts no
// boot.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	switch {
	case cfg.Store == nil || cfg.Sealer == nil || cfg.Sign == nil || cfg.Now == nil:
		return nil, errors.New("audit: Store, Sealer, Sign and Now are needed")
	case !validHeader([]byte("# " + cfg.Product)):
		return nil, fmt.Errorf("audit: no product name: %q", cfg.Product)
	case cfg.Durability > Relaxed:
		return nil, fmt.Errorf("audit: no durability: %d", cfg.Durability)
	case cfg.CheckpointRecords < 0 || cfg.CheckpointInterval < 0:
		return nil, errors.New("audit: a checkpoint's interval is negative")
	}
	if _, err := verifier(cfg.Origin, cfg.EIDSign); err != nil {
		return nil, err
	}
	var dir folder = newMemFolder()
	if cfg.Dir != "" {
		disk, err := openDiskFolder(cfg.Dir)
		if err != nil {
			return nil, err
		}
		dir = disk
	}
	return open(ctx, cfg, dir)
}

func open(ctx context.Context, cfg Config, dir folder) (*Log, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.FreeSpace == nil {
		cfg.FreeSpace = dir.free
	}
	if cfg.CheckpointRecords == 0 {
		cfg.CheckpointRecords = defaultCheckpointRecords
	}
	if cfg.CheckpointInterval == 0 {
		cfg.CheckpointInterval = defaultCheckpointInterval
	}
	rec := recovery{dir: dir, log: cfg.Logger, prev: -1}
	if err := rec.run(ctx, cfg); err != nil {
		dir.close()
		return nil, err
	}
	l := &Log{
		cfg: cfg, dir: dir,
		carry: rec.carry, prev: rec.prev, ids: rec.ids,
		failures: make(map[Type]uint32),
		quit:     make(chan struct{}),
	}
	l.lastTime.Store(rec.time)
	if err := l.load(ctx); err != nil {
		dir.close()
		return nil, err
	}
	return l, nil
}

// LastTime returns the time of the last record in Unix seconds, 0 if there is
// none. While the module's clock is unset it continues from there.
func (l *Log) LastTime() int64 { return l.lastTime.Load() }

// Files returns the names of all files, oldest first.
func (l *Log) Files() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.ids)
}

// Current returns the name of the file being written, "" if none is.
func (l *Log) Current() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current
}

// OpenFile opens a finished file for reading and returns its size in bytes.
// ErrCurrent for the one being written, ErrNoFile if there is none.
func (l *Log) OpenFile(id string) (io.ReadCloser, int64, error) {
	l.mu.Lock()
	current, known := l.current == id, slices.Contains(l.ids, id)
	l.mu.Unlock()
	switch {
	case !known: // also keeps other names of the folder out
		return nil, 0, ErrNoFile
	case current:
		return nil, 0, ErrCurrent
	}
	return l.dir.read(id)
}

// Broken returns nil while the log can be written, and else what happened,
// wrapping ErrBroken.
func (l *Log) Broken() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

// ClockSet says that the clock was set, maybe backwards: the next record may
// be dated before the last. The file names still only grow.
func (l *Log) ClockSet() {
	l.turn.Lock()
	defer l.turn.Unlock()
	if l.seg != nil {
		l.seg.time = clampTime(l.cfg.Now())
	}
}

// stopTimers is called under mu.
func (l *Log) stopTimers() {
	for _, t := range []*time.Timer{l.lateSync, l.lateHead} {
		if t != nil && t.Stop() {
			l.work.Done()
		}
	}
}

// Close writes what is counted, syncs, cuts the file to its lines, keeps a
// checkpoint of all and gives the folder free. Concurrent calls may still succeed or get ErrClosed.
func (l *Log) Close(ctx context.Context) error {
	l.mu.Lock()
	if l.closing {
		l.mu.Unlock()
		return nil
	}
	l.closing = true
	l.stopTimers()
	l.mu.Unlock()
	close(l.quit)
	l.work.Wait()

	// The reserve is kept from strangers; a Close is none.
	if n, err := l.writeCounted(); err != nil && n > 0 {
		l.cfg.Logger.ErrorContext(ctx, "anonymous failures could not be logged", "count", n, "error", err)
	}

	l.committing.Lock()
	defer l.committing.Unlock()
	l.turn.Lock()
	defer l.turn.Unlock()
	l.mu.Lock()
	l.closed = true
	l.current = ""
	err := l.broken
	l.mu.Unlock()
	if l.seg != nil {
		if err == nil {
			if err = l.finish(); err == nil {
				err = l.lastWord(ctx)
			}
		} else {
			l.seg.f.Close() // the next Open repairs it
		}
		l.seg = nil
	}
	return errors.Join(err, l.dir.close())
}

// lastWord keeps the checkpoint of a log that ends, and tells the operator,
// whose own log may be the place outside that a checkpoint needs.
func (l *Log) lastWord(ctx context.Context) error {
	h, err := l.sign(l.tree, l.seg.id)
	if err != nil {
		return err
	}
	l.keepHead(ctx, h)
	l.cfg.Logger.InfoContext(ctx, "the audit log ends here", "records", h.Size, "checkpoint", string(h.Note))
	return nil
}

// refused tells why nothing may be written. It is called under mu.
func (l *Log) refused() error {
	if l.broken != nil {
		return l.broken
	}
	if l.closed {
		return ErrClosed
	}
	return nil
}

// ready is refused for the holder of the turn.
func (l *Log) ready() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refused(); err != nil {
		return err
	}
	if l.seg == nil {
		return ErrNoBoot
	}
	return nil
}

// fail makes err final. After a failed write or sync nobody knows what is on
// disk (the kernel reports a lost page once, then calls it clean), so only
// reading the file again at the next Open can tell.
func (l *Log) fail(doing string, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken == nil {
		l.broken = fmt.Errorf("%w: %s: %w", ErrBroken, doing, err)
		l.cfg.Logger.Error("the audit log is broken; operations are refused until a restart", "doing", doing, "error", err)
	}
	return l.broken
}
