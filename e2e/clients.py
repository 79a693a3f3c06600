"""The clients: ADBC and pyarrow as users have them, and raw gRPC for what no client library would send."""

import contextlib
import json
import pathlib
import re
import threading

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import duckdb
import duckdb_extension_lance
import grpc
import pyarrow as pa
import pyarrow.flight


def adbc(server):
    """Opens an ADBC connection. Every statement commits by itself."""
    return adbc_driver_flightsql.dbapi.connect(server.url, autocommit=True)


def duckdb_with_lance():
    """Opens a DuckDB that has its lance extension, as `INSTALL lance; LOAD lance` would."""
    extension = next(pathlib.Path(duckdb_extension_lance.__file__).parent.rglob("lance.duckdb_extension"))
    db = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    db.execute(f"LOAD '{extension}'")
    return db


def execute(server, *statements):
    """Runs statements that return no rows."""
    with adbc(server) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def query(server, sql, parameters=None):
    """Returns the rows of a query by ADBC as a pyarrow.Table."""
    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetch_arrow_table()


def scalar(server, sql):
    """Returns the one value of a query."""
    table = query(server, sql)
    assert table.num_rows == 1 and table.num_columns == 1, table
    return table.column(0)[0].as_py()


def varint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def field(number, data):
    """Encodes one length-delimited field of a protobuf message."""
    data = data.encode() if isinstance(data, str) else data
    return varint(number << 3 | 2) + varint(len(data)) + data


def query_flight(server, sql):
    """Returns the rows of a query by pyarrow.flight, all endpoints in order."""
    command = field(1, "type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery") + field(2, field(1, sql))
    with pa.flight.connect(server.url) as client:
        info = client.get_flight_info(pa.flight.FlightDescriptor.for_command(command))
        return pa.concat_tables([client.do_get(e.ticket).read_all() for e in info.endpoints])


class Stream:
    """A plain DoPut. Acks are read by a thread while the caller sends; a broken stream is remembered, not raised."""

    def __init__(self, server, path, schema, headers=()):
        path = [path] if isinstance(path, str) else path
        self.client = pa.flight.connect(server.url)
        self.sent = []  # rows of each batch that was handed to the client library
        self.acks = []
        self.error = None
        options = pa.flight.FlightCallOptions(headers=[(k.encode(), v.encode()) for k, v in headers])
        self.writer, self.reader = self.client.do_put(pa.flight.FlightDescriptor.for_path(*path), schema, options)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        try:
            while (metadata := self.reader.read()) is not None:
                self.acks.append(json.loads(metadata.to_pybytes()))
        except Exception as e:  # the caller decides what it means
            self.error = self.error or e

    def send(self, batch):
        """Sends a batch; false when the stream is broken."""
        self.sent.append(batch.num_rows)
        try:
            self.writer.write_batch(batch)
        except Exception as e:
            self.error = self.error or e
            return False
        return self.thread.is_alive() or self.error is None

    def finish(self):
        """Ends the stream, waits for the last ack and raises what broke the stream."""
        with contextlib.suppress(Exception):
            self.writer.done_writing()
        self.thread.join(timeout=120)
        assert not self.thread.is_alive(), "the server did not end the stream"
        try:
            self.writer.close()
        except Exception as e:
            self.error = self.error or e
        self.client.close()
        if self.error:
            raise self.error
        return self.acked

    def abandon(self):
        """As finish, for a stream whose server is gone."""
        with contextlib.suppress(Exception):
            self.finish()
        return self.acked

    @property
    def acked(self):
        """Rows that were acknowledged."""
        return self.acks[-1]["rows"] if self.acks else 0


def put(server, path, batches, headers=()):
    """Streams batches, checks the acks and returns them."""
    batches = list(batches)
    stream = Stream(server, path, batches[0].schema, headers)
    for batch in batches:
        if not stream.send(batch):
            break
    stream.finish()
    check_acks(stream)
    assert stream.acked == sum(b.num_rows for b in batches)
    assert stream.acks[-1]["batches"] == len(batches)
    return stream.acks


def check_acks(stream):
    """Acks are cumulative, rise together and end at batches that were sent."""
    rows_after = [0]
    for n in stream.sent:
        rows_after.append(rows_after[-1] + n)
    last = {"batches": 0, "rows": 0, "seq": 0}
    for ack in stream.acks:
        assert set(ack) == {"batches", "rows", "seq"}, ack
        assert ack["batches"] > last["batches"] and ack["seq"] > last["seq"], (last, ack)
        assert ack["rows"] == rows_after[ack["batches"]], (ack, "is not the end of a batch")
        last = ack


def code_of(error):
    """Names the gRPC code of an exception of any of the clients."""
    if isinstance(error, grpc.RpcError):
        return error.code().name
    text = str(error)
    if isinstance(error, adbc_driver_manager.Error):
        found = re.search(r"\(([A-Z]\w+); [A-Z]", text) or re.match(r"([A-Z_]+):", text)
        name = found[1] if found else text
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()
    # pyarrow keeps the code in its words only.
    words = {
        "invalid argument": "INVALID_ARGUMENT", "not found": "NOT_FOUND", "already exists": "ALREADY_EXISTS",
        "resource exhausted": "RESOURCE_EXHAUSTED", "precondition failed": "FAILED_PRECONDITION", "aborted": "ABORTED",
        "unimplemented": "UNIMPLEMENTED", "internal": "INTERNAL", "unavailable": "UNAVAILABLE", "data loss": "DATA_LOSS",
        "unauthenticated": "UNAUTHENTICATED", "unauthorized": "PERMISSION_DENIED", "cancelled": "CANCELLED", "unknown": "UNKNOWN",
    }
    found = re.search(r"(?:Flight|gRPC) returned ([a-z ]+?) error", text)
    return words.get(found[1], found[1]) if found else f"{type(error).__name__}: {text}"


@contextlib.contextmanager
def refused(code, *words):
    """Expects an error with a gRPC code whose message contains all words."""
    try:
        yield
    except (pa.lib.ArrowException, pa.flight.FlightError, KeyError, OSError, grpc.RpcError, adbc_driver_manager.Error) as e:
        assert code_of(e) == code, f"want {code}, got {code_of(e)}: {e}"
        for word in words:
            assert word.lower() in str(e).lower(), f"want {word!r} in: {e}"
    else:
        raise AssertionError(f"it was accepted, want {code}")


# What follows speaks gRPC by hand: FlightData{descriptor 1, header 2, app_metadata 3, body 1000}.


def flight_data(path=None, header=None, body=None):
    """Encodes a FlightData message."""
    out = b""
    if path is not None:
        out += field(1, b"\x08\x01" + b"".join(field(3, p) for p in path))
    if header is not None:
        out += field(2, header)
    if body is not None:
        out += field(1000, body)
    return out


def ipc_parts(schema, *batches):
    """Splits an IPC stream into (header, body) of its messages."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as out:
        for batch in batches:
            out.write_batch(batch)
    parts = []
    for message in pa.ipc.MessageReader.open_stream(sink.getvalue()):
        body = message.body.to_pybytes() if message.body is not None else b""
        parts.append((message.metadata.to_pybytes(), body))
    return parts


def raw_put(server, messages):
    """Sends raw messages by DoPut and returns the raw answers."""
    with grpc.insecure_channel(server.grpc, options=[("grpc.max_send_message_length", -1)]) as channel:
        call = channel.stream_stream("/arrow.flight.protocol.FlightService/DoPut",
                                     request_serializer=lambda b: b, response_deserializer=lambda b: b)
        return list(call(iter(messages), timeout=60))
