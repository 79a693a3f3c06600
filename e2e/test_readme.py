"""What the README tells a newcomer to type works as written."""

import pathlib
import re
import subprocess
import sys

from clients import duckdb_with_lance

README = pathlib.Path(__file__).parent.parent / "README.md"


def test_python_of_the_readme_runs_in_order(server):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    assert len(blocks) == 3
    outputs = []
    for block in blocks:
        # Only the port and the folder are this test's own.
        block = block.replace("127.0.0.1:31337", server.grpc).replace("flightd-data/", f"{server.data}/")
        result = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, block + result.stderr
        outputs.append(result.stdout)
    assert "roof" in outputs[0]
    assert '"rows": 100000' in outputs[1].replace("'", '"')
    assert outputs[2].strip() == "100000"
    query = re.search(r"LOAD lance;\n(.*?)```", README.read_text(), re.S).group(1)
    with duckdb_with_lance() as db:
        assert db.execute(query.replace("flightd-data/", f"{server.data}/")).fetchall() == [("roof", 100000)]


def test_targets_and_links_of_the_readme_exist():
    text = README.read_text()
    makefile = (README.parent / "Makefile").read_text()
    for target in set(re.findall(r"(?:^|`)make (\w+)", text, re.M)):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (README.parent / link).exists(), link
