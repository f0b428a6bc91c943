package hem

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"softhem/api"
)

// An eJWT is a compact JWS (RFC 7515) whose MAC key both ends compute:
//
//	b64url(header) "." b64url(claims) "." b64url(HMAC-SHA256(X25519(own, peer), first two segments and the dot))
//
// Personas write the header in exactly this order.
const ejwtHeader = `{"ecdh":"x25519","alg":"HS256","typ":"JWT"}`

// signEJWT signs claims from k to the owner of the public key peer.
func signEJWT(k *PersonaKey, peer []byte, claims any) (string, error) {
	var payload bytes.Buffer
	enc := json.NewEncoder(&payload)
	enc.SetEscapeHTML(false) // nothing here ends in a web page: write <, > and & as they are
	if err := enc.Encode(claims); err != nil {
		return "", err
	}
	signed := segment([]byte(ejwtHeader)) + "." + segment(bytes.TrimSuffix(payload.Bytes(), []byte("\n")))
	key, err := k.shared(peer)
	if err != nil {
		return "", err
	}
	defer clear(key)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(signed))
	return signed + "." + segment(mac.Sum(nil)), nil
}

func segment(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

const maxTokenBytes = 8 << 10 // more than any header line a module would take

// InspectToken reads the claims of a bearer token without verifying it: only
// the module that issued it can. Times are in Unix seconds of the module's
// clock. What is no HS256 JWT (RFC 7519) is an error that does not repeat the token.
func InspectToken(token string) (api.TokenClaims, error) {
	var claims api.TokenClaims
	if len(token) > maxTokenBytes {
		return claims, errors.New("not a bearer token: too long")
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return claims, fmt.Errorf("not a bearer token: %d segments instead of 3", len(parts))
	}
	var header struct {
		Alg string `json:"alg"`
	}
	if err := readSegment(parts[0], &header); err != nil {
		return claims, fmt.Errorf("not a bearer token: header %w", err)
	}
	if header.Alg != "HS256" {
		return claims, errors.New("not a bearer token: its algorithm is not HS256")
	}
	if err := readSegment(parts[1], &claims); err != nil {
		return api.TokenClaims{}, fmt.Errorf("not a bearer token: claims %w", err)
	}
	if mac, err := decodeSegment(parts[2]); err != nil || len(mac) != sha256.Size {
		return api.TokenClaims{}, errors.New("not a bearer token: its MAC is not 32 bytes")
	}
	return claims, nil
}

func readSegment(text string, out any) error {
	raw, err := decodeSegment(text)
	if err != nil {
		return err
	}
	if json.Unmarshal(raw, out) != nil {
		return errors.New("is not the expected JSON")
	}
	return nil
}

func decodeSegment(text string) ([]byte, error) {
	// encoding/base64 would skip line breaks.
	if strings.ContainsAny(text, "\r\n") {
		return nil, errors.New("is not base64url")
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("is not base64url")
	}
	return raw, nil
}
