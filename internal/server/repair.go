package server

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"softhem/internal/audit"
	"softhem/internal/module"
	"softhem/internal/seal"
)

// A Repair is a data folder that is looked at, and held, for a repair.
type Repair struct {
	*module.Repair
	data   *data
	server *Server // for its sinks
}

// OpenRepair takes hold of a data folder that no process runs on and looks for
// damage in it. It has to be closed.
func OpenRepair(ctx context.Context, cfg Config) (*Repair, error) {
	if err := aModuleIn(cfg.DataDir); err != nil {
		return nil, err
	}
	if wiped, err := seal.Wiped(cfg.DataDir); err != nil || wiped {
		return nil, errors.Join(err, errors.New("a wipe of this module was interrupted; start it to finish that"))
	}
	s, err := newServer(cfg)
	if err != nil {
		return nil, err
	}
	r := &Repair{server: s}
	if r.data, err = openData(ctx, cfg); err == nil {
		err = r.look(ctx, cfg)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close(ctx))
	}
	return r, nil
}

func (r *Repair) look(ctx context.Context, cfg Config) error {
	var sink audit.Sink
	if r.server.sinks != nil {
		sink = r.server.sinks
	}
	var err error
	r.Repair, err = module.NewRepair(ctx, module.RepairConfig{
		Store: r.data.store, Sealer: r.data.sealer, AuditDir: r.data.auditDir(),
		Quarantine: filepath.Join(r.data.dir, dirRepair), Now: cfg.HostClock,
		Audit: audit.Config{Sink: sink, Logger: cfg.Logger},
	})
	if err != nil {
		return fmt.Errorf("the store cannot be looked through: %w", err)
	}
	return nil
}

// Close lets go of the folder.
func (r *Repair) Close(ctx context.Context) error {
	r.server.closeSinks(ctx)
	if r.data == nil {
		return nil
	}
	return r.data.close()
}
