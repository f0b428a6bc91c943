package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"
)

// ErrNotRunning: nobody listens on the socket of the folder.
var ErrNotRunning = errors.New("no module runs on the folder")

// A Client is the Keeper of a module in another process.
type Client struct{ http *http.Client }

var _ Keeper = (*Client)(nil)

// Dial finds the module that runs on a data folder.
func Dial(ctx context.Context, dir string) (*Client, error) {
	dial := func(ctx context.Context) (net.Conn, error) {
		name, held, err := path(dir)
		if err != nil {
			return nil, err
		}
		defer held.Close()
		var d net.Dialer
		return d.DialContext(ctx, "unix", name)
	}
	probe, err := dial(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, ErrNotRunning
	case err != nil:
		return nil, fmt.Errorf("the module on %s cannot be reached: %w", dir, err)
	}
	probe.Close()
	return &Client{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}}}, nil
}

// Close ends what is idle.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) post(ctx context.Context, what string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://module/"+what, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("the module did not answer: %w", errors.Unwrap(err))
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
		if err != nil || len(text) == 0 {
			return nil, fmt.Errorf("the module answered %s", resp.Status)
		}
		return nil, errors.New(strings.TrimSpace(string(text)))
	}
	return resp, nil
}

func (c *Client) ask(ctx context.Context, what string, body io.Reader, into any) error {
	resp, err := c.post(ctx, what, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("the module's answer cannot be read: %w", err)
	}
	return nil
}

// Backup implements Keeper.
func (c *Client) Backup(ctx context.Context, w io.Writer) error {
	resp, err := c.post(ctx, "backup", http.NoBody)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("the backup was cut off: %w", err)
	}
	if text := resp.Trailer.Get(trailerError); text != "" {
		return errors.New(text)
	}
	if resp.Trailer.Get(trailerDone) == "" {
		return errors.New("the backup was cut off")
	}
	return nil
}

// Check implements Keeper.
func (c *Client) Check(ctx context.Context, r io.Reader) (report Report, err error) {
	// Only its Read: the transport closes what it can.
	err = c.ask(ctx, "check", struct{ io.Reader }{r}, &report)
	return report, err
}

// Rekey implements Keeper.
func (c *Client) Rekey(ctx context.Context, ask RekeyRequest) (report RekeyReport, err error) {
	body, err := json.Marshal(ask)
	if err != nil {
		return report, err
	}
	defer clear(body)
	err = c.ask(ctx, "rekey", bytes.NewReader(body), &report)
	return report, err
}
