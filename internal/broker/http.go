package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"softhem/api"
)

const (
	pathChallenge = "/notify/register/challenge/"
	maxBody       = 64 << 10         // bytes of a request
	maxWait       = 30 * time.Second // of ?wait=
)

// A refusal is an error with what the caller is told.
type refusal struct {
	status int
	body   any // JSON; nil: empty
}

func (r *refusal) Error() string { return fmt.Sprintf("%d %v", r.status, r.body) }

// refuse makes a refusal; a 401 and a 400 say why.
func refuse(status int, why string) error {
	if why == "" {
		return &refusal{status, nil}
	}
	return &refusal{status, api.BrokerError{Err: why}}
}

// pendingAnswer is 202: nothing yet.
type pendingAnswer struct{}

// plainText is an answer that is not JSON.
type plainText string

// An exchange is one request on its way.
type exchange struct {
	*Broker
	r *http.Request
}

func (x exchange) base() string {
	if x.cfg.PublicURL != "" {
		return x.cfg.PublicURL
	}
	scheme := "http"
	if x.r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + x.r.Host
}

// wait is how long the caller is willing to wait.
func (x exchange) wait() time.Duration {
	seconds, err := strconv.ParseUint(x.r.URL.Query().Get("wait"), 10, 16)
	if err != nil {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, maxWait)
}

// pid is the pairing of a path, in base64 as it is kept.
func (x exchange) pid() (string, error) {
	raw, err := api.DecodeBase64(x.r.PathValue("pid"))
	if err != nil || len(raw) != api.PairingIDBytes {
		return "", refuse(http.StatusNotFound, "")
	}
	pid := api.EncodeBase64(raw)
	if !x.limits.pid.allow(pid) {
		return "", refuse(http.StatusTooManyRequests, "")
	}
	return pid, nil
}

