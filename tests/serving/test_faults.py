"""The script of faults, with fewer files than in docs/measurements.md."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_the_server_survives_hostile_files_killed_processes_and_a_full_disk() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "serving_faults.py"), "--files", "160"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("ok ") >= 6
    assert "FAILED" not in result.stdout
