"""Counts of rows, added up by hand; and why a run ends early."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from segmentation.datasets.format import LineReject
from segmentation.errors import DataError
from segmentation.features import row_counts
from segmentation.features.partition_reader import FragmentReport, PartitionSummary
from segmentation.features.row_counts import RowCounts
from segmentation.progress import Progress
from segmentation.schema import RejectedRow


def summary(*reports: FragmentReport, used: int = 0, **more: int) -> PartitionSummary:
    return PartitionSummary(reports, used, more.pop("unmapped", 0), np.zeros(1, np.uint8), **more)


def reject(line: int, text: bytes = b"x") -> LineReject:
    return LineReject(line, "is bad", text)


#: a.csv in two partitions, the second of which begins b.csv as well.
SUMMARIES = [
    summary(FragmentReport("a.csv", 1, 10, (reject(2),)), used=8, unmapped=1),
    summary(
        FragmentReport("a.csv", 1, 5, (reject(0), reject(4))),
        FragmentReport("b.csv", 0, 3, (reject(1, b"\xff"),)),
        used=3,
    )._replace(seen=np.array([0b10100000], np.uint8)),
]


def test_sum_counts() -> None:
    counts = row_counts.sum_counts(SUMMARIES)
    assert (counts.used, counts.unmapped, counts.items) == (11, 1, 2)
    assert counts.record() == {"read": 16, "used": 11, "unmapped": 1, "rejected": 4}
    # Line 1 of a.csv is the header, and its second partition starts at line 12.
    places = [(row.file, row.line) for row in counts.rejected]
    assert places == [("a.csv", 4), ("a.csv", 12), ("a.csv", 16), ("b.csv", 2)]
    assert counts.rejected[-1] == RejectedRow("b.csv", 2, "is bad", "\\xff")
    assert row_counts.first_line_numbers(SUMMARIES) == [2, 12, 1]


def test_superseded_rows_are_left_out_and_listed() -> None:
    counts = row_counts.sum_counts(SUMMARIES)
    counts.supersede([RejectedRow("a.csv", 7, "rated again", "1,2,3")])
    assert (counts.read, counts.used, counts.n_rejected) == (15, 10, 4)
    assert [row.line for row in counts.listed] == [4, 7, 12, 16, 2]
    assert counts.record()["superseded"] == 1


def test_too_many_rejected() -> None:
    counts = row_counts.sum_counts(SUMMARIES)
    counts.check_rejected("a.csv", 0.25)
    with pytest.raises(DataError) as caught:
        counts.check_rejected("a.csv", 0.2)
    assert str(caught.value) == (
        "a.csv: 4 of 16 rows (25.0%) are not ratings, more than max_rejected 0.2; the first is "
        "line 4: is bad: 'x': fix the file or raise max_rejected"
    )
    # Incomplete counts always fail, and say so.
    with pytest.raises(DataError, match=r"4 of 16 rows read so far .* line 4 of a.csv: is bad"):
        counts.check_rejected("folder", 0.25, complete=False)


def test_a_long_line_is_quoted_in_part() -> None:
    counts = RowCounts(rejected=[RejectedRow("a.csv", 1, "is bad", "{x}" * 21)])
    with pytest.raises(DataError) as caught:
        counts.check_rejected("a.csv", 0.5)
    assert f"'{'{x}' * 19}...'" in str(caught.value)


def test_no_rating_is_in_the_catalogue() -> None:
    RowCounts(used=1, unmapped=5).check_used("a.csv", "movies.csv")
    with pytest.raises(DataError, match=r"^a.csv: none of its 5 ratings is of .* in movies.csv"):
        RowCounts(unmapped=5).check_used("a.csv", "movies.csv")


def test_missing_timestamps() -> None:
    assert RowCounts(used=10).check_timestamps("a.csv", 0) is None
    counts = RowCounts(used=10, without_timestamp=1)
    warning = counts.check_timestamps("a.csv", 0.1)
    assert warning is not None
    assert warning.startswith("a.csv: 1 of 10 ratings have no timestamp")
    with pytest.raises(DataError, match=r"needs to find the latest: .* or leave deduplicate out"):
        counts.check_timestamps("a.csv", 0.05)


def collect(client, summaries, **options):
    tasks = client.map(lambda one: one, summaries, pure=False)
    with Progress().stage("ratings", "ratings") as stage:
        return row_counts.collect_summaries(tasks, stage, "a.csv", **options)


def test_summaries_are_in_the_order_of_the_files(client) -> None:
    summaries = [summary(used=i) for i in range(20)]
    collected = collect(client, summaries, max_rejected=0.01, max_rows=1_000)
    assert [one.used for one in collected] == list(range(20))


def test_collecting_stops_on_request(client) -> None:
    seen: list[int] = []

    def must_stop(summaries) -> bool:
        seen.append(len(summaries))
        return len(summaries) == 3

    summaries = [summary(used=i) for i in range(20)]
    options = {"max_rejected": 0.01, "max_rows": 1_000, "must_stop": must_stop}
    assert collect(client, summaries, **options) == []
    assert seen == [1, 2, 3]


def test_collecting_ends_when_no_rest_can_save_the_run(client) -> None:
    good = summary(FragmentReport("a.csv", 1, 10, ()), used=10)
    bad = summary(FragmentReport("a.csv", 1, 10, tuple(map(reject, range(10)))))
    # 10 of 100 rows are within a tenth, 20 are not, whatever the other partitions hold.
    one_bad = [good] * 4 + [bad] + [good] * 5
    assert collect(client, one_bad, max_rejected=0.1, max_rows=100) is not None
    two_bad = [good] * 4 + [bad] * 2 + [good] * 4
    # The line is counted from all partitions before it: the header and 40 lines.
    with pytest.raises(DataError, match=r"are not ratings, .*; the first is line 42: is bad"):
        collect(client, two_bad, max_rejected=0.1, max_rows=100)


def test_only_the_first_rejected_rows_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the same in whatever order the partitions end, and all are counted."""
    monkeypatch.setattr(row_counts, "MAX_LISTED_REJECTS", 5)
    summaries = [
        summary(FragmentReport("a.csv", 1, 10, tuple(reject(line) for line in lines), 2), used=1)
        for lines in ((1, 2), (), (0, 4), (3, 5, 6), (7,))
    ]
    for order in itertools.permutations(range(5)):
        collected: dict[int, PartitionSummary] = {}
        for i in order:
            collected[i] = summaries[i]
            row_counts._limit_listed(collected)
            assert sum(s.n_listed for s in collected.values()) < 5 + 3
        counts = row_counts.sum_counts([collected[i] for i in range(5)])
        assert [row.line for row in counts.rejected] == [3, 4, 22, 26, 35]
        assert counts.n_rejected == 8 + 5 * 2
        assert counts.read == counts.used + counts.n_rejected
