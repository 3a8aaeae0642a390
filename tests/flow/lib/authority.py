"""A CA of the tests' own, and certificates that it signs."""
import os
import subprocess


def openssl(*args, **more):
    subprocess.run(["openssl", *args], check=True, capture_output=True, timeout=60, **more)


class Authority:
    def __init__(self, folder):
        self.folder = folder
        self.cert, self.key = f"{folder}/ca.pem", f"{folder}/ca.key"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                "-subj", "/CN=Test CA", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
                "-keyout", self.key, "-out", self.cert)

    def sign(self, serial, names="DNS:localhost,IP:127.0.0.1", days=2):
        """days 0: it is over as soon as it begins."""
        cert, key, csr, ext = (f"{self.folder}/{serial}.{x}" for x in ("pem", "key", "csr", "ext"))
        with open(ext, "w", encoding="utf-8") as f:
            f.write(f"subjectAltName={names}\nkeyUsage=digitalSignature\n"
                    "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")  # Python 3.13 wants them all
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-subj", "/CN=localhost", "-keyout", key, "-out", csr)
        openssl("x509", "-req", "-in", csr, "-CA", self.cert, "-CAkey", self.key, "-set_serial", str(serial),
                "-days", str(days), "-extfile", ext, "-out", cert)
        os.chmod(key, 0o600)
        return cert, key
