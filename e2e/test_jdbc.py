"""What a user of JDBC does, by the Flight SQL JDBC driver. The checks are Java, in jdbc/Jdbc.java; each is a test here."""

import pathlib
import re
import shutil
import subprocess

import pytest

HERE = pathlib.Path(__file__).parent
PROGRAM = HERE / "jdbc" / "Jdbc.java"
CLIENTS = HERE.parent / "docs" / "clients.md"
CHECKS = re.findall(r'CHECKS\.put\("(\w+)"', PROGRAM.read_text())
JARS = sorted((HERE.parent / "build" / "jdbc").glob("flight-sql-jdbc-driver-*.jar"))

pytestmark = pytest.mark.skipif(not JARS or not shutil.which("java"), reason="no JDK, or no JDBC driver: `make jdbc` fetches it")


def java(program, *args):
    """Runs a Java program of one file with the driver; returns what it printed."""
    command = ["java", "--add-opens=java.base/java.nio=ALL-UNNAMED", "-cp", str(JARS[-1]), str(program), *args]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def outcomes(shared_server):
    """What each check said."""
    printed = java(PROGRAM, f"jdbc:arrow-flight-sql://{shared_server.grpc}/?useEncryption=false")
    return dict(line.split("\t", 1) for line in printed.splitlines() if "\t" in line)


@pytest.mark.parametrize("check", CHECKS)
def test_jdbc(outcomes, check):
    assert outcomes.get(check) == "ok"


def test_java_of_the_documentation_runs_as_written(server, tmp_path):
    (program,) = re.findall(r"```java\n(.*?)```", CLIENTS.read_text(), re.S)
    # Only the port is this test's own.
    source = tmp_path / "QuickStart.java"
    source.write_text(program.replace("127.0.0.1:31337", server.grpc))
    assert java(source).splitlines() == ["roof 18.5", "cellar 11.0"]
