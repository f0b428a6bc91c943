package session

import (
	"errors"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"softhem/api"
)

// T11: a challenge leaves nothing behind in the module.
func TestThreat_T11_ChallengesTakeNoMemory(t *testing.T) {
	boot := NewBoot()
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for now := range int64(1_000_000) {
		boot.NewNonce(PurposeLogin(), nil, now)
	}
	if after := heap(); after > before+1<<20 {
		t.Errorf("a million challenges left %d bytes", after-before)
	}
	runtime.KeepAlive(boot)
}

// T14: under penalty a hundred answers a second, the known among them; the rest
// are told when to come again.
func TestThreat_T14_RateUnderPenalty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDamper(DefaultDamping())
		address := func(a, b byte) netip.Addr { return netip.AddrFrom4([4]byte{10, a, 0, b}) }
		for i := range byte(50) { // fifty that are known
			login(t, d, address(1, i), true)
		}
		for range 3 {
			login(t, d, home, false)
		}
		time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
		verified, refused := 0, 0
		for range 10 {
			for i := range byte(200) {
				p, err := enterVerified(d, address(i%4, i))
				var told *api.Error
				switch {
				case err == nil:
					verified++
					p.Succeeded()
					go p.Wait(t.Context())
				case errors.As(err, &told) && told.Status == 429 && told.RetryAfter > 0:
					refused++
				default:
					t.Fatal(err)
				}
			}
		}
		if verified > penaltyRate+penaltyRateKnown || verified < penaltyRate || verified+refused != 2000 {
			t.Errorf("%d verified and %d refused in one second", verified, refused)
		}
		time.Sleep(3 * time.Second)
	})
}

// T15: an IPv4 address in its IPv6 form is that address.
func TestThreat_T15_IPv4InIPv6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDamper(DefaultDamping())
		for range 5 {
			login(t, d, netip.MustParseAddr("192.0.2.9"), false)
			login(t, d, netip.MustParseAddr("::ffff:192.0.2.9"), false)
		}
		for _, form := range []string{"192.0.2.9", "::ffff:192.0.2.9"} {
			if _, err := d.Enter(netip.MustParseAddr(form)); !errors.Is(err, api.ErrTooMany) {
				t.Errorf("%s after ten failures of the two forms: %v", form, err)
			}
		}
	})
}

// T22: a new generation of one role ends its tokens and no others.
func TestThreat_T22_GenerationsAreApart(t *testing.T) {
	boot := NewBoot()
	before := generations{api.RoleUser: 1, api.RoleMaster: 1}
	after := generations{api.RoleUser: 2, api.RoleMaster: 1}
	token := func(sub api.Role, g generations) string {
		s, err := boot.IssueToken(api.TokenClaims{Sub: sub, Exp: 100}, g)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for name, c := range map[string]struct {
		token string
		lives bool
	}{
		"the user's old":   {token(api.RoleUser, before), false},
		"the master's old": {token(api.RoleMaster, before), true},
		"the user's new":   {token(api.RoleUser, after), true},
	} {
		if _, err := boot.OpenToken(c.token, after, 1); (err == nil) != c.lives {
			t.Errorf("%s token: %v", name, err)
		}
	}
}

// However many tokens come, so many are remembered; and one that was, ends
// like any other.
func TestOpenedTokensAreBoundedAndEnd(t *testing.T) {
	boot, gens := NewBoot(), generations{"U": 1}
	var last string
	for i := range 2*maxOpenedTokens + 10 {
		token, err := boot.IssueToken(api.TokenClaims{Scope: "x", Sub: "U", Exp: int64(1000 + i)}, gens)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := boot.OpenToken(token, gens, 1); err != nil {
			t.Fatal(err)
		}
		last = token
	}
	kept := 0
	boot.tokens.tokens.Load().Range(func(any, any) bool { kept++; return true })
	if kept == 0 || kept > maxOpenedTokens {
		t.Errorf("%d tokens are remembered", kept)
	}
	if _, err := boot.OpenToken(last, gens, 1); err != nil {
		t.Error("a remembered token is refused:", err)
	}
	if _, err := boot.OpenToken(last, gens, 1_000_000); err == nil {
		t.Error("a remembered token lives beyond its end")
	}
	if _, err := boot.OpenToken(last, generations{"U": 2}, 1); err == nil {
		t.Error("a remembered token outlives its generation")
	}
	if _, err := boot.OpenToken(last[:len(last)-1]+"A", gens, 1); err == nil && last[len(last)-1] != 'A' {
		t.Error("a token like a remembered one is taken")
	}
}
