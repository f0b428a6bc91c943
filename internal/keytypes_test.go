package internal

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"softhem/api"
	"softhem/internal/suite"
)

// The table of key types in the API's document says what the suite's table
// says: all types, what they may do, and the lengths of their keys.
func TestDocumentedKeyTypesAreTheSuites(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(root, "docs/api.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(raw), "| type | may | public key, bytes |\n| --- | --- | --- |\n")
	if !found {
		t.Fatal("docs/api.md has no table of key types")
	}
	quoted, number := regexp.MustCompile("`([A-Z0-9-]+)`"), regexp.MustCompile(`\d+`)
	var types []api.KeyType
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) < 4 {
			break
		}
		names := quoted.FindAllStringSubmatch(cells[1], -1)
		var sizes []int
		for _, n := range number.FindAllString(cells[3], -1) {
			size, err := strconv.Atoi(n)
			if err != nil {
				t.Fatal(err)
			}
			sizes = append(sizes, size)
		}
		may := cells[2]
		for i, name := range names {
			types = append(types, api.KeyType(name[1]))
			a, ok := suite.AlgorithmOf(api.KeyType(name[1]))
			if !ok {
				t.Errorf("docs/api.md has a type %s, and the suite does not", name[1])
				continue
			}
			for _, c := range []struct {
				can  bool
				word string
			}{
				{a.ECDH, "ECDH"}, {a.ExDSA, "ExDSA"}, {a.HasMode, "by `mode`"}, {a.MAC, "HMAC"},
				{a.Cipher, "key wrap"}, {a.KEM, "FIPS 203"}, {a.MLDSA, "FIPS 204"},
			} {
				if c.can != strings.Contains(may, c.word) {
					t.Errorf("%s: the suite says %v of %q, docs/api.md %q", name[1], c.can, c.word, may)
				}
			}
			if a.PublicSize == 0 {
				if !strings.Contains(cells[3], "none") || !slices.Contains(sizes, a.MaterialSize) {
					t.Errorf("%s has %d secret bytes; docs/api.md says %q", a.Type, a.MaterialSize, cells[3])
				}
			} else if i >= len(sizes) || sizes[i] != a.PublicSize {
				t.Errorf("the public key of %s has %d bytes; docs/api.md says %q", a.Type, a.PublicSize, cells[3])
			}
		}
	}
	if !slices.Equal(types, api.KeyTypes()) {
		t.Errorf("docs/api.md has the types %v", types)
	}
}