// pids are the pairings that a list is asked for, each once.
func (x exchange) pids(texts []string) ([]string, error) {
	if len(texts) > api.MaxExtWaiting {
		return nil, refuse(http.StatusBadRequest, "too many pids")
	}
	pids := make([]string, 0, len(texts))
	for _, text := range texts {
		raw, err := api.DecodeBase64(text)
		if err != nil || len(raw) != api.PairingIDBytes {
			return nil, refuse(http.StatusBadRequest, "a pid is not 32 bytes of base64")
		}
		pid := api.EncodeBase64(raw)
		if slices.Contains(pids, pid) {
			continue
		}
		if !x.limits.pid.allow(pid) {
			return nil, refuse(http.StatusTooManyRequests, "")
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

func read[T any](x exchange) (v T, err error) {
	body, err := io.ReadAll(http.MaxBytesReader(nil, x.r.Body, maxBody))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return v, refuse(http.StatusRequestEntityTooLarge, "")
		}
		return v, refuse(http.StatusBadRequest, "the body ended early")
	}
	if json.Unmarshal(body, &v) != nil {
		return v, refuse(http.StatusBadRequest, "the body is not the JSON object this takes")
	}
	return v, nil
}

// with reads the body and hands it on.
func with[T, Ans any](x exchange, do func(T) (Ans, error)) (any, error) {
	req, err := read[T](x)
	if err != nil {
		return nil, err
	}
	return do(req)
}

func pendingOr[T any](answer T, pending bool, err error) (any, error) {
	if err == nil && pending {
		return pendingAnswer{}, nil
	}
	return answer, err
}

// done is an answer without a body.
func done(err error) (any, error) { return nil, err }

func routes() map[string]func(exchange) (any, error) {
	return map[string]func(exchange) (any, error){
		"POST /checkin": func(x exchange) (any, error) {
			return with(x, func(req api.Check) (api.Checked, error) { return x.checkIn(x.r.Context(), req) })
		},
		"GET /domain/check/{prefix}": func(x exchange) (any, error) {
			return done(x.domainCheck(x.r.Context(), x.r.PathValue("prefix")))
		},
		"GET /domain/register/{id}": func(x exchange) (any, error) {
			return pendingOr(x.issueCheck(x.r.PathValue("id")))
		},
		"GET /.well-known/acme-challenge/{token}": func(x exchange) (any, error) {
			if answer, ok := x.acme.challenge(x.r.PathValue("token")); ok {
				return plainText(answer), nil
			}
			return nil, refuse(http.StatusNotFound, "")
		},
		"POST /domain/register/{prefix}":           exchange.register,
		"POST /domain/register/{prefix}/{authkey}": exchange.register,

		"GET /notify/session":  func(x exchange) (any, error) { return x.session(anonymous), nil },
		"POST /notify/session": func(x exchange) (any, error) { return with(x, x.sessionFor) },
		"POST /notify/register/init": func(x exchange) (any, error) {
			return with(x, func(req api.RegisterInit) (api.RegisterStarted, error) { return x.registerInit(req, x.base()) })
		},
		"GET " + pathChallenge + "{rid}": func(x exchange) (any, error) { return x.registerChallenge(x.r.PathValue("rid")) },
		"POST " + pathChallenge + "{rid}": func(x exchange) (any, error) {
			return with(x, func(req api.RegisterReply) (api.RegisterPID, error) {
				return x.registerReply(x.r.PathValue("rid"), req)
			})
		},
		"DELETE " + pathChallenge + "{rid}": func(x exchange) (any, error) { return done(x.registerRefuse(x.r.PathValue("rid"))) },
		"GET /notify/register/check/{rid}": func(x exchange) (any, error) {
			return pendingOr(x.registerCheck(x.r.Context(), x.r.PathValue("rid"), x.wait()))
		},
		"POST /notify/register/finalise/{rid}": func(x exchange) (any, error) {
			return with(x, func(req api.RegisterFinal) (any, error) { return done(x.registerFinal(x.r.PathValue("rid"), req)) })
		},
		"POST /notify/event/new": func(x exchange) (any, error) { return with(x, x.eventNew) },
		"GET /notify/event/check/{id}": func(x exchange) (any, error) {
			return pendingOr(x.eventCheck(x.r.Context(), x.r.PathValue("id"), x.wait()))
		},
		"DELETE /notify/event/{id}": func(x exchange) (any, error) { return done(x.eventCancel(x.r.PathValue("id"))) },
		"POST /notify/event/data/allbypid": func(x exchange) (any, error) {
			return with(x, func(req api.EventPIDs) (api.EventList, error) {
				pids, err := x.pids(req.PID)
				if err != nil {
					return api.EventList{}, err
				}
				return x.eventList(x.r.Context(), pids, x.wait())
			})
		},
		"GET /notify/event/stream": func(x exchange) (any, error) {
			pids, err := x.pids(x.r.URL.Query()["pid"])
			if err == nil && len(pids) == 0 {
				err = refuse(http.StatusBadRequest, "a pid is wanted: ?pid=")
			}
			return stream{pids}, err
		},
		"GET /notify/event/data/{id}/{pid}": func(x exchange) (any, error) {
			pid, err := x.pid()
			if err != nil {
				return nil, err
			}
			return x.eventData(x.r.PathValue("id"), pid)
		},
		"POST /notify/event/data/{id}/{pid}": func(x exchange) (any, error) {
			pid, err := x.pid()
			if err != nil {
				return nil, err
			}
			return with(x, func(req api.EventAllow) (any, error) { return done(x.eventAllow(x.r.PathValue("id"), pid, req)) })
		},
		"DELETE /notify/event/data/{id}/{pid}": func(x exchange) (any, error) {
			pid, err := x.pid()
			if err != nil {
				return nil, err
			}
			return done(x.eventDeny(x.r.PathValue("id"), pid))
		},
		"POST /notify/subscribers/delete": func(x exchange) (any, error) {
			return with(x, func(req api.SubscriberProof) (any, error) {
				req.FID = "" // the MAC is over the nonce alone
				return done(x.unsubscribe(req))
			})
		},
		"POST /notify/subscribers/token": func(x exchange) (any, error) {
			return with(x, func(req api.SubscriberProof) (any, error) { return done(x.newToken(req)) })
		},
	}
}

func (x exchange) register() (any, error) {
	return with(x, func(req api.DomainRegister) (any, error) {
		return x.domainRegister(x.r.Context(), x.r.PathValue("prefix"), x.r.PathValue("authkey"), req)
	})
}

// Handler serves the broker.
func (b *Broker) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, serve := range routes() {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			answer, err := serve(exchange{b, r})
			b.answer(w, r, answer, err)
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		// Nothing here goes by cookies, so any page may ask what anybody may.
		h.Set("Access-Control-Allow-Origin", "*")
		if r.Method == http.MethodOptions {
			h.Set("Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS")
			h.Set("Access-Control-Allow-Headers", "Content-Type, Cache-Control, Pragma, Expires")
			h.Set("Access-Control-Max-Age", "86400")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		if who, ok := caller(r.RemoteAddr); ok && !b.limits.address.allow(who) {
			h.Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		if _, pattern := mux.Handler(r); pattern == "" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// caller is what counts as one address: an IPv4 address or an IPv6 /64.
func caller(remote string) (string, bool) {
	peer, err := netip.ParseAddrPort(remote)
	if err != nil {
		return "", false
	}
	addr, bits := peer.Addr().Unmap().WithZone(""), 32
	if addr.Is6() {
		bits = 64
	}
	prefix, err := addr.Prefix(bits)
	return prefix.String(), err == nil
}

// answer is the one place that writes answers.
func (b *Broker) answer(w http.ResponseWriter, r *http.Request, answer any, err error) {
	status, body := http.StatusOK, answer
	told, ok := errors.AsType[*refusal](err)
	switch {
	case ok:
		status, body = told.status, told.body
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		panic(http.ErrAbortHandler) // nobody waits for it any more
	case err != nil:
		b.cfg.Logger.Error("a request failed", "method", r.Method, "path", r.Pattern, "error", err)
		status, body = http.StatusInternalServerError, nil
	}
	if _, ok := body.(pendingAnswer); ok {
		status, body = http.StatusAccepted, nil
	}
	switch one := body.(type) {
	case stream:
		one.serve(b, w, r)
		return
	case plainText:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, string(one)) // the caller may have gone
		return
	case api.DomainOrdered:
		status = http.StatusCreated
	}
	if status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	if body == nil {
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(status)
		return
	}
	raw, err := json.Marshal(body)
	if err != nil {
		b.cfg.Logger.Error("an answer does not encode", "error", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	w.WriteHeader(status)
	_, _ = w.Write(raw) // the caller may have gone
}
