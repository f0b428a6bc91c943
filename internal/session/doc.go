// Package session holds what lives from one boot of the module to the next:
// the session key, the nonces made and used, bearer tokens, and the damping of
// logins. Nothing here touches the disk, and all of it dies at a reboot.
//
// It also reads and writes the two token forms of the protocol: eJWTs, which
// prove the possession of an X25519 key, and bearer tokens, which the module
// hands out and takes back.
package session
