"""Certificates and keys of the lab's control plane: made once for each lab, private to who runs it."""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = datetime.timedelta(days=3650)
"""Long enough to outlive any lab: nothing here renews certificates."""
CLOCK_SLACK = datetime.timedelta(hours=1)
"""How far a clock may be behind ours and still accept a new certificate."""
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
SERVICE_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")


@dataclass(frozen=True)
class Certificates:
    """Paths of the PEM files below one folder; X.key is the private key of X.crt.

    The authorities' private keys are nowhere: once the set is made nobody needs to sign anything more.
    """

    folder: Path

    @property
    def authority(self) -> Path:
        """Who signed `server` and `admin`; clients of the API server trust it."""
        return self.folder / "ca.crt"

    @property
    def server(self) -> Path:
        """Shown by kube-apiserver."""
        return self.folder / "server.crt"

    @property
    def admin(self) -> Path:
        """A client in system:masters, which RBAC never refuses."""
        return self.folder / "admin.crt"

    @property
    def etcd_authority(self) -> Path:
        """Who signed `etcd`: not `authority`, so that no client certificate of the API opens the database."""
        return self.folder / "etcd-ca.crt"

    @property
    def etcd(self) -> Path:
        """Shown by etcd and, as the only client of etcd, by kube-apiserver."""
        return self.folder / "etcd.crt"

    @property
    def service_account_public(self) -> Path:
        """Checks the tokens of ServiceAccounts."""
        return self.folder / "service-account.pub"

    @property
    def service_account(self) -> Path:
        """Signs the tokens of ServiceAccounts."""
        return self.folder / "service-account.key"

    @staticmethod
    def key(certificate: Path) -> Path:
        """The private key of a certificate of this set."""
        return certificate.with_suffix(".key")


def ensure_certificates(folder: Path, address: str) -> Certificates:
    """Return the set in `folder`, making it if it is not there.

    `address` is the IP address of the API server and etcd. A set is kept for as long as its folder is: tokens
    and kubeconfigs made with it stay good.
    """
    if not folder.is_dir():
        unfinished = folder.with_name(f".{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True, mode=0o700)
        _make(Certificates(unfinished), address)
        unfinished.rename(folder)
    return Certificates(folder)


def _make(files: Certificates, address: str) -> None:
    """Write the whole set."""
    addresses = list(dict.fromkeys(("127.0.0.1", address)))
    cluster = _Authority("luban-lab-ca")
    cluster.write(files.authority)
    cluster.issue(files.server, "kube-apiserver", [SERVER], names=SERVICE_NAMES, addresses=addresses)
    cluster.issue(files.admin, "luban-lab-admin", [CLIENT], group="system:masters")
    database = _Authority("luban-lab-etcd-ca")
    database.write(files.etcd_authority)
    database.issue(files.etcd, "etcd", [SERVER, CLIENT], names=["localhost"], addresses=addresses)
    tokens = ec.generate_private_key(ec.SECP256R1())
    _write(files.service_account, _private_pem(tokens))
    _write(files.service_account_public, _public_pem(tokens))


class _Authority:
    """A certificate authority that lives only while the set is made."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(self._subject, self._key, issuer=self._subject, signer=self._key)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(authority=True), critical=True)
        self._certificate = builder.sign(self._key, hashes.SHA256())

    def write(self, path: Path) -> None:
        """Write the authority's certificate."""
        _write(path, self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        path: Path,
        user: str,
        usages: list[x509.ObjectIdentifier],
        *,
        group: str | None = None,
        names: Sequence[str] = (),
        addresses: Sequence[str] = (),
    ) -> None:
        """Write a certificate and its key. Kubernetes reads user and group from its subject."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
        if group:
            attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
        builder = _builder(x509.Name(attributes), key, issuer=self._subject, signer=self._key)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(authority=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if names or addresses:
            builder = builder.add_extension(_alternative_names(names, addresses), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        _write(path, certificate.public_bytes(serialization.Encoding.PEM))
        _write(Certificates.key(path), _private_pem(key))


def _builder(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
) -> x509.CertificateBuilder:
    """What all certificates have. Strict verifiers (Python 3.13 and later) insist on both key identifiers."""
    now = datetime.datetime.now(datetime.UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(now + LIFETIME)
        .add_extension(identifier, critical=False)
        .add_extension(issued_by, critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_names(names: Sequence[str], addresses: Sequence[str]) -> x509.SubjectAlternativeName:
    hosts = [x509.DNSName(name) for name in names]
    return x509.SubjectAlternativeName(
        [*hosts, *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses)]
    )


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _write(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
