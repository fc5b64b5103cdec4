"""A certificate authority of the tests' own, by openssl."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


@dataclass(frozen=True)
class Authority:
    """`root` is what its friends trust."""

    folder: Path

    @classmethod
    def found(cls, folder: Path) -> "Authority":
        usage = ("-addext", "keyUsage=critical,keyCertSign")
        openssl(
            folder, "req", "-x509", *EC, "-keyout", "root.key", "-out", "root.pem", "-subj", "/CN=Test Root", *usage
        )
        return cls(folder)

    @property
    def root(self) -> Path:
        return self.folder / "root.pem"

    def issue(self, *names: str) -> tuple[str, str]:
        """A certificate and its key, for 127.0.0.1 and these hosts."""
        alternatives = ",".join(["IP:127.0.0.1", *(f"DNS:{name}" for name in names)])
        subject = ("-subj", "/CN=server", "-keyout", "server.key", "-out", "server.pem")
        extensions = ("-addext", f"subjectAltName={alternatives}", "-addext", "basicConstraints=critical,CA:FALSE")
        openssl(self.folder, "req", "-x509", *EC, *subject, *extensions, "-CA", "root.pem", "-CAkey", "root.key")
        return str(self.folder / "server.pem"), str(self.folder / "server.key")


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
