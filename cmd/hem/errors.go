package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/envelope"
)

// What hem exits with; scripts rely on these.
const (
	exitDone            = 0
	exitFailed          = 1
	exitUsage           = 2
	exitUnauthenticated = 3
	exitForbidden       = 4
	exitNotFound        = 5
	exitState           = 6
	exitUnreachable     = 7
)

// A usageError is a command line that cannot be carried out.
type usageError struct {
	command string // path of the command
	text    string // never what may be a secret
}

func (e *usageError) Error() string { return e.text }

// A clientError is a failure in a talk with a module, with what the way out
// depends on.
type clientError struct {
	err   error
	role  string // user or master
	scope string // what the command needs a token for; empty when it needs none
	token bool   // a token was given, so no login was tried

	lookup bool // it was about finding out which key is meant
}

func (e *clientError) Error() string { return e.err.Error() }
func (e *clientError) Unwrap() error { return e.err }

func exitCode(err error) int {
	if err == nil {
		return exitDone
	}
	if _, ok := errors.AsType[*usageError](err); ok || errors.Is(err, hem.ErrArgument) {
		return exitUsage
	}
	if name, ok := errors.AsType[*nameError](err); ok {
		return name.code
	}
	if code, ok := remoteExit(err); ok {
		return code
	}
	if _, ok := errors.AsType[*envelope.OtherKeyError](err); ok {
		return exitNotFound
	}
	if refused, ok := errors.AsType[*api.Error](err); ok {
		switch refused.Status {
		case http.StatusUnauthorized:
			return exitUnauthenticated
		case http.StatusForbidden:
			if clockUnset(refused) {
				return exitState
			}
			return exitForbidden
		case http.StatusNotFound, http.StatusNotAcceptable:
			return exitNotFound
		case http.StatusConflict:
			return exitState
		}
		return exitFailed
	}
	if _, ok := errors.AsType[*hem.UnreachableError](err); ok {
		return exitUnreachable
	}
	return exitFailed
}

// clockUnset tells the 403 that is no matter of rights.
func clockUnset(e *api.Error) bool {
	return e.Status == http.StatusForbidden && strings.Contains(strings.ToLower(e.Reason), "clock not set")
}

// explain says in one sentence what went wrong, and what to do next.
func explain(err error) string {
	if usage, ok := errors.AsType[*usageError](err); ok {
		return fmt.Sprintf("%s; see: %s --help", usage.text, usage.command)
	}
	if errors.Is(err, hem.ErrArgument) {
		text := err.Error()
		if _, what, ok := strings.Cut(text, hem.ErrArgument.Error()+": "); ok {
			text = what
		}
		return text + "; see: hem --help"
	}
	var (
		where, _   = errors.AsType[*clientError](err)
		op, isOp   = errors.AsType[*hem.OpError](err)
		refused, r = errors.AsType[*api.Error](err)
	)
	if where == nil {
		where = &clientError{}
	}
	if other, ok := errors.AsType[*envelope.OtherKeyError](err); ok && len(other.KIDs) > 0 {
		return fmt.Sprintf("%v, and not for this one; name that key", other)
	}
	if partial, ok := errors.AsType[*partialError](err); ok {
		return partial.Error()
	}
	if errors.Is(err, hem.ErrVerification) {
		return "not verified: it is wrong for this data, key and algorithm, or the module has no such key; the data is not to be trusted"
	}
	if name, ok := errors.AsType[*domainError](err); ok {
		return name.Error()
	}
	if isOp && strings.HasSuffix(op.Op, atBroker) && (r || errors.Is(err, hem.ErrProtocol)) {
		return explainBroker(op, refused)
	}
	if isOp && r {
		return explainRefusal(where, op.Op, refused)
	}
	if lost, ok := errors.AsType[*hem.UnreachableError](err); ok {
		text := fmt.Sprintf("could not %s: %s cannot be reached: %s", lost.Op, lost.URL, lost.Hint)
		if strings.Contains(lost.Hint, "ca.pem") {
			text += ": --cacert FILE"
		}
		return text
	}
	switch {
	case errors.Is(err, context.Canceled):
		return "interrupted"
	case errors.Is(err, hem.ErrProtocol), errors.Is(err, hem.ErrOtherModule):
		return fmt.Sprintf("%v; check the address given with --url or HEM_URL", err)
	}
	return err.Error()
}

// atBroker ends the name of an operation that a broker answered.
const atBroker = ", at the broker"

// explainBroker puts an answer of a broker into words; refused is nil for one that
// makes no sense.
func explainBroker(op *hem.OpError, refused *api.Error) string {
	what := "could not " + strings.TrimSuffix(op.Op, atBroker)
	if refused == nil {
		return fmt.Sprintf("%s: what answered is no broker (%v); check its address", what, op.Err)
	}
	var why string
	switch {
	case refused.Status < 400:
		why = "the broker's address leads elsewhere, where it is not followed; give the one it is at"
	case refused.Status == http.StatusUnauthorized:
		why = "the broker does not believe this; if the module's clock is wrong, run: hem checkin --broker URL"
	case refused.Status == http.StatusNotFound:
		why = "the broker knows nothing of it: it has ended, or the address is another server's"
	case refused.Status == http.StatusGone:
		why = "it was answered already, or taken back"
	case refused.Status == http.StatusTooManyRequests:
		why = "the broker is asked too often from here; wait a while and try again"
	case refused.Status >= 500:
		why = fmt.Sprintf("the broker failed, with %d; its operator's log says why", refused.Status)
	default:
		why = fmt.Sprintf("the broker does not take this, with %d; check its address", refused.Status)
	}
	if refused.Status >= 400 && refused.Reason != "" {
		why += " (" + refused.Reason + ")"
	}
	return what + ": " + why
}

