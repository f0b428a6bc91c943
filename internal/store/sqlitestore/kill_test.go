package sqlitestore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"softhem/internal/store"
)

const killChild = "write-pairs-until-killed"

// pairValue is the value of both records of pair n; some span many pages.
func pairValue(n int) []byte {
	size := n % 300
	if n%7 == 0 {
		size = n % 20000
	}
	return fmt.Appendf(nil, "%d:%0*d", n, size, n)
}

// writePairs writes numbered pairs from start on, and prints each number when
// its Update has returned. It never ends.
func writePairs(path, start string) {
	ctx := context.Background()
	s, err := Open(ctx, Config{Path: path})
	exitOn(err)
	n, err := strconv.Atoi(start)
	exitOn(err)
	for ; ; n++ {
		exitOn(s.Update(ctx, func(tx store.Tx) error {
			if err := tx.Put(ctx, "k", fmt.Sprint(n, "/a"), pairValue(n)); err != nil {
				return err
			}
			tx.Attempt(ctx, func() error {
				tx.Put(ctx, "k", fmt.Sprint(n, "/undone"), pairValue(n))
				return errors.New("undo")
			})
			if err := tx.SetLogTail(ctx, store.LogTail{File: "log", Offset: int64(n), Lines: pairValue(n)}); err != nil {
				return err
			}
			return tx.Put(ctx, "k", fmt.Sprint(n, "/b"), pairValue(n))
		}))
		fmt.Println(n)
	}
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TestSurvivesKill kills a writing process, again and again, on one file. What
// it reported as done must be there; what it did not must be there as a whole
// or not at all.
func TestSurvivesKill(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	next, killed := 1, 0 // every pair below next is done
	for round := range 30 {
		lines := 1 + rand.IntN(40)
		if round%4 == 3 {
			lines = 0
		}
		printed := killWriter(t, killChild, path, next, lines)
		killed++

		s, err := Open(t.Context(), Config{Path: path})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for n := 1; n <= printed; n++ {
			if !hasPair(t, s, n) {
				t.Fatalf("round %d: pair %d was reported as done and is lost", round, n)
			}
		}
		// The commit may have been faster than the print, by one.
		next = printed + 1
		if hasPair(t, s, next) {
			next++
		}
		if hasPair(t, s, next) {
			t.Fatalf("round %d: pair %d is there, and only %d were reported", round, next, printed)
		}
		tail, err := s.LogTail(t.Context())
		if next > 1 && (err != nil || tail.Offset != int64(next-1) || string(tail.Lines) != string(pairValue(next-1))) {
			t.Fatalf("round %d: the log tail is of %d, %v; want %d", round, tail.Offset, err, next-1)
		}
		c := <-s.writer
		var check string
		if err := c.QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&check); err != nil || check != "ok" {
			t.Fatalf("round %d: %s, %v", round, check, err)
		}
		s.writer <- c
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("killed %d times, %d pairs", killed, next-1)
	if killed != 30 {
		t.Errorf("killed %d times", killed)
	}
}

// killWriter starts a writer that prints consecutive numbers from start on, and
// kills it: most often within the transaction that follows some lines; with
// lines 0, within the first milliseconds, while the store is being opened and
// its log recovered. It returns the last number printed, or start-1.
func killWriter(t *testing.T, child, path string, start, lines int) (printed int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], child, path, fmt.Sprint(start))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := func(within time.Duration) {
		go func() {
			time.Sleep(rand.N(within))
			cmd.Process.Kill()
		}()
	}
	if lines == 0 {
		kill(50 * time.Millisecond)
	}
	printed = start - 1
	scan := bufio.NewScanner(out)
	for scan.Scan() {
		n, err := strconv.Atoi(scan.Text())
		if err != nil || n != printed+1 {
			t.Fatalf("printed %q after %d", scan.Text(), printed)
		}
		printed = n
		if lines--; lines == 0 {
			kill(2 * time.Millisecond)
		}
	}
	err = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("the writer ended by itself: %v", err)
	}
	return printed
}

// hasPair tells whether both records of pair n are there; one alone fails.
func hasPair(t *testing.T, s *Store, n int) bool {
	t.Helper()
	a, errA := get(t, s, fmt.Sprint(n, "/a"))
	b, errB := get(t, s, fmt.Sprint(n, "/b"))
	if _, err := get(t, s, fmt.Sprint(n, "/undone")); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("pair %d: what was undone is there: %v", n, err)
	}
	if errors.Is(errA, store.ErrNotFound) && errors.Is(errB, store.ErrNotFound) {
		return false
	}
	if errA != nil || errB != nil || string(a) != string(pairValue(n)) || string(b) != string(a) {
		t.Fatalf("pair %d is half done: %v, %v", n, errA, errB)
	}
	return true
}
