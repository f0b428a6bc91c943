package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/disk"
)

// A diskView is what hem storage prints of a disk with --json.
type diskView struct {
	Disk    int    `json:"disk"`
	Sectors int64  `json:"sectors"`          // of 512 bytes
	Mode    string `json:"mode"`             // rw, ro, or - for a locked one
	Socket  string `json:"socket,omitempty"` // of an open one, on the module's host
	URI     string `json:"uri,omitempty"`    // for tools that know NBD
}

type storageCmd struct {
	o    *options
	data string
}

func newStorageCmd(o *options) *cobra.Command {
	s := &storageCmd{o: o}
	c := &cobra.Command{
		Use:   "storage",
		Short: "Open the module's disks to its host, and lock them",
		Long: `Open the module's two disks to the host it runs on, and lock them. An open disk is
served as a network block device (NBD) on a unix socket in the module's data folder,
which the module's own user and root can attach. Disk 1 is encrypted in its image.

Needs a token for storage:disk<N>, or storage:disk<N>:rw to open it for writing.`,
		Example: `  hem storage status
  hem storage unlock 1 --rw
  hem storage lock 1`,
	}
	c.PersistentFlags().StringVar(&s.data, "data", "", "`DIR` of the module on its host, where the sockets are (default: that of --cacert, if they are there, or $XDG_DATA_HOME/softhem)")
	c.AddCommand(s.newStatus(), s.newUnlock(), s.newLock())
	return c
}

func (s *storageCmd) newStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show both disks, and how open ones are attached",
		Long: `Show size and state of both disks, and where an open one can be attached. No token is
needed.`,
		Example: `  hem storage status
  hem storage status --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			disks, err := s.disks(c, need{}, func(*hem.Client) error { return nil })
			if err != nil {
				return err
			}
			if s.o.json {
				return printJSON(s.o.t.out, disks)
			}
			t := &table{}
			for _, d := range disks {
				name := fmt.Sprintf("disk %d", d.Disk)
				t.addText(name, diskInWords(fmt.Sprintf("%d:%s", d.Sectors, d.Mode)))
				t.addText("", d.URI)
			}
			return t.print(s.o.t.out)
		},
	}
}

func (s *storageCmd) newUnlock() *cobra.Command {
	var rw bool
	c := &cobra.Command{
		Use:   "unlock N",
		Short: "Open a disk to the module's host",
		Long: `Open disk 0 or 1 to the module's host, for reading or with --rw for writing, until it is
locked or the module reboots. Prints commands that attach it there, each of which does; the
packages are libnbd-bin, nbd-client and qemu-utils. A disk that is open in the other way
changes, which cuts off who has it attached.`,
		Example: `  hem storage unlock 1 --rw
  hem storage unlock 0 --data /var/lib/softhem`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			n, err := diskArg(c, args[0])
			if err != nil {
				return err
			}
			disks, err := s.disks(c, need{scope: api.ScopeDisk(n, rw)}, func(m *hem.Client) error {
				return m.UnlockDisk(c.Context(), n, rw)
			})
			if err != nil {
				return err
			}
			d := disks[n]
			if s.o.json {
				return printJSON(s.o.t.out, d)
			}
			s.o.note("disk %d is %s; on the module's host, attach it with one of:", n, map[bool]string{true: "open", false: "open for reading"}[rw])
			_, err = fmt.Fprint(s.o.t.out, attachCommands(d))
			return err
		},
	}
	c.Flags().BoolVar(&rw, "rw", false, "open it for writing too")
	return c
}

func (s *storageCmd) newLock() *cobra.Command {
	return &cobra.Command{
		Use:   "lock N",
		Short: "Lock a disk, and cut off who has it attached",
		Long: `Lock disk 0 or 1. What was written is kept, then whoever has it attached is cut off:
unmount it first.`,
		Example: `  hem storage lock 1`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			n, err := diskArg(c, args[0])
			if err != nil {
				return err
			}
			disks, err := s.disks(c, need{scope: api.ScopeDisk(n, false)}, func(m *hem.Client) error {
				return m.LockDisk(c.Context(), n)
			})
			if err != nil {
				return err
			}
			if s.o.json {
				return printJSON(s.o.t.out, disks[n])
			}
			s.o.note("disk %d is locked", n)
			return nil
		},
	}
}

func diskArg(c *cobra.Command, arg string) (int, error) {
	if arg != "0" && arg != "1" {
		return 0, &usageError{c.CommandPath(), "there are disks 0 and 1"}
	}
	return int(arg[0] - '0'), nil
}

// disks does something and returns what the status shows then.
func (s *storageCmd) disks(c *cobra.Command, n need, do func(*hem.Client) error) (disks []diskView, err error) {
	var status *api.Status
	err = s.o.with(c.Context(), n, func(m *hem.Client) error {
		err := do(m)
		if err == nil {
			status, err = m.Status(c.Context())
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	dir := s.folder()
	if len(status.Storage) != disk.Count {
		return nil, errors.New("the module has no disks")
	}
	for i, text := range status.Storage {
		sectors, mode, _ := strings.Cut(text, ":")
		d := diskView{Disk: i, Mode: clean(mode)}
		if d.Sectors, err = strconv.ParseInt(sectors, 10, 64); err != nil {
			return nil, fmt.Errorf("the module describes disk %d as %q", i, clean(text))
		}
		if d.Mode != string(disk.Locked) {
			d.Socket = filepath.Join(dir, disk.SocketFile(i))
			d.URI = "nbd+unix:///" + disk.Name(i) + "?socket=" + uriEscape(d.Socket)
		}
		disks = append(disks, d)
	}
	return disks, nil
}

// folder is where the sockets are, as far as that can be told from here.
func (s *storageCmd) folder() string {
	if s.data != "" {
		if abs, err := filepath.Abs(s.data); err == nil {
			return abs
		}
		return s.data
	}
	if ca := s.o.setting("cacert", s.o.caCert, "HEM_CACERT"); ca != "" {
		if dir, err := filepath.Abs(filepath.Dir(ca)); err == nil {
			sockets, _ := filepath.Glob(filepath.Join(globEscape(dir), "disk[01].sock"))
			if len(sockets) > 0 {
				return dir
			}
		}
	}
	if dir, err := defaultDataDir(s.o.t.env); err == nil {
		if _, err := os.Stat(dir); err == nil {
			return dir
		}
	}
	return "/DATA-FOLDER"
}

// globEscape makes a path match itself alone.
func globEscape(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

// uriEscape writes a path as a value in an NBD URI.
func uriEscape(path string) string {
	return strings.NewReplacer("&", "%26", "+", "%2B", ";", "%3B", "=", "%3D").Replace((&url.URL{Path: path}).EscapedPath())
}

// attachCommands attach an open disk, a line each.
func attachCommands(d diskView) string {
	uri, readOnly := shellQuote(d.URI), ""
	copying := "nbdcopy " + uri + " FILE"
	if d.Mode == string(disk.ReadOnly) {
		readOnly = " -readonly"
	} else {
		copying = "nbdcopy FILE " + uri
	}
	return strings.Join([]string{
		"nbdinfo " + uri,
		copying,
		"nbdfuse MOUNTPOINT " + uri,
		fmt.Sprintf("nbd-client -N %s -u %s /dev/nbd0%s", disk.Name(d.Disk), shellQuote(d.Socket), readOnly),
		"qemu-img convert -f raw -O qcow2 " + uri + " FILE",
	}, "\n") + "\n"
}
