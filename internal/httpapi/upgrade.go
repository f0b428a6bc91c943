package httpapi

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"

	"softhem/internal/module"
	"softhem/internal/upgrade"
)

// upgradeRoutes are those of firmware and console.
func upgradeRoutes() []route {
	return []route{
		{method: "POST", ppa: true, path: "/api/system/upgrade/upload_fw", op: module.OpUpgradeUploadFW, maxBody: upgrade.MaxImage, serve: (*call).upload},
		{method: "POST", ppa: true, path: "/api/system/upgrade/upload_ui", op: module.OpUpgradeUploadUI, maxBody: upgrade.MaxImage, serve: (*call).upload},
		{method: "GET", ppa: true, path: "/api/system/upgrade/check_fw", op: module.OpUpgradeCheckFW, serve: (*call).upgradeCheck},
		{method: "GET", ppa: true, path: "/api/system/upgrade/check_ui", op: module.OpUpgradeCheckUI, serve: (*call).upgradeCheck},
		{method: "GET", ppa: true, path: "/api/system/upgrade/install_fw", op: module.OpUpgradeInstallFW, closes: true, serve: func(c *call) (any, error) {
			return nothing{}, c.module.UpgradeInstall(c.ctx, c.pass)
		}},
		{method: "GET", ppa: true, path: "/api/system/upgrade/install_ui", op: module.OpUpgradeInstallUI, serve: func(c *call) (any, error) {
			return nil, c.module.UpgradeInstall(c.ctx, c.pass)
		}},
		{method: "GET", ppa: true, path: "/api/system/upgrade/usbmode", op: module.OpUpgradeUSBMode, closes: true, serve: func(c *call) (any, error) {
			return nothing{}, c.module.UpgradeUSBMode(c.ctx, c.pass)
		}},
	}
}

// upload takes a raw body, which goes to disk as it comes.
func (c *call) upload() (any, error) {
	start := time.Now()
	rc := http.NewResponseController(c.w)
	body := &pieces{call: c, rc: rc, end: start.Add(uploadPatience)}
	err := c.module.UpgradeUpload(c.ctx, c.pass, module.UpgradeUpload{Name: uploadName(c.r.Header), Size: c.r.ContentLength, Body: body})
	c.bodyEnds(restPatience)
	_ = rc.SetWriteDeadline(time.Now().Add(streamPatience)) // the server's own began with the request
	return nil, err
}

// uploadPatience is how long an upload may take in all; each piece of it may take
// streamPatience.
const uploadPatience = 5 * time.Minute

// restPatience is how long is waited for the rest of an upload that is not taken, so
// that its sender reads the answer.
const restPatience = 5 * time.Second

// pieces is the body of an upload. Who sends too slowly is cut off.
type pieces struct {
	*call
	rc  *http.ResponseController
	end time.Time
}

func (p *pieces) Read(b []byte) (int, error) {
	limit := time.Now().Add(streamPatience)
	if limit.After(p.end) {
		limit = p.end
	}
	_ = p.rc.SetReadDeadline(limit)
	_ = p.rc.SetWriteDeadline(limit.Add(streamPatience)) // that of a stream of HTTP/2 would end the upload
	n, err := p.r.Body.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		p.cutOff = true
		p.w.Header().Set("Connection", "close")
	}
	if err == io.ErrUnexpectedEOF {
		err = io.EOF // the length tells
	}
	return n, err
}

// uploadName is the file name of an upload, as
//
//	Content-Disposition: attachment; filename="firmware.bin"
//
// has it (RFC 6266); empty if there is none, or more than one such header.
func uploadName(header http.Header) string {
	values := header.Values("Content-Disposition")
	if len(values) != 1 {
		return ""
	}
	disposition, params, err := mime.ParseMediaType(values[0])
	if err != nil || !strings.EqualFold(disposition, "attachment") {
		return ""
	}
	return params["filename"]
}

// bare is an answer that is nothing but its status.
type bare int

func (c *call) upgradeCheck() (any, error) {
	progress, err := c.module.UpgradeCheck(c.ctx, c.pass)
	if err != nil {
		return nil, err
	}
	switch progress {
	case upgrade.Started:
		return bare(http.StatusCreated), nil
	case upgrade.Running:
		return bare(http.StatusAccepted), nil
	}
	return nil, nil
}
