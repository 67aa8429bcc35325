"""Tests that need Feast itself. They run in .venv-feast (`make test-feast`) and nowhere else.

The folder is not called `feast`: with `tests` on the path, `import feast` would find it and call it a package."""

import os

os.environ["FEAST_USAGE"] = "False"
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import importlib.util
import shutil
import socket
import subprocess
import time

import pytest

if importlib.util.find_spec("feast") is None:
    collect_ignore_glob = ["*"]
else:
    from histories import END, eventful_store
    from redis import Redis
    from redis.exceptions import ConnectionError as NotYet

    from lensnb.remote import FeastSource


def pytest_report_header():
    return "" if importlib.util.find_spec("feast") else "Feast is not installed here: run `make test-feast`"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing leaves the machine: a connection to anywhere but the loopback fails the test."""
    connect = socket.socket.connect

    def loopback_only(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
            raise AssertionError(f"a connection to {address} was tried")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", loopback_only)


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A store of 400 eyes with corrections, second visits and visits after surgery, materialized at its end."""
    store = eventful_store(tmp_path_factory.mktemp("thin") / "eyes", 400)
    store.materialize(END)
    return store


@pytest.fixture(scope="session")
def sqlite(store, tmp_path_factory):
    source = FeastSource(tmp_path_factory.mktemp("feast"))
    source.publish(store)
    source.materialize(END)
    return source


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory):
    """A redis-server of our own: loopback only, nothing on the disk, stopped afterwards."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("redis-server is not installed (Debian: apt install redis-server)")
    port, folder = _free_port(), tmp_path_factory.mktemp("redis")
    command = [server, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(
        [*command, "--daemonize", "no", "--dir", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with Redis(host="127.0.0.1", port=port) as client:
            for _ in range(100):
                if process.poll() is not None:
                    pytest.fail(f"redis-server ended with code {process.returncode}")
                try:
                    client.ping()
                    break
                except NotYet:
                    time.sleep(0.05)
            else:
                pytest.fail("redis-server did not answer within 5 s")
        yield port
    finally:
        process.terminate()
        process.wait(timeout=10)
    assert list(folder.iterdir()) == [], "redis wrote to the disk"


@pytest.fixture(scope="session")
def redis(store, redis_port, tmp_path_factory):
    where = {"type": "redis", "connection_string": f"127.0.0.1:{redis_port}"}
    source = FeastSource(tmp_path_factory.mktemp("feast-redis"), where)
    source.publish(store)
    source.materialize(END)
    return source


@pytest.fixture(params=["sqlite", "redis"])
def source(request):
    return request.getfixturevalue(request.param)
