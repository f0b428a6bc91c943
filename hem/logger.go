package hem

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strconv"

	"softhem/api"
)

// LoggerKey reads the key that signs the audit log, and a nonce signed with it:
// GET /api/logger/key, scope logger:get. The signature is not checked here.
//
// Errors: those of [Client.Login].
func (c *Client) LoggerKey(ctx context.Context) (*api.LoggerKey, error) {
	var k api.LoggerKey
	if err := c.getAs(ctx, "read the log's key", "/api/logger/key", api.ScopeLoggerGet, &k); err != nil {
		return nil, err
	}
	return &k, nil
}

// LogList lists at most 128 log files, oldest first, after skipping offset:
// GET /api/logger/list, scope logger:get. [Client.AllLogs] lists all.
//
// Errors: those of [Client.Login]; 404 when the module keeps no log files (EPA), 406 when
// offset is beyond the last.
func (c *Client) LogList(ctx context.Context, offset int) (*api.LogList, error) {
	const op = "list the logs"
	if offset < 0 {
		return nil, &OpError{Op: op, Err: fmt.Errorf("%w: the offset is negative", ErrArgument)}
	}
	path := "/api/logger/list"
	if offset > 0 {
		path += "/" + strconv.Itoa(offset)
	}
	var list api.LogList
	if err := c.getAs(ctx, op, path, api.ScopeLoggerGet, &list); err != nil {
		return nil, err
	}
	return &list, nil
}

// AllLogs iterates over the names of all log files, oldest first, asking for
// pages as it goes. An error ends it and comes with an empty name.
func (c *Client) AllLogs(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for offset := 0; ; {
			list, err := c.LogList(ctx, offset)
			if err != nil {
				yield("", err)
				return
			}
			for _, id := range list.ID {
				if !yield(id, nil) {
					return
				}
			}
			// Not until a page is empty: an offset at the end is refused. And
			// an empty page ends it too, or a wrong total would keep us here forever.
			if offset += len(list.ID); offset >= list.Total || len(list.ID) == 0 {
				return
			}
		}
	}
}

// LogFile opens a log file for reading: GET /api/logger/{id}, scope logger:get.
// id is 8 hex digits, lower case. The text is streamed, of any length, and ends early with an
// error when ctx ends or the connection breaks. The caller closes it.
//
// Errors: those of [Client.Login]; [ErrArgument], 404 when there is no such file, 406 when it is
// the one still being written.
func (c *Client) LogFile(ctx context.Context, id string) (io.ReadCloser, error) {
	r := call{op: "read a log", method: http.MethodGet, path: "/api/logger/" + id}
	if !isLogID(id) {
		// Also keeps a path out of the URL.
		return nil, &OpError{Op: r.op, Err: fmt.Errorf("%w: a log's name is 8 hex digits in lower case", ErrArgument)}
	}
	resp, err := c.authorised(ctx, r, api.ScopeLoggerGet)
	if err != nil {
		return nil, err
	}
	return &logReader{ReadCloser: resp.Body, c: c, r: r}, nil
}

// LogCheckpoint reads a checkpoint of the log as it is now, signed by the module:
// GET /api/logger/checkpoint, scope logger:get. It is a C2SP tlog-checkpoint: three lines with
// origin, number of records and root of the tree over them, an empty line, and the signature,
// which is not checked here.
//
// Errors: those of [Client.Login]; 409 when the log cannot be written.
func (c *Client) LogCheckpoint(ctx context.Context) ([]byte, error) {
	return c.textAs(ctx, "read the log's checkpoint", "/api/logger/checkpoint", api.ScopeLoggerGet)
}

// LogTail reads records from number leaf on, counted from 0 over all files, those of the file
// still being written too: GET /api/logger/tail/{leaf}, scope logger:get. Each has its newline. One
// answer has about 1 MiB of them; it is empty where the log ends.
//
// Errors: those of [Client.Login]; [ErrArgument], 404 when the module keeps no log files (EPA),
// 406 when there are fewer than leaf records, 409 when the log cannot be written.
func (c *Client) LogTail(ctx context.Context, leaf int64) ([]byte, error) {
	const op = "read the end of the log"
	if leaf < 0 {
		return nil, &OpError{Op: op, Err: fmt.Errorf("%w: the number of a record is negative", ErrArgument)}
	}
	return c.textAs(ctx, op, "/api/logger/tail/"+strconv.FormatInt(leaf, 10), api.ScopeLoggerGet)
}

// maxTextBytes is the longest text taken in one piece.
const maxTextBytes = 4 << 20

// textAs reads an answer that is text.
func (c *Client) textAs(ctx context.Context, op, path, scope string) ([]byte, error) {
	r := call{op: op, method: http.MethodGet, path: path}
	resp, err := c.authorised(ctx, r, scope)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxTextBytes+1))
	if err != nil {
		return nil, unreachable(r.op, r.where(), c.base, err)
	}
	if len(text) > maxTextBytes {
		return nil, r.fail(fmt.Errorf("%w: it is longer than %d bytes", ErrProtocol, maxTextBytes))
	}
	return text, nil
}

func isLogID(id string) bool {
	if len(id) != 8 {
		return false
	}
	for _, b := range []byte(id) {
		if (b < '0' || b > '9') && (b < 'a' || b > 'f') {
			return false
		}
	}
	return true
}

// A logReader gives a stream's errors the form of the package's.
type logReader struct {
	io.ReadCloser
	c *Client
	r call
}

func (l *logReader) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = unreachable(l.r.op, l.r.where(), l.c.base, err)
	}
	return n, err
}
