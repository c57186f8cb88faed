"""Runs of these tests leave no ``report.html``, which takes a second each: ``tests/report`` has those that do."""

import pytest

from clreplay.incremental import run


@pytest.fixture(autouse=True)
def without_reports(monkeypatch):
    monkeypatch.setattr(run, "leave_report", lambda folder, data: "Report:   none")
