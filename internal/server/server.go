package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"softhem/internal/certs"
	"softhem/internal/disk"
	"softhem/internal/httpapi"
	"softhem/internal/module"
	"softhem/internal/seal"
	"softhem/internal/suite"
	"softhem/internal/syslog"
	"softhem/internal/upgrade"
)

// Limits against callers who are slow or send too much. A login is answered
// after at most the penalty, so the write limit is well above that.
const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 20 * time.Second
	writeTimeout      = 60 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 16 << 10
	maxStreams        = 10_000 // HTTP/2 streams of one connection: as many as may wait; another connection costs more than a stream
	drainTimeout      = 10 * time.Second
)

// Server is a module with its listeners. A wipe puts another module in the place
// of the first; the listeners stay.
type Server struct {
	cfg     Config
	random  io.Reader // of identities: one stream for all of them, or a seed would give the old one again
	metrics *metrics
	sinks   *syslog.Sinks // nil if there are none
	current atomic.Pointer[instance]

	httpsUp    atomic.Bool
	servers    []*http.Server
	apiServers []*http.Server // those of servers that an order blocks
	addrs      Addresses
	temp       string // folder to remove at the end
	failed     chan error
	shutdown   chan struct{}
	once       sync.Once

	renewing sync.Mutex // held while a wiped module is replaced
	stopped  bool
}

// An instance is one module and all it works with.
type instance struct {
	data   *data
	disks  *disk.Disks // nil on an EPA
	certs  *certs.Manager
	module *module.Module
	images *upgrade.Folder
	api    http.Handler
	caFile string

	keeping keeping // of it, by its operator
}

// Addresses are where a server listens, host:port; empty when it does not.
type Addresses struct{ HTTP, HTTPS, Metrics string }

// Start opens the state, boots the module and listens. When it returns, both
// listeners accept.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s, err := newServer(cfg)
	if err != nil {
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.Stop(ctx))
	}
	return s, nil
}

func newServer(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, random: randomSource(cfg.Seed), failed: make(chan error, 4), shutdown: make(chan struct{})}
	if err := s.openSinks(); err != nil {
		return nil, err
	}
	s.metrics = newMetrics(s.Module, s.sinks)
	return s, nil
}

func (s *Server) start(ctx context.Context) error {
	d, err := openData(ctx, s.cfg)
	if err != nil {
		return err
	}
	if err := s.run(ctx, d); err != nil {
		return err
	}
	if err := s.listen(); err != nil {
		return err
	}
	s.listenControl()
	return nil
}

// run makes a module of the data and puts it to work. The data is closed when
// that fails.
func (s *Server) run(ctx context.Context, d *data) (err error) {
	cfg, i := s.cfg, &instance{data: d}
	defer func() {
		if err != nil {
			err = errors.Join(err, i.disks.Close(), d.close())
		}
	}()
	i.certs, err = certs.Open(ctx, certs.Config{
		Store: d.store, Sealer: d.sealer, Names: cfg.tlsNames(),
		CertFile: cfg.TLSCert, KeyFile: cfg.TLSKey, Logger: cfg.Logger,
		Now: time.Now, // not HostClock: clients check a certificate by the real time
	})
	if err != nil {
		return err
	}
	if i.caFile, err = s.writeCA(i); err != nil {
		return err
	}
	i.images, err = upgrade.Open(imagesConfig(cfg, d.upgradeDir()))
	if err != nil {
		return err
	}
	disks, err := s.openDisks(i)
	if err != nil {
		return err
	}
	i.module, err = module.New(ctx, module.Config{
		Store: d.store, Sealer: d.sealer,
		AuditDir: d.auditDir(), AuditDurability: cfg.AuditDurability,
		AuditCompact: cfg.AuditCompact, MaxKeys: cfg.MaxKeys,
		HostClock: cfg.HostClock, ClockSource: cfg.ClockSource, Profile: cfg.Profile, Quirks: cfg.Quirks, Diag: cfg.Diag,
		TrustedBackends: cfg.TrustedBackends, MaxTokenTTL: cfg.MaxTokenTTL,
		Damping: cfg.Damping, RequireTLSLogin: cfg.RequireTLSLogin,
		TLS: i.certs, HTTPSUp: s.httpsUp.Load, Destroy: s.destroy(d), Disks: disks, Upgrades: i.images,
		Rand: s.random, Logger: cfg.Logger, AuditSink: s.auditSink(),
	})
	if err != nil {
		return err
	}
	i.api = httpapi.New(httpapi.Config{
		Module: i.module, Broker: cfg.Broker, Proxies: cfg.Proxies, LoopbackOnly: cfg.LoopbackOnly, DiagRemote: cfg.DiagRemote,
		Shutdown: s.requestShutdown, Wiped: func() { go s.renew(i) }, Blocked: func() { go s.block() }, Observe: s.metrics.observe, Logger: cfg.Logger,
	})
	i.keeping.init()
	s.current.Store(i)
	return nil
}

