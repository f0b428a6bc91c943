package audit

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Whatever is done in whatever order, with restarts in between, the files hold
// exactly what was answered.
func TestModel(t *testing.T) {
	n := 0
	base := t.TempDir()
	rapid.Check(t, func(r *rapid.T) {
		n++
		testModel(t, r, filepath.Join(base, fmt.Sprint(n)))
	})
}

func testModel(t *testing.T, r *rapid.T, dir string) {
	var now clock
	now.Store(rapid.Int64Range(0, 1<<31).Draw(r, "start"))
	st := openStore(t, "")
	defer st.Close()
	cfg := config(st, dir)
	cfg.Now, cfg.Durability = now.Load, rapid.SampledFrom([]Durability{Strict, Relaxed}).Draw(r, "durability")
	l := openLog(t, cfg)
	defer func() { l.Close(t.Context()) }()

	var ids []string                 // the model: files,
	logged := map[string][]string{}  // what they hold,
	stored := map[string]bool{}      // and what the store has
	var lastTime, floor int64        // of the last record
	booted, names := false, int64(0) // names is the lowest name allowed
	told := func(recs ...Record) {
		floor = max(floor, now.Load())
		lastTime = floor
		for _, rec := range recs {
			id := ids[len(ids)-1]
			logged[id] = append(logged[id], fmt.Sprintf("%x %+v", floor, rec))
		}
	}
	record := rapid.Custom(func(r *rapid.T) Record {
		return Record{
			Type:   Type(rapid.SampledFrom([]int{1, 5, 12, 15, 18, 26, 29, 42}).Draw(r, "type")),
			Result: Result(rapid.IntRange(0, 2).Draw(r, "result")),
			Who:    rapid.SampledFrom([]string{"", "U", "M", "00ff"}).Draw(r, "who"),
			Arg:    rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(r, "arg"),
		}
	})
	records := rapid.SliceOfN(record, 1, 4)
	check := func(r *rapid.T, oldest int) {
		if got := l.Files(); !slices.Equal(got, ids) {
			r.Fatalf("files %v, want %v", got, ids)
		}
		if got := l.LastTime(); got != lastTime {
			r.Fatalf("LastTime %x, want %x", got, lastTime)
		}
		for _, id := range ids[max(0, oldest):] {
			var got []string
			for _, e := range entries(t, l, id)[1:] {
				if len(e.Arg) == 0 {
					e.Arg = []byte{}
				}
				got = append(got, fmt.Sprintf("%x %+v", e.Time, e.Record))
			}
			if !slices.Equal(got, logged[id]) {
				r.Fatalf("%s holds\n%q\nwant\n%q", id, got, logged[id])
			}
		}
		for id := range maps.Keys(stored) {
			if has(t, st, id) != stored[id] {
				r.Fatalf("%s in the store: %v", id, !stored[id])
			}
		}
	}
	reopen := func() {
		var err error
		if l, err = Open(t.Context(), cfg); err != nil {
			r.Fatal(err)
		}
		booted, floor = false, lastTime
	}
	r.Repeat(map[string]func(*rapid.T){
		"append": func(r *rapid.T) {
			recs := records.Draw(r, "records")
			err := l.Append(t.Context(), recs...)
			if (err == nil) != booted {
				r.Fatal(err)
			}
			if booted {
				told(recs...)
			}
		},
		"commit": func(r *rapid.T) {
			recs, id := records.Draw(r, "records"), rapid.StringMatching("[a-e]").Draw(r, "id")
			err := l.Commit(t.Context(), put(id, "x", recs...))
			if (err == nil) != booted {
				r.Fatal(err)
			}
			if booted {
				told(recs...)
			}
			stored[id] = stored[id] || booted
		},
		"boot": func(r *rapid.T) {
			if err := l.StartBoot(t.Context()); err != nil {
				r.Fatal(err)
			}
			booted = true
			floor = max(now.Load(), names, lastTime)
			names = floor + 1
			ids = append(ids, fmt.Sprintf("%08x", floor))
			lastTime = floor
			id := ids[len(ids)-1]
			logged[id] = append(logged[id], fmt.Sprintf("%x %+v", floor, Record{Type: Startup, Arg: []byte{}}))
		},
		"tick": func(r *rapid.T) { now.Add(rapid.Int64Range(-3, 10).Draw(r, "seconds")); now.Store(max(0, now.Load())) },
		"set": func(r *rapid.T) {
			now.Store(rapid.Int64Range(0, 1<<31).Draw(r, "time"))
			l.ClockSet()
			if booted {
				floor = now.Load()
			}
		},
		"restart": func(r *rapid.T) {
			if err := l.Close(t.Context()); err != nil {
				r.Fatal(err)
			}
			reopen()
		},
		"crash": func(r *rapid.T) { abandon(l); reopen() },
		// Only the last files can have changed; the end looks at all.
		"": func(r *rapid.T) { check(r, len(ids)-2) },
	})
	check(r, 0)
}
