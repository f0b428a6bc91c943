package load

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"softhem/api"
	"softhem/hem"
)

// A Bench measures a module by its URL. It makes keys for that, and deletes
// them afterwards; others it leaves alone.
type Bench struct {
	Target  Target
	Client  *hem.Client // may log in for all scopes of key management
	Ceiling *Target     // the ceiling, if it is to be measured beside
	// Names of the measurements to make; see Names.
	Names       []string
	Connections []int
	Time        time.Duration // for each measurement
	// Keys is how many keys there are at least when lists and searches are
	// measured.
	Keys int
	// Mark is the beginning of the descr of all keys made, for finding them.
	Mark []byte
	// Progress hears what is going on, in a few words.
	Progress func(string)
}

// A Row is one measurement.
type Row struct {
	Name        string  `json:"name"`
	Connections int     `json:"connections"`
	Rate        float64 `json:"rate"`             // operations in a second
	P50         float64 `json:"p50_ms"`           // milliseconds
	P99         float64 `json:"p99_ms"`           // milliseconds
	Worst       float64 `json:"worst_ms"`         // milliseconds
	Ceiling     float64 `json:"ceiling,omitzero"` // rate of the ceiling
	CeilingP99  float64 `json:"ceiling_p99_ms,omitzero"`
	Keys        int     `json:"keys,omitzero"` // that were in the module
}

// The measurements that are no Case.
const (
	benchCreate   = "create-ed25519"
	benchDelete   = "delete"
	benchList     = "list"
	benchPrefix   = "search-prefix"
	benchSuffix   = "search-suffix"
	benchContains = "search-contains"
)

// Names are all measurements, in the order they are made in.
func Names() (names []string) {
	for _, c := range Cases() {
		names = append(names, c.Name)
	}
	return append(names, benchCreate, benchList, benchPrefix, benchSuffix, benchContains, benchDelete)
}

// Run measures, and reports each row when it is there. Keys it made are
// deleted also after an error.
func (b *Bench) Run(ctx context.Context, report func(Row)) (err error) {
	defer func() {
		// Not ended by the interrupt that may have ended the run.
		b.Progress("deleting the keys it made")
		if clean := b.deleteAll(context.WithoutCancel(ctx)); err == nil {
			err = clean
		}
	}()
	for _, c := range Cases() {
		if !slices.Contains(b.Names, c.Name) {
			continue
		}
		b.Progress("measuring " + c.Name)
		request, _, err := c.Prepare(ctx, b.Target, b.Client, b.Mark)
		if err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		for _, n := range b.Connections {
			row, err := b.use(ctx, c, n, request)
			if err != nil {
				return fmt.Errorf("%s: %w", c.Name, err)
			}
			report(row)
		}
	}
	return b.runKeys(ctx, report)
}

// use measures a case over n connections, by turns with the ceiling if there is
// one.
func (b *Bench) use(ctx context.Context, c Case, n int, request []byte) (Row, error) {
	if b.Ceiling == nil {
		return b.measure(ctx, c.Name, n, func(int64) []byte { return request })
	}
	conns, err := b.Target.DialAll(n)
	if err != nil {
		return Row{}, err
	}
	defer CloseAll(conns)
	bare, err := b.Ceiling.DialAll(n)
	if err != nil {
		return Row{}, err
	}
	defer CloseAll(bare)
	bareRequest, err := c.PrepareBare(*b.Ceiling, bare[0])
	if err != nil {
		return Row{}, err
	}
	r, ceiling, err := Compare(ctx, n, Bound{Time: b.Time}, Sender(conns, request), Sender(bare, bareRequest))
	if err != nil {
		return Row{}, err
	}
	to := row(c.Name, n, r)
	to.Ceiling, to.CeilingP99 = ceiling.Rate(), milliseconds(ceiling.P99)
	return to, ctx.Err()
}

// Sender is the operation of sending one request over and over.
func Sender(conns []*Conn, request []byte) func(worker int, i int64) error {
	return func(w int, _ int64) error {
		_, err := conns[w].Do(request)
		return err
	}
}