// destroy is the first step of a wipe. Once the data key is out of use the wipe
// goes on, whatever is left of the key's file: who begins the new data erases it.
func (s *Server) destroy(d *data) func() error {
	return func() error {
		err := d.sealer.Destroy()
		if errors.Is(err, seal.ErrNotErased) {
			s.cfg.Logger.Error("the destroyed data key is still in its file", "error", err)
			return nil
		}
		return err
	}
}

// renew replaces a module that was wiped by a fresh one. The old one refuses
// everything meanwhile. A crash leaves what the next start finishes; an error
// ends the process, and so does the same.
func (s *Server) renew(old *instance) {
	s.renewing.Lock()
	defer s.renewing.Unlock()
	if s.stopped || s.current.Load() != old {
		return
	}
	ctx := context.Background()
	old.keeping.end() // a copy of what was wiped is of no use, and must not be left
	if err := old.module.Close(ctx); err != nil {
		s.cfg.Logger.Warn("the log of the wiped module did not end well", "error", err) // it goes all the same
	}
	if err := old.images.Close(); err != nil {
		s.cfg.Logger.Warn("the uploads to the wiped module cannot be removed", "error", err)
	}
	if err := old.disks.Close(); err != nil {
		s.cfg.Logger.Warn("a disk of the wiped module did not close well", "error", err)
	}
	fresh, err := old.data.renew(ctx)
	if err == nil {
		err = s.run(ctx, fresh)
	}
	if err != nil {
		s.failed <- fmt.Errorf("the module was wiped, and a fresh one cannot be begun: %w", err)
		return
	}
	s.cfg.Logger.Warn("a fresh module has taken the place of the wiped one; it belongs to the first who personalises it", "eid", s.Module().EID())
}

// randomSource is the system's, or a stream that is a function of seed.
func randomSource(seed []byte) io.Reader {
	if seed == nil {
		return rand.Reader
	}
	return mrand.NewChaCha8(suite.SHA256(seed))
}

// writeCA leaves the CA's certificate where clients can be pointed to, and
// returns the file's name; none when the pair is not from that CA.
func (s *Server) writeCA(i *instance) (string, error) {
	pem := i.certs.CAPEM()
	if pem == nil {
		return "", nil
	}
	dir, err := s.folder(i.data)
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, fileCA)
	if old, err := os.ReadFile(file); err == nil && string(old) == string(pem) {
		return file, nil
	}
	// Written beside and renamed: a crash leaves the old file or the new one.
	if err := os.WriteFile(file+newSuffix, pem, 0o600); err != nil {
		return "", fmt.Errorf("the CA certificate cannot be written: %w", err)
	}
	return file, os.Rename(file+newSuffix, file)
}

// folder is where files are put that others look for: the data folder, or with
// the state in memory one that goes with the process.
func (s *Server) folder(d *data) (string, error) {
	if d.dir != "" {
		return d.dir, nil
	}
	if s.temp == "" {
		temp, err := os.MkdirTemp("", "softhem-") // mode 0700
		if err != nil {
			return "", fmt.Errorf("no place for the CA certificate and the sockets of disks: %w", err)
		}
		s.temp = temp
	}
	return s.temp, nil
}

// openDisks gets the disks of a PPA ready.
func (s *Server) openDisks(i *instance) (module.Disks, error) {
	if s.cfg.Profile != module.PPA {
		return nil, nil
	}
	sockets, err := s.folder(i.data)
	if err != nil {
		return nil, err
	}
	i.disks, err = disk.Open(disk.Config{Images: i.data.dir, Sockets: sockets, Logger: s.cfg.Logger})
	return i.disks, err
}

func (s *Server) listen() error {
	cfg := s.cfg
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.current.Load().api.ServeHTTP(w, r) })
	plain, err := listener(cfg.HTTPListener, cfg.HTTPAddr)
	if err != nil {
		return err
	}
	secure, err := listener(cfg.HTTPSListener, cfg.HTTPSAddr)
	if err != nil {
		return errors.Join(err, closeListener(plain))
	}
	observe, err := listener(nil, cfg.MetricsAddr)
	if err != nil {
		return errors.Join(err, closeListener(plain), closeListener(secure))
	}
	if plain != nil {
		s.addrs.HTTP = plain.Addr().String()
		s.apiServers = append(s.apiServers, s.serve(plain, handler, false))
	}
	if secure != nil {
		s.addrs.HTTPS = secure.Addr().String()
		s.httpsUp.Store(true)
		s.apiServers = append(s.apiServers, s.serve(secure, handler, true))
	}
	if observe != nil {
		s.addrs.Metrics = observe.Addr().String()
		s.serve(observe, s.metrics.handler(s.Module), false)
	}
	return nil
}

