"""Writes the fixtures of this folder with pylance: files of format 2.0, and some of later ones, and beside each what is in
it as Arrow IPC. (matrix.py writes many more of the later formats.)

Run it with pylance 14.0.2 and pyarrow, in this folder: python write.py
"""

import decimal

import pyarrow as pa
from lance.file import LanceFileWriter

VALUES = [1, None, -3, 4, None, 120, 7]


def of(type_):
    """VALUES as a type that integers cast to."""
    return pa.array(VALUES, pa.int64()).cast(type_)


def unsigned(type_):
    return pa.array([abs(v) if v is not None else None for v in VALUES], pa.int64()).cast(type_)


def types():
    """A column of each type, with nulls, in one small page each."""
    decimals = [None if v is None else decimal.Decimal(v) / 8 for v in VALUES]
    texts = ["a", None, "", "grüße", None, "x" * 40, "z"]
    blobs = [None if t is None else t.encode() for t in texts]
    columns = {str(t): of(t) for t in [pa.int8(), pa.int16(), pa.int32(), pa.int64()]}
    columns |= {str(t): unsigned(t) for t in [pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]}
    columns |= {str(t): of(pa.float32()).cast(t) for t in [pa.float16(), pa.float32(), pa.float64()]}
    columns |= {
        "bool": pa.array([True, None, False, True, None, False, True]),
        "null": pa.nulls(len(VALUES)),
        "date32": of(pa.int32()).cast(pa.date32()),
        "date64": pa.array([None if v is None else v * 86_400_000 for v in VALUES], pa.date64()),
        "time32 s": unsigned(pa.int32()).cast(pa.time32("s")),
        "time32 ms": unsigned(pa.int32()).cast(pa.time32("ms")),
        "time64 us": unsigned(pa.int64()).cast(pa.time64("us")),
        "time64 ns": unsigned(pa.int64()).cast(pa.time64("ns")),
        "timestamp berlin": of(pa.timestamp("us", "Europe/Berlin")),
        "timestamp offset": of(pa.timestamp("ms", "+01:30")),
        "decimal128": pa.array(decimals, pa.decimal128(20, 3)),
        "decimal256": pa.array(decimals, pa.decimal256(50, 3)),
        "string": pa.array(texts),
        "large_string": pa.array(texts, pa.large_string()),
        "binary": pa.array(blobs, pa.binary()),
        "large_binary": pa.array(blobs, pa.large_binary()),
        "fixed_size_binary": pa.array([b"abc", None, b"def", b"ghi", None, b"jkl", b"mno"], pa.binary(3)),
    }
    for unit in ["s", "ms", "us", "ns"]:
        columns["timestamp " + unit] = of(pa.timestamp(unit))
        columns["duration " + unit] = of(pa.duration(unit))
    columns |= lists() | {
        "all null int64": pa.nulls(7, pa.int64()),
        "all null string": pa.nulls(7, pa.string()),
        "all null list": pa.nulls(7, pa.list_(pa.uint8(), 2)),
    }
    return pa.table(columns)


def lists():
    """Fixed-size lists with every mixture of null rows and null items."""
    plain = [[i, i + 1] for i in range(7)]
    rows = [None if i in (1, 4) else v for i, v in enumerate(plain)]
    items = [[None if i == 2 else v for v in row] for i, row in enumerate(plain)]
    both = [None if i in (1, 6) else v for i, v in enumerate(items)]
    bits = [None if i == 3 else [bool(i & 1), None if i == 5 else True, False] for i in range(7)]
    return {
        "list": pa.array(plain, pa.list_(pa.float32(), 2)),
        "list, null rows": pa.array(rows, pa.list_(pa.float32(), 2)),
        "list, null items": pa.array(items, pa.list_(pa.int16(), 2)),
        "list, both": pa.array(both, pa.list_(pa.float64(), 2)),
        "list of bits": pa.array(bits, pa.list_(pa.bool_(), 3)),
        "list of nothing": pa.array([[None, None]] * 7, pa.list_(pa.uint8(), 2)),
    }


def pages():
    """Many pages that end in different rows, and metadata."""
    n = 600
    fields = [
        pa.field("id", pa.int64(), nullable=False, metadata={"lance-schema:unenforced-primary-key": "true"}),
        pa.field("text", pa.string()),
        pa.field("vec", pa.list_(pa.float32(), 4)),
        pa.field("flag", pa.bool_(), metadata={"note": "of the field"}),
    ]
    return pa.table(
        {
            "id": range(n),
            "text": [None if i % 11 == 0 else "t" * (i % 7) + str(i) for i in range(n)],
            "vec": [None if i % 13 == 0 else [float(i), 0.5, -1.0, 2.0] for i in range(n)],
            "flag": [None if i % 5 == 0 else i % 3 == 0 for i in range(n)],
        },
        schema=pa.schema(fields, metadata={"note": "of the schema"}),
    )


