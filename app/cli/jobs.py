"""`winnow jobs`: large uploads, and how far they are."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import rich_click as click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from app.cli.render import clean, duration
from app.cli.session import cancel_job, list_jobs, show_job
from app.cli.terminal import current_settings, err, out, print_json

STATES = ("queued", "running", "done", "failed", "cancelled")
UNFINISHED = ("queued", "running")

_STYLES = {"running": "cyan", "done": "green", "failed": "red", "cancelled": "yellow"}
_BAR = 6
_WATCH_S = 1.0


def list_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a list of jobs."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the list as JSON."),
        click.option("--watch", is_flag=True, help="Show the list until every job in it has ended."),
        click.option("--limit", type=click.IntRange(1, 1000), default=20, help="Maximum number of jobs."),
        click.option("--collection", help="Only jobs of this collection."),
        click.option("--state", type=click.Choice(STATES), help="Only jobs in this state."),
    ):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@list_options
@click.pass_context
def jobs(context: click.RichContext, /, **options: Any) -> None:
    """List, inspect and cancel large uploads; without a command, list them.

    An upload that takes long is indexed after it was answered. Jobs survive a restart of the service; without a
    service they wait.
    """
    if context.invoked_subcommand is None:
        _list(**options)


@jobs.command(name="list")
@list_options
def show_list(**options: Any) -> None:
    """List the jobs, the newest first."""
    _list(**options)


@jobs.command()
@click.argument("job_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON.")
def show(job_id: str, as_json: bool) -> None:
    """Show one job with the documents that failed."""
    job = show_job(current_settings(), job_id)
    if as_json:
        print_json(job)
    else:
        show_one(out, job)


@jobs.command()
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
def cancel(job_ids: tuple[str, ...]) -> None:
    """Cancel jobs. What they have written stays; a job that is finished is forgotten."""
    settings = current_settings()
    for job_id in job_ids:
        state = show_job(settings, job_id)["state"]
        cancel_job(settings, job_id)
        err.print(f"{removal(state)} {clean(job_id)}", markup=False, highlight=False)


def removal(state: str) -> str:
    """What cancelling does to a job in this state."""
    return "cancelled" if state in UNFINISHED else f"forgot the job, which was {state} already:"


def _list(state: str | None, collection: str | None, limit: int, watch: bool, as_json: bool) -> None:
    settings = current_settings()
    given = {"state": state, "collection": collection, "limit": str(limit)}
    params = {name: value for name, value in given.items() if value is not None}
    page = list_jobs(settings, params)
    if watch:
        with Live(table(page["jobs"]), console=err, transient=True, auto_refresh=False) as live:
            while any(job["state"] in UNFINISHED for job in page["jobs"]):
                time.sleep(_WATCH_S)
                page = list_jobs(settings, params)
                live.update(table(page["jobs"]), refresh=True)
    if as_json:
        print_json(page)
    elif page["jobs"]:
        out.print(table(page["jobs"]), soft_wrap=False)
    else:
        out.print("no jobs")


def table(found: list[dict[str, Any]]) -> Table:
    """A line for each job."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("job", no_wrap=True)
    shown.add_column("collection", min_width=10, overflow="fold")
    shown.add_column("state", no_wrap=True)
    shown.add_column("documents", justify="right", no_wrap=True)
    shown.add_column("passages", justify="right", no_wrap=True)
    shown.add_column("time", min_width=10)
    for job in found:
        state = Text(job["state"], _STYLES.get(job["state"], ""))
        shown.add_row(job["id"], clean(job["collection"]), state, _progress(job), f"{job['passages']:,}", _time(job))
    return shown


def _progress(job: dict[str, Any]) -> Text:
    if job["documents"] is None:
        # While a scan is read: how far OCR is, without the name of the file before it.
        scan = clean(job["detail"] or "").rpartition(": ")[2] if job["state"] == "running" else ""
        return Text(scan or "not read yet", "dim")
    done = job["created"] + job["updated"] + job["unchanged"] + job["failed"]
    progress = Text(f"{done:,}/{job['documents']:,}")
    if job["failed"]:
        progress.append(f" {job['failed']:,} failed", "red")
    if job["state"] != "running":
        return progress
    filled = _BAR * done // max(1, job["documents"])
    return Text.assemble(("━" * filled, "cyan"), ("━" * (_BAR - filled), "dim"), " ", progress)


def _time(job: dict[str, Any]) -> str:
    """How long is left, or how long it took."""
    if job["seconds_left"] is not None:
        return f"{duration(job['seconds_left'])} left"
    if job["state"] == "queued":
        return "waiting"
    if job["started_at"] is None:
        return "-"
    until = datetime.fromisoformat(job["finished_at"]) if job["finished_at"] else datetime.now(UTC)
    return duration(max(0.0, (until - datetime.fromisoformat(job["started_at"])).total_seconds()))


def show_one(console: Console, job: dict[str, Any]) -> None:
    """Print a job with its counts and what failed."""
    console.print(table([job]), soft_wrap=False)
    counts = ", ".join(f"{job[name]:,} {name}" for name in ("created", "updated", "unchanged", "failed"))
    console.print(Text(counts))
    if job["detail"]:
        console.print(Text(clean(job["detail"]), "red" if job["state"] == "failed" else "yellow"))
    for failure in job["errors"]:
        name = failure["id"] or failure["source"] or "a document"
        console.print(Text.assemble((clean(name), "bold"), f" [{failure['reason']}] {clean(failure['detail'] or '')}"))
