package server_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"softhem/api"
	"softhem/internal/load"
	"softhem/internal/server"
)

const million = 1_000_000

// BenchmarkMillionKeys is what a module with a million keys costs: its start,
// its memory, lists and searches, and an operation with one key, beside the
// same with no other key. Filling the folder comes first and takes a minute.
func BenchmarkMillionKeys(b *testing.B) {
	dir := b.TempDir() + "/data"
	g := personalisedIn(b, dir)
	user, _ := loadKeys(b)
	c := load.Cases()[0]
	use, _, err := c.Prepare(context.Background(), g.load(), newClient(b, g.process, user), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Run(c.Name+"/alone", func(b *testing.B) { one(b, g, func(int64) []byte { return use }) })
	g.process.kill()
	if err := server.FillKeys(dir, million-10); err != nil {
		b.Fatal(err)
	}

	g = startTarget(b, dir)
	ready := g.process.took
	client := newClient(b, g.process, user)
	list, err := client.Login(context.Background(), api.ScopeKeyList)
	if err != nil {
		b.Fatal(err)
	}
	get := func(format string, args ...any) []byte {
		return local.Request("GET", fmt.Sprintf(format, args...), string(list.Bearer), nil)
	}
	search := func(format string, needle string) []byte {
		body := fmt.Sprintf(`{"descr":%q}`, fmt.Sprintf(format, api.EncodeBase64([]byte(needle))))
		return local.Request("POST", "/api/keymgmt/search", string(list.Bearer), []byte(body))
	}
	for _, m := range []struct {
		name    string
		request func(i int64) []byte
	}{
		{"list/first", func(int64) []byte { return get("/api/keymgmt/list") }},
		{"list/middle", func(int64) []byte { return get("/api/keymgmt/list/%d", million/2) }},
		{"list/last", func(int64) []byte { return get("/api/keymgmt/list/%d", million-20) }},
		{"list/anywhere", func(i int64) []byte { return get("/api/keymgmt/list/%d", i*7919%million) }},
		{"search/equals", func(i int64) []byte { return search("^%s$", fmt.Sprintf("user%07d@example.org", i*7919%million)) }},
		{"search/prefix,1000_hits", func(i int64) []byte { return search("^%s", fmt.Sprintf("user%04d", i%1000)) }},
		{"search/suffix,1_hit", func(i int64) []byte { return search("%s$", fmt.Sprintf("%07d@example.org", i*7919%million)) }},
		{"search/suffix,all_hit", func(int64) []byte { return search("%s$", "@example.org") }},
		{"search/contains,none_hit", func(int64) []byte { return search("%s", "nobody") }},
		{"search/contains,1000_hits", func(i int64) []byte { return search("%s", fmt.Sprintf("er%04d", i%1000)) }},
	} {
		b.Run(m.name, func(b *testing.B) { one(b, g, m.request) })
	}
	b.Run("start", func(b *testing.B) {
		// The sweep reads all there is, so the peak is that of its end.
		for deadline := time.Now().Add(3 * time.Minute); !strings.Contains(g.process.stderr.text(), "all stored keys were checked"); time.Sleep(time.Second) {
			if time.Now().After(deadline) {
				b.Fatal("the sweep did not end")
			}
		}
		b.ReportMetric(float64(ready)/1e6, "ready-ms")
		b.ReportMetric(float64(g.process.memory(b, "VmHWM:")), "MiB-peak")
		info, err := os.Stat(dir + "/hem.db")
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(info.Size()>>20), "MiB-on-disk")
		b.ReportMetric(0, "ns/op")
	})
	if use, _, err = c.Prepare(context.Background(), g.load(), client, nil); err != nil {
		b.Fatal(err)
	}
	b.Run(c.Name+"/of_a_million", func(b *testing.B) { one(b, g, func(int64) []byte { return use }) })
}

// one sends requests over one connection.
func one(b *testing.B, g *target, request func(i int64) []byte) {
	conn := g.dial(b)
	run(b, 1, func(_ int, i int64) error {
		_, err := conn.Do(request(i))
		return err
	})
}
