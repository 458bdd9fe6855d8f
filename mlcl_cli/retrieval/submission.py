"""The files that a data set's test server takes (METHOD.md, Section 9)."""

from collections.abc import Collection, Mapping
from pathlib import Path

from mlcl_cli.atomic_files import to_json, write_files
from mlcl_cli.data.definition import AnswerFile, Submission
from mlcl_cli.errors import DataError, some
from mlcl_cli.formatting import counted
from mlcl_cli.retrieval.evaluation import ComposedSet
from mlcl_cli.retrieval.ranking import PAD_INDEX

Image = str | int
Answers = Mapping[str, list[Image]]


def make_answers(queries: ComposedSet, submission: Submission) -> list[bytes]:
    """The content of each of the submission's files.

    Raises DataError where the server's rules cannot be met, such as with a gallery of too few images.
    """
    keys = [str(triplet.pair_id) for triplet in queries.part.triplets]
    names: list[Image] = [int(name) if submission.integers else name for name in queries.part.gallery]
    contents = []
    for file in submission.files:
        top = queries.top(file.length, among_members=file.among_members)
        answers = {
            key: [names[row] for row in rows if row != PAD_INDEX]
            for key, rows in zip(keys, top.rows.tolist(), strict=True)
        }
        contents.append(checked(answers, file, submission, keys, names))
    return contents


def checked(
    answers: Answers, file: AnswerFile, submission: Submission, keys: Collection[str], known: Collection[Image]
) -> bytes:
    """The file's bytes, if the server would accept them; `keys` are the queries, `known` the images of the gallery.

    Raises DataError for a missing or unknown query, keys with a gap where the server takes none, a list of the wrong
    length or with duplicates, an unknown image, and too many bytes.
    """
    noun = submission.query
    if difference := sorted(answers.keys() ^ set(keys)):
        count = counted(len(difference), f"missing or unknown {noun}")
        raise DataError(f"the {file.title} has {count}: {some(difference)}", remedy="Answer every query")
    if submission.gapless and (gap := {str(number) for number in range(len(answers))} - answers.keys()):
        what = f"the {file.title} has no {noun} {min(gap, key=int)}"
        raise DataError(what, remedy=f"The server takes all numbers from 0 to {len(answers) - 1}")
    images = set(known)
    for key, ranked in answers.items():
        if len(ranked) != file.length or len(set(ranked)) != file.length:
            what = f"the {file.title} needs {file.length} different images for {noun} {key}"
            remedy = f"The server rejects other lists; the gallery must hold more than {file.length} images"
            raise DataError(what, remedy=remedy)
        if unknown := [image for image in ranked if image not in images]:
            what = f"the {file.title} has unknown images for {noun} {key}: {some(unknown)}"
            raise DataError(what, remedy="Answer with images of the gallery")
    content = to_json({**file.head, **answers})
    if submission.max_bytes is not None and len(content) > submission.max_bytes:
        limit = f"{submission.max_bytes / 1_000_000:g} MB"
        raise DataError(f"the {file.title} has {len(content):,} bytes", remedy=f"The server accepts at most {limit}")
    return content


def write_submission(folder: Path, name: str, submission: Submission, contents: list[bytes]) -> list[Path]:
    """Write all files or none, and return their paths in the submission's order."""
    paths = [folder / f"{file.name}_{name}.json" for file in submission.files]
    write_files(dict(zip(paths, contents, strict=True)))
    return paths
