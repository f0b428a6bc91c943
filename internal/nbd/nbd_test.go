package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// memory is a device that notices what no client may cause.
type memory struct {
	mu      sync.Mutex
	content []byte
	synced  []byte // the content at the last Sync
	broken  bool   // reads and writes fail
	misused string
}

func newMemory(size int) *memory {
	return &memory{content: make([]byte, size), synced: make([]byte, size)}
}

func (m *memory) Size() int64 { return int64(len(m.content)) }

func (m *memory) inside(off, n int64) error {
	if off < 0 || n <= 0 || off+n > int64(len(m.content)) {
		m.misused = "a range outside of the device"
	}
	if m.broken {
		return errors.New("the device is broken")
	}
	return nil
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.inside(off, int64(len(p))); err != nil {
		return 0, err
	}
	return copy(p, m.content[off:]), nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.inside(off, int64(len(p))); err != nil {
		return 0, err
	}
	return copy(m.content[off:], p), nil
}

func (m *memory) Zero(off, n int64, _ bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.inside(off, n); err != nil {
		return err
	}
	clear(m.content[off : off+n])
	return nil
}

func (m *memory) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.synced, m.content)
	return nil
}

func (m *memory) durable() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return string(m.synced)
}

// serve starts a server on a unix socket.
func serve(t testing.TB, cfg Config) (*Server, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbd") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Name, cfg.Logger = "disk1", slog.New(slog.DiscardHandler)
	s := Start(l, cfg)
	t.Cleanup(func() { s.Close(false) })
	return s, path
}

// client speaks the protocol by hand.
type client struct {
	t    testing.TB
	conn net.Conn
}

func dial(t testing.TB, path string) *client {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return &client{t, conn}
}

// put sends numbers big-endian, and bytes as they are.
func (c *client) put(parts ...any) {
	c.t.Helper()
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			b = append(b, p...)
		default:
			var err error
			if b, err = binary.Append(b, binary.BigEndian, p); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// get reads what has to come next.
func (c *client) get(want ...any) {
	c.t.Helper()
	for i, w := range want {
		expected, _ := w.(string)
		if expected == "" {
			b, err := binary.Append(nil, binary.BigEndian, w)
			if err != nil {
				c.t.Fatal(err)
			}
			expected = string(b)
		}
		got := make([]byte, len(expected))
		if _, err := io.ReadFull(c.conn, got); err != nil || string(got) != expected {
			c.t.Fatalf("part %d: %x, %v; want %x", i, got, err, expected)
		}
	}
}

// end checks that the server closes the connection, and sends nothing more.
func (c *client) end() {
	c.t.Helper()
	rest, err := io.ReadAll(c.conn)
	if len(rest) > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
		c.t.Fatalf("want the end, got %x, %v", rest, err)
	}
}

func (c *client) greet() {
	c.t.Helper()
	c.get("NBDMAGICIHAVEOPT", uint16(3))
	c.put(uint32(3))
}

const optReply = uint64(0x3e889045565a9)

// attach goes through a whole handshake.
func (c *client) attach(size uint64, flags uint16) {
	c.t.Helper()
	c.greet()
	c.put("IHAVEOPT", uint32(7), uint32(4+5+2), uint32(5), "disk1", uint16(0))
	c.get(optReply, uint32(7), uint32(3), uint32(12), uint16(0), size, flags)
	c.get(optReply, uint32(7), uint32(1), uint32(0))
}

// do sends a command and wants its reply.
func (c *client) do(flags, command uint16, offset uint64, length uint32, data string, e errno, answer string) {
	c.t.Helper()
	cookie := uint64(command)<<32 | offset<<8 | uint64(length)
	c.put(uint32(0x25609513), flags, command, cookie, offset, length, data)
	c.get(uint32(0x67446698), uint32(e), cookie)
	if answer != "" {
		c.get(answer)
	}
}

