"""Makes the *.age files beside it, without age and without Go, from the text of
the formats and Python's cryptography package (48 or later).

    python3 vectors.py
"""
import base64
import hashlib
import hmac
import os

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from cryptography.hazmat.primitives.keywrap import aes_key_wrap


def b64(raw):
    return base64.b64encode(raw).rstrip(b"=")


def hkdf(key, salt, info):
    return HKDF(hashes.SHA256(), 32, salt, info).derive(key)


def age_file(stanza, body, file_key, content):
    text = b64(body)
    lines = [text[i:i + 64] for i in range(0, len(text), 64)]
    if len(text) % 64 == 0:
        lines.append(b"")
    header = b"age-encryption.org/v1\n-> " + stanza + b"\n" + b"\n".join(lines) + b"\n---"
    mac = hmac.new(hkdf(file_key, b"", b"header"), header, hashlib.sha256).digest()
    nonce = os.urandom(16)
    assert len(content) <= 65536
    payload = ChaCha20Poly1305(hkdf(file_key, nonce, b"payload")).encrypt(bytes(11) + b"\x01", content, None)
    return header + b" " + b64(mac) + b"\n" + nonce + payload


def extract(suite, salt, label, ikm):
    return hmac.new(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, hashlib.sha256).digest()


def expand(suite, prk, label, info, size):
    info = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return HKDFExpand(hashes.SHA256(), size, info).derive(prk)


def hpke_seal(kem, enc, shared, info, plain):
    suite = b"HPKE" + kem.to_bytes(2, "big") + (1).to_bytes(2, "big") + (3).to_bytes(2, "big")
    context = b"\x00" + extract(suite, b"", b"psk_id_hash", b"") + extract(suite, b"", b"info_hash", info)
    secret = extract(suite, shared, b"secret", b"")
    key = expand(suite, secret, b"key", context, 32)
    nonce = expand(suite, secret, b"base_nonce", context, 12)
    return enc + ChaCha20Poly1305(key).encrypt(nonce, plain, b"")


def x25519(private):
    ephemeral = X25519PrivateKey.generate()
    enc = ephemeral.public_key().public_bytes_raw()
    dh = ephemeral.exchange(private.public_key())
    suite = b"KEM" + (0x20).to_bytes(2, "big")
    prk = extract(suite, b"", b"eae_prk", dh)
    return enc, expand(suite, prk, b"shared_secret", enc + private.public_key().public_bytes_raw(), 32)


def write(name, kid, stanza, body_of):
    file_key = os.urandom(16)
    file = age_file(stanza + b" " + kid + b" " + name.encode(), body_of(file_key), file_key, b"known answer\n")
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".age"), "wb") as f:
        f.write(file)


def main():
    kid = b"0123456789abcdef0123456789abcdef"
    for bits in (128, 192, 256):
        kek = bytes(range(bits // 8))
        write("AES%d" % bits, kid, b"softhem-wrap", lambda key: aes_key_wrap(kek, key))
    info = b"softhem-hpke " + kid
    private = X25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
    write("CURVE25519", kid, b"softhem-hpke", lambda key: hpke_seal(0x20, *x25519(private), info, key))
    shared, ct = MLKEM768PrivateKey.from_seed_bytes(bytes(range(64))).public_key().encapsulate()
    write("MLKEM768", kid, b"softhem-hpke", lambda key: hpke_seal(0x41, ct, shared, info, key))


if __name__ == "__main__":
    main()
