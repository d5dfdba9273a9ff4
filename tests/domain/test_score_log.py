from __future__ import annotations

import pytest

from lib_automerge.domain import architectures, score_log
from lib_automerge.errors import ConfigError
from tests.score_logs import BEST_AT, EVALUATIONS, FIRST, FROZEN, HEADER, PUBLISHED

SD1, SDXL = architectures.get("sd1"), architectures.get("sdxl")
OURS = "evaluation,origin,score,images,rejected,weight IN00,weight OUT"


def test_the_published_row_means_what_auto_mbw_searched() -> None:
    (row,) = score_log.parse(f"{HEADER}\n{FIRST}\n", SD1).rows
    assert row.score == 0.537409546716329
    assert (row.weights["IN00"], row.weights["IN04"], row.weights["M00"]) == (0.3, 1.0, 0.5)
    # OUT stands between M00 and OUT00, TIME_EMBED at the end
    assert (row.weights["OUT"], row.weights["OUT00"], row.weights["OUT11"]) == (0.6, 0.8, 0.9)
    assert row.weights["TIME_EMBED"] == 0.5
    assert set(row.weights) == set(SD1.parameters)


def test_a_published_log_keeps_its_order() -> None:
    log = score_log.parse(PUBLISHED.read_text(), SD1)
    assert len(log.rows) == EVALUATIONS
    assert log.unusable == 0
    scores = [row.score for row in log.rows]
    assert scores.index(max(scores)) == BEST_AT - 1
    assert {value for row in log.rows for value in row.weights.values()} <= {
        step / 10 for step in range(11)
    }
    searched = [row.weights for row in log.rows[1:]]
    assert sum(len({w[block] for w in searched}) == 1 for block in SD1.parameters) == FROZEN
    # as its author gives the winner, in nat order
    assert log.rows[BEST_AT - 1].score == 0.6132534303822829
    assert [log.rows[BEST_AT - 1].weights[b] for b in ("OUT", "TIME_EMBED")] == [1.0, 0.0]


def test_positions_that_an_architecture_lacks_are_dropped() -> None:
    (row,) = score_log.parse(f"{HEADER}\n{FIRST}\n", SDXL).rows
    assert "IN09" not in row.weights
    assert "LABEL_EMB" not in row.weights
    assert (row.weights["IN08"], row.weights["OUT08"]) == (0.0, 0.1)


@pytest.mark.parametrize(
    "broken",
    [
        FIRST.replace("0.537409546716329", "nan"),
        FIRST.replace("0.537409546716329", "-inf"),
        FIRST.replace("0.537409546716329", ""),
        FIRST.replace("0.3,", "nan,", 1),
        FIRST.replace("0.3,", ",", 1),
        "0.3,0.7,0.9",
    ],
)
def test_rows_that_tell_nothing_are_counted(broken: str) -> None:
    log = score_log.parse(f"{HEADER}\n{broken}\n{FIRST}\n\n", SD1)
    assert (len(log.rows), log.unusable) == (1, 1)
    with pytest.raises(ConfigError, match="no usable row: 1 rows are torn or hold NaN"):
        score_log.parse(f"{HEADER}\n{broken}\n", SD1)


def test_spreadsheets_separate_by_semicolons_and_begin_with_a_mark() -> None:
    text = "\ufeff" + f"{HEADER}\r\n{FIRST}\r\n".replace(",", ";")
    assert score_log.is_log(text)
    assert score_log.parse(text, SD1) == score_log.parse(f"{HEADER}\n{FIRST}\n", SD1)


def test_exported_scores_name_their_blocks_and_leave_the_baselines_out() -> None:
    text = f"{OURS}\n1,A,0.1,6,,0,0\n4,search,0.3,6,,0.25,1.5\n5,search,,0,black image,0.1,0.1\n"
    log = score_log.parse(text, SD1)
    assert [(row.weights, row.score) for row in log.rows] == [({"IN00": 0.25, "OUT": 1.5}, 0.3)]
    assert log.unusable == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("IN00:0.5,M00:1", "no column 'score'"),
        ("", "no column 'score'"),
        (FIRST, "no column 'score'"),
        ("datetime\tmodel_A\tweights\n1\ta\t0.5\n", "no column 'score'"),
        (HEADER.replace("25,26,", "") + "\n", "25 numbered columns .* writes 27"),
        (HEADER.replace("26,", "27,") + "\n", "27 numbered columns"),
        (f"{HEADER}\n", "no usable row: 0 rows"),
        ("score,weight IN0\n1,2\n", "unknown block .*'IN0'. Did you mean 'IN"),
    ],
)
def test_what_is_no_log_is_told(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        score_log.parse(text, SD1)
