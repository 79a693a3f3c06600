"""Fixtures: a server on a temporary folder, and its log when a test failed."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import server as server_module  # noqa: E402


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Leaves the outcome where the fixtures find it, and shows the log of a server beside a failure."""
    report = (yield).get_result()
    if report.when == "call" and report.failed:
        for s in item.funcargs.get("servers", ()):
            report.sections.append((f"log of the server on {s.folder}", s.log_text()))


@pytest.fixture
def servers(tmp_path):
    """The servers of a test. At its end they are killed, and what they left on disk must be without a fault."""
    opened = []
    yield opened
    for s in opened:
        s.close()
    for s in opened:
        s.assert_sound()


@pytest.fixture
def new_server(tmp_path, servers):
    """Makes servers with arguments of one's own; not started yet."""
    def make(*args, env=None):
        s = server_module.Server(tmp_path / f"server{len(servers)}", *args, env=env)
        servers.append(s)
        return s
    return make


@pytest.fixture
def server(new_server):
    """A server that runs. After the test it must still run: no input of a client ends the process."""
    s = new_server().start()
    yield s
    assert s.running(), f"the server ended with {s.process.poll()}; its log:\n{s.log_text()}"


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory):
    """One server for all tests of a module whose tables do not meet."""
    s = server_module.Server(tmp_path_factory.mktemp("shared")).start()
    yield s
    assert s.running(), f"the server ended with {s.process.poll()}; its log:\n{s.log_text()}"
    s.close()
    s.assert_sound()
