"""The contract of an earlier version, from its image alone, and what goes with it: HPKE, certificates, calls.

Shares no code with Lictor. Messages are made from the image at run time, so what the image does not name cannot be said or heard.
"""

import hmac
import struct

import grpc
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

INFO = b"lictor/v1/credential"
RAW = serialization.Encoding.Raw, serialization.PublicFormat.Raw

# [RFC 9180], base mode, one message: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. cryptography has HPKE, but its public
# functions take no associated data.
KEM = b"KEM" + struct.pack(">H", 0x0020)
SUITE = b"HPKE" + struct.pack(">HHH", 0x0020, 0x0001, 0x0002)


def labeled_extract(suite, salt, label, material):
    return hmac.digest(salt, b"HPKE-v1" + suite + label + material, "sha256")


def labeled_expand(suite, key, label, info, length):
    # No more than one block of HMAC-SHA-256 is asked for.
    told = struct.pack(">H", length) + b"HPKE-v1" + suite + label + info
    return hmac.digest(key, told + b"\x01", "sha256")[:length]


def sealer(shared, encapsulated, public):
    """Cipher and nonce of the first message."""
    extracted = labeled_extract(KEM, b"", b"eae_prk", shared)
    secret = labeled_expand(KEM, extracted, b"shared_secret", encapsulated + public, 32)
    base_mode = b"\x00"
    context = base_mode + labeled_extract(SUITE, b"", b"psk_id_hash", b"") + labeled_extract(SUITE, b"", b"info_hash", INFO)
    secret = labeled_extract(SUITE, secret, b"secret", b"")
    key = labeled_expand(SUITE, secret, b"key", context, 32)
    return AESGCM(key), labeled_expand(SUITE, secret, b"base_nonce", context, 12)


class Contract:
    """Messages and methods of one image."""

    def __init__(self, image):
        with open(image, encoding="utf-8") as file:
            files = json_format.Parse(file.read(), descriptor_pb2.FileDescriptorSet(), ignore_unknown_fields=True)
        self.pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            self.pool.Add(file)

    def __getattr__(self, name):
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(f"lictor.v1.{name}"))

    def value(self, enum, name):
        """Number of an enum's value."""
        return self.pool.FindEnumTypeByName(f"lictor.v1.{enum}").values_by_name[name].number

    def methods(self, service):
        return self.pool.FindServiceByName(f"lictor.v1.{service}").methods

    def call(self, channel, service, method):
        """The method as something to be called."""
        found = next(one for one in self.methods(service) if one.name == method)
        kind = {
            (False, False): channel.unary_unary,
            (False, True): channel.unary_stream,
            (True, True): channel.stream_stream,
        }[found.client_streaming, found.server_streaming]
        answer = message_factory.GetMessageClass(found.output_type)
        return kind(
            f"/lictor.v1.{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )


def associated_data(agent_id, task, identity):
    """Each text behind its length, then epoch and version."""
    texts = (agent_id, task.task_id, identity.name)
    parts = [struct.pack(">Q", len(text.encode())) + text.encode() for text in texts]
    return b"".join(parts) + struct.pack(">QQ", task.epoch, identity.version)


def open_secret(key, agent_id, assignment):
    sealed = assignment.secret
    data = associated_data(agent_id, assignment.task, assignment.identity)
    shared = key.exchange(X25519PublicKey.from_public_bytes(sealed.encapsulated_key))
    cipher, nonce = sealer(shared, sealed.encapsulated_key, key.public_key().public_bytes(*RAW))
    return cipher.decrypt(nonce, sealed.ciphertext, data)


def seal_secret(public, agent_id, assignment, secret):
    data = associated_data(agent_id, assignment.task, assignment.identity)
    key = X25519PrivateKey.generate()
    encapsulated = key.public_key().public_bytes(*RAW)
    cipher, nonce = sealer(key.exchange(X25519PublicKey.from_public_bytes(public)), encapsulated, public)
    assignment.secret.encapsulated_key = encapsulated
    assignment.secret.ciphertext = cipher.encrypt(nonce, secret, data)


def sealing_key():
    key = X25519PrivateKey.generate()
    return key, key.public_key().public_bytes(*RAW)


def channel(address, ca, key=None, certificate=None):
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    return grpc.secure_channel(address, credentials)
