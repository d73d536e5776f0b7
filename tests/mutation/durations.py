"""A plugin of pytest that writes how long each test took to the file that DURATIONS_FILE names."""

import json
import os
import pathlib

durations: dict[str, float] = {}


def pytest_runtest_logreport(report):
    durations[report.nodeid] = durations.get(report.nodeid, 0.0) + report.duration


def pytest_sessionfinish():
    pathlib.Path(os.environ['DURATIONS_FILE']).write_text(json.dumps(durations), encoding='utf-8')
