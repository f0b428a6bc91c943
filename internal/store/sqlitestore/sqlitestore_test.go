package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"softhem/internal/store"
	"softhem/internal/store/storetest"
)

// TestMain lets the tests that kill start this program as the one to be killed.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 {
		switch os.Args[1] {
		case killChild:
			writePairs(os.Args[2], os.Args[3])
		case killKeysChild:
			changeKeys(os.Args[2], os.Args[3])
		}
	}
	os.Exit(m.Run())
}

func TestContract(t *testing.T) {
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		storetest.Run(t, func(t *testing.T) store.Store { return open(t, newPath(t)) })
	})
	t.Run("one reader", func(t *testing.T) {
		t.Parallel()
		storetest.Run(t, func(t *testing.T) store.Store {
			s, err := Open(t.Context(), Config{Path: newPath(t), MaxReaders: 1})
			if err != nil {
				t.Fatal(err)
			}
			return s
		})
	})
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		storetest.Run(t, func(t *testing.T) store.Store { return open(t, "") })
	})
}

// newPath is a file name with everything that means something in a URI.
func newPath(t testing.TB) string {
	return filepath.Join(t.TempDir(), "s?mode=memory&a=%41 #b;+é.db")
}

func open(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func put(t testing.TB, s *Store, id string, value []byte) {
	t.Helper()
	if err := s.Update(t.Context(), func(tx store.Tx) error { return tx.Put(t.Context(), "k", id, value) }); err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, s *Store, id string) (value []byte, err error) {
	t.Helper()
	err = s.View(t.Context(), func(r store.Reader) error {
		value, err = r.Get(t.Context(), "k", id)
		return err
	})
	return value, err
}

func TestReopen(t *testing.T) {
	path := newPath(t)
	s := open(t, path)
	put(t, s, "a", []byte("1"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	if names := files(t, path); len(names) != 1 || names[0] != filepath.Base(path) {
		t.Errorf("after Close there are %q", names)
	}
	s = open(t, path)
	if got, err := get(t, s, "a"); err != nil || string(got) != "1" {
		t.Fatalf("after reopening: %q, %v", got, err)
	}
}

func TestUseAfterClose(t *testing.T) {
	for _, path := range []string{"", newPath(t)} {
		s, ctx := open(t, path), t.Context()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		_, errTail := s.LogTail(ctx)
		for name, err := range map[string]error{
			"View":    s.View(ctx, func(store.Reader) error { return nil }),
			"Update":  s.Update(ctx, func(store.Tx) error { return nil }),
			"Scrub":   s.Scrub(ctx),
			"Compact": s.Compact(ctx),
			"LogTail": errTail,
		} {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// A transaction kept beyond its function must not touch the next one.
func TestTransactionIsOver(t *testing.T) {
	s, ctx := open(t, newPath(t)), t.Context()
	var kept store.Tx
	var keptReader store.Reader
	if err := s.Update(ctx, func(tx store.Tx) error { kept = tx; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := s.View(ctx, func(r store.Reader) error { keptReader = r; return nil }); err != nil {
		t.Fatal(err)
	}
	_, errGet := kept.Get(ctx, "k", "a")
	_, errRead := keptReader.Get(ctx, "k", "a")
	for name, err := range map[string]error{
		"Put": kept.Put(ctx, "k", "a", nil), "Delete": kept.Delete(ctx, "k", "a"), "Get": errGet, "Get of a view": errRead,
		"SetLogTail": kept.SetLogTail(ctx, store.LogTail{}), "Attempt": kept.Attempt(ctx, func() error { return nil }),
	} {
		if !errors.Is(err, errOver) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := get(t, s, "a"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("it has written: %v", err)
	}
}

func TestFilesArePrivate(t *testing.T) {
	path := newPath(t)
	check := func(want ...string) {
		t.Helper()
		for _, suffix := range want {
			info, err := os.Stat(path + suffix)
			if err != nil || info.Mode() != 0o600 {
				t.Errorf("%q: %v, %v", suffix, info.Mode(), err)
			}
		}
	}
	s := open(t, path)
	put(t, s, "a", nil)
	check("", "-wal", "-shm")
	// Files of a program that was killed, opened up by someone.
	copyFiles(t, path, path+".copy")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Chmod(path+".copy"+suffix, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	path += ".copy"
	s = open(t, path)
	if _, err := get(t, s, "a"); err != nil {
		t.Error(err)
	}
	check("", "-wal", "-shm")
}

// copyFiles copies a store that is open, which gives what a killed process
// leaves.
func copyFiles(t *testing.T, from, to string) {
	t.Helper()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		content, err := os.ReadFile(from + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to+suffix, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Every setting is asked for on every connection, as SQLite understood it.
func TestSettings(t *testing.T) {
	s := open(t, newPath(t))
	conns := []*conn{<-s.writer}
	for range cap(s.readers) {
		conns = append(conns, <-s.readers)
	}
	if len(conns) != 1+defaultReaders {
		t.Fatalf("%d connections", len(conns))
	}
	for i, c := range conns {
		queryOnly, busyTimeout := "1", fmt.Sprint(busyTimeoutMS)
		if i == 0 {
			queryOnly, busyTimeout = "0", "0"
		}
		for pragma, want := range map[string]string{
			"busy_timeout": busyTimeout, "journal_mode": "wal", "synchronous": "2", "foreign_keys": "1",
			"secure_delete": "1", "temp_store": "2", "query_only": queryOnly, "application_id": fmt.Sprint(applicationID),
		} {
			var got string
			if err := c.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
				t.Errorf("connection %d: %s is %s, %v; want %s", i, pragma, got, err, want)
			}
		}
	}
	if _, err := conns[1].put.Exec("k", "a", []byte{}); err == nil {
		t.Error("a reader can write")
	}
	s.writer <- conns[0]
	for _, c := range conns[1:] {
		s.readers <- c
	}
}

func TestRefusedFiles(t *testing.T) {
	whole := newPath(t)
	s := open(t, whole)
	put(t, s, "a", make([]byte, 20000))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	run := func(start []byte, statements ...string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, start, 0o600); err != nil {
				t.Fatal(err)
			}
			db, err := sql.Open("sqlite", (&Store{path: path}).dsn())
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			for _, statement := range statements {
				if _, err := db.Exec(statement); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	file := func(content []byte) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	mangled := append([]byte{}, image...)
	copy(mangled[100:], strings.Repeat("\xff", 500)) // the schema
	for name, c := range map[string]struct {
		make func(t *testing.T, path string)
		want error
		says string
	}{
		"no database":       {file([]byte(strings.Repeat("not a database. ", 300))), store.ErrCorrupt, "backup"},
		"short":             {file([]byte("xy")), store.ErrCorrupt, "backup"},
		"mangled":           {file(mangled), store.ErrCorrupt, "backup"},
		"foreign":           {run(nil, "CREATE TABLE t (x)"), store.ErrCorrupt, "another program"},
		"foreign, numbered": {run(nil, "CREATE TABLE t (x)", "PRAGMA user_version = 1"), store.ErrCorrupt, "another program"},
		"foreign, marked":   {run(nil, "PRAGMA application_id = 77", "PRAGMA user_version = 1"), store.ErrCorrupt, "another program"},
		"newer":             {run(image, "PRAGMA user_version = 99"), store.ErrNewerSchema, "run the newer program"},
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			c.make(t, path)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s, err := Open(t.Context(), Config{Path: path})
			if err == nil {
				s.Close()
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; want %v", err, c.want)
			}
			after, err := os.ReadFile(path)
			if err != nil || string(after) != string(before) {
				t.Errorf("the file was written to: %v", err)
			}
		})
	}

	if _, err := Open(t.Context(), Config{Path: filepath.Join(t.TempDir(), "none", "s.db")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	if _, err := Open(t.Context(), Config{MaxReaders: -1}); err == nil {
		t.Error("-1 readers")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, Config{Path: newPath(t)}); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
}

// Damage found while the store is open is told as such, and the store says so
// again instead of returning something.
func TestDamageWhileOpen(t *testing.T) {
	path := newPath(t)
	s := open(t, path)
	for i := range 300 {
		put(t, s, fmt.Sprint(i), make([]byte, 1000))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	for at := int64(3 * 4096); at < info.Size(); at += 4096 { // behind header and root pages
		if _, err := f.WriteAt([]byte(strings.Repeat("\xee", 200)), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	for range 2 {
		if _, err := get(t, s, "150"); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("Get: %v", err)
		}
	}
	err = s.Update(t.Context(), func(tx store.Tx) error {
		tx.Put(t.Context(), "k", "150", nil) // its error is swallowed
		return nil
	})
	if !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("Update: %v", err)
	}
}

func TestMigrations(t *testing.T) {
	ctx, path := t.Context(), newPath(t)
	s := open(t, path)
	put(t, s, "a", []byte("1"))
	c := <-s.writer
	defer func() { s.writer <- c }()
	// The ones there are, and two more.
	files := fstest.MapFS{}
	entries, err := migrationFiles.ReadDir("migrations")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		script, err := migrationFiles.ReadFile("migrations/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		files["migrations/"+e.Name()] = &fstest.MapFile{Data: script}
	}
	name := func(ahead int) string { return fmt.Sprintf("migrations/%04d_more.sql", len(entries)+ahead) }
	good, bad := len(entries)+1, len(entries)+2
	version := func() (v int) {
		if err := c.QueryRowContext(ctx, "PRAGMA user_version").Scan(&v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	tables := func() (n int) {
		if err := c.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema WHERE name IN ('two', 'three')").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	files[name(1)] = &fstest.MapFile{Data: []byte("CREATE TABLE two (x); DELETE FROM record -- no semicolon\n")}
	put2 := func() {
		if _, err := c.put.Exec("k", "a", []byte("1")); err != nil {
			t.Fatal(err)
		}
	}
	// The first of them is done, and stays; of the other, which fails, nothing does.
	if err := migrate(ctx, c.Conn, path, files); err != nil || version() != good || tables() != 1 {
		t.Fatalf("version %d, %v", version(), err)
	}
	put2()
	files[name(2)] = &fstest.MapFile{Data: []byte("CREATE TABLE three (x); DELETE FROM record; INSERT INTO none VALUES (1);")}
	err = migrate(ctx, c.Conn, path, files)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprint("version ", bad)) || version() != good || tables() != 1 {
		t.Fatalf("version %d, %v", version(), err)
	}
	var n int
	if err := c.QueryRowContext(ctx, "SELECT count(*) FROM record").Scan(&n); err != nil || n != 1 {
		t.Fatalf("%d records, %v", n, err)
	}
	if err := migrate(ctx, c.Conn, path, migrationFiles); !errors.Is(err, store.ErrNewerSchema) {
		t.Fatalf("going back: %v", err)
	}
	files[name(4)] = &fstest.MapFile{}
	delete(files, name(2))
	if err := migrate(ctx, c.Conn, path, files); err == nil || version() != good {
		t.Fatalf("a gap: version %d, %v", version(), err)
	}
}

// files names everything in the folder of path.
func files(t testing.TB, path string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
