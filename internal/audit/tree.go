package audit

import (
	"fmt"
	"math/bits"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// A tree is the Merkle tree over the log (RFC 6962): its leaves are the record
// lines of all files in order, without the newline, the header lines left out.
// Of its nodes it keeps the last complete one of each level, which is all that
// the next leaf and the root ever need. Copy it to keep a state.
type tree struct {
	size  int64 // leaves
	nodes [63]tlog.Hash
}

// add appends the leaf that line is.
func (t *tree) add(line []byte) { t.addHash(tlog.RecordHash(line)) }

func (t *tree) addHash(leaf tlog.Hash) {
	completed, err := tlog.StoredHashesForRecordHash(t.size, leaf, t)
	if err != nil {
		panic(err) // ReadHashes has none
	}
	copy(t.nodes[:], completed) // of the levels 0, 1, …: what this leaf completes
	t.size++
}

// root is the root hash.
func (t *tree) root() tlog.Hash {
	root, err := tlog.TreeHash(t.size, t)
	if err != nil {
		panic(err)
	}
	return root
}

// ReadHashes implements tlog.HashReader for the two callers above: a new leaf
// and the root ask for the last complete nodes of the levels whose bit is set
// in the size, the former for the lowest of those in a row; highest first.
// Looking them up by their index instead would double the cost of a leaf.
func (t *tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	found := make([]tlog.Hash, len(indexes))
	level := 0
	for i := range slices.Backward(found) {
		for t.size>>level&1 == 0 {
			level++
		}
		found[i] = t.nodes[level]
		level++
	}
	return found, nil
}

// A frontier is a tree as it is kept: the nodes that its root is made of, one
// for each bit that is set in the size, the lowest first.
type frontier struct {
	Size  int64       `json:"size"`
	Nodes []tlog.Hash `json:"nodes"`
}

func (t *tree) frontier() frontier {
	f := frontier{Size: t.size, Nodes: []tlog.Hash{}}
	for level, n := 0, uint64(t.size); n != 0; level, n = level+1, n>>1 {
		if n&1 == 1 {
			f.Nodes = append(f.Nodes, t.nodes[level])
		}
	}
	return f
}

// tree is the tree that f was kept of. Nodes between are missing and not
// needed: the next leaf merges with those of the bits that are set.
func (f frontier) tree() (tree, error) {
	t := tree{size: f.Size}
	if f.Size < 0 || bits.OnesCount64(uint64(f.Size)) != len(f.Nodes) {
		return t, fmt.Errorf("audit: a tree of %d records does not have %d nodes", f.Size, len(f.Nodes))
	}
	for level, n, i := 0, uint64(f.Size), 0; n != 0; level, n = level+1, n>>1 {
		if n&1 == 1 {
			t.nodes[level] = f.Nodes[i]
			i++
		}
	}
	return t, nil
}
