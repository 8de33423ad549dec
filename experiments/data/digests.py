"""Hashes of images: who an example is (`identities_of`), and which images a source has (`content_fingerprint`)."""

import hashlib

import numpy as np

DIGEST_BYTES = 16


def digest(content: bytes | memoryview | np.ndarray) -> bytes:
    """16 bytes that stand for `content`: BLAKE2b (RFC 7693), the same on every machine."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def identities_of(digests: np.ndarray) -> np.ndarray:
    """The identities uint64 (N,) of examples from digests uint8 (N, 16): their first 8 bytes, little-endian."""
    return np.ascontiguousarray(digests[:, :8]).view("<u8")[:, 0]


def stack_digests(digests: list[bytes]) -> np.ndarray:
    """A list of N digests as one array uint8 (N, 16)."""
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES)


def content_fingerprint(image_shape: tuple[int, int, int], digests: np.ndarray, labels: np.ndarray | None) -> str:
    """The SHA-256 of images, in their order, by the digests uint8 (N, 16) of their pixels, and of their labels."""
    total = hashlib.sha256(repr((len(digests), *map(int, image_shape))).encode())
    total.update(np.ascontiguousarray(digests))
    total.update(b"" if labels is None else np.ascontiguousarray(labels, "<i4"))
    return f"sha256:{total.hexdigest()}"
