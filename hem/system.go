package hem

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"softhem/api"
)

const pathCheckIn = "/api/system/checkin"

// Status reads the module's state: GET /api/system/status. It needs no token.
func (c *Client) Status(ctx context.Context) (*api.Status, error) {
	var s api.Status
	if err := c.get(ctx, "read the status", "/api/system/status", &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// Version reads what the module is made of: GET /api/system/version. It needs
// no token, and gives none, so the card identifiers are absent on a
// personalised module.
func (c *Client) Version(ctx context.Context) (*api.Version, error) {
	var v api.Version
	if err := c.get(ctx, "read the version", "/api/system/version", &v); err != nil {
		return nil, err
	}
	return &v, nil
}

// BrokerURL is the address of the broker that the module's operator named for
// its clients (GET /api/system/version, header X-Hem-Broker); empty if none, as of
// a device. Who answers for the module could name any: a broker carries
// messages and cannot read or make them, but sees who asks whom.
func (c *Client) BrokerURL(ctx context.Context) (string, error) {
	r := call{op: "find the broker", method: http.MethodGet, path: "/api/system/version"}
	resp, err := c.send(ctx, r, "")
	if err := c.read(resp, err, c.base, r, nil); err != nil {
		return "", err
	}
	text := resp.Header.Get(api.HeaderBroker)
	if text == "" {
		return "", nil
	}
	named, err := parseBase(text)
	if err != nil {
		return "", r.fail(fmt.Errorf("%w: %s %w", ErrProtocol, api.HeaderBroker, err))
	}
	return named.String(), nil
}

// Config reads the module's configuration: GET /api/system/config, scope
// system:config, either role.
//
// Errors: those of [Client.Login]; [ErrOtherModule].
func (c *Client) Config(ctx context.Context) (*api.Config, error) {
	const op, path = "read the configuration", pathConfig
	var conf api.Config
	if err := c.getAs(ctx, op, path, api.ScopeSystemConfig, &conf); err != nil {
		return nil, err
	}
	if err := c.checkPin(conf.EID); err != nil {
		return nil, &OpError{Op: op, Path: "GET " + path, Err: err}
	}
	return &conf, nil
}

// CheckIn has a backend tell the module the time: it takes the module's check to
// POST backendURL/checkin and brings the answer back. Both are sealed
// between module and backend and passed on as they are. Neither needs a token, and the
// backend gets none. Its certificate may come from the system's authorities or
// from [Config.CACert].
//
// The result's Status is OK, or the letter of an action that the owner ordered and
// the module obeys: L lock, W wipe, R report, B shut down, U upgrade.
//
// Errors: 401 when the module does not believe the backend's answer, 406 when it trusts no
// backend; those of the backend, with an Op that says so.
func (c *Client) CheckIn(ctx context.Context, backendURL string) (*api.CheckinResult, error) {
	const op, opBackend = "check in", "check in, at the backend"
	backend, err := parseBase(backendURL)
	if err != nil {
		return nil, &OpError{Op: op, Err: fmt.Errorf("%w: the backend's URL %w", ErrArgument, err)}
	}
	var check json.RawMessage
	if err := c.get(ctx, op, pathCheckIn, &check); err != nil {
		return nil, err
	}
	var sealed api.Check
	if json.Unmarshal(check, &sealed) != nil || sealed.Check == "" {
		return nil, &OpError{Op: op, Path: "GET " + pathCheckIn, Err: fmt.Errorf("%w: no check in it", ErrProtocol)}
	}
	r := call{op: opBackend, method: http.MethodPost, path: "/checkin", body: check}
	var checked json.RawMessage
	resp, err := c.exchange(ctx, c.backend, backend, r, "")
	if err := c.read(resp, err, backend, r, &checked); err != nil {
		return nil, err
	}
	var answer api.Checked
	if json.Unmarshal(checked, &answer) != nil || answer.Checked == "" {
		return nil, r.fail(fmt.Errorf("%w: no checked in it", ErrProtocol))
	}
	var result api.CheckinResult
	if err := c.postRaw(ctx, op, pathCheckIn, checked, &result); err != nil {
		return nil, err
	}
	return &result, nil
}

// Reboot has the module boot anew: GET /api/system/reboot, scope system:config;
// no token on a fresh module. All tokens and session keys die, and calls may
// fail until it is back; the next call that needs a token logs in again.
//
// Errors: those of [Client.Login].
func (c *Client) Reboot(ctx context.Context) error {
	return c.power(ctx, call{op: "reboot", path: "/api/system/reboot", freshOpen: true})
}

// Shutdown ends the module's process: GET /api/system/shutdown, scope
// system:config.
//
// Errors: those of [Client.Login].
func (c *Client) Shutdown(ctx context.Context) error {
	return c.power(ctx, call{op: "shut down", path: "/api/system/shutdown"})
}

func (c *Client) power(ctx context.Context, r call) error {
	r.method = http.MethodGet
	resp, err := c.authorised(ctx, r, api.ScopeSystemConfig)
	if err != nil {
		return err
	}
	resp.Body.Close() // the status is the answer; the connection may go down with the module
	return nil
}
