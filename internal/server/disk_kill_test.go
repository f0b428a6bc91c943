package server_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
)

// nbdClient speaks as much of the protocol as a writer needs.
type nbdClient struct{ conn net.Conn }

func attach(socket string) (*nbdClient, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	c := &nbdClient{conn}
	hello := "\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x00" // EXPORT_NAME
	if _, err := io.ReadFull(conn, make([]byte, 18)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, hello); err != nil {
		return nil, err
	}
	_, err = io.ReadFull(conn, make([]byte, 10))
	return c, err
}

// command sends a command and returns the data of its answer.
func (c *nbdClient) command(flags, command uint16, offset uint64, length uint32, data []byte) ([]byte, error) {
	b := binary.BigEndian.AppendUint32(nil, 0x25609513)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, command)
	b = binary.BigEndian.AppendUint64(b, 0)
	b = binary.BigEndian.AppendUint64(b, offset)
	b = binary.BigEndian.AppendUint32(b, length)
	if _, err := c.conn.Write(append(b, data...)); err != nil {
		return nil, err
	}
	head := make([]byte, 16)
	if _, err := io.ReadFull(c.conn, head); err != nil {
		return nil, err
	}
	if e := binary.BigEndian.Uint32(head[4:]); e != 0 {
		return nil, fmt.Errorf("error %d of the disk", e)
	}
	if command != 0 {
		return nil, nil
	}
	answer := make([]byte, length)
	_, err := io.ReadFull(c.conn, answer)
	return answer, err
}

const (
	nbdRead, nbdWrite, nbdFlush = 0, 1, 3
	nbdFUA                      = 1

	blockSize = 6000 // so that most writes end within sectors
)

func block(i int64) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "block %10d kept\n", i), blockSize/22+1)[:blockSize]
}

// A module is killed while disk 1 is unlocked for the first time, and while it is
// written. Each time it starts again with the disk locked, opens it with the same
// key, and every block is there whose write was answered as being on disk.
func TestFlushedDataOutliveAKill(t *testing.T) {
	folders, kills := 3, 3
	if testing.Short() {
		folders, kills = 1, 3
	}
	user, master := loadKeys(t)
	for range folders {
		home, err := os.MkdirTemp("", "hem") // t.TempDir may be too long for a socket
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(home) })
		dir := filepath.Join(home, "data")
		p := startProcess(t, dir)
		client := newClient(t, p, user)
		if _, err := client.Init(t.Context(), hem.InitParams{UserKey: user, MasterKey: master, Config: api.InitConfig{
			User: "disk", Hostname: "localhost", Origin: "*", TrustedTS: true,
		}}); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Login(t.Context(), api.ScopeDisk(1, true)); err != nil {
			t.Fatal(err)
		}
		// Killed somewhere in the first unlocking.
		done := make(chan error, 1)
		go func() { done <- client.UnlockDisk(context.Background(), 1, true) }()
		time.Sleep(time.Duration(rand.N(4_000)) * time.Microsecond)
		p.kill()
		t.Logf("the first unlocking: %v", <-done)

		var kept int64
		for range kills {
			p := startProcess(t, dir)
			client := newClient(t, p, user)
			status, err := client.Status(t.Context())
			if err != nil || !strings.HasSuffix(status.Storage[1], ":-") {
				t.Fatalf("after a kill: %v, %v", status, err)
			}
			if err := client.UnlockDisk(t.Context(), 1, true); err != nil {
				t.Fatalf("the disk cannot be unlocked again: %v\n%s", err, p.stderr.text())
			}
			disk, err := attach(filepath.Join(dir, "disk1.sock"))
			if err != nil {
				t.Fatal(err)
			}
			for i := range kept {
				if got, err := disk.command(0, nbdRead, uint64(i*blockSize), blockSize, nil); err != nil || !bytes.Equal(got, block(i)) {
					t.Fatalf("block %d of %d is lost: %v", i, kept, err)
				}
			}
			var written atomic.Int64
			written.Store(kept)
			gone := make(chan struct{})
			go func() { // until the module is killed
				defer close(gone)
				for i := kept; ; i++ {
					flags := uint16(nbdFUA)
					if i%2 == 1 {
						flags = 0
					}
					_, err := disk.command(flags, nbdWrite, uint64(i*blockSize), blockSize, block(i))
					if err == nil && i%2 == 1 {
						_, err = disk.command(0, nbdFlush, 0, 0, nil)
					}
					if err != nil {
						return
					}
					written.Store(i + 1)
				}
			}()
			for deadline := time.Now().Add(10 * time.Second); written.Load() < kept+int64(rand.N(20)) && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(time.Duration(rand.N(3_000)) * time.Microsecond)
			p.kill()
			<-gone
			disk.conn.Close()
			if written.Load() == kept {
				t.Log("nothing was written before the kill")
			}
			kept = written.Load()
		}
		if kept == 0 {
			t.Error("the disk was hardly written")
		}
		t.Logf("%d kills, %d blocks kept", kills+1, kept)
		if image, err := os.ReadFile(filepath.Join(dir, "disk1.img")); err != nil || bytes.Contains(image, []byte("block")) {
			t.Errorf("the image shows what was written: %v", err)
		}
	}
}
