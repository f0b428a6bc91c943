package module

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/upgrade"
)

// upgrades is what a module does with its folder of upgrades.
type upgrades struct {
	*upgrade.Folder
	checks   sync.WaitGroup
	upgraded atomic.Bool // the next status has to say so
}

// upgradeKind is the kind of image an operation is about.
func upgradeKind(op Op) upgrade.Kind {
	switch op {
	case OpUpgradeUploadUI, OpUpgradeCheckUI, OpUpgradeInstallUI:
		return upgrade.Console
	}
	return upgrade.Firmware
}

// An UpgradeUpload is an image on its way in.
type UpgradeUpload struct {
	Name string // of the file, as Content-Disposition has it; empty: none
	Size int64  // bytes
	Body io.Reader
}

// fits tells whether a file of this name is of a kind.
func (u UpgradeUpload) fits(k upgrade.Kind) bool {
	if k == upgrade.Console {
		return u.Name == "webroot.tar"
	}
	return u.Name == "firmware.bin" || u.Name == "firmware.hex"
}

// UpgradeUpload takes an image in. It is on disk when this returns, and has not been
// looked at.
func (m *Module) UpgradeUpload(ctx context.Context, p *Pass, u UpgradeUpload) error {
	k := upgradeKind(p.op)
	if p.op != OpUpgradeUploadFW {
		p.must(OpUpgradeUploadUI)
	}
	if !u.fits(k) {
		return api.ErrTooLarge.Because("Content-Disposition does not name the file of such an upload")
	}
	received, err := m.upgrades.Receive(k, u.Size, u.Body)
	if err != nil {
		return m.upgradeRefused(ctx, "an upload was not taken", err)
	}
	defer received.Close()
	if err := m.Arrived(ctx, p); err != nil {
		return err
	}
	return m.upgradeStep(ctx, func() (*upgrade.Change, error) { return received.Keep(p.who()) })
}

// UpgradeCheck tells how far the check of an upload is, and begins it if nobody did.
func (m *Module) UpgradeCheck(ctx context.Context, p *Pass) (upgrade.Progress, error) {
	if p.op != OpUpgradeCheckFW {
		p.must(OpUpgradeCheckUI)
	}
	progress, check, err := m.upgrades.Check(upgradeKind(p.op))
	if err != nil {
		return 0, m.upgradeRefused(ctx, "", err)
	}
	if check != nil {
		who, ctx := p.who(), context.WithoutCancel(ctx)
		m.upgrades.checks.Go(func() { m.runCheck(ctx, check, who) })
	}
	return progress, nil
}

// runCheck checks an upload. What is not on record is not verified.
func (m *Module) runCheck(ctx context.Context, c *upgrade.Check, who string) {
	err := c.Run()
	if err != nil {
		m.log.WarnContext(ctx, "an upgrade does not verify", "image", c.ID, "cause", err)
	}
	rec := upgradeRecord(c.Report(err == nil, who))
	err = errors.Join(err, m.append(ctx, rec))
	c.End(err == nil)
}

// UpgradeInstall puts a verified upload to use. Firmware is run by the next start of
// the process; the module boots anew at once, as devices do.
func (m *Module) UpgradeInstall(ctx context.Context, p *Pass) error {
	if p.op != OpUpgradeInstallFW {
		p.must(OpUpgradeInstallUI)
	}
	k := upgradeKind(p.op)
	install := func() error {
		return m.upgradeStep(ctx, func() (*upgrade.Change, error) { return m.upgrades.Install(k, p.who()) })
	}
	if k == upgrade.Console {
		return install()
	}
	if err := m.rebootAfter(ctx, p, install); err != nil {
		return err
	}
	m.log.WarnContext(ctx, "an upgrade was installed; start the process again to run it", "who", p.who())
	return nil
}

// UpgradeUSBMode boots into a loader, which there is none of.
func (m *Module) UpgradeUSBMode(ctx context.Context, p *Pass) error {
	p.must(OpUpgradeUSBMode)
	if !m.cfg.Quirks.hasLoader() {
		return api.ErrNotAcceptable.Because("there is no loader to boot into")
	}
	return m.rebootAfter(ctx, p, func() error {
		return m.append(ctx, audit.Record{Type: audit.Upgrade, Who: p.who(), Arg: []byte("usbmode")})
	})
}

// FirmwareProven is called when the process is ready. If it was started from firmware
// on trial, that is kept, and the next status says so.
func (m *Module) FirmwareProven(ctx context.Context) error {
	return m.upgradeStep(ctx, func() (*upgrade.Change, error) {
		c, err := m.upgrades.Proven()
		m.upgrades.upgraded.Store(c != nil)
		return c, err
	})
}

func upgradeRecord(r upgrade.Report) audit.Record {
	rec := audit.Record{Type: audit.Upgrade, Who: r.Who, Arg: []byte(r.Text())}
	if !r.OK {
		rec.Result = audit.Failed
	}
	return rec
}

// upgradeStep makes a change and records it. A crash in between leaves the change
// and a report of it, from which the next boot makes the record. What cannot be
// recorded is taken back.
func (m *Module) upgradeStep(ctx context.Context, change func() (*upgrade.Change, error)) error {
	c, err := change()
	if err != nil {
		return m.upgradeRefused(ctx, "an upgrade was not taken", err)
	}
	if c == nil {
		return nil
	}
	if err := m.append(ctx, upgradeRecord(c.Report())); err != nil {
		if undo := c.Undo(); undo != nil {
			m.log.ErrorContext(ctx, "an upgrade that cannot be recorded cannot be taken back either", "error", undo)
		}
		return err
	}
	if err := c.Recorded(); err != nil {
		m.log.WarnContext(ctx, "the folder of upgrades cannot be tidied; a record may be written twice", "error", err)
	}
	return nil
}

// upgradeRefused is what a caller is told. Why an image is refused is for the
// operator.
func (m *Module) upgradeRefused(ctx context.Context, what string, err error) error {
	switch {
	case errors.Is(err, upgrade.ErrNothing):
		return api.ErrNotFound.Because("nothing was uploaded")
	case errors.Is(err, upgrade.ErrShort):
		return api.ErrNotAcceptable.Because("the image is too short")
	case errors.Is(err, upgrade.ErrImage):
		return api.ErrNotAcceptable.Because("the image does not verify")
	case errors.Is(err, upgrade.ErrNotVerified):
		return api.ErrNotAcceptable.Because("nothing is verified")
	case errors.Is(err, upgrade.ErrBusy), errors.Is(err, upgrade.ErrMemory), errors.Is(err, upgrade.ErrClosed):
		return api.ErrConflict.Because(err.Error())
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		m.log.ErrorContext(ctx, what, "error", err)
		return api.ErrConflict.Because("no space left on the module")
	}
	return m.refusal(err)
}

// recordUpgrades records what happened to firmware and console while no log was open,
// and what an earlier process had no time to.
func (m *Module) recordUpgrades(ctx context.Context) {
	reports := m.upgrades.Reports()
	if len(reports) == 0 {
		return
	}
	var recs []audit.Record
	for _, r := range reports {
		recs = append(recs, upgradeRecord(r))
	}
	err := m.append(ctx, recs...)
	if err == nil {
		err = m.upgrades.Reported(reports)
	}
	if err != nil {
		m.log.WarnContext(ctx, "upgrades are not on record yet; the next start tries again", "error", err)
	}
}