func listener(open net.Listener, addr string) (net.Listener, error) {
	if open != nil || addr == "" {
		return open, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", addr, err)
	}
	return l, nil
}

func closeListener(l net.Listener) error {
	if l == nil {
		return nil
	}
	return l.Close()
}

// serve starts a server on l.
func (s *Server) serve(l net.Listener, h http.Handler, overTLS bool) *http.Server {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		// Remarks about failed handshakes and broken connections are anybody's
		// to cause, so they are for debugging only.
		ErrorLog: slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
		// OPTIONS * is answered like any other.
		DisableGeneralOptionsHandler: true,
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
	}
	if s.cfg.Quirks.ClosesConnections() {
		srv.SetKeepAlivesEnabled(false)
		srv.Protocols = new(http.Protocols)
		srv.Protocols.SetHTTP1(true)
	}
	run := func() error { return srv.Serve(l) }
	if overTLS {
		srv.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: s.Certificate}
		if s.cfg.Diag {
			srv.TLSConfig.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, s.Module().Handshake() }
		}
		run = func() error { return srv.ServeTLS(l, "", "") }
	}
	s.servers = append(s.servers, srv)
	go func() {
		if err := run(); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("the listener on %s ended: %w", l.Addr(), err)
		}
	}()
	return srv
}

// Module is the running module.
func (s *Server) Module() *module.Module { return s.current.Load().module }

// Addresses are where the server listens.
func (s *Server) Addresses() Addresses { return s.addrs }

// Certificate is the pair in use, as crypto/tls asks for it.
func (s *Server) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.current.Load().certs.GetCertificate(hello)
}

// CAFile is the file of the CA clients have to trust; empty when the pair
// is another's.
func (s *Server) CAFile() string { return s.current.Load().caFile }

// ReadyLine is what tells another program that the module can be used.
func (s *Server) ReadyLine() string {
	parts := []string{"ready"}
	for _, p := range [][2]string{
		{"http", s.addrs.HTTP}, {"https", s.addrs.HTTPS}, {"ca", s.CAFile()}, {"eid", s.Module().EID()},
	} {
		if p[1] != "" {
			parts = append(parts, p[0]+"="+p[1])
		}
	}
	return strings.Join(parts, " ")
}

// Reload reads the TLS pair again; new handshakes use it.
func (s *Server) Reload(ctx context.Context) error { return s.current.Load().certs.Reload(ctx) }

// block ends both listeners of the API, on an order of the owner. The process
// stays, and what watches it can see the fail state; a new start serves again.
func (s *Server) block() {
	s.httpsUp.Store(false)
	s.cfg.Logger.Error("the owner ordered this module to stop serving; start the process again to end that")
	drain, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	end(drain, s.apiServers)
}

// end takes no new connections, lets what runs finish until drain ends, and then
// cuts it off.
func end(drain context.Context, servers []*http.Server) {
	var wg sync.WaitGroup
	for _, srv := range servers {
		wg.Go(func() {
			if srv.Shutdown(drain) != nil {
				srv.Close()
			}
		})
	}
	wg.Wait()
}

func (s *Server) requestShutdown() { s.once.Do(func() { close(s.shutdown) }) }

// Wait returns when the module was told to shut down, when ctx ends, or, with
// an error, when a listener failed. Stop has to be called after it.
func (s *Server) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.shutdown:
		return nil
	case err := <-s.failed:
		return err
	}
}

// Stop takes no new connections, lets what runs finish for up to ten seconds,
// flushes the log and releases the state. It may be called on a server that
// did not come up.
func (s *Server) Stop(ctx context.Context) error {
	s.httpsUp.Store(false)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	end(drain, s.servers)
	s.renewing.Lock()
	defer s.renewing.Unlock()
	s.stopped = true
	var errs []error
	if i := s.current.Load(); i != nil {
		i.keeping.end()
		errs = append(errs, i.module.Close(drain), i.images.Close(), i.disks.Close(), i.data.close())
	}
	s.closeSinks(ctx)
	if s.temp != "" {
		errs = append(errs, os.RemoveAll(s.temp))
	}
	return errors.Join(errs...)
}
