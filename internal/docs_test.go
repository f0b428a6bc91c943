package internal

import (
	"bufio"
	"bytes"
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// Paths are relative to this folder.
const root = ".."

// A block is a fenced piece of code in a document.
type block struct{ lang, text string }

// blocks returns the fenced code of a document; with a title, of the section
// of that title alone.
func blocks(t *testing.T, path, title string) (all []block) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	inside, fenced, section := title == "", false, ""
	for line := range strings.Lines(string(raw)) {
		switch {
		case strings.HasPrefix(line, "```"):
			if fenced = !fenced; fenced && inside {
				all = append(all, block{lang: strings.TrimSpace(line[3:])})
			}
		case fenced && inside:
			all[len(all)-1].text += line
		case !fenced && strings.HasPrefix(line, "## "):
			section = strings.TrimSpace(line[3:])
			inside = title == "" || section == title
		}
	}
	if len(all) == 0 {
		t.Fatalf("%s has no code under %q", path, title)
	}
	return all
}

// buildHem makes the program and returns its folder.
func buildHem(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "hem"), "../cmd/hem").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return dir
}

// serveDev runs the module of the README's tour on ports of its own.
func serveDev(t *testing.T, bin string, env []string) (url, ca string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "hem"), "serve", "--dev", "--http", "127.0.0.1:0", "--https", "127.0.0.1:0")
	cmd.Env = env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	for _, field := range strings.Fields(line) {
		switch name, value, _ := strings.Cut(field, "="); name {
		case "https":
			url = "https://" + value
		case "ca":
			ca = value
		}
	}
	if err != nil || url == "" || ca == "" {
		t.Fatalf("hem serve --dev is not ready: %q, %v\n%s", line, err, &stderr)
	}
	return url, ca
}

// The commands of the README's tour work in the order they stand in, in one
// shell. A line that is a comment shows output: what stands in it between
// ellipses has to come, in order, after what the lines above it showed.
func TestReadmeTour(t *testing.T) {
	for _, tool := range []string{"sh", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing := t.Skipf
			if os.Getenv("CI") == "true" {
				missing = t.Fatalf
			}
			missing("the tour calls %s, which is not installed here; install it to run this test", tool)
		}
	}
	bin, home := buildHem(t), t.TempDir()
	env := []string{
		"PATH=" + bin + string(os.PathListSeparator) + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home,
		"XDG_STATE_HOME=" + filepath.Join(home, "state"), "XDG_DATA_HOME=" + filepath.Join(home, "data"), "LC_ALL=C",
	}
	url, ca := serveDev(t, bin, env)

	var script strings.Builder
	var shown []string
	exports := 0
	for _, b := range blocks(t, "README.md", "Five minutes") {
		if b.lang != "sh" || strings.Contains(b.text, "hem serve") {
			continue // the other terminal
		}
		for line := range strings.Lines(b.text) {
			switch {
			case strings.HasPrefix(line, "export HEM_URL="):
				line, exports = "export HEM_URL="+url+"\n", exports+1
			case strings.HasPrefix(line, "export HEM_CACERT="):
				line, exports = "export HEM_CACERT="+ca+"\n", exports+1
			case strings.HasPrefix(line, "# "):
				shown = append(shown, strings.Split(strings.TrimSpace(line[2:]), "…")...)
				continue
			}
			script.WriteString(line)
		}
	}
	if exports != 2 || !strings.Contains(script.String(), "hem ") {
		t.Fatalf("the tour does not say where the module is, or calls nothing:\n%s", &script)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-eu")
	cmd.Dir, cmd.Env, cmd.Stdin = home, env, strings.NewReader(script.String())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the tour: %v\n%s\n%s", err, out, &stderr)
	}
	rest := string(out)
	for _, piece := range shown {
		_, after, found := strings.Cut(rest, piece)
		if !found {
			t.Errorf("the README shows %q, which did not come in its place:\n%s", piece, out)
			continue
		}
		rest = after
	}
}

