package sqlitestore

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// scrubHold is how long a scrub first keeps updates waiting for the views
	// that are in its way. It doubles with every time that was too short, until
	// all of it was scrubWait.
	scrubHold = 25 * time.Millisecond
	scrubWait = 5 * time.Second
	// scrubPause lies between two looks for whether the views have ended.
	scrubPause = time.Millisecond

	// maxWAL is the length of the write-ahead log from which on a scrub shortens
	// it. SQLite begins it anew only in a moment without a view, and as long as
	// there is none, it grows.
	maxWAL = 32 << 20
)

// A scrubber has the write-ahead log emptied, once for all who wait for it.
type scrubber struct {
	// ended counts the updates that ended, whichever way. It changes only in
	// the hands of who has the writer's connection.
	ended  atomic.Uint64
	rounds atomic.Uint64 // scrubs begun so far

	mu      sync.Mutex
	covered uint64 // what ended was when the latest successful scrub began
	running *scrub
}

type scrub struct {
	done chan struct{} // closed when err is set
	err  error
}

// Scrub empties the write-ahead log, which may hold values deleted or replaced
// since it was last empty. In memory it does nothing.
//
// It returns nil only after a checkpoint that began when the updates that had
// ended before the call were all in the log. One checkpoint does for all such
// calls. It takes milliseconds, and waits for the views that run; updates wait
// with it. Before that it waits for a snapshot to end, which updates do not. After scrubWait it gives up: the views were too long.
//
// In the file itself secure_delete overwrites a deleted value where it stood,
// and pages that get free, but not copies that SQLite left behind when it moved
// the value between pages before (measured: one value in some hundred). Of the
// sealed parts of keys there are no such copies, see sealed_key; of all else
// Compact removes them. The -shm file holds numbers of pages and no contents,
// and temporary files are kept in memory (temp_store).
func (s *Store) Scrub(ctx context.Context) error {
	need := s.scrubs.ended.Load()
	for tries := 0; ; tries++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		select {
		case <-s.closing:
			return ErrClosed
		default:
		}
		if s.path == "" {
			return nil
		}
		s.scrubs.mu.Lock()
		if s.scrubs.covered >= need {
			s.scrubs.mu.Unlock()
			return nil
		}
		joined := s.scrubs.running != nil
		run := s.startScrub()
		s.scrubs.mu.Unlock()
		select {
		case <-run.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		// One that was running already had less time to wait for views than
		// this call may take.
		if run.err != nil && (!joined || tries > 0) {
			return run.err
		}
	}
}

// startScrub returns the scrub that runs, and starts one if none does. It is
// called with scrubs.mu held.
func (s *Store) startScrub() *scrub {
	if s.scrubs.running == nil {
		run := &scrub{done: make(chan struct{})}
		s.scrubs.running = run
		s.scrubs.rounds.Add(1)
		// By itself, for whoever waits for it may give up.
		go func() {
			covers, err := s.scrub()
			s.scrubs.mu.Lock()
			defer s.scrubs.mu.Unlock()
			if err == nil {
				s.scrubs.covered = covers
			}
			s.scrubs.running, run.err = nil, err
			close(run.done)
		}()
	}
	return s.scrubs.running
}

// scrub empties the write-ahead log, and returns how many updates had ended
// before it did.
func (s *Store) scrub() (covers uint64, err error) {
	select {
	case s.copying <- struct{}{}:
		defer func() { <-s.copying }()
	case <-s.closing:
		return 0, ErrClosed
	}
	deadline := time.Now().Add(scrubWait)
	for hold := scrubHold; ; hold *= 2 {
		c, err := s.take(context.Background(), s.writer)
		if err != nil {
			return 0, err
		}
		covers := s.scrubs.ended.Load()
		emptied, err := c.emptyLog(min(hold, time.Until(deadline)))
		// Between two tries, updates that wait have their turn.
		s.writer <- c
		if err != nil || emptied {
			return covers, translate(err, s.path)
		}
		if time.Until(deadline) <= 0 {
			return 0, errors.New("the write-ahead log could not be emptied because the store is being read; try again")
		}
	}
}

// emptyLog is called with the writer's connection. It moves what is in the
// write-ahead log into the file and cuts the log to length 0, if the views in
// its way end within the time; views that begin meanwhile are not in the way,
// because they need nothing of a log that is all moved.
//
// SQLite does not wait for the views here, see Open. It would wait for a place
// among the readers' marks to be empty, and new views, which are not in the way
// themselves, would keep taking that place.
func (c *conn) emptyLog(within time.Duration) (emptied bool, err error) {
	for start := time.Now(); ; time.Sleep(scrubPause) {
		var busy, frames, moved int
		if err := c.truncate.QueryRow().Scan(&busy, &frames, &moved); err != nil {
			return false, err
		}
		if busy == 0 {
			return true, nil
		}
		if time.Since(start) >= within {
			return false, nil
		}
	}
}

// boundLog is called after an update. It sees to it that the write-ahead log
// does not grow for ever where there is always some view.
func (s *Store) boundLog() {
	if s.path == "" {
		return
	}
	if info, err := os.Stat(s.path + "-wal"); err != nil || info.Size() < s.maxWAL {
		return
	}
	s.scrubs.mu.Lock()
	defer s.scrubs.mu.Unlock()
	s.startScrub() // nobody waits; if it fails, the next update tries again
}

// Compact rewrites the file, then does what Scrub does: after it no file of
// the store holds a value that was deleted or replaced. It takes time and
// memory in proportion to the file, and updates wait for it. In memory it does
// nothing.
func (s *Store) Compact(ctx context.Context) error {
	if s.path != "" {
		if err := s.vacuum(ctx); err != nil {
			return err
		}
	}
	return s.Scrub(ctx)
}

func (s *Store) vacuum(ctx context.Context) error {
	c, err := s.take(ctx, s.writer)
	if err != nil {
		return err
	}
	defer func() { s.writer <- c }()
	defer s.scrubs.ended.Add(1)
	_, err = c.ExecContext(context.WithoutCancel(ctx), "VACUUM")
	return translate(err, s.path)
}
