"""Readers that stall, and statements in the background: what a client leaves lying does not hold up the others."""

import pyarrow as pa
import pyarrow.flight

from clients import Stream, adbc, execute, field, query, scalar

ROWS = 200_000
SCHEMA = pa.schema([("id", pa.int64()), ("s", pa.string())])


def batch(first, n):
    return pa.record_batch([pa.array(range(first, first + n), pa.int64()), ["x" * 150] * n], schema=SCHEMA)


def test_a_reader_that_stalls_does_not_hold_up_ingest(new_server):
    # A quarter of this budget, at the least, is what memtables may take: a snapshot of a full memtable, kept for ever,
    # would leave too little for writers.
    server = new_server("--memory", "512MiB").start()
    execute(server, "CREATE TABLE events (id BIGINT PRIMARY KEY, s VARCHAR)")
    stream = Stream(server, "events", SCHEMA)
    sent = 0
    stalled = []
    command = field(1, "type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery") + field(
        2, field(1, "SELECT * FROM events a, range(1000000)"))
    try:
        for round in range(40):
            for _ in range(5):
                assert stream.send(batch(sent, 10_000))
                sent += 10_000
            if round % 4 == 3 and len(stalled) < 8:  # each pins what lies in memory now, and takes nothing of its result
                client = pa.flight.connect(server.url)
                info = client.get_flight_info(pa.flight.FlightDescriptor.for_command(command))
                reader = client.do_get(info.endpoints[0].ticket)
                reader.read_chunk()
                stalled.append((client, reader))
        stream.finish()
    finally:
        for client, _ in stalled:
            client.close()
    assert scalar(server, "SELECT count(*) FROM events") == sent


def test_leases_that_nobody_reads_do_not_hold_up_ingest(new_server):
    server = new_server("--memory", "512MiB").start()
    execute(server, "CREATE TABLE events (id BIGINT PRIMARY KEY, s VARCHAR)",
            "INSERT INTO events SELECT -1 - range, 'x' FROM range(2200000)")
    stream = Stream(server, "events", SCHEMA)
    sent = 0
    with adbc(server) as connection, connection.cursor() as cursor:
        for round in range(40):
            for _ in range(5):
                assert stream.send(batch(sent, 10_000))
                sent += 10_000
            if round % 4 == 3:
                partitions, _ = cursor.adbc_execute_partitions("SELECT * FROM events")
                assert len(partitions) >= 2
        stream.finish()
    assert scalar(server, "SELECT count(*) FROM events") == sent + 2200000


def test_a_polled_query_has_its_result_when_it_is_done(shared_server):
    execute(shared_server, "CREATE TABLE polled (id BIGINT PRIMARY KEY)", "INSERT INTO polled SELECT range FROM range(100000)")
    with adbc(shared_server) as connection, connection.cursor() as cursor:
        cursor.adbc_statement.set_options(**{"adbc.statement.exec.incremental": "true"})
        partitions = []
        while found := cursor.adbc_execute_partitions("SELECT max(a.id + b.id) AS m FROM polled a JOIN polled b ON a.id % 1000 = b.id % 1000")[0]:
            partitions += found
    assert len(partitions) == 1
    execute(shared_server, "TRUNCATE polled")
    for _ in range(2):
        with adbc(shared_server) as connection, connection.cursor() as cursor:
            cursor.adbc_read_partition(partitions[0])
            assert cursor.fetchall() == [(199998,)]
    assert query(shared_server, "SELECT count(*) AS n FROM polled").to_pylist() == [{"n": 0}]
