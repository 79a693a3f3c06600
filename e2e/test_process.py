"""The process: ready line, signals, exit codes, settings, HTTP."""

import contextlib
import signal
import socket
import subprocess

import pyarrow as pa
import pytest

from clients import Stream, adbc, execute, put, scalar
from server import BINARY, PATIENCE, NotReady, eventually

SCHEMA = pa.schema([("id", pa.int64())])


def batch(*ids):
    return pa.record_batch([pa.array(ids, pa.int64())], SCHEMA)


def run(*args, env=None):
    return subprocess.run([str(BINARY), *args], capture_output=True, text=True, timeout=60, env=env or {})


def test_version():
    result = run("version")
    assert result.returncode == 0
    assert "flightd" in result.stdout and "DuckDB v1." in result.stdout and "Lance" in result.stdout


@pytest.mark.parametrize("command", [[], ["serve"], ["demo"], ["version"]])
def test_help_has_an_example(command):
    result = run(*command, "--help")
    assert result.returncode == 0 and "Examples:" in result.stdout


def test_the_ready_line_is_all_that_stdout_gets(new_server):
    server = new_server().start()
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
    assert server.stop() == 0
    assert server.further_stdout() == []


def test_metrics_and_health(server):
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
    put(server, "t", [batch(*range(500))])
    status, text = server.get("/metrics")
    assert status == 200
    for name in ("go_goroutines", "process_resident_memory_bytes", "flightd_build_info", "flightd_ready 1"):
        assert name in text, name
    assert server.get("/healthz") == (200, "alive\n")
    assert server.get("/readyz") == (200, "ready\n")
    assert server.get("/nothing")[0] == 404


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_in_order(new_server, sig):
    server = new_server().start()
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
    put(server, "t", [batch(*range(10))])
    server.process.send_signal(sig)
    assert server.process.wait(timeout=PATIENCE) == 0
    server.start()
    assert scalar(server, "SELECT count(*) FROM t") == 10


def test_an_open_stream_is_acknowledged_or_failed_when_the_server_stops(new_server):
    server = new_server("--grace", "2s").start()
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
    stream = Stream(server, "t", SCHEMA)
    for n in range(100):
        stream.send(batch(n))
    eventually(lambda: stream.acked)
    assert server.stop() == 0
    acked = stream.abandon()
    server.start()
    found = scalar(server, "SELECT count(*) FROM t")
    assert acked <= found <= 100


def test_a_running_query_may_finish_within_the_grace(new_server):
    server = new_server("--grace", f"{10 * PATIENCE}s").start()
    with suppress_close(adbc(server)) as connection, suppress_close(connection.cursor()) as cursor:
        cursor.execute("SELECT range AS i FROM range(20000000)")
        reader = cursor.fetch_record_batch()
        found = reader.read_next_batch().num_rows
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: server.get("/readyz")[0] == 503)
        found += sum(b.num_rows for b in reader)
        assert found == 20_000_000
        assert server.process.wait(timeout=PATIENCE) == 0


@contextlib.contextmanager
def suppress_close(resource):
    """Closes a client's resource whose server may be gone: that the goodbye fails is no failure of the test."""
    yield resource
    with contextlib.suppress(Exception):
        resource.close()


def test_a_second_signal_ends_at_once(new_server):
    server = new_server("--grace", f"{10 * PATIENCE}s").start()
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
    stream = Stream(server, "t", SCHEMA)
    stream.send(batch(1))
    eventually(lambda: stream.acked)
    server.process.send_signal(signal.SIGTERM)
    eventually(lambda: server.get("/readyz")[0] == 503)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=PATIENCE) == 128 + signal.SIGTERM
    stream.abandon()
    server.start()
    assert scalar(server, "SELECT count(*) FROM t") == 1


def test_new_work_is_refused_while_the_server_drains(new_server):
    server = new_server("--grace", "5s").start()
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
    stream = Stream(server, "t", SCHEMA)
    stream.send(batch(1))
    eventually(lambda: stream.acked)
    server.process.send_signal(signal.SIGTERM)
    eventually(lambda: server.get("/readyz")[0] == 503)
    with pytest.raises(Exception, match="(?i)unavailable"):
        put(server, "t", [batch(2)])
    stream.abandon()
    assert server.process.wait(timeout=PATIENCE) == 0


