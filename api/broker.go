package api

// The bodies of a broker: check-in ([Check], [Checked]), pairing and approval.

// BrokerSession is the answer of GET and POST /notify/session.
type BrokerSession struct {
	EPK    string `json:"epk"` // X25519, 32 bytes
	Exp    int64  `json:"exp"`
	Paired *bool  `json:"paired,omitzero"` // only for POST: is anything paired with that eid or aid
}

// BrokerSessionFor is the body of POST /notify/session; one of the two is given.
type BrokerSessionFor struct {
	EID string `json:"eid,omitzero"`
	AID string `json:"aid,omitzero"`
}

// RegisterInit is the body of POST /notify/register/init.
type RegisterInit struct {
	EPK     string `json:"epk"` // of a session for this eid
	EID     string `json:"eid"`
	Request string `json:"request"` // of POST /api/auth/ext/init
}

// RegisterStarted is the answer of POST /notify/register/init.
type RegisterStarted struct {
	RID  string `json:"rid"`
	Link string `json:"link"` // for the authenticator
}

// PairingOffer is what an authenticator is shown as a QR code.
type PairingOffer struct {
	Link     string `json:"link"`
	Hash     string `json:"hash"` // SHA-256 of the request, base64
	User     string `json:"user"`
	Email    string `json:"email"`
	Hostname string `json:"hostname"`
	K        string `json:"k,omitzero"` // 16 random bytes that the broker does not see
}

// RegisterChallenge is the answer of GET <link>.
type RegisterChallenge struct {
	Request string `json:"request"`
}

// RegisterReply is the body of POST <link>.
type RegisterReply struct {
	Reply string `json:"reply"` // eJWT of PairingReplyClaims
	FID   string `json:"fid"`   // push token, or any text
	MAC   string `json:"mac"`   // HMAC-SHA256(X25519(aid, epk), reply ‖ fid)
	AID   string `json:"aid"`
}

// RegisterPID is the answer of POST <link>.
type RegisterPID struct {
	PID string `json:"pid"`
}

// RegisterChecked is the answer of GET /notify/register/check/<rid>.
type RegisterChecked struct {
	PID   string `json:"pid"`
	Reply string `json:"reply"`
}

// RegisterFinal is the body of POST /notify/register/finalise/<rid>.
type RegisterFinal struct {
	KID  string `json:"kid"`
	Code string `json:"code"`
}

// EventNew is the body of POST /notify/event/new.
type EventNew struct {
	AuthReq string `json:"authreq"`
	EPK     string `json:"epk"` // of an anonymous session
}

// EventStarted is the answer of POST /notify/event/new.
type EventStarted struct {
	EventID string `json:"eventid"`
	SentCnt int    `json:"sentcnt"` // authenticators that can see it
}

// EventChecked is the answer of GET /notify/event/check/<eventid>.
type EventChecked struct {
	AuthReply string `json:"authreply,omitzero"`
	Deny      bool   `json:"deny,omitzero"`
}

// EventPIDs is the body of POST /notify/event/data/allbypid.
type EventPIDs struct {
	PID []string `json:"pid"`
}

// EventList is its answer: for each event the pids it is for.
type EventList struct {
	EventID map[string][]string `json:"eventid"`
}

// EventData is the answer of GET /notify/event/data/<eventid>/<pidx>.
type EventData struct {
	JTI   string `json:"jti"`
	Scope string `json:"scope"` // sealed
	EPK   string `json:"epk"`
	Exp   int64  `json:"exp"`
	From  string `json:"from,omitzero"` // sealed address of who asks, if the module says it
}

// EventAllow is the body of POST there.
type EventAllow struct {
	AuthReply string `json:"authreply"`
	MAC       string `json:"mac"` // HMAC-SHA256(X25519(aid, epk), authreply)
}

// EventGone is the body of a 410: cancelled by who asked, or, empty, handled by
// another authenticator.
type EventGone struct {
	Reason string `json:"reason,omitzero"`
}

// SubscriberProof is the body of POST /notify/subscribers/delete and, with FID,
// of POST /notify/subscribers/token.
type SubscriberProof struct {
	PID   string `json:"pid"`
	EPK   string `json:"epk,omitzero"`
	AID   string `json:"aid"`
	FID   string `json:"fid,omitzero"`
	Nonce string `json:"nonce"` // 32 bytes
	MAC   string `json:"mac"`   // HMAC-SHA256(X25519(aid, epk), nonce ‖ fid)
}

// DomainRegister is the body of POST /domain/register/<prefix>. The answer is a
// [TLSBundle], without a key when the body had a CSR.
type DomainRegister struct {
	CSR     string `json:"csr,omitzero"` // PEM, PKCS #10; without one the broker makes the key
	Genuine string `json:"genuine"`      // attestation token of the module, at most 300 s old
	IP      string `json:"ip,omitzero"`  // address the name shall have
	CName   string `json:"cname,omitzero"`
}

// DomainOrdered is the answer, with 201, of a broker whose certificates come from a
// CA that takes its time; GET /domain/register/<id> is 202 until there is one.
type DomainOrdered struct {
	ID string `json:"id"`
}

// BrokerError is the body of a broker's 401.
type BrokerError struct {
	Err string `json:"err"`
}
