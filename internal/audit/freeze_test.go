package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"softhem/internal/store"
	"softhem/internal/store/sqlitestore"
)

// copyOf puts a frozen log and the snapshot beside it into another folder.
func copyOf(t *testing.T, l *Log, db *sqlitestore.Store) (dir string, f *Frozen) {
	t.Helper()
	dir = t.TempDir()
	n, err := db.Snapshot(t.Context())
	must(t, err)
	defer n.Close()
	f, err = l.Freeze(t.Context(), n.Pin)
	must(t, err)
	must(t, n.CopyTo(t.Context(), filepath.Join(dir, "hem.db")))
	must(t, os.Mkdir(filepath.Join(dir, "audit"), 0o700))
	for _, file := range f.Files {
		r, err := f.Open(file)
		must(t, err)
		content, err := io.ReadAll(r)
		must(t, err)
		must(t, r.Close())
		if int64(len(content)) != file.Size || strings.ContainsRune(string(content), 0) {
			t.Errorf("%s has %d bytes, not the %d that count", file.Name, len(content), file.Size)
		}
		must(t, os.WriteFile(filepath.Join(dir, "audit", file.Name), content, 0o600))
	}
	return dir, f
}

func check(t *testing.T, dir string, checkpoint []byte) (int64, error) {
	t.Helper()
	c := Copy{
		Dir: filepath.Join(dir, "audit"), Store: openStore(t, filepath.Join(dir, "hem.db")),
		Sealer: testSealer{}, EIDSign: signer().Public(), Origin: testOrigin,
	}
	return c.Check(t.Context(), checkpoint)
}

// A log that is frozen while others commit and append, together with the
// store's snapshot, is that of one moment: every change in the store has its
// record, no record lacks its change, and a start on it has nothing to report.
func TestFreezeIsOneMoment(t *testing.T) {
	ctx := context.Background()
	db, err := sqlitestore.Open(ctx, sqlitestore.Config{Path: filepath.Join(t.TempDir(), "hem.db")})
	must(t, err)
	defer db.Close()
	cfg := config(db, filepath.Join(t.TempDir(), "audit"))
	l := openLog(t, cfg)
	must(t, l.StartBoot(ctx))
	must(t, l.StartBoot(ctx)) // a finished file before
	busy, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := 0; busy.Err() == nil; n++ {
				id := fmt.Sprintf("%d-%d", w, n)
				err := l.Commit(ctx, func(ctx context.Context, tx store.Tx) ([]Record, error) {
					return []Record{{Type: KeyGeneration, Arg: []byte(id)}}, tx.Put(ctx, "key", id, []byte(id))
				})
				if err == nil {
					err = l.Append(ctx, Record{Type: Startup})
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 10 {
		dir, frozen := copyOf(t, l, db)
		if n, err := check(t, dir, frozen.Checkpoint); err != nil || n != frozen.Records {
			t.Fatalf("%d records, want %d: %v", n, frozen.Records, err)
		}
		copied := openStore(t, filepath.Join(dir, "hem.db")).(*sqlitestore.Store)
		changes := make(map[string]bool)
		must(t, copied.EachRecord(ctx, func(kind store.Kind, id string, _ []byte) error {
			changes[id] = kind == "key" || changes[id]
			return nil
		}))
		cfg := config(copied, filepath.Join(dir, "audit"))
		again := openLog(t, cfg)
		told := 0
		for _, id := range again.Files() {
			for _, e := range entries(t, again, id) {
				if e.Type != KeyGeneration {
					continue
				}
				if told++; !changes[string(e.Arg)] {
					t.Errorf("the log tells of %s, and the store has no such change", e.Arg)
				}
			}
		}
		made := 0
		for _, ofKey := range changes {
			if ofKey {
				made++
			}
		}
		if made != told {
			t.Errorf("%d changes and %d records of them", made, told)
		}
		if again.RolledBack() || len(again.carry) > 0 {
			t.Errorf("a start on the copy has to report: %v", again.carry)
		}
		must(t, again.Close(ctx))
	}
	stop()
	wg.Wait()
}

// What a failed hold, an ended log or one without a boot leave is an error, and
// a log that works on.
func TestFreezeFails(t *testing.T) {
	ctx := context.Background()
	l := openLog(t, config(openStore(t, ""), filepath.Join(t.TempDir(), "audit")))
	nothing := func() error { return nil }
	if _, err := l.Freeze(ctx, nothing); !errors.Is(err, ErrNoBoot) {
		t.Error(err)
	}
	must(t, l.StartBoot(ctx))
	wrong := errors.New("wrong")
	if _, err := l.Freeze(ctx, func() error { return wrong }); !errors.Is(err, wrong) {
		t.Error(err)
	}
	must(t, l.Append(ctx, Record{Type: Startup}))
	must(t, l.Close(ctx))
	if _, err := l.Freeze(ctx, nothing); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// The check of a copy finds what was changed, cut or taken from it.
func TestCopyCheckFindsChanges(t *testing.T) {
	ctx := context.Background()
	db, err := sqlitestore.Open(ctx, sqlitestore.Config{Path: filepath.Join(t.TempDir(), "hem.db")})
	must(t, err)
	defer db.Close()
	l := openLog(t, config(db, filepath.Join(t.TempDir(), "audit")))
	for range 3 {
		must(t, l.StartBoot(ctx))
		must(t, l.Append(ctx, Record{Type: Reboot}, Record{Type: Reboot}))
	}
	early, err := l.Checkpoint(ctx)
	must(t, err)
	must(t, l.Append(ctx, Record{Type: Reboot}))
	late := l.Files()
	last := func(dir string) string { return filepath.Join(dir, "audit", late[len(late)-1]) }
	for name, change := range map[string]func(dir string) error{
		"a bit": func(dir string) error {
			b, err := os.ReadFile(last(dir))
			b[len(b)/2] ^= 1
			return errors.Join(err, os.WriteFile(last(dir), b, 0o600))
		},
		"the last record": func(dir string) error {
			b, err := os.ReadFile(last(dir))
			cut := strings.LastIndexByte(string(b[:len(b)-1]), '\n') + 1
			return errors.Join(err, os.WriteFile(last(dir), b[:cut], 0o600))
		},
		"the last file":    func(dir string) error { return os.Remove(last(dir)) },
		"the file between": func(dir string) error { return os.Remove(filepath.Join(dir, "audit", late[1])) },
		"all files":        func(dir string) error { return os.RemoveAll(filepath.Join(dir, "audit")) },
	} {
		dir, frozen := copyOf(t, l, db)
		if _, err := check(t, dir, frozen.Checkpoint); err != nil {
			t.Fatal(err)
		}
		must(t, change(dir))
		if _, err := check(t, dir, frozen.Checkpoint); err == nil {
			t.Errorf("without %s the copy passes", name)
		}
	}
	dir, frozen := copyOf(t, l, db)
	if _, err := check(t, dir, early); err == nil {
		t.Error("the checkpoint of an earlier moment passes")
	}
	if _, err := check(t, dir, []byte("no checkpoint")); err == nil {
		t.Error("no checkpoint passes")
	}
	// The first files may have been moved away for good.
	must(t, os.Remove(filepath.Join(dir, "audit", late[0])))
	if n, err := check(t, dir, frozen.Checkpoint); err != nil || n != frozen.Records {
		t.Errorf("without the first file: %d, %v", n, err)
	}
}