func TestHandshake(t *testing.T) {
	_, path := serve(t, Config{Device: newMemory(4096)})
	c := dial(t, path)
	c.greet()
	// An option nobody knows, one that is too long, LIST, INFO of what there is and is not.
	c.put("IHAVEOPT", uint32(8), uint32(0))
	c.get(optReply, uint32(8), uint32(1<<31+1), uint32(0))
	c.put("IHAVEOPT", uint32(6), uint32(9000), strings.Repeat("x", 9000))
	c.get(optReply, uint32(6), uint32(1<<31+9), uint32(0))
	c.put("IHAVEOPT", uint32(3), uint32(0))
	c.get(optReply, uint32(3), uint32(2), uint32(9), uint32(5), "disk1", optReply, uint32(3), uint32(1), uint32(0))
	c.put("IHAVEOPT", uint32(3), uint32(1), "x")
	c.get(optReply, uint32(3), uint32(1<<31+3), uint32(0))
	c.put("IHAVEOPT", uint32(6), uint32(11), uint32(5), "disk0", uint16(0))
	c.get(optReply, uint32(6), uint32(1<<31+6), uint32(0))
	for _, wrong := range []string{"", "\x00\x00\x00\x00\x00", "\x00\x00\x00\x05disk1\x00\x01", "\x00\x00\x00\x05disk1\x00\x00\x00", "\xff\xff\xff\xffdisk1\x00\x00"} {
		c.put("IHAVEOPT", uint32(6), uint32(len(wrong)), wrong)
		c.get(optReply, uint32(6), uint32(1<<31+3), uint32(0))
	}
	c.put("IHAVEOPT", uint32(6), uint32(4+0+2+8), uint32(0), uint16(4), uint16(3), uint16(1), uint16(9), uint16(3))
	c.get(optReply, uint32(6), uint32(3), uint32(12), uint16(0), uint64(4096), uint16(transmitWritable))
	c.get(optReply, uint32(6), uint32(3), uint32(14), uint16(3), uint32(1), uint32(4096), uint32(32<<20))
	c.get(optReply, uint32(6), uint32(3), uint32(7), uint16(1), "disk1")
	c.get(optReply, uint32(6), uint32(1), uint32(0))
	c.put("IHAVEOPT", uint32(2), uint32(0))
	c.get(optReply, uint32(2), uint32(1), uint32(0))
	c.end()

	// EXPORT_NAME, with and without the zeros of old.
	for flags, zeros := range map[uint32]int{3: 0, 1: 124} {
		c := dial(t, path)
		c.get("NBDMAGICIHAVEOPT", uint16(3))
		c.put(flags, "IHAVEOPT", uint32(1), uint32(0))
		c.get(uint64(4096), uint16(transmitWritable))
		if zeros > 0 {
			c.get(strings.Repeat("\x00", zeros))
		}
		c.do(0, cmdRead, 0, 2, "", errNone, "\x00\x00")
		c.put(uint32(0x25609513), uint16(0), uint16(cmdDisc), uint64(1), uint64(0), uint32(0))
		c.end()
	}

	for name, said := range map[string][]any{
		"no newstyle":        {uint32(2)},
		"unknown flag":       {uint32(7)},
		"wrong magic":        {uint32(3), "IHAVEOPU", uint32(3), uint32(0)},
		"another export":     {uint32(3), "IHAVEOPT", uint32(1), uint32(5), "disk0"},
		"endless export":     {uint32(3), "IHAVEOPT", uint32(1), uint32(9000)},
		"endless option":     {uint32(3), "IHAVEOPT", uint32(6), uint32(1 << 31)},
		"an HTTP client":     {"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"},
		"an option too many": {uint32(3), strings.Repeat("IHAVEOPT\x00\x00\x00\x63\x00\x00\x00\x00", maxOptions)},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, path)
			c.get("NBDMAGICIHAVEOPT", uint16(3))
			c.put(said...)
			if name == "an option too many" {
				for range maxOptions {
					c.get(optReply, uint32(0x63), uint32(1<<31+1), uint32(0))
				}
			}
			c.end()
		})
	}
}

