"""How `winnow index` ends."""

import json

import pytest
from click import UsageError
from click.testing import CliRunner

from app.cli import main
from indexing.pipeline.progress import NotIndexed, Summary, SyncRequest

SKIPPED = NotIndexed(source="a.png", reason="binary", detail="It is binary data.", skipped=True)
FAILED = NotIndexed(source="b.pdf", reason="corrupt", detail="It is cut short.")


@pytest.mark.parametrize(("refused", "status"), [((), 0), ((SKIPPED,), 0), ((FAILED,), 1), ((SKIPPED, FAILED), 1)])
def test_only_failures_are_a_status_of_their_own(
    monkeypatch: pytest.MonkeyPatch, refused: tuple[NotIndexed, ...], status: int
) -> None:
    """What is never read is no reason to fail a script; as JSON all of it is listed."""
    monkeypatch.setattr(main, "index_files", lambda *_: Summary(collection="c", refused=refused))
    result = CliRunner().invoke(main.cli, ["index", "docs", "--json"])
    assert result.exit_code == status
    assert [one["source"] for one in json.loads(result.stdout)["refused"]] == [one.source for one in refused]


def test_standard_input_that_is_not_indexed_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no event of the run that would have said it."""
    monkeypatch.setattr(main, "index_stdin", lambda *_: Summary(collection="c", refused=(FAILED,)))
    result = CliRunner().invoke(main.cli, ["index", "-"], input="x")
    assert (result.exit_code, "failed b.pdf [corrupt] It is cut short." in result.output) == (1, True)


@pytest.mark.parametrize(
    ("options", "tenant", "allowed"),
    [
        ([], "", None),
        (["--tenant", "acme", "--allowed", "hr", "--allowed", "legal"], "acme", ("hr", "legal")),
        (["--tenant", "acme", "--open"], "acme", ()),
    ],
)
def test_a_run_is_for_a_tenant_and_groups(
    monkeypatch: pytest.MonkeyPatch, options: list[str], tenant: str, allowed: tuple[str, ...] | None
) -> None:
    """Files that say nothing of groups keep their own, which is another thing than opening them."""
    asked: list[SyncRequest] = []

    def index_files(_: object, request: SyncRequest, __: object) -> Summary:
        asked.append(request)
        return Summary(collection="c")

    monkeypatch.setattr(main, "index_files", index_files)
    assert CliRunner().invoke(main.cli, ["index", "docs", *options]).exit_code == 0
    assert [(one.tenant, one.allowed) for one in asked] == [(tenant, allowed)]
    with pytest.raises(UsageError, match="give one"):
        CliRunner().invoke(
            main.cli, ["index", "docs", "--allowed", "x", "--open"], standalone_mode=False, catch_exceptions=False
        )
