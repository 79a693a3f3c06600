"""Idempotency keys: what is sent again is stored once, over kill -9, over the trimming of the log, at both doors."""

import json
import random
import subprocess
import threading
import time

import adbc_driver_flightsql.dbapi
import numpy as np
import pyarrow as pa
import pyarrow.flight
import pytest

from clients import execute, query, refused, scalar, Stream
from server import BINARY, eventually

PLAIN = pa.schema([("id", pa.int64()), ("pad", pa.binary())])
MAKE = "CREATE TABLE t (id BIGINT, pad BLOB)"  # no key: what is stored twice is there twice


def batches(count, rows=100, pad=20, first=0):
    """Batches of consecutive ids; the pads cannot be compressed."""
    dice = np.random.default_rng(5)
    for n in range(count):
        ids = range(first + n * rows, first + (n + 1) * rows)
        yield pa.record_batch([pa.array(ids, pa.int64()), pa.array([dice.bytes(pad) for _ in ids], pa.binary())], PLAIN)


def spilled():
    """More than a stage holds in memory."""
    return batches(60, rows=200, pad=5000)


def headers(key, resume=False):
    return [("x-flightd-idempotency-key", key)] + ([("x-flightd-resume", "true")] if resume else [])


def send(server, key, stream_of, schema=PLAIN):
    """Sends a stream by plain DoPut under a key, and returns its acks."""
    stream = Stream(server, "t", schema, headers(key))
    for batch in stream_of:
        if not stream.send(batch):
            break
    stream.finish()
    return stream.acks


def ingest(server, key, stream_of, mode="append", schema=PLAIN):
    """Sends a stream by adbc_ingest under a key, and returns its row count."""
    options = {"adbc.flight.sql.rpc.call_header.x-flightd-idempotency-key": key}
    with adbc_driver_flightsql.dbapi.connect(server.url, db_kwargs=options, autocommit=True) as connection, connection.cursor() as cursor:
        return cursor.adbc_ingest("t", pa.RecordBatchReader.from_batches(schema, stream_of), mode=mode)


def trim_log(server):
    """Fills segments of the log with rows of another table until the oldest are gone."""
    log = server.data / "_flightd" / "wal"
    first = min(p.name for p in log.glob("*.wal"))
    execute(server, "CREATE TABLE IF NOT EXISTS filler (id BIGINT, pad BLOB)")

    def fill():
        stream = Stream(server, "filler", PLAIN)
        for batch in batches(20, rows=200, pad=10000):
            stream.send(batch)
        stream.finish()
        execute(server, "OPTIMIZE t", "OPTIMIZE filler")
        return min(p.name for p in log.glob("*.wal")) > first

    eventually(fill)


@pytest.mark.parametrize("load", [lambda: batches(10), spilled], ids=["small", "spilled"])
@pytest.mark.parametrize("door", ["put", "ingest"])
def test_a_key_is_stored_once_over_kills(server, door, load):
    execute(server, MAKE)
    want = sum(b.num_rows for b in load())
    first = None
    for n in range(4):
        if door == "put":
            acks = send(server, "k", load())
            assert len(acks) == 1
            assert acks[0].pop("repeated", False) == (n > 0)
            assert first in (None, acks[0])
            first = acks[0]
            assert first["rows"] == want and first["seq"] > 0
        else:
            assert ingest(server, "k", load()) == want
        assert scalar(server, "SELECT count(*) FROM t") == want
        if n == 1:
            trim_log(server)
        server.restart()
    assert query(server, "SELECT count(*) AS n, count(DISTINCT id) AS d FROM t").to_pylist() == [{"n": want, "d": want}]
    other = pa.schema([("id", pa.int64())])
    with refused("INVALID_ARGUMENT", '"k"', "another schema"):
        (send if door == "put" else ingest)(server, "k", [pa.record_batch([pa.array([1], pa.int64())], other)], schema=other)
    server.kill()
    server.assert_sound()
    server.start()
    _, metrics = server.get("/metrics")
    assert "\nflightd_idempotency_keys 1\n" in metrics


@pytest.mark.parametrize("mode", ["create", "replace", "create_append"])
def test_a_key_that_makes_its_table(server, mode):
    for _ in range(3):
        assert ingest(server, "k", spilled(), mode=mode) == 12000
        assert scalar(server, "SELECT count(*) FROM t") == 12000
        server.restart()
    if mode == "create":
        with refused("ALREADY_EXISTS"):
            ingest(server, "another", batches(1), mode=mode)
    execute(server, "DROP TABLE t")
    assert ingest(server, "k", batches(1), mode="create") == 100
    assert scalar(server, "SELECT count(*) FROM t") == 100


@pytest.mark.parametrize("load", [lambda: batches(40), spilled], ids=["small", "spilled"])
def test_killed_while_it_is_stored(server, load):
    """Whatever the moment of the kill: sent until it is answered, the rows are there once."""
    dice = random.Random(11)
    execute(server, MAKE)
    want = 0
    for n in range(6):
        want += sum(b.num_rows for b in load())
        killer = threading.Timer(dice.random() * 1.0, server.kill)
        killer.start()
        while True:
            try:
                send(server, f"k{n}", load())
                break
            except Exception:
                killer.join()
                if not server.running():
                    server.start()
        killer.join()
        server.restart()
        assert send(server, f"k{n}", load())[0]["repeated"]
        assert query(server, "SELECT count(*) AS n FROM t").to_pylist() == [{"n": want}]


