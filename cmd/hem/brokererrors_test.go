package main

import (
	"strings"
	"testing"

	"softhem/api"
	"softhem/hem"
)

// What a broker refuses is not put into words as if a module had.
func TestExplainBroker(t *testing.T) {
	for want, err := range map[string]error{
		"could not read requests: what answered is no broker": &hem.OpError{Op: "read requests" + atBroker, Err: hem.ErrProtocol},
		"leads elsewhere":              &hem.OpError{Op: "read requests" + atBroker, Err: &api.Error{Status: 302, Reason: "a redirect, which is not followed: it could lead the token elsewhere"}},
		"hem checkin":                  &hem.OpError{Op: "log in with an authenticator" + atBroker, Err: &api.Error{Status: 401, Reason: "iat is ahead"}},
		"(iat is ahead)":               &hem.OpError{Op: "log in with an authenticator" + atBroker, Err: &api.Error{Status: 401, Reason: "iat is ahead"}},
		"another server's":             &hem.OpError{Op: "end a pairing" + atBroker, Err: api.ErrNotFound},
		"answered already":             &hem.OpError{Op: "allow a request" + atBroker, Err: api.ErrGone},
		"asked too often":              &hem.OpError{Op: "read requests" + atBroker, Err: api.ErrTooMany},
		"failed, with 502":             &hem.OpError{Op: "read requests" + atBroker, Err: &api.Error{Status: 502}},
		"does not take this, with 400": &hem.OpError{Op: "read requests" + atBroker, Err: api.ErrBadRequest},
		"could not read a key":         &hem.OpError{Op: "read a key", Err: api.ErrNotFound}, // a module's
	} {
		if got := explain(err); !strings.Contains(got, want) || strings.Contains(got, "HEM_URL") || strings.Contains(got, atBroker) {
			t.Errorf("%s, want %q in it", got, want)
		}
	}
}
