"""The commands beside serve, on files that other programs wrote and at a terminal."""

import datetime as dt
import decimal
import json
import os
import pty
import select
import subprocess
import time

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest

from clients import execute, query, scalar
from server import BINARY, eventually

ROWS = 30_000


def run(*args, stdin=b""):
    return subprocess.run([str(BINARY), *map(str, args)], input=stdin, capture_output=True, timeout=60)


def table():
    """Rows of many types, as programs around Arrow write them."""
    n = np.arange(ROWS)
    return pa.table({
        "id": pa.array(n, pa.int64()),
        "small": pa.array(n % 100, pa.uint8()),
        "taken": pa.array(n * 1000, pa.timestamp("us", tz="UTC")),
        "day": pa.array((n % 9000).astype("int32"), pa.date32()),
        "value": pa.array([None if i % 7 == 0 else i / 3 for i in range(ROWS)], pa.float64()),
        "price": pa.array([decimal.Decimal(i).scaleb(-2) for i in range(ROWS)], pa.decimal128(18, 2)),
        "word": pa.array([None if i % 11 == 0 else f"wörd {i}" for i in range(ROWS)]),
        "blob": pa.array([bytes([i % 256] * (i % 5)) for i in range(ROWS)], pa.binary()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(ROWS * 4) % 97, pa.float32()), 4),
    })


@pytest.mark.parametrize("ending", ["parquet", "arrow", "arrows", "feather"])
def test_ingest_keeps_every_type(shared_server, tmp_path, ending):
    rows, file = table(), tmp_path / f"rows.{ending}"
    if ending == "parquet":
        pa.parquet.write_table(rows, file, row_group_size=7000)
    elif ending == "feather":
        pa.feather.write_feather(rows, file, compression="zstd")
    else:
        writer = pa.ipc.new_file if ending == "arrow" else pa.ipc.new_stream
        with pa.OSFile(str(file), "wb") as f, writer(f, rows.schema) as w:
            w.write_table(rows)
    result = run("ingest", file, "--url", shared_server.url, "--table", ending, "--create", "--key", "id")
    assert result.returncode == 0, result.stderr
    assert b"30,000 rows from 1 file stored" in result.stdout
    got = query(shared_server, f'SELECT * FROM "{ending}" ORDER BY id')
    assert got.cast(rows.schema).equals(rows)


def test_ingest_of_csv_takes_the_types_of_the_table(shared_server, tmp_path):
    execute(shared_server, "CREATE TABLE people (id INTEGER PRIMARY KEY, born DATE, name VARCHAR, height DECIMAL(5, 2))")
    rows = pa.table({"name": ["Ä, b", None, "c\nd"], "id": [1, 2, 3], "height": ["1.80", "0.55", None],
                     "born": [dt.date(1999, 1, 2), None, dt.date(2001, 12, 31)]})
    pa.csv.write_csv(rows, tmp_path / "people.csv")
    result = run("ingest", tmp_path / "people.csv", "--url", shared_server.url, "--table", "people")
    assert result.returncode == 0, result.stderr
    assert query(shared_server, "SELECT * FROM people ORDER BY id").to_pylist() == [
        {"id": 1, "born": dt.date(1999, 1, 2), "name": "Ä, b", "height": decimal.Decimal("1.80")},
        {"id": 2, "born": None, "name": None, "height": decimal.Decimal("0.55")},
        {"id": 3, "born": dt.date(2001, 12, 31), "name": "c\nd", "height": None},
    ]


def test_a_result_goes_from_sql_to_ingest(shared_server):
    execute(shared_server, "CREATE TABLE source (id BIGINT PRIMARY KEY)", "INSERT INTO source VALUES (1), (2), (3)")
    result = run("sql", "--url", shared_server.url, "--format", "arrow", "-c", "SELECT id, id * 2 AS twice FROM source WHERE id > 1")
    assert result.returncode == 0, result.stderr
    assert pa.ipc.open_stream(result.stdout).read_all().num_rows == 2
    result = run("ingest", "-", "--url", shared_server.url, "--table", "twice", "--create", stdin=result.stdout)
    assert result.returncode == 0, result.stderr
    result = run("sql", "--url", shared_server.url, "--format", "json", "-c", "FROM twice ORDER BY id")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [{"id": 2, "twice": 4}, {"id": 3, "twice": 6}]


