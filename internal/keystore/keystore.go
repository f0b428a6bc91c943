// Package keystore keeps secrets with the operating system: the Secret Service of
// a Linux or BSD session (GNOME Keyring, KWallet, KeePassXC), the keychain of
// macOS. They are open as long as the person is logged in there, to each of
// their programs.
package keystore

import (
	"context"
	"errors"
	"fmt"

	"github.com/zalando/go-keyring"
)

// service is what the secrets are filed under.
const service = "softhem"

var (
	// ErrNone: there is no secret of this name.
	ErrNone = errors.New("the key store of this system has no such secret")
	// ErrUnavailable: no key store answers, or the person did not open it.
	ErrUnavailable = errors.New("there is no key store of this system, or it stays closed")
)

// Get reads the secret of a name. It may wait for the person to open the store.
func Get(ctx context.Context, name string) ([]byte, error) {
	return await(ctx, func() ([]byte, error) {
		secret, err := keyring.Get(service, name)
		return []byte(secret), err
	})
}

// Set keeps a secret, in place of another of its name.
func Set(ctx context.Context, name, secret string) error {
	_, err := await(ctx, func() ([]byte, error) { return nil, keyring.Set(service, name, secret) })
	return err
}

// await does something that knows no context. When ctx ends it goes on alone.
func await(ctx context.Context, do func() ([]byte, error)) ([]byte, error) {
	type result struct {
		secret []byte
		err    error
	}
	done := make(chan result, 1)
	go func() {
		secret, err := do()
		done <- result{secret, err}
	}()
	select {
	case r := <-done:
		switch {
		case errors.Is(r.err, keyring.ErrNotFound):
			return nil, ErrNone
		case r.err != nil:
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, r.err)
		}
		return r.secret, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
}