func TestCommands(t *testing.T) {
	const size = 3 * chunkSize
	m := newMemory(size)
	_, path := serve(t, Config{Device: m})
	c := dial(t, path)
	c.attach(size, transmitWritable)
	c.do(0, cmdRead, 0, 4, "", errNone, "\x00\x00\x00\x00")
	c.do(0, cmdWrite, 1, 3, "abc", errNone, "")
	c.do(0, cmdRead, 0, 5, "", errNone, "\x00abc\x00")
	if strings.Contains(m.durable(), "abc") {
		t.Error("written through without being asked")
	}
	c.do(0, cmdFlush, 0, 0, "", errNone, "")
	if m.durable()[:5] != "\x00abc\x00" {
		t.Error("answered a flush that did not happen")
	}
	for offset, command := range map[uint64]uint16{10: cmdWrite, 20: cmdZeroes, 30: cmdTrim} {
		c.do(0, cmdWrite, offset-1, 4, "vwxy", errNone, "")
		data, want := "12", "v12y"
		if command != cmdWrite {
			data, want = "", "v\x00\x00y"
		}
		c.do(cmdFlagFUA, command, offset, 2, data, errNone, "")
		if got := m.durable()[offset-1 : offset+3]; got != want {
			t.Errorf("command %d with FUA left %q on disk", command, got)
		}
	}
	c.do(cmdFlagNoHole, cmdZeroes, 1, 3, "", errNone, "")
	c.do(0, cmdRead, 0, 5, "", errNone, "\x00\x00\x00\x00\x00")

	whole := strings.Repeat("0123456789abcdef", size/16)
	c.do(0, cmdWrite, 0, size, whole, errNone, "") // three chunks
	c.do(0, cmdRead, 0, size, "", errNone, whole)
	c.do(0, cmdWrite, size, 3, "end", errNoSpace, "")
	c.do(0, cmdWrite, size-1, 2, "xx", errNoSpace, "")
	c.do(0, cmdWrite, 1<<63, 2, "xx", errNoSpace, "")
	c.do(0, cmdZeroes, 5, 1<<32-1, "", errNoSpace, "")
	c.do(0, cmdTrim, 1<<64-1, 1, "", errNoSpace, "")
	c.do(0, cmdRead, size, 1, "", errInvalid, "")
	c.do(0, cmdRead, 1<<64-8, 16, "", errInvalid, "")
	c.do(0, cmdRead, 0, maxPayload+1, "", errInvalid, "")
	c.do(0, cmdRead, 0, 0, "", errInvalid, "")
	c.do(0, cmdWrite, 0, 0, "", errInvalid, "")
	c.do(0, cmdFlush, 1, 0, "", errInvalid, "")
	c.do(0, cmdFlush, 0, 1, "", errInvalid, "")
	c.do(1<<4, cmdRead, 0, 1, "", errInvalid, "")
	c.do(cmdFlagNoHole, cmdWrite, 0, 2, "xx", errInvalid, "")
	c.do(0, 5, 0, 1, "", errInvalid, "") // CACHE, which was not offered
	c.do(0, 77, 0, 1, "", errInvalid, "")
	c.do(0, cmdRead, 0, size, "", errNone, whole) // nothing of all that was done

	m.mu.Lock()
	m.broken = true
	m.mu.Unlock()
	c.do(0, cmdRead, 0, 1, "", errIO, "")
	c.do(0, cmdWrite, 0, 2, "xx", errIO, "")
	c.do(0, cmdTrim, 0, 2, "", errIO, "")
	if m.misused != "" {
		t.Error(m.misused)
	}

	for name, said := range map[string][]any{
		"wrong magic":   {uint32(0x25609514), uint16(0), uint16(0), uint64(0), uint64(0), uint32(1)},
		"endless write": {uint32(0x25609513), uint16(0), uint16(1), uint64(0), uint64(0), uint32(maxPayload + 1)},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, path)
			c.attach(size, transmitWritable)
			c.put(said...)
			c.end()
		})
	}
}

