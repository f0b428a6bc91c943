package hem

import (
	"context"
	"net/http"
	"time"

	"softhem/api"
)

const (
	pathSelfTest = "/api/system/selftest"

	// How long SelfTest waits before it asks again: first, and at most.
	selfTestPause    = 50 * time.Millisecond
	selfTestMaxPause = 2 * time.Second
)

// SelfTest has the module test itself, and returns when it has: known answers of
// all algorithms, its source of random bytes and every stored key. GET
// /api/system/selftest, any token, for which it takes one for system:config; none on a
// fresh module. It works in a fail state too, with a token of before.
//
// What was found is the FLSState of the result, and no error. That it is not
// zero can also have another cause, see [api.Status].
//
// Errors: those of [Client.Login]; 409 when the result could not be recorded.
func (c *Client) SelfTest(ctx context.Context) (*api.SelfTest, error) {
	r := call{op: "run the self-test", method: http.MethodGet, path: pathSelfTest, freshOpen: true}
	for pause := selfTestPause; ; pause = min(2*pause, selfTestMaxPause) {
		var s api.SelfTest
		resp, err := c.authorised(ctx, r, api.ScopeSystemConfig)
		if err := c.read(resp, err, c.base, r, &s); err != nil {
			return nil, err
		}
		if !s.KATBusy {
			return &s, nil
		}
		c.cfg.Progress(StageSelfTest)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, r.fail(ctx.Err())
		}
	}
}