def test_http_can_be_turned_off(new_server):
    server = new_server("--http", "")
    server.start(wait=False)
    line = server._stdout.get(timeout=PATIENCE)
    assert line.startswith("flightd ready grpc://127.0.0.1:") and "http" not in line
    assert server.stop() == 0


@pytest.mark.parametrize("args, env, words", [
    (["--listen", "0.0.0.0:0"], {}, ["--listen", "0.0.0.0:0", "--insecure"]),
    (["--http", ":0"], {}, ["--http", "--insecure"]),
    (["--query-timeout", "soon"], {}, ["--query-timeout", "30s"]),
    (["--durability", "eventual"], {}, ["--durability", "durable or buffered"]),
    (["--wal-interval", "0s"], {}, ["--wal-interval", "above zero"]),
    (["--memory", "many"], {}, ["--memory", "8GiB"]),
    (["--config", "no-such-file.yaml"], {}, ["no-such-file.yaml"]),
    (["--nonsense"], {}, ["--nonsense"]),
    ([], {"FLIGHTD_NONSENSE": "1"}, ["FLIGHTD_NONSENSE"]),
    ([], {"FLIGHTD_GRACE": "1"}, ["FLIGHTD_GRACE", "10s"]),
])
def test_settings_that_are_refused(new_server, args, env, words):
    with pytest.raises(NotReady) as e:
        new_server(*args, env=env).start()
    assert e.value.code == 2
    for word in words:
        assert word in e.value.log, e.value.log


def test_settings_come_from_a_file(new_server, tmp_path):
    config = tmp_path / "flightd.yaml"
    config.write_text("log-format: json\nlog-level: debug\n")
    server = new_server("--config", str(config), env={"FLIGHTD_LOG_LEVEL": "info"}).start()
    assert '"level":"INFO"' in server.log_text() and '"level":"DEBUG"' not in server.log_text()


def test_an_address_that_is_taken(new_server):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for flag in ("--listen", "--http"):
            with pytest.raises(NotReady) as e:
                new_server(flag, address).start()
            assert e.value.code == 1 and address in e.value.log and flag in e.value.log


def test_a_folder_that_cannot_be_made(new_server, tmp_path):
    file = tmp_path / "file"
    file.write_text("not a folder")
    server = new_server()
    server.data = file
    with pytest.raises(NotReady) as e:
        server.start()
    assert e.value.code == 1 and str(file) in e.value.log


def test_idle_clients_do_not_hold_the_process(new_server):
    server = new_server("--grace", f"{10 * PATIENCE}s").start()
    with suppress_close(adbc(server)) as connection, suppress_close(connection.cursor()) as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchall()
        assert server.stop() == 0


def test_a_connection_that_says_nothing_holds_the_process_no_longer_than_the_grace(new_server):
    server = new_server("--grace", "2s").start()
    host, port = server.grpc.split(":")
    with socket.create_connection((host, int(port))):
        assert server.stop() == 0  # it would not end at all


def test_demo(tmp_path):
    result = run("demo", env={"TMPDIR": str(tmp_path)})
    assert result.returncode == 0, result.stdout + result.stderr
    for words in (
        "rows synced to disk and acknowledged",
        "20178   Rostock",  # the nearest day, by a brute-force search of the sample
        "OPTIMIZE readings",
        "by the index with all 16 partitions probed: the same days",
        "the nearest as soon as it was acknowledged",
        "killed while a stream was running",
        "by the index and from the log: unchanged",
        "nothing acknowledged was lost",
    ):
        assert words in result.stdout, result.stdout
    assert list(tmp_path.iterdir()) == []


def test_demo_keeps_its_server_when_asked(tmp_path):
    process = subprocess.Popen([str(BINARY), "demo", "--keep"], stdout=subprocess.PIPE, text=True, env={"TMPDIR": str(tmp_path)})
    try:
        text = ""
        for line in process.stdout:
            text += line
            if line.strip().startswith("Log "):
                break
        url = text.split('flightsql.connect("')[1].split('"')[0]
        server = type("Kept", (), {"url": url})
        assert scalar(server, "SELECT count(*) FROM readings WHERE id <= 1000000") == 38_300
        assert scalar(server, "SELECT count(*) FROM days") == 35_951
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE) == 0
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    (folder,) = tmp_path.iterdir()
    assert (folder / "data" / "readings.lance").is_dir()
