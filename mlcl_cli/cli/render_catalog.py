"""What `mlcl index` prints."""

from typing import TYPE_CHECKING

from mlcl_cli.cli.render import say
from mlcl_cli.config.sections import Catalog
from mlcl_cli.formatting import counted, duration

if TYPE_CHECKING:  # it imports torch
    from mlcl_cli.workflows.indexing import IndexResult


def show_index(result: "IndexResult") -> None:
    """Print what became of the rows, how they are searched, and what to do next."""
    shard = result.shard
    counts = {
        "added": shard.counts.added,
        "updated": shard.counts.updated,
        "unchanged": shard.counts.unchanged,
        "removed": shard.removed,
        "unreadable": len(shard.bad),
    }
    changes = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    say(f"{counted(result.rows, 'row')} in {result.place}: {changes or 'the catalog is empty'}")
    if result.index is not None:
        say(f"Searched by an index with recall@10 {result.index.recall:.3f}")
    say(f"Done in {duration(result.seconds)}")
    if result.current:
        option = "" if result.catalog == Catalog().name else f" --catalog {result.catalog}"
        say(f"Next: mlcl search 'a red shoe with laces'{option}")
    elif not shard.left_out.rows:
        say("Searches use it once all shards are indexed")