def dictionary():
    """Pages that the writer makes dictionaries of, because there are few distinct strings in many rows."""
    n = 250
    return pa.table(
        {
            "words": [None if i % 10 == 9 else ["", "a", "bc", "grüße", "w" * 20][i % 5] for i in range(n)],
            "one": ["same"] * n,
            "none": pa.nulls(n, pa.string()),
            "binary": pa.array([b"same"] * n, pa.binary()),
        }
    )


def nested():
    """Structs and lists in each other, in pages that end in different rows."""
    n = 300
    point = pa.struct([pa.field("x", pa.int64()), pa.field("name", pa.string(), metadata={"note": "inner"})])
    points = [{"x": None if i % 5 == 0 else i, "name": None if i % 7 == 0 else "n" * (i % 4)} for i in range(n)]
    words = [None if i % 6 == 0 else [None if i % 4 == 0 else str(i)] * (i % 5) for i in range(n)]
    lists = [None if i % 9 == 0 else points[i : i + i % 4] for i in range(n)]
    vectors = [None if i % 8 == 0 else [[float(i), 0.5]] * (i % 3) for i in range(n)]
    return pa.table(
        {
            "ints": pa.array([None if i % 11 == 0 else list(range(i % 6)) for i in range(n)], pa.list_(pa.int16())),
            "words": pa.array(words, pa.large_list(pa.string())),
            "point": pa.array(points, point),
            "points": pa.array(lists, pa.list_(point)),
            "lists": pa.array([None if i % 10 == 0 else words[i : i + i % 3] for i in range(n)], pa.list_(pa.list_(pa.string()))),
            "vectors": pa.array(vectors, pa.list_(pa.list_(pa.float32(), 2))),
            "deep": pa.array([{"points": lists[i], "in": {"flag": i % 3 == 0}} for i in range(n)],
                             pa.struct([("points", pa.large_list(point)), ("in", pa.struct([("flag", pa.bool_())]))])),
            "long": [[i] * (2000 if i == 7 else 1) for i in range(n)],
            "no items": pa.array([None if i % 2 else [] for i in range(n)], pa.list_(point)),
            "nothing": pa.array([[None] * (i % 3) for i in range(n)], pa.list_(pa.null())),
            "few words": pa.array([["same", None, "other"][: i % 4] for i in range(n)], pa.list_(pa.string())),
        }
    )


def few():
    """Small data for each layout and encoding of 2.1 and later: a seed of what is read with bytes changed."""
    n = 200
    point = pa.struct([("x", pa.int64()), ("name", pa.string())])
    lists = [None if i % 9 == 0 else [{"x": k, "name": None if k == 1 else "n"} for k in range(i % 4)] for i in range(n)]
    text = ["common words that come again " + str(i % 50) for i in range(n)]
    encoded = {"zstd": {"compression": "zstd"}, "lz4": {"compression": "lz4"}, "fsst": {"compression": "fsst"},
               "zipped": {"structural-encoding": "fullzip"}}
    columns = {
        "packed": pa.array([None if i % 7 == 0 else i for i in range(n)]),
        "runs": pa.array([i // 60 for i in range(n)], pa.int32()),
        "one": pa.array([None if i % 3 == 0 else "the one that all are, of some length" for i in range(n)]),
        "vector": pa.array([[float(i)] * 64 for i in range(n)], pa.list_(pa.float32(), 64)),
        "null vectors": pa.array([None if i % 5 == 0 else [float(i), None] for i in range(n)], pa.list_(pa.float32(), 2)),
        "points": pa.array(lists, pa.list_(point)),
        "point": pa.array([None if i % 4 == 0 else {"x": i, "name": "p"} for i in range(n)], point),
        "lists": pa.array([None if i % 8 == 0 else [[i] * (i % 3)] * (i % 4) for i in range(n)], pa.list_(pa.list_(pa.int16()))),
    }
    fields = [pa.field(k, v.type) for k, v in columns.items()]
    for name, metadata in encoded.items():
        columns[name] = text if name != "zipped" else [None if i % 6 == 0 else t for i, t in enumerate(text)]
        fields.append(pa.field(name, pa.string(), metadata={"lance-encoding:" + k: v for k, v in metadata.items()}))
    return pa.table(columns, schema=pa.schema(fields))


def write(name, table, version="2.0", **options):
    with LanceFileWriter(name + ".lance", table.schema, version=version, **options) as f:
        for batch in table.to_batches(max_chunksize=50):
            # A slice of a list crashes the writer: through IPC it becomes a batch of its own.
            f.write_batch(pa.ipc.read_record_batch(batch.serialize(), batch.schema))
    with pa.ipc.new_file(name + ".arrow", table.schema) as f:
        f.write_table(table)


if __name__ == "__main__":
    write("types", types())
    write("pages", pages(), data_cache_bytes=4096)
    write("dictionary", dictionary())
    write("nested", nested(), data_cache_bytes=4096)
    write("empty", types().slice(0, 0))
    write("types22", types(), "2.2")
    write("few21", few(), "2.1")
    write("few22", few(), "2.2")
