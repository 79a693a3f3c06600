"""Writes files of format 2.1 and 2.2 with pylance, with everything that it does by default: every type, with and without
nulls, in data that suits each of its encodings. Beside each file is what is in it as Arrow IPC.

    python matrix.py FOLDER
"""

import random
import sys
from pathlib import Path

import pyarrow as pa
from lance.file import LanceFileWriter

import write

ROWS = 6000
dice = random.Random(7)


def some(make, nulls):
    """ROWS values, a part of them null."""
    return [None if dice.random() < nulls else make(i) for i in range(ROWS)]


def word(n):
    return "".join(dice.choice("etaoin shrdlu") for _ in range(n))


def numbers(nulls):
    columns = {}
    for t, bits in [(pa.int8(), 7), (pa.int16(), 15), (pa.int32(), 31), (pa.int64(), 63)]:
        columns[f"{t} small"] = pa.array(some(lambda i: dice.randrange(5), nulls), t)
        columns[f"{t} wide"] = pa.array(some(lambda i: dice.randrange(-(1 << bits), 1 << bits), nulls), t)
        columns[f"{t} runs"] = pa.array(some(lambda i: i // 700 - 3, nulls / 100), t)
        columns[f"{t} sequence"] = pa.array([i % 100 for i in range(ROWS)], t)
    for t, bits in [(pa.uint8(), 8), (pa.uint16(), 16), (pa.uint32(), 32), (pa.uint64(), 64)]:
        columns[str(t)] = pa.array(some(lambda i: dice.randrange(1 << bits), nulls), t)
    columns |= {
        "float16": pa.array(some(lambda i: float(i % 100), nulls), pa.float16()),
        "float32": pa.array(some(lambda i: dice.random(), nulls), pa.float32()),
        "float64": pa.array(some(lambda i: dice.random(), nulls), pa.float64()),
        "float32 few": pa.array(some(lambda i: i * i % 1000 / 7, nulls), pa.float32()),
        "float64 few": pa.array(some(lambda i: i * i % 1000 / 7, nulls), pa.float64()),
        "float64 runs": pa.array(some(lambda i: i // 1000 / 3, nulls), pa.float64()),
        "bool": pa.array(some(lambda i: dice.random() < 0.5, nulls), pa.bool_()),
        "bool runs": pa.array([i // 1000 % 2 == 0 for i in range(ROWS)], pa.bool_()),
        "decimal128": pa.array(some(lambda i: i - 3000, nulls), pa.int64()).cast(pa.decimal128(20, 0)),
        "decimal256": pa.array(some(lambda i: i - 3000, nulls), pa.int64()).cast(pa.decimal256(50, 0)),
        "timestamp": pa.array(some(lambda i: 1_700_000_000_000_000 + i, nulls), pa.timestamp("us", "UTC")),
        "one": pa.array(some(lambda i: 42, nulls), pa.int64()),
        "one uuid": pa.array(some(lambda i: bytes(range(16)), nulls), pa.binary(16)),
        "one long": pa.array(some(lambda i: bytes(range(48)), nulls), pa.binary(48)),
        "uuid": pa.array(some(lambda i: dice.randbytes(16), nulls), pa.binary(16)),
        "large fixed": pa.array(some(lambda i: dice.randbytes(300), nulls), pa.binary(300)),
        "null": pa.nulls(ROWS),
        "null int": pa.nulls(ROWS, pa.int32()),
    }
    return columns


def texts(nulls):
    few = [word(30) for _ in range(20)]
    return {
        "short": pa.array(some(lambda i: word(dice.randrange(4)), nulls)),
        "text": pa.array(some(lambda i: word(dice.randrange(60)), nulls)),
        "few": pa.array(some(lambda i: dice.choice(few), nulls)),
        "few, large": pa.array(some(lambda i: dice.choice(few), nulls), pa.large_string()),
        "same": pa.array(some(lambda i: "the same", nulls)),
        "same and long": pa.array(some(lambda i: "the same " * 10, nulls)),
        "long": pa.array(some(lambda i: word(dice.randrange(600)), nulls)[:ROWS]),
        "random": pa.array(some(lambda i: dice.randbytes(dice.randrange(40)), nulls), pa.binary()),
        "large": pa.array(some(lambda i: word(dice.randrange(40)), nulls), pa.large_string()),
        "large binary": pa.array(some(lambda i: dice.randbytes(dice.randrange(900)), nulls), pa.large_binary()),
        "empty": pa.array(some(lambda i: "", nulls)),
        "null text": pa.nulls(ROWS, pa.string()),
    }


def vectors(nulls):
    def list_of(make, n, t, items=0.0):
        return pa.array(some(lambda i: [None if dice.random() < items else make() for _ in range(n)], nulls), pa.list_(t, n))

    return {
        "small": list_of(dice.random, 4, pa.float32()),
        "wide": list_of(dice.random, 128, pa.float32()),
        "bytes": list_of(lambda: dice.randrange(256), 8, pa.uint8()),
        "bits": list_of(lambda: dice.random() < 0.5, 9, pa.bool_()),
        "null items": list_of(dice.random, 3, pa.float64(), 0.2),
        "wide, null items": list_of(dice.random, 70, pa.float32(), 0.2),
        "same": list_of(lambda: 1.0, 4, pa.float32()),
    }


def nested(nulls, version):
    def maybe(v):
        return None if dice.random() < nulls else v

    def many(make, most=5):
        return [maybe(make()) for _ in range(dice.randrange(most))]

    point = pa.struct([("x", pa.int64()), ("name", pa.string())])
    columns = {
        "ints": pa.array(some(lambda i: many(lambda: dice.randrange(100)), nulls), pa.list_(pa.int64())),
        "full": pa.array([[1, 2], [3]] * (ROWS // 2), pa.list_(pa.int32())),
        "texts": pa.array(some(lambda i: many(lambda: word(8)), nulls), pa.list_(pa.string())),
        "large": pa.array(some(lambda i: many(lambda: word(300), 3), nulls), pa.large_list(pa.string())),
        "lists": pa.array(some(lambda i: many(lambda: many(lambda: dice.randrange(9))), nulls), pa.list_(pa.list_(pa.int16()))),
        "vectors": pa.array(some(lambda i: many(lambda: [dice.random()] * 100, 3), nulls), pa.list_(pa.list_(pa.float32(), 100))),
        "point": pa.array(some(lambda i: {"x": maybe(i), "name": maybe(word(4))}, nulls), point),
        "points": pa.array(some(lambda i: many(lambda: {"x": maybe(i), "name": maybe(word(4))}), nulls), pa.list_(point)),
        "deep": pa.array(some(lambda i: {"in": maybe({"points": maybe(many(lambda: {"x": i, "name": "n"})), "flag": maybe(True)})}, nulls),
                         pa.struct([("in", pa.struct([("points", pa.list_(point)), ("flag", pa.bool_())]))])),
        "lists of structs of lists": pa.array(some(lambda i: many(lambda: {"a": maybe(many(lambda: i)), "b": maybe(i)}), nulls),
                                              pa.list_(pa.struct([("a", pa.list_(pa.int64())), ("b", pa.int64())]))),
        "empty": pa.array(some(lambda i: [], nulls), pa.list_(pa.int64())),
        "null": pa.nulls(ROWS, pa.list_(pa.string())),
        "null point": pa.nulls(ROWS, point),
        "long": pa.array([[i] * (20_000 if i == 1000 else 1) for i in range(ROWS)], pa.list_(pa.int64())),
        "long texts": pa.array(some(lambda i: many(lambda: word(30_000 if i % 2000 == 7 else 9), 4), nulls), pa.list_(pa.string())),
        "wide, null items": pa.array(some(lambda i: many(lambda: [maybe(dice.random()) for _ in range(70)], 3), nulls), pa.list_(pa.list_(pa.float32(), 70))),
        "empties": pa.array([[[i]] + [[]] * (80_000 if i == 1000 else 1) + [[i]] for i in range(ROWS)], pa.list_(pa.list_(pa.int32()))),
        "zipped bools": pa.array([[[i % 2 == 0]] + [[]] * (80_000 if i == 1000 else 1) + [[True]] for i in range(ROWS)], pa.list_(pa.list_(pa.bool_()))),
        "same": pa.array(some(lambda i: ["same"] * dice.randrange(3), nulls), pa.list_(pa.string())),
    }
    if version >= "2.2":
        columns["map"] = pa.array(some(lambda i: [(f"{k}{word(2)}", maybe(i)) for k in range(dice.randrange(3))], nulls),
                                  pa.map_(pa.string(), pa.int64()))
    return columns


def tuned(nulls):
    """Encodings that a field's metadata ask for."""
    columns, fields = {}, []

    def add(name, values, **metadata):
        columns[name] = values
        fields.append(pa.field(name, values.type, metadata={"lance-encoding:" + k.replace("_", "-"): v for k, v in metadata.items()}))

    floats = pa.array(some(lambda i: i / 7, nulls), pa.float64())
    words = pa.array(some(lambda i: word(dice.randrange(60)), nulls))
    add("zstd", words, compression="zstd")
    add("lz4", words, compression="lz4")
    add("fsst", words, compression="fsst")
    add("plain", words, compression="none")
    add("zstd int", pa.array(some(lambda i: i % 50, nulls), pa.int64()), compression="zstd")
    add("split", floats, compression="lz4", bss="on")
    add("split float", floats.cast(pa.float32()), compression="zstd", bss="on")
    add("runs", pa.array(some(lambda i: i // 50, 0), pa.int32()), rle_threshold="1.0")
    add("zipped text", words, structural_encoding="fullzip")
    add("zipped fsst", words, structural_encoding="fullzip", compression="fsst")
    add("zipped zstd", words, structural_encoding="fullzip", compression="zstd")
    add("zipped bool", pa.array(some(lambda i: i % 3 == 0, nulls), pa.bool_()), structural_encoding="fullzip")
    add("zipped int", pa.array(some(lambda i: i, nulls), pa.int64()), structural_encoding="fullzip")
    add("zipped list", pa.array(some(lambda i: list(range(i % 4)), nulls), pa.list_(pa.int64())), structural_encoding="fullzip")
    return pa.table(columns, schema=pa.schema(fields))


def save(folder, name, table, version, **options):
    with LanceFileWriter(str(folder / f"{name}.lance"), table.schema, version=version, **options) as f:
        for batch in table.to_batches(max_chunksize=1700):
            f.write_batch(pa.ipc.read_record_batch(batch.serialize(), batch.schema))
    with pa.ipc.new_file(folder / f"{name}.arrow", table.schema) as f:
        f.write_table(table)


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for version in ["2.1", "2.2"]:
        for name in ["types", "dictionary", "few"]:
            save(folder, f"{name}-{version}", getattr(write, name)(), version)
        for nulls in [0, 0.2]:
            tag = f"{version}-{'nulls' if nulls else 'full'}"
            save(folder, f"numbers-{tag}", pa.table(numbers(nulls)), version)
            save(folder, f"texts-{tag}", pa.table(texts(nulls)), version)
            save(folder, f"vectors-{tag}", pa.table(vectors(nulls)), version)
            save(folder, f"nested-{tag}", pa.table(nested(nulls, version)), version)
            save(folder, f"tuned-{tag}", tuned(nulls), version)
            save(folder, f"pages-{tag}", pa.table(numbers(nulls) | texts(nulls)), version, data_cache_bytes=4096)


main(Path(sys.argv[1]))
