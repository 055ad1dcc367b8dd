"""Real servers for tests and studies, each started for whoever asks and gone with it: PostgreSQL, and S3 by moto."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUCKET = "rekindle-tests"


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of an empty database; needs no root. From the package `pgserver`, or else from the system's binaries."""
    folder = Path(tempfile.mkdtemp(prefix="rekindle-pg-"))
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))  # pgserver asks for it, and warns without
    try:
        import pgserver
    except ImportError:
        with _system_postgres(folder) as url:
            yield url
        return
    server = pgserver.get_server(folder / "data", cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _system_postgres(folder: Path) -> Iterator[str]:
    places = [
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
        *map(Path, os.environ["PATH"].split(":")),
    ]
    where = next((str(place) for place in places if (place / "initdb").exists()), None)
    if where is None:
        raise RuntimeError("no PostgreSQL: install pgserver (Python up to 3.12), or the system's package postgresql.")
    data, owner = folder / "data", []
    if os.geteuid() == 0:  # the server refuses to run as root
        shutil.chown(folder, "nobody")
        owner = ["setpriv", "--reuid=nobody", "--clear-groups"]
    subprocess.run([*owner, f"{where}/initdb", "-D", data, "-U", "postgres", "-A", "trust"], check=True, stdout=-3)
    options = f"-k {folder} -c listen_addresses=''"
    subprocess.run([*owner, f"{where}/pg_ctl", "-D", data, "-w", "-o", options, "start"], check=True, stdout=-3)
    try:
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        subprocess.run([*owner, f"{where}/pg_ctl", "-D", data, "-m", "immediate", "stop"], check=True, stdout=-3)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def s3() -> Iterator[dict[str, str]]:
    """What a process needs in its environment to use `s3://rekindle-tests/...` on a server of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    server = subprocess.Popen([sys.executable, "-c", serve], stdout=-3, stderr=-3)
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        import boto3

        boto3.client(
            "s3",
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            aws_access_key_id="tests",
            aws_secret_access_key="tests",
            region_name="us-east-1",
        ).create_bucket(Bucket=BUCKET)
        yield environment
    finally:
        server.terminate()
        server.wait()
