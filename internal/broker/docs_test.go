package broker_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"softhem/internal/broker"
)

// docs/api.md has every path that a broker answers, and no other.
func TestTheDocsHaveEveryRoute(t *testing.T) {
	raw, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(raw), "\n## Broker\n")
	if !ok {
		t.Fatal("docs/api.md has no section on the broker")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var told []string
	parameter := regexp.MustCompile(`<[a-z]+>`)
	for _, m := range regexp.MustCompile("(?m)^\\| `((?:GET|POST|DELETE) [^`?]+)").FindAllStringSubmatch(section, -1) {
		route := strings.Replace(m[1], "<link>", "/notify/register/challenge/<rid>", 1)
		if short, _, optional := strings.Cut(route, "["); optional {
			told = append(told, parameter.ReplaceAllString(short, "{}"))
			route = strings.NewReplacer("[", "", "]", "").Replace(route)
		}
		told = append(told, parameter.ReplaceAllString(route, "{}"))
	}
	var served []string
	for _, pattern := range broker.PatternsForTest() {
		served = append(served, regexp.MustCompile(`\{[a-z]+\}`).ReplaceAllString(pattern, "{}"))
	}
	slices.Sort(told)
	slices.Sort(served)
	if !slices.Equal(told, served) {
		t.Errorf("told   %q\nserved %q", told, served)
	}
}
