"""What a run of the tests costs, in seconds of processors; children that were waited for count.

Each run prints the ten dearest tests, and the total beside that of `tests/cost.json`, so that
growth is seen. It fails nothing: machines differ. `--record-cost` writes that file anew.
"""

import json
import os
import platform
from pathlib import Path

import pytest

TABLE = Path(__file__).with_name("cost.json")
_KEY = "processor seconds"
_START = pytest.StashKey[float]()


def seconds() -> float:
    """Time on processors of this process and of children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def processor() -> str:
    """The name of the processor, as far as the system tells."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


class Cost:
    """Adds up what tests cost; reports of other processes bring their figures with them."""

    def __init__(self):
        self.tests: dict[str, float] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        item.stash[_START] = seconds()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo):
        report = yield
        if call.when == "teardown":
            report.user_properties.append((_KEY, seconds() - item.stash.get(_START, seconds())))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            self.tests[report.nodeid] = dict(report.user_properties).get(_KEY, 0.0)

    def files(self) -> dict[str, float]:
        """Cost by file, in order of the alphabet."""
        sums: dict[str, float] = {}
        for test, cost in sorted(self.tests.items()):
            path = test.split("::")[0]
            sums[path] = sums.get(path, 0.0) + cost
        return sums

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.tests or hasattr(terminalreporter.config, "workerinput"):
            return
        terminalreporter.section("processor seconds")
        for test, cost in sorted(self.tests.items(), key=lambda pair: -pair[1])[:10]:
            terminalreporter.write_line(f"{cost:8.1f}  {test}")
        total = sum(self.tests.values())
        terminalreporter.write_line(f"{total:8.1f}  {len(self.tests)} tests, {processor()}")
        if terminalreporter.config.getoption("record_cost"):
            table = {name: round(cost, 2) for name, cost in self.files().items()}
            record = {"processor": processor(), "total": round(total, 1), "files": table}
            TABLE.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        elif TABLE.is_file():
            before = json.loads(TABLE.read_text(encoding="utf-8"))
            terminalreporter.write_line(f"{before['total']:8.1f}  before, {before['processor']}")
