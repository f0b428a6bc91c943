package module

import "testing"

func TestOrigins(t *testing.T) {
	for _, c := range []struct {
		list, origin string
		want         bool
	}{
		{"*", "https://anything.example", true},
		{"*", "null", true},
		{"", "https://a.example", false},
		{"https://a.example", "https://a.example", true},
		{"https://a.example", "https://A.Example", true},
		{"https://a.example", "https://a.example:8443", false},
		{"https://a.example", "http://a.example", false},
		{"https://a.example:8443", "https://a.example:8443", true},
		{"https://a.example", "https://a.example.evil.example", false},
		{"*.domain.tld", "https://x.domain.tld", true},
		{"*.domain.tld", "https://x.y.domain.tld:99", true},
		{"*.domain.tld", "https://domain.tld", false},
		{"*.domain.tld", "https://evildomain.tld", false},
		{"*.domain.tld", "https://x.domain.tld.evil.example", false},
		{"*.domain.tld", "https://evil.example/x.domain.tld", false},
		{"*.domain.tld", "https://evil.example#.domain.tld", false},
		{"*.domain.tld", "null", false},
		{"*.domain.tld", "", false},
		{"https://a.example, *.b.example", "https://c.b.example", true},
		{"https://a.example *.b.example", "https://a.example", true},
	} {
		if got := originAllowed(c.list, c.origin); got != c.want {
			t.Errorf("list %q, origin %q: %v", c.list, c.origin, got)
		}
	}
	for list, want := range map[string]bool{
		"": true, "*": true, "*.a.example": true, "https://a.example": true, "https://a.example:1, http://localhost": true,
		"a.example": false, "https://a.example/": false, "https://a.example/x": false, "*.": false, "*a": false, "https://u@a.example": false,
		"https://a.example?x": false, "**": false, "javascript:alert(1)": false,
	} {
		if got := validOrigins(list); got != want {
			t.Errorf("list %q valid: %v", list, got)
		}
	}
}

func FuzzOrigins(f *testing.F) {
	f.Add("*.domain.tld, https://a.example", "https://x.domain.tld")
	f.Fuzz(func(t *testing.T, list, origin string) {
		validOrigins(list)
		if originAllowed(list, origin) && list == "" {
			t.Fatal("an empty list let something in")
		}
	})
}
