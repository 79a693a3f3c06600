"""A real flightd in a process of its own."""

import contextlib
import os
import pathlib
import queue
import re
import signal
import subprocess
import threading
import time
import urllib.request

BINARY = pathlib.Path(os.environ.get("FLIGHTD_TEST_BINARY", pathlib.Path(__file__).parent.parent / "build" / "flightd"))
READY = re.compile(r"^flightd ready grpc://(?P<grpc>\S+:\d+) http://(?P<http>\S+:\d+)\n$")
PATIENCE = 60  # seconds that a start or a stop may take


class NotReady(Exception):
    """The server ended, or said nothing, before it was ready."""

    def __init__(self, server, line):
        super().__init__(f"exit code {server.process.poll()}, stdout {line!r}, log:\n{server.log_text()}")
        self.code = server.process.poll()
        self.log = server.log_text()


class Server:
    """One data folder, and the process that serves it: start, kill, stop and start again."""

    def __init__(self, folder, *args, env=None):
        self.folder = pathlib.Path(folder)
        self.data = self.folder / "data"
        self.log = self.folder / "serve.log"
        self.args = list(args)
        self.env = env or {}
        self.process = None
        self.grpc = self.http = None
        self._stdout = queue.Queue()

    def start(self, wait=True):
        """Starts the process and, if wait, returns when it printed its ready line."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("FLIGHTD_")} | self.env
        command = [str(BINARY), "serve", "--data", str(self.data), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command + self.args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=env, text=True)
        self._stdout = queue.Queue()
        threading.Thread(target=self._read_stdout, args=(self.process.stdout, self._stdout), daemon=True).start()
        if wait:
            self.wait_ready()
        return self

    @staticmethod
    def _read_stdout(pipe, lines):
        for line in pipe:
            lines.put(line)
        lines.put(None)

    def wait_ready(self):
        """Waits for the ready line."""
        try:
            line = self._stdout.get(timeout=PATIENCE)
        except queue.Empty:
            line = "(nothing in time)"
        found = READY.match(line or "")
        if not found:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=5)
            error = NotReady(self, line)
            self.kill()
            raise error
        self.grpc, self.http = found["grpc"], found["http"]

    def further_stdout(self):
        """Returns what came on stdout after the ready line. The process must have ended."""
        lines = []
        while (line := self._stdout.get(timeout=PATIENCE)) is not None:
            lines.append(line)
        return lines

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait(timeout=PATIENCE)

    def stop(self):
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=PATIENCE)

    def running(self):
        return self.process is not None and self.process.poll() is None

    def close(self):
        if self.running():
            self.kill()

    def restart(self):
        """kill -9 and start on the same folder."""
        if self.running():
            self.kill()
        return self.start()

    def check(self):
        """Runs `flightd check` on the folder, which no server may have open."""
        return subprocess.run([str(BINARY), "check", str(self.data)], capture_output=True, text=True, timeout=PATIENCE)

    def assert_sound(self):
        """Every file that the server left behind fits its checksums and the others."""
        if (self.data / "_flightd" / "format").exists():
            result = self.check()
            assert result.returncode == 0, result.stdout + result.stderr

    @property
    def url(self):
        return f"grpc://{self.grpc}"

    def get(self, path):
        """Returns (status, text) of the HTTP endpoint."""
        try:
            with urllib.request.urlopen(f"http://{self.http}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()

    def log_text(self, lines=60):
        """Returns the end of the log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def dataset(self, table):
        """The folder of a table."""
        return self.data / f"{table}.lance"


def eventually(condition, timeout=PATIENCE, pause=0.02):
    """Waits until condition() is true, and fails when that takes too long."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(pause)
    return value
