package broker

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"

	"softhem/api"
	"softhem/internal/broker/brokerdb"
	"softhem/internal/session"
	"softhem/internal/suite"
)

// checkIn answers a module's check with the time and, for a module that an
// order is kept for, the order; else with the certificate it should have. A module is recognised only by who was told its
// instance id: qid is an HMAC under that.
func (b *Broker) checkIn(ctx context.Context, req api.Check) (api.Checked, error) {
	var c api.CheckClaims
	spk, err := session.OpenEJWT(b.checkin, req.Check, &c)
	if err != nil {
		return api.Checked{}, refuse(http.StatusUnauthorized, "the check does not verify")
	}
	jti, ok1 := session.Decode32(c.JTI)
	qid, ok2 := session.Decode32(c.QID)
	aud, ok3 := session.Decode32(c.Aud)
	if !ok1 || !ok2 || !ok3 || !suite.Equal(aud[:], b.checkin.Public()) {
		return api.Checked{}, refuse(http.StatusUnauthorized, "the check is not for this broker")
	}
	status := suite.HMACSHA256(qid[:], []byte("OK"))
	orders, err := b.cfg.DB.Read(ctx, kindOrder)
	if err != nil {
		return api.Checked{}, err
	}
	ordered := false
	for _, o := range orders {
		instance, err := hex.DecodeString(o.ID)
		if err == nil && suite.Equal(suite.HMACSHA256(instance, jti[:]), qid[:]) {
			ordered, status = true, suite.HMACSHA256(instance, o.Value[:1], jti[:])
			b.cfg.Logger.Warn("an order was given to a module at its check-in", "instanceid", o.ID, "order", string(o.Value[:1]))
		}
	}
	newCrt := ""
	if csn, err := api.DecodeBase64(c.CSN); err == nil && !ordered { // a module takes either
		crt, err := b.newCrt(ctx, csn)
		if err != nil {
			return api.Checked{}, err
		}
		newCrt = api.EncodeBase64(crt)
	}
	newFWS, newUIS := "", ""
	if !ordered {
		newFWS = news(b.cfg.NewFWS, c.FWS)
		if c.UIS != "" { // an EPA has no console
			newUIS = news(b.cfg.NewUIS, c.UIS)
		}
	}
	secret, err := b.checkin.Shared(spk[:])
	if err != nil {
		return api.Checked{}, err
	}
	defer clear(secret)
	checked, err := session.SignEJWT(secret, api.CheckedClaims{
		JTI: c.JTI, Iat: b.now(), Iss: b.Key(), Aud: c.Iss, Status: api.EncodeBase64(status), NewCrt: newCrt,
		NewFWS: newFWS, NewUIS: newUIS,
	})
	return api.Checked{Checked: checked}, err
}

// news is what a module is told of there is to upgrade to: nothing if it has it.
func news(announced []byte, has string) string {
	have, err := api.DecodeBase64(has)
	if announced == nil || err == nil && suite.Equal(have, announced) {
		return ""
	}
	return api.EncodeBase64(announced)
}

// Order keeps an order for the module with an instance id, a UUID or 32 hex
// digits, until it is cancelled: one of lock, wipe, report, stop, upgrade, or
// cancel. A module carries it out at its next check-in if its owner allows that.
func Order(db *brokerdb.DB, order, instanceID string) error {
	letter, ok := map[string]string{"lock": "L", "wipe": "W", "report": "R", "stop": "B", "upgrade": "U", "cancel": ""}[order]
	if !ok {
		return fmt.Errorf("there is no order %q; it is one of lock, wipe, report, stop, upgrade and cancel", order)
	}
	id := strings.ToLower(strings.ReplaceAll(instanceID, "-", ""))
	if raw, err := hex.DecodeString(id); err != nil || len(raw) != 16 {
		return fmt.Errorf("%q is no instance id; it is the UUID that hem init and hem config get tell", instanceID)
	}
	i := brokerdb.Item{Kind: kindOrder, ID: id}
	if letter != "" {
		i.Value = []byte(letter)
	}
	return db.Write(i)
}