func TestReadOnly(t *testing.T) {
	m := newMemory(4096)
	_, path := serve(t, Config{Device: m, ReadOnly: true})
	c := dial(t, path)
	c.attach(4096, transmitReadOnly)
	c.do(0, cmdWrite, 0, 3, "abc", errPerm, "")
	c.do(0, cmdZeroes, 0, 3, "", errPerm, "")
	c.do(0, cmdTrim, 0, 3, "", errPerm, "")
	c.do(cmdFlagFUA, cmdRead, 0, 3, "", errInvalid, "") // not offered
	c.do(0, cmdFlush, 0, 0, "", errNone, "")
	c.do(0, cmdRead, 0, 3, "", errNone, "\x00\x00\x00")
}

// Close: what was answered is on disk when it returns, clients are gone, and
// nobody comes in any more.
func TestClose(t *testing.T) {
	m := newMemory(4096)
	s, path := serve(t, Config{Device: m})
	var clients []*client
	for i := range 4 {
		c := dial(t, path)
		c.attach(4096, transmitWritable)
		c.do(0, cmdWrite, uint64(10*i), 4, "data", errNone, "")
		clients = append(clients, c)
	}
	half := dial(t, path) // in the middle of a write
	half.attach(4096, transmitWritable)
	half.put(uint32(0x25609513), uint16(0), uint16(cmdWrite), uint64(1), uint64(100), uint32(4), "ha")
	shaking := dial(t, path)
	shaking.greet()
	if err := s.Close(true); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(m.durable(), "data"); got != 4 {
		t.Errorf("%d of 4 writes on disk", got)
	}
	for _, c := range append(clients, half, shaking) {
		c.end()
	}
	if _, err := net.Dial("unix", path); err == nil {
		t.Error("the socket still takes clients")
	}
	if err := s.Close(true); err != nil {
		t.Error(err)
	}
}

// Who does not take its answers does not hold up the end.
func TestCloseDoesNotWaitForAClient(t *testing.T) {
	s, path := serve(t, Config{Device: newMemory(4 << 20)})
	c := dial(t, path)
	c.attach(4<<20, transmitWritable)
	for range 8 { // far more than a socket holds, and never read
		c.put(uint32(0x25609513), uint16(0), uint16(cmdRead), uint64(1), uint64(0), uint32(4<<20))
	}
	done := make(chan error)
	go func() { done <- s.Close(true) }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("Close waits")
	}
}

func TestNotAllowed(t *testing.T) {
	var mu sync.Mutex
	allowed := true
	m := newMemory(4096)
	_, path := serve(t, Config{Device: m, Allowed: func() bool {
		mu.Lock()
		defer mu.Unlock()
		return allowed
	}})
	c := dial(t, path)
	c.attach(4096, transmitWritable)
	c.do(0, cmdWrite, 0, 1, "a", errNone, "")
	mu.Lock()
	allowed = false
	mu.Unlock()
	c.put(uint32(0x25609513), uint16(0), uint16(cmdWrite), uint64(1), uint64(0), uint32(1), "b")
	c.end()
	dial(t, path).end()
	if m.content[0] != 'a' {
		t.Error("written after it was forbidden")
	}
}

func TestOnlySoManyClients(t *testing.T) {
	_, path := serve(t, Config{Device: newMemory(4096)})
	var all []*client
	for range maxClients {
		c := dial(t, path)
		c.attach(4096, transmitWritable)
		all = append(all, c)
	}
	dial(t, path).end()
	all[0].put(uint32(0x25609513), uint16(0), uint16(cmdDisc), uint64(1), uint64(0), uint32(0))
	all[0].end()
	c := dial(t, path)
	c.attach(4096, transmitWritable)
}

