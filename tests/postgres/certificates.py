"""A certificate authority for one test run, made by the command `openssl`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.postgres.server import as_server_user

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """Signs certificates; files lie in `directory`, and belong to the user of the server."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("needs the command openssl, which makes the certificates")
        self.directory = directory
        self.certificate = directory / "ca.crt"
        _openssl("req", "-x509", *_KEY, "-keyout", directory / "ca.key", "-out", self.certificate, "-subj", "/CN=tests")

    def issue(self, name: str, alternative: str | None = None) -> tuple[Path, Path]:
        """Return certificate and key for a name; `alternative` is `DNS:...` or `IP:...`."""
        key, request, certificate = (self.directory / f"{name}.{suffix}" for suffix in ("key", "csr", "crt"))
        _openssl("req", *_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        extensions = self.directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={alternative}\n" if alternative else "basicConstraints=CA:FALSE\n")
        signer = ("-CA", self.certificate, "-CAkey", self.directory / "ca.key", "-CAcreateserial")
        _openssl("x509", "-req", "-in", request, *signer, "-extfile", extensions, "-out", certificate)
        self._hand_over(key, certificate)
        return certificate, key

    def _hand_over(self, *files: Path) -> None:
        user = as_server_user()
        for file in files:
            file.chmod(0o600)
            if user:
                os.chown(file, user["user"], user["group"])


def _openssl(command: str, *arguments: str | Path) -> None:
    done = subprocess.run(["openssl", command, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