// The README's way to depend on this module works in a module that is not
// ours, without the network as far as the module cache goes.
func TestDependRecipe(t *testing.T) {
	here, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	scratch := t.TempDir()
	write := func(name string, content []byte) {
		t.Helper()
		path := filepath.Join(scratch, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run := func(proxy, command string) ([]byte, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "sh", "-eu", "-c", command)
		cmd.Dir, cmd.Env = scratch, append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
		if proxy != "" {
			cmd.Env = append(cmd.Env, "GOPROXY="+proxy)
		}
		return cmd.CombinedOutput()
	}
	// The hashes we vouch for, so that no checksum database is asked.
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	write("go.sum", sums)
	// What the README shows of the client has to compile, too.
	for _, b := range blocks(t, "README.md", "Five minutes") {
		if b.lang == "go" {
			write("shown/main.go", []byte(b.text))
		}
	}
	all := blocks(t, "README.md", "In your own project")
	for _, b := range all { // the test file stands between the commands, which do not need it before
		if b.lang == "go" {
			write("mine_test.go", []byte(b.text))
		}
	}
	tested := false
	for _, b := range all {
		if b.lang != "sh" {
			continue
		}
		for line := range strings.Lines(b.text) {
			line = strings.ReplaceAll(strings.TrimSpace(line), "/path/to/softhem", "'"+here+"'")
			out, err := run("off", line)
			if err != nil && strings.Contains(line, "go mod tidy") {
				// tidy also looks at what only tests of dependencies import.
				// That need not be in the cache of who never asked for it.
				t.Logf("not without a proxy: %s", out)
				if out, err = run("", line); err != nil {
					t.Logf("nor with one: %s", out)
					out, err = run("off", line+" -e")
				}
			}
			if err != nil {
				t.Fatalf("%s: %v\n%s", line, err, out)
			}
			if line == "go test" {
				tested = bytes.Contains(out, []byte("ok"))
			}
		}
	}
	if !tested {
		t.Error("the recipe tests nothing")
	}
	if out, err := run("off", "go vet ./..."); err != nil {
		t.Errorf("what the README shows does not compile: %v\n%s", err, out)
	}
}

// documents are all that is checked below.
func documents(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"} {
		paths = append(paths, filepath.Join(root, name))
	}
	all := make(map[string]string)
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all[path] = string(raw)
	}
	return all
}

// Whatever the documents name is there.
func TestDocsNameWhatExists(t *testing.T) {
	docs := documents(t)
	t.Run("links", func(t *testing.T) {
		link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
		for path, text := range docs {
			for _, found := range link.FindAllStringSubmatch(text, -1) {
				target, anchor, _ := strings.Cut(found[1], "#")
				if strings.Contains(target, ":") {
					continue // another host's
				}
				file := path
				if target != "" {
					file = filepath.Join(filepath.Dir(path), target)
				}
				raw, err := os.ReadFile(file)
				if err != nil {
					t.Errorf("%s links to %s: %v", path, found[1], err)
				} else if anchor != "" && !slices.Contains(anchors(string(raw)), anchor) {
					t.Errorf("%s links to %s, which has no such heading", path, found[1])
				}
			}
		}
	})
	t.Run("tests", func(t *testing.T) {
		// Not part of a file name or of a longer word, and not made up.
		name := regexp.MustCompile(`\b(?:Test|Benchmark|Fuzz)[A-Z][A-Za-z0-9_]*`)
		exist := testNames(t)
		for path, text := range docs {
			for _, found := range name.FindAllString(text, -1) {
				if !exist[found] && found != "FuzzName" && !strings.Contains(text, "func "+found+"(") {
					t.Errorf("%s names %s, and there is none", path, found)
				}
			}
		}
	})
	t.Run("messages and metrics", func(t *testing.T) {
		operations := docs[filepath.Join(root, "docs", "operations.md")]
		quoted := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")
		source := sources(t)
		for _, title := range []string{"Metrics", "Messages worth an alert", "When it does not start"} {
			_, section, _ := strings.Cut(operations, "\n## "+title+"\n")
			section, _, _ = strings.Cut(section, "\n## ")
			rows := quoted.FindAllStringSubmatch(section, -1)
			if len(rows) == 0 {
				t.Errorf("operations.md has nothing under %q", title)
			}
			for _, row := range rows {
				name, _, _ := strings.Cut(row[1], "{") // labels of a metric
				if !strings.Contains(source, name) {
					t.Errorf("operations.md quotes %q, which the program does not say", name)
				}
			}
		}
	})
	t.Run("commands", func(t *testing.T) {
		h := &helper{path: filepath.Join(buildHem(t), "hem"), flags: make(map[string][]string)}
		for path, text := range docs {
			for _, command := range commands(text) {
				h.check(t, path, command)
			}
		}
	})
}

// anchors are what the headings of a document can be linked by.
func anchors(text string) (all []string) {
	drop := regexp.MustCompile("[^a-z0-9 _-]")
	for line := range strings.Lines(text) {
		if title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			title = drop.ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), "")
			all = append(all, strings.ReplaceAll(title, " ", "-"))
		}
	}
	return all
}

