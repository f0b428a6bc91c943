package main

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
)

const helpPublicFile = `The public key may be PEM or DER (SubjectPublicKeyInfo, or a certificate), a line as in
OpenSSH's .pub files, or raw: as bytes, base64 or hex, in the form that hem key show
--raw gives.`

var errPrivateKey = errors.New("this is a private key, and a module stores only public ones of others; take its public half: openssl pkey -in FILE -pubout")

// readPublicFile reads a public key; its type is empty when the file does not
// tell.
func readPublicFile(c *cobra.Command, o *options, path string) (t api.KeyType, raw []byte, err error) {
	in, err := o.openFile(c.Context(), path, "the public key")
	if err != nil {
		return "", nil, err
	}
	defer in.Close()
	text, err := readEncoded(in, formatRaw, maxEncoded)
	if err == nil {
		t, raw, err = parsePublicFile(text)
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) || err == nil {
		return t, raw, err
	}
	return "", nil, &usageError{c.CommandPath(), fmt.Sprintf("%s: %s", path, withoutPrefix(err))}
}

// withoutPrefix is what is wrong with an argument.
func withoutPrefix(err error) string {
	return strings.TrimPrefix(err.Error(), hem.ErrArgument.Error()+": ")
}

func parsePublicFile(text []byte) (api.KeyType, []byte, error) {
	if block, _ := pem.Decode(text); block != nil {
		return parsePEM(block)
	}
	line := bytes.TrimSpace(text)
	if bytes.HasPrefix(line, []byte("ssh-")) || bytes.HasPrefix(line, []byte("ecdsa-")) || bytes.HasPrefix(line, []byte("sk-")) {
		return parseOpenSSH(string(line))
	}
	if t, raw, err := parseDER(text); err == nil {
		return t, raw, nil
	}
	data, err := decode(text, formatAuto)
	if err != nil {
		return "", nil, err
	}
	if t, raw, err := parseDER(data); err == nil {
		return t, raw, nil
	}
	if len(data) == 0 {
		return "", nil, errors.New("the file is empty")
	}
	return "", data, nil
}

func parsePEM(block *pem.Block) (api.KeyType, []byte, error) {
	switch {
	case block.Type == "PUBLIC KEY":
		return hem.ParseSPKI(block.Bytes)
	case block.Type == "CERTIFICATE":
		return parseDER(block.Bytes)
	case strings.Contains(block.Type, "PRIVATE KEY"):
		return "", nil, errPrivateKey
	}
	return "", nil, fmt.Errorf("PEM of the kind %q is no public key", clean(block.Type))
}

// parseDER takes a SubjectPublicKeyInfo, or one in a certificate.
func parseDER(der []byte) (api.KeyType, []byte, error) {
	if cert, err := x509.ParseCertificate(der); err == nil {
		der = cert.RawSubjectPublicKeyInfo
	}
	return hem.ParseSPKI(der)
}

var errOpenSSH = errors.New("not a public key in OpenSSH's form")

// parseOpenSSH reads what [hem.MarshalOpenSSH] writes, with any comment.
func parseOpenSSH(line string) (api.KeyType, []byte, error) {
	words := strings.Fields(line)
	if len(words) < 2 {
		return "", nil, errOpenSSH
	}
	types := map[string]api.KeyType{
		"ssh-ed25519":         api.Ed25519,
		"ecdsa-sha2-nistp256": api.SECP256R1, "ecdsa-sha2-nistp384": api.SECP384R1, "ecdsa-sha2-nistp521": api.SECP521R1,
	}
	t, ok := types[words[0]]
	if !ok {
		return "", nil, fmt.Errorf("a module has no type for %s keys", clean(words[0]))
	}
	blob, err := api.DecodeBase64(words[1])
	if err != nil {
		return "", nil, errOpenSSH
	}
	// The last string of the blob is the key or the uncompressed point.
	var last []byte
	for rest := blob; len(rest) > 0; {
		if len(rest) < 4 || uint32(len(rest)-4) < binary.BigEndian.Uint32(rest) {
			return "", nil, errOpenSSH
		}
		end := 4 + int(binary.BigEndian.Uint32(rest))
		last, rest = rest[4:end], rest[end:]
	}
	raw := last
	if t != api.Ed25519 && len(last) > 1 {
		raw = bytes.Clone(last[:1+len(last)/2])
		raw[0] = 2 | last[len(last)-1]&1
	}
	// That this is all that stood there, and a point, the way back tells.
	again, err := hem.MarshalOpenSSH(t, raw, "")
	if err != nil || again != words[0]+" "+api.EncodeBase64(blob) {
		return "", nil, errOpenSSH
	}
	return t, raw, nil
}

// A peerFlags names the other side of an ECDH.
type peerFlags struct {
	key, file string
}

func (p *peerFlags) flags(c *cobra.Command, why string) {
	c.Flags().StringVar(&p.key, "peer", "", why+": a `KEY` in the module")
	c.Flags().StringVar(&p.file, "peer-file", "", why+": a `file` with a public key, - for standard input")
	exclude(c, "peer", "peer-file")
}

func (p *peerFlags) given() bool { return p.key != "" || p.file != "" }

// with are the names to look up when the command is about key.
func (p *peerFlags) with(key string) []string {
	if p.key == "" {
		return []string{key}
	}
	return []string{key, p.key}
}

// read reads the public key, before the module is bothered.
func (p *peerFlags) read(c *cobra.Command, o *options) (hem.Peer, error) {
	if p.file == "" {
		return hem.Peer{}, nil
	}
	_, raw, err := readPublicFile(c, o, p.file)
	return hem.PeerPublic(raw), err
}

// among completes what read has returned, with the keys that were found.
func (p *peerFlags) among(read hem.Peer, keys []namedKey) hem.Peer {
	if p.key == "" {
		return read
	}
	return hem.PeerKey(keys[1].KID)
}
