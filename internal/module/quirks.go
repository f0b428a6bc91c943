package module

import (
	"errors"

	"softhem/api"
)

// Quirks names the firmware whose known faults a module imitates, so that
// clients can be tried against them. Each fault is one method below, and that is
// the only place that knows it; without quirks every method leaves things as
// they are.
type Quirks string

const (
	NoQuirks    Quirks = ""
	QuirksFW122 Quirks = "fw1.2.2"
)

// Known tells whether there are such quirks.
func (q Quirks) Known() bool { return q == NoQuirks || q == QuirksFW122 }

// statusWrongMLDSA is what stands in the status line where 406 should.
const statusWrongMLDSA = 795

// ClosesConnections: a connection carries one request, and HTTP/1.1 alone.
func (q Quirks) ClosesConnections() bool { return q == QuirksFW122 }

// plainRefused is the refusal of an operation that takes TLS and came without.
func (q Quirks) plainRefused(op Op) *api.Error {
	refusal := api.ErrTLSRequired
	if q == QuirksFW122 && (op == OpKeyDelete || op == OpHMACHash) {
		refusal = api.ErrConflict
	}
	return refusal.Because("keys are managed and used over TLS only")
}

// keyDescr: KeyGet leaves it out.
func (q Quirks) keyDescr(descr []byte) []byte {
	if q == QuirksFW122 {
		return nil
	}
	return descr
}

// ecdhRawMax is how much of a longer secret the firmware returns.
const ecdhRawMax = 32

// rawSecret is what ECDH answers without a hash: the beginning of the secret
// only. What is derived or hashed is made of all of it.
func (q Quirks) rawSecret(secret []byte) []byte {
	if q == QuirksFW122 {
		return secret[:min(len(secret), ecdhRawMax)]
	}
	return secret
}

// decapsAlg is what Decapsulate calls the algorithm: the token's scope.
func (q Quirks) decapsAlg(alg, scope string) string {
	if q == QuirksFW122 {
		return scope
	}
	return alg
}

// importedMLDSA tells whether MLDSAVerify takes keys without a private part.
func (q Quirks) importedMLDSA() bool { return q != QuirksFW122 }

// mldsaUnverified is what MLDSAVerify tells its caller.
func (q Quirks) mldsaUnverified(err error) error {
	if q == QuirksFW122 && errors.Is(err, errUnfit) {
		return &api.Error{Status: statusWrongMLDSA, Reason: errUnfit.Reason}
	}
	return err
}

// clockGain is by how much a clock that a check-in set runs fast, in percent.
func (q Quirks) clockGain() int64 {
	if q == QuirksFW122 {
		return 8
	}
	return 0
}

// dropsNewCertificate: one that comes with a check-in is acknowledged, and
// neither read nor installed.
func (q Quirks) dropsNewCertificate() bool { return q == QuirksFW122 }

// hasLoader tells whether UpgradeUSBMode goes as if there were one to boot into.
func (q Quirks) hasLoader() bool { return q == QuirksFW122 }
