"""What all commands of run.py have in common."""
import json
import math

import pytest

from tools import end, write_json


def test_a_report_holds_no_numbers_that_json_has_not(tmp_path):
    given = {"pose": {"texture": math.nan, "pck": 0.5, "rows": [1, math.inf, None, "nan"], "count": 3}}
    write_json(tmp_path / "report.json", given)
    read = json.loads((tmp_path / "report.json").read_text(), parse_constant=lambda constant: pytest.fail(constant))
    assert read == {"pose": {"texture": None, "pck": 0.5, "rows": [1, None, None, "nan"], "count": 3}}


@pytest.mark.parametrize("given, code", [(None, None), (1, 1), (KeyboardInterrupt, 130)])
def test_ctrl_c_ends_a_command_in_one_sentence(capsys, given, code):
    def main():
        if given is KeyboardInterrupt:
            raise KeyboardInterrupt
        return given

    with pytest.raises(SystemExit) as ended:
        end("bench", main)
    assert ended.value.code == code
    assert capsys.readouterr().err == ("bench: stopped; what was not finished is not written.\n" if code == 130 else "")
