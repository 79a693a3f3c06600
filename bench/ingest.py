"""Durable upserts of schema A: flightd over DoPut, one stream, against DuckDB in process on a file."""

import pathlib
import tempfile

import adbc_driver_flightsql.dbapi as flightsql
import duckdb
import pyarrow as pa

from common import CREATE, ROUNDS, Server, batches, put, show, timed


def duck(folder, data):
    """One transaction for each batch, as an acknowledged batch is one."""
    with duckdb.connect(str(pathlib.Path(folder) / "peer.duckdb")) as db:
        db.execute(CREATE)
        for batch in data:
            rows = pa.Table.from_batches([batch])  # noqa: F841, DuckDB finds it by its name
            db.execute("INSERT OR REPLACE INTO a SELECT * FROM rows")


def main():
    for size, rows, peer_rows in ((100, 1_000_000, 50_000), (1000, 4_000_000, 400_000), (8192, 8_000_000, 2_000_000)):
        for random_keys in (False, True):
            data, peer_data = batches(rows, size, random_keys), batches(peer_rows, size, random_keys)
            ours, theirs = [], []
            for _ in range(ROUNDS):
                with tempfile.TemporaryDirectory() as folder:
                    server = Server(folder).start()
                    with flightsql.connect(f"grpc://{server.grpc}", autocommit=True) as c, c.cursor() as cursor:
                        cursor.execute(CREATE)
                    ours.append(timed(lambda: put(f"grpc://{server.grpc}", "a", data)))
                    server.close()
                with tempfile.TemporaryDirectory() as folder:
                    theirs.append(timed(lambda: duck(folder, peer_data)))
            what = f"batch {size}, {'random' if random_keys else 'rising'} keys"
            a, b = show("flightd, " + what, ours, rows), show("DuckDB in process, " + what, theirs, peer_rows)
            print(f"{'':44} {a / b:8.1f} times")


if __name__ == "__main__":
    main()
