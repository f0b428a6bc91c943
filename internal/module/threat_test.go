package module

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"softhem/api"
	"softhem/internal/session"
)

// T06: what a caller could learn byte by byte is compared by suite.Equal alone.
func TestThreat_T06_OneWayToCompare(t *testing.T) {
	for _, dir := range []string{".", "../session"} {
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if !strings.HasSuffix(file.Name(), ".go") || strings.HasSuffix(file.Name(), "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), dir+"/"+file.Name(), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, imported := range f.Imports {
				switch imported.Path.Value {
				case `"bytes"`, `"reflect"`, `"crypto/subtle"`, `"crypto/hmac"`:
					t.Errorf("%s/%s imports %s, which can compare", dir, file.Name(), imported.Path.Value)
				}
			}
			ast.Inspect(f, func(n ast.Node) bool {
				cmp, ok := n.(*ast.BinaryExpr)
				if !ok || cmp.Op != token.EQL && cmp.Op != token.NEQ {
					return true
				}
				for _, side := range []ast.Expr{cmp.X, cmp.Y} {
					name := ""
					switch x := side.(type) {
					case *ast.Ident:
						name = x.Name
					case *ast.SelectorExpr:
						name = x.Sel.Name
					case *ast.IndexExpr, *ast.SliceExpr:
						name = "an element or a slice"
					}
					switch name {
					case "mac", "issuer", "nonce", "jti", "aud", "secret", "Key", "status", "an element or a slice":
						if lit, ok := cmp.Y.(*ast.BasicLit); ok && (lit.Kind == token.CHAR || lit.Kind == token.STRING || lit.Kind == token.INT) {
							continue // with a constant of the program
						}
						t.Errorf("%s/%s compares %s with %s", dir, file.Name(), name, cmp.Op)
					}
				}
				return true
			})
		}
	}
}

// T24: whatever check-ins come in whatever order, a token or nonce that was
// refused once is refused for ever.
func TestThreat_T24_NothingComesBackToLife(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var host atomic.Int64
		host.Store(1_800_000_000)
		m := open(t, func(c *Config) {
			c.ClockSource = ClockCheckin
			c.HostClock = func() time.Time { return time.Unix(host.Load(), 0) }
		})
		personalise(t, m, "")
		ctx := context.Background()
		checkin := func(unix int64) {
			st := m.state.Load()
			now, _ := m.now(st)
			if err := m.setClock(ctx, &Pass{state: st, now: now}, unix, 0); err != nil {
				rt.Fatal(err)
			}
		}
		checkin(host.Load())
		type issued struct {
			token string
			nonce session.Nonce
			dead  bool
			spent bool
		}
		var all []*issued
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			now, _ := m.now(m.state.Load())
			switch rapid.IntRange(0, 3).Draw(rt, "step") {
			case 0:
				host.Add(rapid.Int64Range(0, 5000).Draw(rt, "seconds"))
			case 1, 2:
				checkin(now + rapid.Int64Range(-8000, 8000).Draw(rt, "by"))
			case 3:
				st := m.state.Load()
				p := &Pass{state: st, now: now}
				life := rapid.Int64Range(1, 6000).Draw(rt, "life")
				token, err := st.boot.IssueToken(m.tokenClaims(p, api.RoleUser, "", now+life, ""), st)
				if err != nil {
					rt.Fatal(err)
				}
				all = append(all, &issued{token: token, nonce: st.boot.NewNonce(session.PurposeLogin(), nil, now)})
			}
			now, _ = m.now(m.state.Load())
			st := m.state.Load()
			for _, x := range all {
				if _, err := st.boot.OpenToken(x.token, st, now); err != nil {
					x.dead = true
				} else if x.dead {
					rt.Fatal("a token that was refused is taken again")
				}
				if st.boot.CheckNonce(session.PurposeLogin(), nil, x.nonce, now) && st.boot.UseNonce(session.PurposeLogin(), x.nonce, now) {
					if x.spent {
						rt.Fatal("a used nonce is taken again")
					}
					x.spent = true
				}
			}
		}
	})
}
