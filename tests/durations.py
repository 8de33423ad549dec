"""Seconds of the slow test functions, which plain `pytest` leaves to `pytest -m thorough`.

    pytest -m "" --junitxml=tests.xml && python -m tests.durations tests.xml

writes `durations.json` anew from a run of all tests. A test that is not in the file counts as fast.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

FILE = Path(__file__).parent / "durations.json"
SLOW = 2.0  # seconds of all cases of a test function together


def slow() -> dict[str, float]:
    """The seconds of each slow function, by `module.function`."""
    return json.loads(FILE.read_text())


def measured(report: Path) -> dict[str, float]:
    """Returns the seconds of the slow functions in a JUnit report, of all their cases together."""
    seconds: Counter[str] = Counter()
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        function = case.attrib["name"].partition("[")[0].partition("@")[0]
        seconds[f"{case.attrib['classname']}.{function}"] += float(case.attrib["time"])
    return {name: round(value, 1) for name, value in sorted(seconds.items()) if value >= SLOW}


if __name__ == "__main__":
    FILE.write_text(json.dumps(measured(Path(sys.argv[1])), indent=1) + "\n")