// Whatever a client sends: nothing outside of the device is touched, a read-only
// one is not changed, and what was told to be on disk is.
func FuzzSession(f *testing.F) {
	request := func(flags, command uint16, offset uint64, length uint32, data string) []byte {
		b := binary.BigEndian.AppendUint32(nil, magicRequest)
		b = binary.BigEndian.AppendUint16(b, flags)
		b = binary.BigEndian.AppendUint16(b, command)
		b = binary.BigEndian.AppendUint64(b, 7)
		b = binary.BigEndian.AppendUint64(b, offset)
		b = binary.BigEndian.AppendUint32(b, length)
		return append(b, data...)
	}
	goOption := []byte("\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x07\x00\x00\x00\x0b\x00\x00\x00\x05disk1\x00\x00")
	f.Add(goOption, false)
	f.Add([]byte("\x00\x00\x00\x01IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x00"), true)
	for _, r := range [][]byte{
		request(0, cmdRead, 0, 512, ""), request(1, cmdWrite, 1, 3, "abc"), request(0, cmdFlush, 0, 0, ""),
		request(2, cmdZeroes, 100, 1<<20, ""), request(0, cmdTrim, 1<<63, 9, ""), request(0, cmdDisc, 0, 0, ""), request(0, 9, 9, 9, ""),
	} {
		f.Add(append(bytes.Clone(goOption), append(r, request(0, cmdRead, 8, 8, "")...)...), len(r)%2 == 0)
	}
	f.Fuzz(func(t *testing.T, sent []byte, readOnly bool) {
		m := newMemory(4096)
		cfg := &Config{Device: m, Name: "disk1", ReadOnly: readOnly}
		var got bytes.Buffer
		rw := struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(sent), &got}
		s := newSession(cfg, rw, func() bool { return true })
		err := s.handshake()
		if err == nil {
			err = s.transmit()
		}
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && err != errProtocol {
			t.Fatalf("ended with %v", err)
		}
		if m.misused != "" {
			t.Fatal(m.misused)
		}
		if readOnly && !bytes.Equal(m.content, make([]byte, 4096)) {
			t.Fatal("a read-only device was written to")
		}
		if cap(s.buf) > chunkSize || cap(s.out) > 64<<10 {
			t.Fatalf("%d and %d bytes kept for one client", cap(s.buf), cap(s.out))
		}
		if !bytes.HasPrefix(got.Bytes(), []byte("NBDMAGICIHAVEOPT\x00\x03")) {
			t.Fatalf("greeted with %q", got.Bytes()[:min(18, got.Len())])
		}
	})
}

// slow is a device that takes its time over zeros.
type slow struct {
	*memory
	size    int64
	started chan struct{}
	once    sync.Once
}

func (d *slow) Size() int64 { return d.size }

func (d *slow) Zero(_, n int64, _ bool) error {
	d.once.Do(func() { close(d.started) })
	time.Sleep(time.Duration(n) * time.Second / (160 << 20)) // 26 s for 4 GiB
	return nil
}

// A command over 4 GiB is cut off between two pieces of it, so that whoever locks
// the disk or wipes the module need not wait for its end.
func TestThreat_T202_ALongCommandHoldsUpNobody(t *testing.T) {
	const size = 8 << 30
	d := &slow{memory: newMemory(0), size: size, started: make(chan struct{})}
	s, path := serve(t, Config{Device: d})
	c := dial(t, path)
	c.attach(size, transmitWritable)
	c.put(uint32(0x25609513), uint16(cmdFlagNoHole), uint16(cmdZeroes), uint64(1), uint64(0), uint32(1<<32-1))
	<-d.started
	start := time.Now()
	if err := s.Close(true); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the end took %v", took)
	}
	c.end()
}