def test_what_ingest_says_is_stored_survives_a_kill(new_server, tmp_path):
    server = new_server().start()
    rows = pa.concat_tables([table()] * 30).drop(["id"]).append_column("id", pa.array(range(30 * ROWS)))
    with pa.OSFile(str(tmp_path / "rows.arrow"), "wb") as f, pa.ipc.new_file(f, rows.schema) as w:
        w.write_table(rows)
    ingest = subprocess.Popen([str(BINARY), "ingest", str(tmp_path / "rows.arrow"), "--url", server.url, "--table", "rows",
                               "--create", "--key", "id"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    eventually(lambda: "rows" in query(server, "SHOW TABLES").column(0).to_pylist() and scalar(server, "SELECT count(*) FROM rows") > 0)
    server.kill()
    _, said = ingest.communicate(timeout=60)
    acknowledged = rows.num_rows  # should it have been faster than the kill
    if "no row was acknowledged" in said:
        acknowledged = 0
    elif ingest.returncode != 0:
        acknowledged = int(said.split("acknowledged and stored are the first ")[1].split(" row")[0].replace(",", ""))
    server.start()
    stored = query(server, "SELECT count(*) AS n, max(id) AS last FROM rows").to_pylist()[0]
    assert stored["n"] >= acknowledged
    assert stored["last"] == stored["n"] - 1, "what is stored is a prefix"


def at_terminal(args, keys, home):
    """Runs a command at a terminal, types keys whenever it is silent, and returns what the screen got and the exit code."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(str(BINARY), [str(BINARY), *args], {"HOME": str(home), "TERM": "xterm"})
    screen, keys, end = b"", list(keys), time.monotonic() + 60
    while time.monotonic() < end:
        ready, _, _ = select.select([fd], [], [], 0.3)
        if ready:
            try:
                piece = os.read(fd, 65536)
            except OSError:  # how Linux tells that the other side closed
                break
            if not piece:
                break
            screen += piece
        elif keys:
            os.write(fd, keys.pop(0))
    return screen.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_the_shell_at_a_terminal(shared_server, tmp_path):
    execute(shared_server, "CREATE TABLE seen (id INTEGER PRIMARY KEY)", "INSERT INTO seen VALUES (41), (42)")
    keys = [b"\\d seen\r", b"SELECT count(*) AS n\r", b"FROM seen;\r", b"garbage\x03", b"SELECT sum(i) FROM range(1000000000000) t(i);\r",
            b"\x03", b"SELECT 'still' || ' here';\r", b"\x04"]
    screen, code = at_terminal(["sql", "--url", shared_server.url], keys, tmp_path)
    assert code == 0, screen
    assert "PRI" in screen and "...> " in screen and "still here" in screen
    assert 'error: received signal "interrupt"' in screen
    assert (tmp_path / ".flightd_history").read_text().splitlines()[1] == "SELECT count(*) AS n FROM seen;"


def test_check_and_inspect_of_a_folder_in_use(server):
    execute(server, "CREATE TABLE t (id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)", "OPTIMIZE t")
    refused = server.check()
    assert refused.returncode == 1 and f"process {server.process.pid}" in refused.stderr
    result = run("inspect", server.dataset("t"), "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["rows"] == 1
    server.kill()
    assert b"no faults" in run("check", server.data).stdout
    file = next((server.dataset("t") / "data").glob("*.lance"))
    content = file.read_bytes()
    file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    result = run("check", server.data)
    assert result.returncode == 1 and f"fault: {file}: offset 0: ".encode() in result.stdout
    file.write_bytes(content)
    server.start()
