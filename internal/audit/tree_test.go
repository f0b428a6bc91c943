package audit

import (
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// allHashes is a tree that keeps every node, as package tlog describes it.
type allHashes []tlog.Hash

func (a allHashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	found := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		found[i] = a[index]
	}
	return found, nil
}

// A tree of few nodes, also one that was kept and taken up again, has the root
// of the tree of all nodes, at every size.
func TestTree(t *testing.T) {
	var all allHashes
	var few tree
	for n := range int64(1100) {
		want, err := tlog.TreeHash(n, all)
		must(t, err)
		again, err := few.frontier().tree()
		must(t, err)
		if few.root() != want || again.root() != want {
			t.Fatalf("root of %d leaves: %v and %v, want %v", n, few.root(), again.root(), want)
		}
		line := fmt.Appendf(nil, "line %d", n)
		stored, err := tlog.StoredHashes(n, line, all)
		must(t, err)
		all = append(all, stored...)
		again.add(line)
		few = again
	}
}

func TestFrontierThatIsNone(t *testing.T) {
	for _, f := range []frontier{{Size: -1}, {Size: 1}, {Size: 2, Nodes: make([]tlog.Hash, 2)}} {
		if _, err := f.tree(); err == nil {
			t.Errorf("%d leaves with %d nodes: taken", f.Size, len(f.Nodes))
		}
	}
}

// BenchmarkTree is what the tree costs for each record.
func BenchmarkTree(b *testing.B) {
	line := []byte("12|6955b909|20|0|U|A4Lj6rWWWYsfNYLvkLYaDg|Tq00Z2lB1jYj84X_6seZ2g")
	b.ReportAllocs()
	var t tree
	before := processorTime(b)
	for b.Loop() {
		t.add(line)
	}
	b.ReportMetric(float64((processorTime(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
}
