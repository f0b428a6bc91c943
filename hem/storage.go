package hem

import (
	"context"
	"net/http"

	"softhem/api"
)

const (
	pathUnlockRO = "/api/storage/unlock/ro"
	pathUnlockRW = "/api/storage/unlock/rw"
	pathLock     = "/api/storage/lock"
)

// UnlockDisk opens disk 0 or 1 of a module to its host, for writing or only for
// reading: GET /api/storage/unlock/rw with scope storage:disk<n>:rw, or /unlock/ro
// with storage:disk<n>, local user and authenticators only. A disk that is open in the
// other way changes, which cuts off who uses it. It stays open until it is locked
// or the module reboots or fails; [Client.Status] shows it.
//
// Errors: those of [Client.Login]; 403 for the administrator, 404 on a module without
// storage, 406 for a given token of another disk, 409 in a fail state and for a disk that cannot be served.
func (c *Client) UnlockDisk(ctx context.Context, n int, writable bool) error {
	const op = "unlock the disk"
	if writable {
		return c.storage(ctx, op, pathUnlockRW, n, api.ScopeDisk(n, true))
	}
	return c.storage(ctx, op, pathUnlockRO, n, api.ScopeDisk(n, false), api.ScopeDisk(n, true))
}

// LockDisk puts on disk what was written to disk 0 or 1 and cuts off who uses it:
// GET /api/storage/lock, scope storage:disk<n>, local user and authenticators only. A
// disk that is locked stays so.
//
// Errors: as [Client.UnlockDisk]; a 409 can also mean that the disk is locked, and the
// module could not record it or not keep all that was written.
func (c *Client) LockDisk(ctx context.Context, n int) error {
	return c.storage(ctx, "lock the disk", pathLock, n, api.ScopeDisk(n, false), api.ScopeDisk(n, true))
}

func (c *Client) storage(ctx context.Context, op, path string, n int, scopes ...string) error {
	if n != 0 && n != 1 {
		return badArgument(op, "there are disks 0 and 1, and no disk %d", n)
	}
	r := call{op: op, method: http.MethodGet, path: path}
	resp, err := c.authorised(ctx, r, c.heldScope(ctx, scopes...))
	return c.read(resp, err, c.base, r, nil)
}