def resume(server, key, schema=PLAIN):
    """Opens a stream that goes on, and returns it with what is there already."""
    options = pa.flight.FlightCallOptions(headers=[(k.encode(), v.encode()) for k, v in headers(key, True)])
    client = pa.flight.connect(server.url)
    writer, reader = client.do_put(pa.flight.FlightDescriptor.for_path("t"), schema, options)
    return client, writer, reader, json.loads(reader.read().to_pybytes())


def test_resume_over_kills_is_exact(server):
    execute(server, MAKE)
    load = list(batches(400, rows=50))
    dice = random.Random(3)
    for n in range(8):
        client, writer, reader, there = resume(server, "k")
        assert there["rows"] == 50 * there["batches"] == scalar(server, "SELECT count(*) FROM t"), n
        killer = threading.Timer(dice.random() * 0.2, server.kill)
        killer.start()
        try:
            for batch in load[there["batches"]:-1]:
                writer.write_batch(batch)
                time.sleep(0.001)
        except pa.lib.ArrowException:
            pass
        killer.join()
        del writer, reader
        client.close()
        server.start()
        if n == 4:
            trim_log(server)
            server.restart()
    client, writer, reader, there = resume(server, "k")
    for batch in load[there["batches"]:]:
        writer.write_batch(batch)
    writer.done_writing()
    acks = []
    while (metadata := reader.read()) is not None:
        acks.append(json.loads(metadata.to_pybytes()))
    assert acks[-1]["complete"] and acks[-1]["rows"] == 20000 and acks[-1]["batches"] == 400
    client.close()
    server.restart()
    _, _, _, there = resume(server, "k")
    assert there == acks[-1] | {"repeated": True}
    assert query(server, "SELECT count(*) AS n, count(DISTINCT id) AS d FROM t").to_pylist() == [{"n": 20000, "d": 20000}]


def test_flightd_ingest_goes_on_after_a_kill(server, tmp_path):
    """The program itself, run again with the same file and key until it says that all is stored."""
    execute(server, MAKE)
    path = tmp_path / "load.arrows"
    with pa.ipc.new_stream(str(path), PLAIN) as out:
        for batch in batches(300, rows=200, pad=200):
            out.write_batch(batch)
    dice = random.Random(7)
    for n in range(8):
        command = [str(BINARY), "ingest", str(path), "--table", "t", "--idempotency-key", "load", "--resume", "--url", server.url]
        job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if n < 4:
            time.sleep(dice.random() * 0.3)
            server.kill()
        out, err = job.communicate(timeout=120)
        if not server.running():
            server.start()
        if job.returncode == 0:
            break
    assert job.returncode == 0, err
    assert "60,000 rows from 1 file stored" in out
    assert query(server, "SELECT count(*) AS n, count(DISTINCT id) AS d FROM t").to_pylist() == [{"n": 60000, "d": 60000}]


def test_the_newer_stream_goes_on(server):
    execute(server, MAKE)
    load = list(batches(4))
    client, writer, reader, _ = resume(server, "k")
    writer.write_batch(load[0])
    assert json.loads(reader.read().to_pybytes())["rows"] == 100
    _, newer, acks, there = resume(server, "k")
    assert there["rows"] == 100
    with refused("ABORTED", "another stream"):
        while True:
            reader.read()
            writer.write_batch(load[3])
    for batch in load[1:]:
        newer.write_batch(batch)
    newer.done_writing()
    while (metadata := acks.read()) is not None:
        last = json.loads(metadata.to_pybytes())
    assert last["complete"] and last["rows"] == 400
    assert query(server, "SELECT count(*) AS n, count(DISTINCT id) AS d FROM t").to_pylist() == [{"n": 400, "d": 400}]
    with refused("INVALID_ARGUMENT", "another schema"):
        _, writer, reader, _ = resume(server, "k", pa.schema([("id", pa.int64())]))
        writer.done_writing()
        reader.read()
        writer.close()


def test_keys_are_forgotten_after_the_window(new_server):
    server = new_server("--idempotency-window", "300ms").start()
    execute(server, MAKE)
    assert not send(server, "k", batches(1))[0].get("repeated")
    eventually(lambda: not send(server, "k", batches(1))[0].get("repeated"))
    assert scalar(server, "SELECT count(*) FROM t") == 200


def test_silent_loads_are_ended(new_server):
    server = new_server("--transaction-idle", "2s").start()
    execute(server, MAKE)
    stream = Stream(server, "t", PLAIN, headers("k"))
    for batch in spilled():
        stream.send(batch)
    stream.thread.join(timeout=120)
    with refused("ABORTED", "sent nothing for 2s"):
        stream.finish()
    eventually(lambda: not list(server.data.glob("t.lance/_mem_wal/*/*_gen_*")))
    assert scalar(server, "SELECT count(*) FROM t") == 0
    assert not send(server, "k", batches(1))[0].get("repeated")
