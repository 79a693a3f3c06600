"""SQL over 10 million rows of schema A: flightd after OPTIMIZE, over ADBC, against DuckDB in process over Arrow."""

import statistics
import tempfile

import adbc_driver_flightsql.dbapi as flightsql
import duckdb
import pyarrow as pa

from common import CREATE, SCHEMA, Server, batches, put, timed

ROWS = 10_000_000
QUERIES = {
    "count and sum": "SELECT count(*), sum(value) FROM a",
    "group by tag": "SELECT tag, count(*), avg(value) FROM a GROUP BY tag ORDER BY tag LIMIT 5",
    "one key": "SELECT value FROM a WHERE id = 7654321",
    "top 10": "SELECT id, value FROM a ORDER BY value DESC LIMIT 10",
    "all rows out": "SELECT * FROM a",
}


def main():
    data = batches(ROWS, 65_536, random_keys=False)
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder).start()
        with flightsql.connect(f"grpc://{server.grpc}", autocommit=True) as c, c.cursor() as cursor:
            cursor.execute(CREATE)
            put(f"grpc://{server.grpc}", "a", data)
            cursor.execute("OPTIMIZE a")
            peer = duckdb.connect()
            peer.register("a", pa.Table.from_batches(data, SCHEMA))

            def ours(sql):
                cursor.execute(sql)
                return cursor.fetch_arrow_table()

            def theirs(sql):
                return peer.execute(sql).arrow().read_all()

            for name, sql in QUERIES.items():
                assert ours(sql).num_rows == theirs(sql).num_rows  # and both are warm
                a, b = [], []
                for _ in range(7):
                    a.append(timed(lambda: ours(sql)))
                    b.append(timed(lambda: theirs(sql)))
                x, y = statistics.median(a) * 1e3, statistics.median(b) * 1e3
                print(f"{name:16} flightd {x:8.1f} ms   DuckDB {y:8.1f} ms   {x / y:5.2f} times", flush=True)
        server.close()


if __name__ == "__main__":
    main()
