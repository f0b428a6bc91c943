package brokerdb_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"softhem/internal/broker/brokerdb"
)

const childEnv = "SOFTHEM_TEST_BROKERDB"

// TestMain is also the child that TestKilled kills: it writes as fast as it can
// and names each write that was confirmed.
func TestMain(m *testing.M) {
	dir := os.Getenv(childEnv)
	if dir == "" {
		os.Exit(m.Run())
	}
	db, err := brokerdb.Open(context.Background(), dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	start := time.Now().UnixNano()
	var out sync.Mutex
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("%d-%d-%d", start, w, i)
				if db.Write(brokerdb.Item{Kind: "a", ID: id, Value: []byte(id)}, brokerdb.Item{Kind: "b", ID: id, Value: []byte(id)}) == nil {
					out.Lock()
					fmt.Println(id)
					out.Unlock()
				}
			}
		}()
	}
	select {}
}

// Killed at any instant, the database has every write that was confirmed, and
// both halves of each or neither.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	confirmed := map[string]bool{}
	for round := range 8 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir)
		cmd.Stderr = os.Stderr
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(pipe)
		if !lines.Scan() {
			t.Fatal("the child wrote nothing")
		}
		first := lines.Text()
		timer := time.AfterFunc(time.Duration(20+30*round)*time.Millisecond, func() { cmd.Process.Kill() })
		confirmed[first] = true
		for lines.Scan() {
			if line := lines.Text(); strings.Count(line, "-") == 2 && wholeLine(line) {
				confirmed[line] = true
			}
		}
		timer.Stop()
		cmd.Wait()

		db, err := brokerdb.Open(context.Background(), dir)
		if err != nil {
			t.Fatal(err)
		}
		var kept [2]map[string]bool
		for i, kind := range []brokerdb.Kind{"a", "b"} {
			items, err := db.Read(context.Background(), kind)
			if err != nil {
				t.Fatal(err)
			}
			kept[i] = map[string]bool{}
			for _, item := range items {
				kept[i][item.ID] = string(item.Value) == item.ID
			}
		}
		for id := range confirmed {
			if !kept[0][id] || !kept[1][id] {
				t.Fatalf("round %d: %s was confirmed and is lost", round, id)
			}
		}
		if len(kept[0]) != len(kept[1]) {
			t.Fatalf("round %d: %d and %d halves", round, len(kept[0]), len(kept[1]))
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d writes confirmed over 8 kills", len(confirmed))
}

// wholeLine tells whether a line was not cut by the kill: its start is that of a clock.
func wholeLine(line string) bool {
	start, _, _ := strings.Cut(line, "-")
	_, err := strconv.ParseInt(start, 10, 64)
	return err == nil && len(start) == 19
}

// What has ended is forgotten, and only that; a closed database says so.
func TestForget(t *testing.T) {
	ctx := context.Background()
	db, err := brokerdb.Open(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, exp := range []int64{0, 10, 20} {
		if err := db.Write(brokerdb.Item{Kind: "k", ID: fmt.Sprint(exp), Exp: exp, Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Forget(ctx, 15); err != nil {
		t.Fatal(err)
	}
	if err := db.Write(brokerdb.Item{Kind: "k", ID: "gone"}); err != nil {
		t.Errorf("removing what is not there: %v", err)
	}
	items, err := db.Read(ctx, "k")
	if err != nil || len(items) != 2 || items[0].ID != "0" || items[1].ID != "20" {
		t.Errorf("%v, %v", items, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.Write(brokerdb.Item{Kind: "k", ID: "x", Value: []byte("v")}); err != brokerdb.ErrClosed {
		t.Errorf("write after the end: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
}
