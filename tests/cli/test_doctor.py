"""cli/doctor.py: what bug reports quote."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from typer.testing import CliRunner

from audiosr_cli import doctor
from audiosr_cli.cli.main import app
from audiosr_cli.doctor import Finding

HEALTHY = [Finding("version", "audiosr", "0.2.0"), Finding("device", "cuda", "none")]
BROKEN = Finding("model", "spectral2", "damaged", False)


@pytest.mark.parametrize(("findings", "code"), [(HEALTHY, 0), ([*HEALTHY, BROKEN], 1)])
def test_json_has_one_object_per_finding_and_the_exit_code_says_whether_all_is_well(
    monkeypatch: pytest.MonkeyPatch, findings: list[Finding], code: int
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: iter(findings))
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert [json.loads(line) for line in result.stdout.splitlines()] == [asdict(finding) for finding in findings]
    assert result.exit_code == code