// measure sends the requests that next gives over n connections.
func (b *Bench) measure(ctx context.Context, name string, n int, next func(i int64) []byte) (Row, error) {
	conns, err := b.Target.DialAll(n)
	if err != nil {
		return Row{}, err
	}
	defer CloseAll(conns)
	r, err := Run(ctx, n, Bound{Time: b.Time}, func(w int, i int64) error {
		_, err := conns[w].Do(next(i))
		return err
	})
	if err != nil {
		return Row{}, err
	}
	return row(name, n, r), ctx.Err()
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func row(name string, n int, r Result) Row {
	return Row{
		Name: name, Connections: n, Rate: r.Rate(),
		P50: milliseconds(r.P50), P99: milliseconds(r.P99), Worst: milliseconds(r.Worst),
	}
}

// runKeys measures the key management.
func (b *Bench) runKeys(ctx context.Context, report func(Row)) error {
	wants := func(names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return slices.Contains(b.Names, name) })
	}
	most := slices.Max(b.Connections)
	if wants(benchCreate) {
		b.Progress("measuring " + benchCreate)
		r, err := b.create(ctx, most, Bound{Time: b.Time})
		if err != nil {
			return fmt.Errorf("%s: %w", benchCreate, err)
		}
		report(row(benchCreate, most, r))
	}
	if wants(benchList, benchPrefix, benchSuffix, benchContains) {
		if err := b.runLists(ctx, wants, report); err != nil {
			return err
		}
	}
	if !wants(benchDelete) {
		return nil
	}
	b.Progress("measuring " + benchDelete)
	if _, err := b.create(ctx, most, Bound{Count: int64(20 * most)}); err != nil {
		return fmt.Errorf("%s: %w", benchDelete, err)
	}
	var kids []hem.KID
	for len(kids) < 20*most {
		page, err := b.Client.SearchKeys(ctx, hem.KeySearch{Descr: b.Mark, Start: true, Offset: len(kids)})
		if err != nil {
			return fmt.Errorf("%s: %w", benchDelete, err)
		}
		for _, k := range page.Keys {
			kids = append(kids, k.KID)
		}
		if page.Last() {
			break
		}
	}
	r, err := Run(ctx, most, Bound{Count: int64(len(kids))}, func(_ int, i int64) error {
		return b.Client.DeleteKey(ctx, kids[i])
	})
	if err != nil {
		return fmt.Errorf("%s: %w", benchDelete, err)
	}
	report(row(benchDelete, most, r))
	return nil
}

// descr is what follows the mark in the descr of the keys that create makes:
// the first five of eight digits find a thousand of them.
func (b *Bench) descr(format string, i int64) []byte {
	return fmt.Appendf(slices.Clone(b.Mark), " "+format, i)
}

// create makes Ed25519 keys, each with a descr of its own.
func (b *Bench) create(ctx context.Context, n int, until Bound) (Result, error) {
	token, err := b.Client.Login(ctx, api.ScopeKeyGen)
	if err != nil {
		return Result{}, err
	}
	conns, err := b.Target.DialAll(n)
	if err != nil {
		return Result{}, err
	}
	defer CloseAll(conns)
	return Run(ctx, n, until, func(w int, i int64) error {
		body := fmt.Appendf(nil, `{"label":"bench","type":"ED25519","descr":%q}`,
			api.EncodeBase64(b.descr("%08d", i)))
		_, err := conns[w].Do(b.Target.Request("POST", "/api/keymgmt/create", string(token.Bearer), body))
		return err
	})
}

// runLists measures pages of lists and searches over one connection, one
// after the other, so that the times are those of the module alone.
func (b *Bench) runLists(ctx context.Context, wants func(...string) bool, report func(Row)) error {
	page, err := b.Client.ListKeys(ctx, 0, 1)
	if err != nil {
		return err
	}
	if missing := b.Keys - page.Total; missing > 0 {
		b.Progress(fmt.Sprintf("making %d keys", missing))
		if _, err := b.create(ctx, slices.Max(b.Connections), Bound{Count: int64(missing)}); err != nil {
			return fmt.Errorf("making keys: %w", err)
		}
		if page, err = b.Client.ListKeys(ctx, 0, 1); err != nil {
			return err
		}
	}
	total := page.Total
	token, err := b.Client.Login(ctx, api.ScopeKeyList) // it opens searches too
	if err != nil {
		return err
	}
	search := func(format string, needle []byte) []byte {
		body := fmt.Appendf(nil, `{"descr":%q}`, fmt.Sprintf(format, api.EncodeBase64(needle)))
		return b.Target.Request("POST", "/api/keymgmt/search", string(token.Bearer), body)
	}
	for _, m := range []struct {
		name string
		next func(i int64) []byte
	}{
		{benchList, func(i int64) []byte { // steps that are prime to any count visit all of the list
			path := fmt.Sprintf("/api/keymgmt/list/%d", i*7919%int64(max(total, 1)))
			return b.Target.Request("GET", path, string(token.Bearer), nil)
		}},
		{benchPrefix, func(i int64) []byte { return search("^%s", b.descr("%05d", i%int64(max(total/1000, 1)))) }},
		{benchSuffix, func(i int64) []byte { return search("%s$", fmt.Appendf(nil, "%08d", i%int64(max(total, 1)))) }},
		{benchContains, func(i int64) []byte { return search("%s", fmt.Appendf(nil, "%04d", i%10_000)) }},
	} {
		if !wants(m.name) {
			continue
		}
		b.Progress("measuring " + m.name)
		r, err := b.measure(ctx, m.name, 1, m.next)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		r.Keys = total
		report(r)
	}
	return nil
}

// deleteAll deletes the keys that carry the mark.
func (b *Bench) deleteAll(ctx context.Context) error {
	for {
		page, err := b.Client.SearchKeys(ctx, hem.KeySearch{Descr: b.Mark, Start: true})
		if err != nil || len(page.Keys) == 0 {
			return err
		}
		var wg sync.WaitGroup
		errs := make([]error, len(page.Keys))
		for i, k := range page.Keys {
			wg.Go(func() { errs[i] = b.Client.DeleteKey(ctx, k.KID) })
		}
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
	}
}
