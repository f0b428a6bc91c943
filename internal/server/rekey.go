package server

import (
	"bytes"
	"context"
	"errors"

	"softhem/internal/control"
	"softhem/internal/seal"
)

// Rekey implements control.Keeper. The module works on meanwhile: its data key
// stays, and only what seals that is another. See [seal.Rekeying] for the order of
// things and what a crash leaves.
//
// It is not called off once it has begun.
func (s *Server) Rekey(ctx context.Context, ask control.RekeyRequest) (control.RekeyReport, error) {
	i := s.current.Load()
	_, done, err := i.keeping.begin(ctx, nil)
	if err != nil {
		return control.RekeyReport{}, err
	}
	defer done()
	file, err := i.data.rekey(ask.Passphrase)
	switch {
	case errors.Is(err, seal.ErrWantsPassphrase):
		return control.RekeyReport{WantsPassphrase: true}, nil
	case errors.Is(err, seal.ErrNotErased): // it is done
		s.cfg.Logger.Error("the root key was replaced, and what the old one opens could not be overwritten", "file", file, "error", err)
	case err != nil:
		s.cfg.Logger.Error("the root key was not replaced as it should be", "error", err)
		return control.RekeyReport{}, err
	default:
		s.cfg.Logger.Warn("the root key was replaced; renew the copy of it that you keep elsewhere", "file", file)
	}
	return control.RekeyReport{File: file}, nil
}

func (d *data) rekey(passphrase []byte) (file string, err error) {
	if d.dir == "" {
		return "", errors.New("a module in memory has no root key")
	}
	d.keys.Lock()
	defer d.keys.Unlock()
	k, err := seal.BeginRekey(d.rootFrom, d.root, passphrase)
	if err != nil {
		return "", err
	}
	fresh := seal.Secret(bytes.Clone(k.Key()))
	sealErr := d.sealer.Rewrap(fresh)
	switch {
	case sealErr == nil, errors.Is(sealErr, seal.ErrNotErased):
		d.root.Wipe()
		d.root = fresh
		if err := k.Finish(); err != nil {
			return "", err
		}
		return k.File(), sealErr
	case errors.Is(sealErr, seal.ErrUnsettled):
		fresh.Wipe()
		return "", errors.Join(sealErr, k.Leave())
	}
	fresh.Wipe()
	return "", errors.Join(sealErr, k.Abort())
}
