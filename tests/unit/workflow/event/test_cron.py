import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from firebrick.workflow.event.cron import CronError, parse_cron

LANGUAGE = Path(__file__).parents[3] / "scenarios" / "language"
CASES = [json.loads(line) for line in (LANGUAGE / "cron.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("case", CASES, ids=[f"{index} {case['cron'][:20]}" for index, case in enumerate(CASES)])
def test_cron(case):
    if "expected" in case:
        with pytest.raises(CronError) as raised:
            parse_cron(case["cron"], case["zone"])
        message = "Invalid cron expression. Expected format: '* * * * *' (minute hour day month weekday)"
        assert (str(raised.value), raised.value.expected) == (case.get("message", message), case["expected"])
        return
    moment = datetime.fromisoformat(case["after"])
    for due in case["due"]:
        moment = parse_cron(case["cron"], case["zone"]).next_after(moment)
        assert moment == datetime.fromisoformat(due)


def test_the_end_of_time_is_no_crash():
    assert parse_cron("0 0 1 1 *").next_after(datetime(9999, 6, 1, tzinfo=UTC)) is None
