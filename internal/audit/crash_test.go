package audit

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"softhem/internal/store"
	"softhem/internal/store/sqlitestore"
)

// childVar makes the test binary a module in the folder it names, to be killed.
const childVar = "AUDIT_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVar); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child appends, commits and boots until it is killed, and prints a line for
// each answer. Each name it uses is new.
func child(dir string) error {
	ctx := context.Background()
	st, err := sqlitestore.Open(ctx, sqlitestore.Config{Path: filepath.Join(dir, "store.db")})
	if err != nil {
		return err
	}
	cfg := config(st, filepath.Join(dir, "log"))
	cfg.CheckpointRecords, cfg.CheckpointInterval = 20, 5*time.Millisecond // so that it is killed at one, too
	l, err := Open(ctx, cfg)
	if err != nil {
		return err
	}
	if l.RolledBack() {
		return errors.New("a crash was taken for a roll-back")
	}
	if err := l.StartBoot(ctx); err != nil {
		return err
	}
	var mu sync.Mutex
	answer := func(what, name string, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			fmt.Printf("error %s %v\n", name, err)
		} else {
			fmt.Printf("%s %s\n", what, name) // unbuffered
		}
	}
	try := func(name string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf("try %s\n", name)
	}
	answer("boot", "", nil)
	for i := range 6 {
		go func() {
			for j := 0; ; j++ {
				name := fmt.Sprintf("%d-%d-%d", os.Getpid(), i, j)
				answer("append", name, l.Append(ctx, Record{Type: CryptoEXDSASign, Who: "U", Arg: []byte(name)}))
			}
		}()
		go func() {
			for j := 0; ; j++ {
				name := fmt.Sprintf("%d-c%d-%d", os.Getpid(), i, j)
				try(name)
				if j%5 == 4 { // a change that fails leaves neither
					err := l.Commit(ctx, func(ctx context.Context, tx store.Tx) ([]Record, error) {
						if err := tx.Put(ctx, "key", name, []byte("x")); err != nil {
							return nil, err
						}
						return []Record{{Type: KeyImport, Arg: []byte(name)}}, io.ErrUnexpectedEOF
					})
					if err == nil {
						answer("", name, fmt.Errorf("a failed change was answered with success"))
					}
					continue
				}
				answer("commit", name, l.Commit(ctx, put(name, "x", Record{Type: KeyImport, Who: "U", Arg: []byte(name)})))
			}
		}()
	}
	go func() { // a witness
		for {
			time.Sleep(rand.N(10 * time.Millisecond))
			note, err := l.Checkpoint(ctx)
			answer("point", base64.StdEncoding.EncodeToString(note), err)
		}
	}()
	for {
		time.Sleep(rand.N(40 * time.Millisecond))
		answer("boot", "", l.StartBoot(ctx))
	}
}

// After kill -9 at any moment every answered record and change is there, every
// change has its record, and every record its change. Every checkpoint that was
// given holds, and no crash looks like a roll-back.
func TestKill(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 5
	}
	dir := t.TempDir()
	tried, appended, committed := map[string]bool{}, map[string]bool{}, map[string]bool{}
	boots := 0
	var points []Checkpoint
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childVar+"="+dir)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		answers := bufio.NewScanner(out)
		var once sync.Once
		for answers.Scan() {
			what, name, _ := strings.Cut(answers.Text(), " ")
			switch what {
			case "try":
				tried[name] = true
			case "append":
				appended[name] = true
			case "commit":
				committed[name] = true
			case "point":
				note, err := base64.StdEncoding.DecodeString(name)
				must(t, err)
				c, err := ParseCheckpoint(note, signer().Public())
				must(t, err)
				points = append(points, c)
			case "boot":
				boots++
				once.Do(func() { time.AfterFunc(rand.N(150*time.Millisecond), func() { cmd.Process.Kill() }) })
			default:
				t.Errorf("round %d: %s", round, answers.Text())
			}
		}
		cmd.Wait()
		if stderr.Len() > 0 {
			t.Fatalf("round %d: %s", round, &stderr)
		}
		if round%6 == 5 || round == rounds-1 { // in between the next child repairs
			checkKilled(t, dir, tried, appended, committed, boots)
			checkPoints(t, dir, points)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	if len(appended) < rounds || len(committed) < rounds || boots <= rounds || len(points) < rounds {
		t.Errorf("too little happened: %d appends, %d commits, %d boots, %d checkpoints", len(appended), len(committed), boots, len(points))
	}
	t.Logf("%d appends, %d commits, %d boots, %d checkpoints answered", len(appended), len(committed), boots, len(points))
}

// checkPoints verifies the files against all checkpoints that were given, and
// against that of the next start.
func checkPoints(t *testing.T, dir string, points []Checkpoint) {
	t.Helper()
	st := openStore(t, filepath.Join(dir, "store.db"))
	defer st.Close()
	l := openLog(t, config(st, filepath.Join(dir, "log")))
	defer l.Close(t.Context())
	if l.RolledBack() {
		t.Error("a crash was taken for a roll-back")
	}
	v, err := NewVerification(signer().Public())
	must(t, err)
	now := Checkpoint{Origin: testOrigin, Size: l.tree.size, Root: l.tree.root()}
	for _, c := range append(points[:len(points):len(points)], now) {
		must(t, v.Expect(c))
	}
	for _, id := range l.Files() {
		f, _, err := l.dir.read(id)
		must(t, err)
		if _, err := v.File(f); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		f.Close()
	}
	if err := v.End(); err != nil {
		t.Error(err)
	}
	if held, _ := v.Held(); held != now.Size {
		t.Errorf("%d of %d records are under a checkpoint that holds", held, now.Size)
	}
}

func checkKilled(t *testing.T, dir string, tried, appended, committed map[string]bool, boots int) {
	t.Helper()
	st := openStore(t, filepath.Join(dir, "store.db"))
	defer st.Close()
	l := openLog(t, config(st, filepath.Join(dir, "log")))
	defer l.Close(t.Context())
	logged, imports := map[string]bool{}, map[string]bool{}
	for _, id := range l.Files() {
		for _, e := range entries(t, l, id) {
			switch e.Type {
			case CryptoEXDSASign:
				if logged[string(e.Arg)] {
					t.Errorf("record %s stands twice", e.Arg)
				}
				logged[string(e.Arg)] = true
			case KeyImport:
				if imports[string(e.Arg)] {
					t.Errorf("record of change %s stands twice", e.Arg)
				}
				imports[string(e.Arg)] = true
			case NonSecureState:
				// A kill may tear a write where a page ends, no more.
				t.Logf("reported: %s", e.Arg)
			}
		}
	}
	for name := range appended {
		if !logged[name] {
			t.Errorf("answered record %s is missing", name)
		}
	}
	must(t, st.View(t.Context(), func(r store.Reader) error {
		for name := range tried { // the changes, answered or not
			_, err := r.Get(t.Context(), "key", name)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
			if made := err == nil; made != imports[name] || committed[name] && !made {
				t.Errorf("change %s: made %v, logged %v, answered %v", name, made, imports[name], committed[name])
			}
		}
		return nil
	}))
	if len(l.Files()) < boots {
		t.Errorf("%d files for %d boots", len(l.Files()), boots)
	}
}
