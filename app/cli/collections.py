"""`winnow collections`: repairs a collection whose manifest and index disagree."""

import rich_click as click

from app.cli.render import EvaluationView, clean
from app.cli.session import repair_collection
from app.cli.snapshot import shown
from app.cli.terminal import current_settings, err, print_json
from indexing.pipeline.progress import RepairRequest


@click.group()
def collections() -> None:
    """Look after collections."""


@collections.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def repair(name: str, as_json: bool) -> None:
    """Make the manifest and the index of the collection NAME agree.

    Documents that only the index has are recorded again, with their texts. Documents that lack passages in the index
    are written again: submitted ones with the next write, files with the next run over them.
    """
    with EvaluationView(err) as view:
        done = repair_collection(current_settings(), RepairRequest(collection=name), shown(view, name))
    if as_json:
        print_json(done)
        return
    line = (
        f"{clean(done.collection)}: {done.recovered} documents recovered from the index; {done.to_write} submitted "
        f"documents and {done.to_read} documents of files are to be written again"
    )
    err.print(line, markup=False, highlight=False)
    if done.recovered or done.to_read:
        err.print("run winnow index over the folders of the collection's files now", highlight=False)
