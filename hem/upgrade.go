package hem

import (
	"context"
	"net/http"
	"time"

	"softhem/api"
)

// An UpgradeKind is what an upgrade brings.
type UpgradeKind string

const (
	UpgradeFirmware UpgradeKind = "fw" // the module's program
	UpgradeConsole  UpgradeKind = "ui" // the files of its web console
)

func (k UpgradeKind) file() string {
	if k == UpgradeConsole {
		return "webroot.tar"
	}
	return "firmware.bin"
}

const pathUpgrade = "/api/system/upgrade/"

// maxUpgradeBytes is the longest image; the protocol's limit.
const maxUpgradeBytes = 16 << 20

// UploadUpgrade sends a signed image to the module: POST
// /api/system/upgrade/upload_fw or upload_ui, scope system:upgrade; no token on a
// fresh module. It takes the place of an earlier upload of its kind, and nothing has
// been looked at yet; see [Client.CheckUpgrade].
//
// Errors: those of [Client.Login]; 406 for an image that is no longer than a
// signature, 409 when another upload is under way or there is no space.
func (c *Client) UploadUpgrade(ctx context.Context, kind UpgradeKind, image []byte) error {
	const op = "upload the upgrade"
	if len(image) > maxUpgradeBytes {
		return badArgument(op, "the image has %d bytes, and a module takes %d", len(image), maxUpgradeBytes)
	}
	if image == nil {
		image = []byte{}
	}
	return c.upgrade(ctx, call{
		op: op, method: http.MethodPost, path: pathUpgrade + "upload_" + string(kind), freshOpen: true,
		body: image, file: kind.file(),
	}, nil, api.ScopeSystemUpgrade)
}

// CheckUpgrade has the module verify the upload of a kind, and waits until that is
// done: GET /api/system/upgrade/check_fw or check_ui, scope system:upgrade or
// system:config; no token on a fresh module.
//
// Errors: those of [Client.Login]; 404 when nothing was uploaded, 406 when the image
// is not signed by a key that the module trusts, or not what it should be.
func (c *Client) CheckUpgrade(ctx context.Context, kind UpgradeKind) error {
	r := call{op: "check the upgrade", method: http.MethodGet, path: pathUpgrade + "check_" + string(kind), freshOpen: true}
	for wait := upgradePoll; ; wait = min(2*wait, upgradePollMax) {
		status := 0
		if err := c.upgrade(ctx, r, &status, api.ScopeSystemUpgrade, api.ScopeSystemConfig); err != nil || status == http.StatusOK {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return r.fail(ctx.Err())
		}
	}
}

const (
	upgradePoll    = 20 * time.Millisecond
	upgradePollMax = time.Second
)

// InstallUpgrade puts a verified upload to use: GET /api/system/upgrade/install_fw
// or install_ui, scope system:upgrade or system:config; no token on a fresh module.
// A console is served at once. After firmware the module boots anew, so all
// tokens end, and the next start of its process runs it.
//
// Errors: those of [Client.Login]; 406 when nothing is verified, 409 when an upload
// or a check is under way, or the module keeps its state in memory.
func (c *Client) InstallUpgrade(ctx context.Context, kind UpgradeKind) error {
	r := call{op: "install the upgrade", method: http.MethodGet, path: pathUpgrade + "install_" + string(kind), freshOpen: true}
	return c.upgrade(ctx, r, nil, api.ScopeSystemUpgrade, api.ScopeSystemConfig)
}

// upgrade sends a call whose answer is its status.
func (c *Client) upgrade(ctx context.Context, r call, status *int, scopes ...string) error {
	resp, err := c.authorised(ctx, r, c.heldScope(ctx, scopes...))
	if err != nil {
		return err
	}
	resp.Body.Close()
	if status != nil {
		*status = resp.StatusCode
	}
	return nil
}