// explainRefusal puts an answer of the module into words.
func explainRefusal(where *clientError, op string, refused *api.Error) string {
	head, next := "unexpected answer", "check the address given with --url or HEM_URL"
	switch refused.Status {
	case http.StatusUnauthorized:
		head, next = "not authenticated", explain401(where, op)
	case http.StatusForbidden:
		head, next = "not allowed", "look at the scope and role of the token: hem token inspect"
		if where.lookup {
			next = "finding a key by its label, or by a part of its kid, takes a token for keymgmt:list; name it by its full kid"
		}
		if where.role == roleMaster && strings.HasPrefix(where.scope, "keymgmt:") {
			next = "keys are the user's, not the master's: leave --role master out"
		}
		if clockUnset(refused) {
			head, next = "the module's clock is not set", "run: hem checkin --broker URL"
		}
	case http.StatusNotFound:
		head, next = "not found", "this module has no such thing; see what it is: hem version"
		switch op {
		case "read a log":
			next = "see which there are: hem log list"
		case "check the upgrade":
			next = "upload one first, and say whether it is a console: hem upgrade --help"
		}
	case http.StatusNotAcceptable:
		head, next = "cannot be done", explain406(op)
		switch op {
		case "create a key", "import a key", "derive a key":
			if refused.Reason != "" && refused.Reason != constant406 {
				next = "see: hem key list" // the module has said what it is
			}
		}
	case http.StatusConflict:
		head, next = "wrong state", "see: hem status"
		switch {
		case strings.Contains(refused.Reason, "not initialised"):
			next = "personalise the module first: hem init"
		case strings.Contains(refused.Reason, "fail state 08"):
			next = "what it has stored is damaged, its operator's log says what; on its host, see: hem repair --help"
		}
	case http.StatusPreconditionFailed:
		head, next = "not allowed from here", "ask for the module by a name it knows"
	case http.StatusTeapot:
		head, next = "TLS is required", "use an https:// address"
	case http.StatusTooManyRequests:
		head, next = "too many logins", "wait a while and try again"
		if refused.RetryAfter > 0 {
			next = fmt.Sprintf("try again in %v", refused.RetryAfter)
		}
	case http.StatusBadRequest:
		head, next = "the module does not take this", "check what was given"
	case http.StatusInternalServerError:
		head, next = "the module failed", "its operator's log says why"
	default:
		head = fmt.Sprintf("unexpected answer %d", refused.Status)
	}
	what := "could not " + op
	if refused.Reason != "" {
		what += " (" + refused.Reason + ")"
	}
	return head + ": " + what + "; " + next
}

func explain401(where *clientError, op string) string {
	switch {
	case op == "log in":
		other := "master"
		if where.role == "master" {
			other = "user"
		}
		said := fmt.Sprintf("the passphrase is not the %s's: try again, or as the other persona: --role %s", where.role, other)
		if where.role == "user" {
			said += "; hem status tells whether the user is locked out"
		}
		return said
	case op == "check in":
		return "the module does not believe this broker: its key must be among the module's trusted backends"
	case where.scope == "":
		return "try again"
	case op == "change the user's key":
		return "it took too long, or the token has ended; try again"
	case where.token:
		return fmt.Sprintf("the token has ended, died at a reboot or is of another module; run: hem login --scope %s", where.scope)
	}
	return fmt.Sprintf("run: hem login --scope %s", where.scope)
}

// constant406 is the reason a module gives wherever another would tell too much.
const constant406 = "refused"

func explain406(op string) string {
	switch op {
	case "personalise":
		return "a module is personalised once, and now belongs to who did it; log in: hem login --scope system:config"
	case "read a log":
		return "the log being written can be read after a reboot: hem reboot"
	case "sign":
		return "there is no such key, it is not for signatures (made without --mode ExDSA), the algorithm does not fit, or only its public half is here; see: hem key show KEY"
	case "encrypt", "decrypt", "wrap a key", "unwrap a key":
		return "there is no such key, it does not fit, or the data is not what was encrypted with it; the module does not tell which"
	case "compute a MAC", "compute a shared secret", "encapsulate", "decapsulate", "derive a key":
		return "there is no such key or peer, or it is of a type or length that does not fit; see: hem key types"
	case "create a key", "import a key":
		return "the module is full, or has this key already"
	case "read a key", "update a key", "delete a key":
		return "there is no such key, or the module needs it as it is; see: hem key list"
	case "change the configuration":
		return "a certificate has to be for the module's TLS key (hem config csr) or come with its --key, and a module that runs on its operator's files takes none"
	case "wipe the module":
		return "it is as it was; its operator's log says why"
	case "check the upgrade":
		return "it has to be signed (hem upgrade sign) by a key that the module was started with (hem serve --upgrade-key), and be what it is uploaded as; the module's operator's log says which it is"
	case "install the upgrade":
		return "have the module verify one first: hem upgrade check"
	case "check in":
		return "name a backend to trust when starting the module: hem serve --trusted-backend KEY"
	}
	return "see: hem status"
}
