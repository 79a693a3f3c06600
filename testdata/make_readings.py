"""Makes readings.arrow, the sample that `flightd demo` streams: readings of invented weather stations.

    python testdata/make_readings.py

The numbers come from a generator of fixed seed, so that a run gives the same file again. Rows arrive as they
would from real stations: in order of time, one row per station and hour, some with a note, a few without a value.
"""

import datetime
import math
import pathlib
import random

import pyarrow as pa

STATIONS = [
    "Ahlbeck", "Brocken", "Cuxhaven", "Dresden", "Emden", "Feldberg", "Greifswald", "Hohenpeissenberg",
    "Itzehoe", "Jena", "Kahler Asten", "List", "Marburg", "Norderney", "Oberstdorf", "Potsdam",
    "Quedlinburg", "Rostock", "Schleswig", "Trier", "Ueckermuende", "Villingen", "Wendelstein", "Zugspitze",
]
HOURS = 1600
NOTES = ["fog", "hail", "thunderstorm", "gauge cleaned", "hoar frost", "visibility below 100 m", "strong gusts"]


def main():
    rng = random.Random(20260101)
    base = {s: rng.uniform(-4, 12) for s in STATIONS}
    begin = datetime.datetime(2026, 1, 1)
    rows = []
    for hour in range(HOURS):
        at = begin + datetime.timedelta(hours=hour)
        season = -3 * math.cos(hour / HOURS * math.pi)
        for station in STATIONS:
            day = 4 * math.sin((hour % 24 - 9) / 24 * 2 * math.pi)
            celsius = round(base[station] + season + day + rng.gauss(0, 1.5), 1)
            humidity = round(min(100, max(15, rng.gauss(70 - day * 4, 9))), 1)
            rows.append({
                "id": len(rows) + 1,
                "station": station,
                "taken": at,
                "celsius": None if rng.random() < 0.002 else celsius,
                "humidity": humidity,
                "note": rng.choice(NOTES) if rng.random() < 0.03 else None,
            })
    schema = pa.schema([
        pa.field("id", pa.int64(), nullable=False),
        pa.field("station", pa.string()),
        pa.field("taken", pa.timestamp("us")),
        pa.field("celsius", pa.float64()),
        pa.field("humidity", pa.float32()),
        pa.field("note", pa.string()),
    ])
    table = pa.Table.from_pylist(rows, schema)
    path = pathlib.Path(__file__).with_name("readings.arrow")
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(path, schema, options=options) as out:
        out.write_table(table, max_chunksize=9600)
    print(f"{path.name}: {table.num_rows} rows, {path.stat().st_size} bytes")


main()
