"""
What a check has found, to be read by people and by CI.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["CheckFailed", "Finding", "Outcome", "Report"]

Outcome = Literal["ok", "warning", "failed", "skipped"]

_WORST_LAST: list[Outcome] = ["skipped", "ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """
    One thing that was looked at.

    Args:
        check: Its name, in a word or two.
        outcome: ``"ok"``, ``"warning"``, ``"failed"``, or ``"skipped"`` if it could
            not be told.
        detail: What was seen, and what it means.

    """

    check: str
    outcome: Outcome
    detail: str


@dataclass
class Report:
    """
    What a check has found. ``str()`` of it is what people want to read.

    Args:
        subject: What was checked.
        findings: What was found, in the order in which it was looked for.

    """

    subject: str
    findings: list[Finding] = field(default_factory=list)

    def add(self, check: str, outcome: Outcome, detail: str) -> None:
        """
        Add a finding, unless it has been found before.
        """
        finding = Finding(check, outcome, detail)
        if finding not in self.findings:
            self.findings.append(finding)

    def outcome(self, check: str) -> Outcome:
        """
        Return the worst that was found by a check; ``"skipped"`` if nothing was.
        """
        outcomes = [finding.outcome for finding in self.findings if finding.check == check]
        return max(outcomes, key=_WORST_LAST.index, default="skipped")

    @property
    def failed(self) -> bool:
        """
        Whether any check has failed.
        """
        return any(finding.outcome == "failed" for finding in self.findings)

    def raise_if_failed(self) -> None:
        """
        Raise the report as an error if any check has failed.

        Raises:
            CheckFailed: With the report.

        """
        if self.failed:
            raise CheckFailed(self)

    def __str__(self) -> str:
        width = max((len(finding.check) for finding in self.findings), default=0)
        lines = [self.subject, ""]
        for finding in self.findings:
            outcome = finding.outcome.upper() if finding.outcome == "failed" else finding.outcome
            label = f"  {outcome:8} {finding.check:{width}}  "
            lines += textwrap.wrap(
                finding.detail,
                width=99,
                initial_indent=label,
                subsequent_indent=" " * len(label),
                break_long_words=False,
                break_on_hyphens=False,
            )
        count = Counter(finding.outcome for finding in self.findings)
        total = [f"{count[outcome]} {outcome}" for outcome in reversed(_WORST_LAST)]
        return "\n".join([*lines, "", ", ".join(total)])


class CheckFailed(AssertionError):
    """
    A check has failed; ``report`` says which, and the message is the whole report.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(report)
        self.report = report

    def __str__(self) -> str:
        return str(self.report)