// testNames are the names of all tests, benchmarks and fuzz targets.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil {
				names[fn.Name.Name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// sources is all code that can end up in the program.
func sources(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, p := range packages(t, "./cmd/hem/...", "./internal/...") {
		for _, file := range p.GoFiles {
			raw, err := os.ReadFile(filepath.Join(p.Dir, file))
			if err != nil {
				t.Fatal(err)
			}
			all.Write(raw)
		}
	}
	return all.String()
}

// notYet are commands and flags that documents speak of and that are still to
// come. Whoever adds one takes it out here.
func notYet() []string {
	return []string{"hem repair"}
}

// commands are the calls of hem in a document: lines of its sh blocks, and
// inline code that begins with hem or is a flag.
func commands(text string) (all []string) {
	inline := regexp.MustCompile("`((?:hem |--)[^`]+)`")
	fenced := false
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "```"):
			fenced = !fenced
		case fenced:
			line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
			for _, sep := range []string{"|", "$(", "&&", ";", "(", "then ", "do "} {
				line = strings.ReplaceAll(line, sep, "\n")
			}
			for part := range strings.Lines(line) {
				words := strings.Fields(part)
				for len(words) > 0 && strings.Contains(words[0], "=") { // variables
					words = words[1:]
				}
				if len(words) > 1 && words[0] == "hem" {
					all = append(all, strings.Join(words, " "))
				}
			}
		}
	}
	joined := strings.Join(strings.Fields(text), " ") // inline code may break over lines
	for _, found := range inline.FindAllStringSubmatch(joined, -1) {
		all = append(all, found[1])
	}
	return all
}

// A helper knows the flags of commands from their --help.
type helper struct {
	path  string
	flags map[string][]string // by command; nil: there is none
}

var longFlag = regexp.MustCompile(`--[a-z][a-z0-9-]*`)

// of returns the flags of a command, and whether there is one.
func (h *helper) of(words ...string) ([]string, bool) {
	key := strings.Join(words, " ")
	if known, ok := h.flags[key]; ok {
		return known, known != nil
	}
	h.flags[key] = nil
	out, err := exec.Command(h.path, append([]string{"help"}, words...)...).Output()
	if err != nil {
		return nil, false
	}
	h.flags[key] = append(longFlag.FindAllString(string(out), -1), "--help")
	return h.flags[key], true
}

// everywhere tells whether any command has the flag.
func (h *helper) everywhere(flag string) bool {
	for _, words := range [][]string{
		{}, {"serve"}, {"init"}, {"login"}, {"logout"}, {"token", "inspect"}, {"checkin"}, {"log", "get"}, {"log", "verify"},
		{"key", "create"}, {"key", "search"}, {"key", "show"}, {"key", "derive"}, {"key", "delete"},
		{"sign"}, {"verify"}, {"hmac"}, {"encrypt"}, {"wrap"}, {"encaps"}, {"bench"}, {"wipe"}, {"passwd"},
		{"broker"}, {"config", "domain"}, {"pair"}, {"authenticator", "watch"}, {"conform"}, {"backup"}, {"restore"}, {"rekey"},
	} {
		if flags, _ := h.of(words...); slices.Contains(flags, flag) {
			return true
		}
	}
	return false
}

func (h *helper) check(t *testing.T, path, command string) {
	t.Helper()
	for _, later := range notYet() {
		if strings.HasPrefix(command, later) {
			return
		}
	}
	if strings.HasPrefix(command, "--") {
		if flag := longFlag.FindString(command); !h.everywhere(flag) && flag != "--version" {
			t.Errorf("%s names the flag %s, and no command has it", path, flag)
		}
		return
	}
	var words []string
	for _, w := range strings.Fields(command)[1:] {
		if !regexp.MustCompile(`^[a-z]+$`).MatchString(w) {
			break
		}
		words = append(words, w)
	}
	if strings.Contains(command, "CMD") {
		return
	}
	// The longest beginning that is a command; an argument may look like one.
	for n := len(words); n >= 0; n-- {
		flags, ok := h.of(words[:n]...)
		if !ok {
			continue
		}
		if n == 0 && len(words) > 0 {
			t.Errorf("%s calls %q, and there is no such command", path, command)
		}
		for _, flag := range longFlag.FindAllString(command, -1) {
			if !slices.Contains(flags, flag) {
				t.Errorf("%s calls %q, which has no %s", path, command, flag)
			}
		}
		return
	}
}
