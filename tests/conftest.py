"""Options of the test suite."""

import sys

import pytest

from sim.cli import main


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite the goldens; review the difference")


@pytest.fixture
def update_golden(request):
    return request.config.getoption("--update-golden")


@pytest.fixture
def stepline(monkeypatch, capsys, tmp_path):
    """The command in this process: exit code, what it printed, what it said beside that."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["stepline", *args])
        with pytest.raises(SystemExit) as done:
            main()
        said = capsys.readouterr()
        return done.value.code or 0, said.out, said.err

    return call
