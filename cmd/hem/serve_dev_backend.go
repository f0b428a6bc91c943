package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/module"
	"softhem/internal/session"
	"softhem/internal/suite"
)

// devBackend tells a development module with --rtc checkin the time of this
// host. Only that module believes it: its key is a new one in every process. With
// --with-broker it is a whole broker, and key is nil.
type devBackend struct {
	key    *suite.X25519Key
	url    string
	server *http.Server
	more   func() // what else ends with it; may be nil
}

const (
	maxCheckBytes      = 64 << 10
	devBackendPatience = 10 * time.Second
)

// startDevBackend has the module believe a backend on loopback, if its clock
// is set by one. Backends that the operator named come first, so theirs is
// whom a check-in is for.
func (s *service) startDevBackend(ctx context.Context) error {
	if s.o.withBroker != "" {
		return s.startDevBroker(ctx)
	}
	if !s.o.dev || s.o.ClockSource != module.ClockCheckin {
		return nil
	}
	key, err := suite.NewX25519Key(suite.Random(suite.X25519Size))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("the backend of --dev cannot listen: %w", err)
	}
	b := &devBackend{key: key, url: "http://" + l.Addr().String()}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /checkin", b.checkin)
	b.server = &http.Server{Handler: mux, ReadTimeout: devBackendPatience, WriteTimeout: devBackendPatience}
	go b.server.Serve(l) // until Close
	s.o.TrustedBackends = append(s.o.TrustedBackends, key.Public())
	s.backend = b
	return nil
}

func (b *devBackend) close() {
	if b != nil {
		b.server.Close()
		if b.more != nil {
			b.more()
		}
	}
}

func (b *devBackend) checkin(w http.ResponseWriter, r *http.Request) {
	var in api.Check
	err := json.NewDecoder(io.LimitReader(r.Body, maxCheckBytes)).Decode(&in)
	var out api.Checked
	if err == nil {
		out.Checked, err = b.answer(in.Check)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out) // who has hung up needs none
}

// answer makes the time out to the module that the check names. The check may
// be for another backend, so its MAC is not looked at; the answer is of use to
// nobody but a module that believes this process.
func (b *devBackend) answer(token string) (string, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", errors.New("no check")
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", err
	}
	var check api.CheckClaims
	if err := json.Unmarshal(raw, &check); err != nil {
		return "", err
	}
	issuer, okIss := session.Decode32(check.Iss)
	qid, okQID := session.Decode32(check.QID)
	if !okIss || !okQID {
		return "", errors.New("iss or qid is not 32 bytes")
	}
	secret, err := b.key.Shared(issuer[:])
	if err != nil {
		return "", err
	}
	defer clear(secret)
	return session.SignEJWT(secret, api.CheckedClaims{
		JTI: check.JTI, Iat: time.Now().Unix(), Iss: api.EncodeBase64(b.key.Public()), Aud: check.Iss,
		Status: api.EncodeBase64(suite.HMACSHA256(qid[:], []byte("OK"))),
	})
}

// setClock has the module check in.
func (b *devBackend) setClock(ctx context.Context, c *hem.Client) error {
	if b == nil {
		return nil
	}
	if _, err := c.CheckIn(ctx, b.url); err != nil {
		return fmt.Errorf("the clock of the development module cannot be set: %w", err)
	}
	return nil
}
