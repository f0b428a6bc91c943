package server

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"softhem/internal/control"
	"softhem/internal/seal"
)

// A Server is what the operator keeps, from this process or another.
var _ control.Keeper = (*Server)(nil)

// A keeping is what is being done with a module by its operator. It ends with
// the module.
type keeping struct {
	mu    sync.Mutex
	ended bool
	ctx   context.Context // of all of it
	stop  context.CancelFunc
	work  sync.WaitGroup

	backups, checks place // one of each at a time: each has one place in the folder
}

func (k *keeping) init() {
	k.ctx, k.stop = context.WithCancel(context.Background())
	k.backups, k.checks = make(place, 1), make(place, 1)
}

// A place is had by one at a time.
type place chan struct{}

// placePatience is how long is waited for a place: the connection of a process
// that was killed takes a moment to be seen as gone.
const placePatience = 5 * time.Second

func (p place) take(ctx context.Context, refusal string) error {
	timer := time.NewTimer(placePatience)
	defer timer.Stop()
	select {
	case p <- struct{}{}:
		return nil
	case <-timer.C:
		return errors.New(refusal)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p place) leave() { <-p }

// begin starts something that ends early with ctx or with the module, even while it
// waits for who is at the other end of stream; done says that it has ended.
func (k *keeping) begin(ctx context.Context, stream any) (_ context.Context, done func(), err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ended {
		return nil, nil, errors.New("the module ends")
	}
	k.work.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(k.ctx, func() {
		cancel(errors.New("the module has ended, or was wiped"))
		if i, ok := stream.(control.Interrupter); ok {
			i.Interrupt()
		}
	})
	return ctx, func() {
		unhook()
		cancel(nil)
		k.work.Done()
	}, nil
}

// end calls off what runs and waits for it.
func (k *keeping) end() {
	k.mu.Lock()
	k.ended = true
	k.mu.Unlock()
	k.stop()
	k.work.Wait()
}

// cause is err, or why it was called off.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// listenControl opens the socket for those who keep the module. Without it
// the module serves all the same.
func (s *Server) listenControl() {
	dir := s.current.Load().data.dir
	if dir == "" {
		return
	}
	l, err := control.Listen(dir)
	if err != nil {
		s.cfg.Logger.Warn("there is no control socket, so hem backup and hem rekey work only while the module is stopped", "error", err)
		return
	}
	// A backup may take its time in both directions.
	srv := &http.Server{Handler: control.Handler(s), ReadHeaderTimeout: readHeaderTimeout}
	s.servers = append(s.servers, srv)
	go func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.cfg.Logger.Error("the control socket ended; hem backup and hem rekey work only after a restart", "error", err)
		}
	}()
}

// Offline opens the module in a data folder that no other process runs on, for
// who keeps it; nobody else can reach it. It boots for that, as its log will
// show.
func Offline(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Memory || cfg.DataDir == "" {
		return nil, errors.New("a module in memory has nothing that could be kept")
	}
	if err := aModuleIn(cfg.DataDir); err != nil {
		return nil, err
	}
	s, err := newServer(cfg)
	if err != nil {
		return nil, err
	}
	d, err := openData(ctx, cfg)
	if err == nil {
		err = s.run(ctx, d)
	}
	if err != nil {
		return nil, errors.Join(err, s.Stop(ctx))
	}
	return s, nil
}

// aModuleIn refuses a folder that a module would first have to be made in.
func aModuleIn(dir string) error {
	if seal.Exists(dir) {
		return nil
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		abs = dir
	}
	return errors.New("there is no module in " + abs + "; name its folder with --data")
}
