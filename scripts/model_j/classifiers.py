"""Fetching one of Model-J's subsets of classifiers: of each model's repository the header and some layers, by range reads."""

import re
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
from huggingface_hub import HfApi, hf_hub_download, hf_hub_url
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from loradex.retrieval.errors import FetchError, FileError, FileUnsupported, located
from loradex.retrieval.lora.header import Header
from loradex.retrieval.remote.header import RemoteHeader
from loradex.retrieval.remote.hub_listing import HUB_ERRORS, brief_of, commit_of, files_of, refuse_escapes
from loradex.retrieval.remote.ranges import RemoteFile
from loradex.retrieval.training.category_dataset import SPLITS, chosen_categories
from scripts.model_j import CLASSIFIERS, DATASET
from scripts.model_j.fetch import Fetched, FetchOptions, Report, fetch_all
from scripts.model_j.slices import header_of, whole_file

MODEL: Final = "model.safetensors"
TABLES: Final = "tables"  # a folder beside the splits
COLUMN: Final = "hf_model_id"
READERS: Final = {
    ".parquet": pa.parquet.read_table,
    ".csv": pa.csv.read_csv,
    ".json": pa.json.read_json,
    ".jsonl": pa.json.read_json,
}
LARGEST_TABLE: Final = 64 * 2**20  # bytes
SPLIT: Final = re.compile(r"(?<![a-z])(train|val|validation|test)(?![a-z])")


def fetch_classifiers(options: FetchOptions, report: Report = lambda done, total, name: None) -> Fetched:
    """Fetch layers of every model of a subset into ``<out>/<split>/<model>/model.safetensors``; those that are there are skipped.

    Raises:
        FetchError: the hub cannot be used, or its dataset names no models of the subset.
        FileUnsupported: the first file lacks a layer that is asked for.
    """
    api, done = HfApi(endpoint=options.endpoint), Fetched(options.subset)
    layers = options.layers or (CLASSIFIERS[options.subset],)
    models = [(split, name) for split, names in listed_models(api, options).items() for name in names[: options.limit]]
    headers = build_hf_headers(library_name="loradex")
    places = {name: options.out / split / name.rpartition("/")[2] / MODEL for split, name in models}
    work = {name: partial(fetch_model, api, name, layers, path, headers) for name, path in places.items()}
    fetch_all(work, options.jobs, done, report, (FileError, FetchError))
    return done


def listed_models(api: HfApi, options: FetchOptions) -> dict[str, list[str]]:
    """The repositories of a subset's models by split, as the dataset's tables name them.

    Raises:
        FetchError: the tables cannot be read, or name none.
    """
    where = f"{api.endpoint}/datasets/{DATASET}"
    known = re.compile(rf"ProbeX/Model-J__{options.subset}__model_idx_\d{{1,9}}")
    found: dict[str, list[str]] = {split: [] for split in SPLITS}
    commit = commit_of(api, DATASET, options.revision, "dataset")
    for entry in files_of(api, DATASET, commit, kind="dataset"):
        split = SPLIT.search(entry.path.lower().replace("_", "-"))
        if (
            options.subset in entry.path
            and split
            and Path(entry.path).suffix in READERS
            and entry.size <= LARGEST_TABLE
        ):
            refuse_escapes(entry.path)
            names = [str(name) for name in column_of(api, entry.path, commit, options.out / TABLES)]
            found["val" if split[1] == "validation" else split[1]] += [name for name in names if known.fullmatch(name)]
    if not found["train"] or not found["test"]:
        raise FetchError(
            f"{where}: expected tables of {options.subset} with the column {COLUMN} for train and test, found none; check --revision"
        )
    return {split: list(dict.fromkeys(names)) for split, names in found.items()}


def column_of(api: HfApi, path: str, commit: str, folder: Path) -> list[Any]:
    """The column that names models, of one table of the dataset, which is kept in a folder; nothing where it has no such column.

    Raises:
        FetchError: it cannot be fetched or read.
    """
    try:
        table = READERS[Path(path).suffix](
            hf_hub_download(
                DATASET, path, revision=commit, endpoint=api.endpoint, repo_type="dataset", local_dir=folder
            )
        )
    except (*HUB_ERRORS, pa.ArrowException) as error:
        raise FetchError(f"{path}: cannot be read as a table: {brief_of(error)}; check --revision") from None
    return list(table[COLUMN].to_pylist()) if COLUMN in table.column_names else []


def fetch_model(
    api: HfApi, repository: str, layers: tuple[str, ...], path: Path, headers: dict[str, str]
) -> tuple[int, int]:
    """Write some layers of one model unless they are there: bytes read, and of how many.

    Raises:
        FetchError: the hub does not send it.
        FileError: it lacks a layer, names no categories, or is none.
    """
    names = [f"{layer}.weight" for layer in layers]
    if holds(path, names):
        return 0, 0
    commit = commit_of(api, repository)
    size = next((entry.size for entry in files_of(api, repository, commit) if entry.path == MODEL), None)
    if size is None:
        raise FetchError(f"{api.endpoint}/{repository}: expected {MODEL}, found none; check --revision")
    remote = RemoteFile(
        f"{repository}/{MODEL}", hf_hub_url(repository, MODEL, revision=commit, endpoint=api.endpoint), size, headers
    )
    header = RemoteHeader.fetch(remote)
    with located(remote.name):
        missing = [name for name in names if name not in header.tensors]
        if missing or chosen_categories(header.metadata) is None:
            found = f"none of {missing[0]}" if missing else "a header without categories"
            raise FileUnsupported(
                f"expected the layers asked for and the categories in the header, found {found}; name layers that the files have"
            )
    data = header.fetch_tensors(names)
    tensors = {name: (header.tensors[name], data[name]) for name in names}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(whole_file(header_of(tensors, header.metadata), tensors))
    temporary.replace(path)
    return remote.received, size


def holds(path: Path, names: list[str]) -> bool:
    """Whether a file is there with some tensors."""
    try:
        return set(names) <= Header.read(path).tensors.keys()
    except FileError:
        return False
