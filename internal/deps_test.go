package internal

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// pkg is what `go list -json` tells of a package.
type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string
	Standard   bool
}

func packages(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,GoFiles,Imports,Deps,Standard"}, args...)...)
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// The import rules: who may use what. Each says why it is there.
var importRules = []struct {
	why     string
	imports func(path string) bool
	allowed []string // packages of this module that may
}{
	{
		"primitives live in internal/suite; the SDK, which may import nothing internal, has the few of a client; the conformance suite judges the module by the standard library",
		func(p string) bool {
			return slices.Contains([]string{
				"crypto/ecdh", "crypto/ecdsa", "crypto/ed25519", "crypto/hmac", "crypto/sha256", "crypto/sha512", "crypto/aes",
				"crypto/cipher", "crypto/hkdf", "crypto/pbkdf2", "crypto/mlkem", "crypto/elliptic", "crypto/md5", "crypto/rsa", "crypto/subtle",
			}, p) || strings.HasPrefix(p, "golang.org/x/crypto/") && p != "golang.org/x/crypto/acme" || strings.HasPrefix(p, "github.com/cloudflare/circl")
		},
		[]string{"softhem/internal/suite", "softhem/hem", "softhem/conformance"},
	},
	{
		"drivers stay inside the store they drive",
		func(p string) bool { return p == "database/sql" || strings.HasPrefix(p, "modernc.org/sqlite") },
		[]string{"softhem/internal/store/sqlitestore", "softhem/internal/broker/brokerdb"},
	},
	{
		"HTTP is at the edges",
		func(p string) bool { return p == "net/http" },
		[]string{"softhem/api", "softhem/hem", "softhem/hemtest", "softhem/conformance", "softhem/internal/httpapi", "softhem/internal/server", "softhem/internal/load", "softhem/internal/broker", "softhem/internal/control", "softhem/cmd/hem", "softhem/internal/broker/pebbletest"},
	},
	{
		"the root key is read in one place, and files, backups among them, are encrypted in one other: age is the format of both",
		func(p string) bool { return strings.HasPrefix(p, "filippo.io/age") },
		[]string{"softhem/internal/seal", "softhem/internal/envelope"},
	},
	{
		"a public CA is asked in one place, by the broker",
		func(p string) bool { return strings.HasPrefix(p, "golang.org/x/crypto/acme") },
		[]string{"softhem/internal/broker"},
	},
	{
		"HPKE is for envelopes, and for the commands that hand them their keys",
		func(p string) bool { return p == "crypto/hpke" },
		[]string{"softhem/internal/envelope", "softhem/cmd/hem"},
	},
	{
		"the tree over the log and its checkpoints are made and judged in one place",
		func(p string) bool { return strings.HasPrefix(p, "golang.org/x/mod/sumdb/") },
		[]string{"softhem/internal/audit"},
	},
	{
		"block devices are served by the disks alone",
		func(p string) bool { return p == "softhem/internal/nbd" },
		[]string{"softhem/internal/disk"},
	},
	{
		"log sinks are connected by one package, and what writes the log does not wait for a network",
		func(p string) bool { return p == "softhem/internal/syslog" },
		[]string{"softhem/internal/server", "softhem/cmd/hem"},
	},
	{
		"pictures are read in one place, which bounds them",
		func(p string) bool {
			return strings.HasPrefix(p, "github.com/makiuchi-d/gozxing") || p == "image" || strings.HasPrefix(p, "image/")
		},
		[]string{"softhem/internal/qrimage"},
	},
	{
		"the key store of the system is asked in one place",
		func(p string) bool { return strings.HasPrefix(p, "github.com/zalando/go-keyring") },
		[]string{"softhem/internal/keystore"},
	},
	{
		"tests' tools are for tests; hemtest is one",
		func(p string) bool { return p == "testing" || p == "softhem/hemtest" },
		[]string{"softhem/hemtest", "softhem/internal/store/storetest", "softhem/internal/broker/pebbletest"},
	},
	{
		"the composition root is for those who start a module",
		func(p string) bool { return p == "softhem/internal/server" },
		[]string{"softhem/cmd/hem", "softhem/hemtest"},
	},
}

func TestImportRules(t *testing.T) {
	for _, p := range packages(t, "./...") {
		for _, rule := range importRules {
			for _, imported := range p.Imports {
				if rule.imports(imported) && !slices.Contains(rule.allowed, p.ImportPath) {
					t.Errorf("%s imports %s: %s", p.ImportPath, imported, rule.why)
				}
			}
		}
	}
}

// Who depends on softhem/api, softhem/hem or softhem/conformance gets the standard
// library and nothing else.
func TestPublicPackagesStandOnTheStandardLibrary(t *testing.T) {
	standard := make(map[string]bool)
	for _, p := range packages(t, "-deps", "./...") {
		standard[p.ImportPath] = p.Standard
	}
	allowed := map[string][]string{
		"softhem/api": {},
		"softhem/hem": {"softhem/api"},
		// A black box's test knows nothing of what is inside.
		"softhem/conformance": {"softhem/api", "softhem/hem"},
	}
	for _, p := range packages(t, "./api", "./hem", "./conformance") {
		for _, dep := range p.Deps {
			if !standard[dep] && !slices.Contains(allowed[p.ImportPath], dep) {
				t.Errorf("%s depends on %s", p.ImportPath, dep)
			}
		}
	}
}

// A module inside a test must never end up in a server.
func TestServerDoesNotContainHemtest(t *testing.T) {
	for _, p := range packages(t, "./cmd/hem") {
		for _, dep := range p.Deps {
			if dep == "softhem/hemtest" || dep == "testing" {
				t.Errorf("%s depends on %s", p.ImportPath, dep)
			}
		}
	}
}

// No init functions anywhere, and the environment is read in cmd alone.
func TestNoHiddenInputs(t *testing.T) {
	for _, p := range packages(t, "./...") {
		for _, file := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), p.Dir+"/"+file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncDecl:
					if n.Name.Name == "init" && n.Recv == nil {
						t.Errorf("%s/%s has an init function", p.ImportPath, file)
					}
				case *ast.SelectorExpr:
					pkg, ok := n.X.(*ast.Ident)
					if ok && pkg.Name == "os" && (n.Sel.Name == "Getenv" || n.Sel.Name == "LookupEnv" || n.Sel.Name == "Environ") &&
						!strings.HasPrefix(p.ImportPath, "softhem/cmd/") {
						t.Errorf("%s/%s reads the environment", p.ImportPath, file)
					}
				}
				return true
			})
		}
	}
}
