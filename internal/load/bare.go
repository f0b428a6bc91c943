package load

import (
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"strconv"

	"softhem/api"
	"softhem/internal/suite"
)

// The ceiling: what a program could serve at most that is made of net/http,
// crypto/tls and encoding/json. It decodes the same requests, does the same
// primitive with a key it holds open, and encodes the same answers. It has no
// tokens, checks nothing and records nothing.

// bareCT is where the ceiling hands out a ciphertext for its own ML-KEM key.
const bareCT = "/ct"

// ServeBare serves the ceiling on l until that is closed.
func ServeBare(l net.Listener, h http.Handler, certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) error {
	srv := &http.Server{Handler: h, TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: certificate}}
	return srv.ServeTLS(l, "", "")
}

// BareHandler makes the ceiling's handlers, one for each path of Cases.
func BareHandler() (*http.ServeMux, error) {
	mux := http.NewServeMux()
	keys := make(map[api.KeyType]*suite.Key)
	for _, c := range Cases() {
		a, _ := suite.AlgorithmOf(c.Type)
		k, err := a.Open(a.NewMaterial())
		if err != nil {
			return nil, err
		}
		keys[c.Type] = k
	}
	gcm, _ := suite.CipherAlgOf("AES256-GCM")
	_, ct, err := keys[api.MLKEM768].Encapsulate()
	if err != nil {
		return nil, err
	}
	mux.HandleFunc("GET "+bareCT, func(w http.ResponseWriter, _ *http.Request) {
		reply(w, api.DecapsRequest{CT: api.EncodeBase64(ct)})
	})
	mux.HandleFunc("POST "+signPath, bare(func(req api.SignRequest) (any, error) {
		k := keys[api.Ed25519]
		if req.Alg == api.SHA256WithECDSA {
			k = keys[api.SECP256R1]
		}
		alg, _ := suite.SignatureAlgOf(req.Alg)
		msg, err := api.DecodeBase64(req.Msg)
		if err != nil {
			return nil, err
		}
		sig, err := k.Sign(alg, msg, nil)
		return api.SignAnswer{Sign: api.EncodeBase64(sig)}, err
	}))
	mux.HandleFunc("POST "+hashPath, bare(func(req api.HMACRequest) (any, error) {
		msg, err := api.DecodeBase64(req.Msg)
		if err != nil {
			return nil, err
		}
		mac, err := keys[api.SHA2x256].MAC(msg)
		return api.HMACAnswer{MAC: api.EncodeBase64(mac)}, err
	}))
	mux.HandleFunc("POST "+encryptPath, bare(func(req api.CipherRequest) (any, error) {
		msg, err := api.DecodeBase64(req.Msg)
		if err != nil {
			return nil, err
		}
		out, iv, tag, err := gcm.Encrypt(keys[api.AES256].Secret(), msg, nil)
		return api.CipherAnswer{Ciphertext: api.EncodeBase64(out), IV: api.EncodeBase64(iv), Tag: api.EncodeBase64(tag)}, err
	}))
	mux.HandleFunc("POST "+decapsPath, bare(func(req api.DecapsRequest) (any, error) {
		sent, err := api.DecodeBase64(req.CT)
		if err != nil {
			return nil, err
		}
		ss, err := keys[api.MLKEM768].Decapsulate(sent)
		return api.DecapsAnswer{Alg: string(api.MLKEM768), SS: api.EncodeBase64(ss)}, err
	}))
	mux.HandleFunc("POST "+mldsaPath, bare(func(req api.SignRequest) (any, error) {
		msg, err := api.DecodeBase64(req.Msg)
		if err != nil {
			return nil, err
		}
		sig, err := keys[api.MLDSA65].SignMLDSA(msg, nil)
		return api.MLDSAAnswer{Alg: string(api.MLDSA65), Sign: api.EncodeBase64(sig)}, err
	}))
	return mux, nil
}

func bare[Req any](op func(Req) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req Req
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		answer, err := op(req)
		if err != nil {
			http.Error(w, "cannot be done", http.StatusNotAcceptable)
			return
		}
		reply(w, answer)
	}
}

func reply(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "no answer", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body))) // else a long one goes in chunks
	_, _ = w.Write(body)                                      // the caller may have gone
}

// PrepareBare makes the request of the case for the ceiling that conn is
// connected to.
func (c Case) PrepareBare(t Target, conn *Conn) ([]byte, error) {
	var ct []byte
	if c.Path == decapsPath {
		body, err := conn.Do(t.Request("GET", bareCT, "", nil))
		if err != nil {
			return nil, err
		}
		var v api.DecapsRequest
		if err := json.Unmarshal(body, &v); err != nil {
			return nil, err
		}
		if ct, err = api.DecodeBase64(v.CT); err != nil {
			return nil, err
		}
	}
	return t.Request("POST", c.Path, "", c.Body("00000000000000000000000000000000", ct)), nil
}
