"""Fetches one of Model-J's subsets of classifiers: the header and some layers of each model, by range reads."""

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
from loradex.retrieval.remote.hub_listing import HUB_ERRORS, first_line, list_files, refuse_unsafe_path, resolve_commit
from loradex.retrieval.remote.ranges import HttpFile
from loradex.retrieval.training.labelled_classifiers import SPLITS, parse_categories
from scripts.model_j import CLASSIFIER_LAYERS, DATASET
from scripts.model_j.fetch import FetchOptions, FetchResult, ProgressCallback, fetch_all
from scripts.model_j.slices import join_file, make_header

WEIGHTS_NAME: Final = "model.safetensors"
TABLES: Final = "tables"  # the folder of the tables, beside the splits
MODEL_COLUMN: Final = "hf_model_id"
READERS: Final = {
    ".parquet": pa.parquet.read_table,
    ".csv": pa.csv.read_csv,
    ".json": pa.json.read_json,
    ".jsonl": pa.json.read_json,
}
MAX_TABLE: Final = 64 * 2**20  # bytes
SPLIT_IN_PATH: Final = re.compile(r"(?<![a-z])(train|val|validation|test)(?![a-z])")


def fetch_classifiers(options: FetchOptions, report: ProgressCallback = lambda done, total, name: None) -> FetchResult:
    """Fetch layers of every model of a subset into ``<out>/<split>/<model>/model.safetensors``.

    Models that are complete are skipped.

    Raises:
        FetchError: the hub cannot be used, or its dataset names no models of the subset.
        FileUnsupported: the first file lacks one of the layers.
    """
    api, result = HfApi(endpoint=options.endpoint), FetchResult(options.subset)
    layers = options.layers or (CLASSIFIER_LAYERS[options.subset],)
    models = [(split, name) for split, names in list_models(api, options).items() for name in names[: options.limit]]
    headers = build_hf_headers(library_name="loradex")
    paths = {name: options.out / split / name.rpartition("/")[2] / WEIGHTS_NAME for split, name in models}
    tasks = {name: partial(fetch_model, api, name, layers, path, headers) for name, path in paths.items()}
    fetch_all(tasks, options.jobs, result, report, (FileError, FetchError))
    return result


def list_models(api: HfApi, options: FetchOptions) -> dict[str, list[str]]:
    """The repositories of a subset's models by split, from the dataset's tables.

    Raises:
        FetchError: the tables cannot be read, or name no models.
    """
    address = f"{api.endpoint}/datasets/{DATASET}"
    pattern = re.compile(rf"ProbeX/Model-J__{options.subset}__model_idx_\d{{1,9}}")
    models: dict[str, list[str]] = {split: [] for split in SPLITS}
    commit = resolve_commit(api, DATASET, options.revision, "dataset")
    for entry in list_files(api, DATASET, commit, kind="dataset"):
        split = SPLIT_IN_PATH.search(entry.path.lower().replace("_", "-"))
        if options.subset in entry.path and split and Path(entry.path).suffix in READERS and entry.size <= MAX_TABLE:
            refuse_unsafe_path(entry.path)
            names = [str(name) for name in read_model_column(api, entry.path, commit, options.out / TABLES)]
            models["val" if split[1] == "validation" else split[1]] += [
                name for name in names if pattern.fullmatch(name)
            ]
    if not models["train"] or not models["test"]:
        raise FetchError(
            f"{address}: expected tables of {options.subset} with the column {MODEL_COLUMN} for train and test, found none; check --revision"
        )
    return {split: list(dict.fromkeys(names)) for split, names in models.items()}


def read_model_column(api: HfApi, path: str, commit: str, folder: Path) -> list[Any]:
    """The column that names models in one of the dataset's tables, which is kept in ``folder``.

    Empty if the table has no such column.

    Raises:
        FetchError: the table cannot be fetched or read.
    """
    try:
        table = READERS[Path(path).suffix](
            hf_hub_download(
                DATASET, path, revision=commit, endpoint=api.endpoint, repo_type="dataset", local_dir=folder
            )
        )
    except (*HUB_ERRORS, pa.ArrowException) as error:
        raise FetchError(f"{path}: cannot be read as a table: {first_line(error)}; check --revision") from None
    return list(table[MODEL_COLUMN].to_pylist()) if MODEL_COLUMN in table.column_names else []


def fetch_model(
    api: HfApi, repository: str, layers: tuple[str, ...], path: Path, headers: dict[str, str]
) -> tuple[int, int]:
    """Write some layers of one model unless it has them: bytes read, and the size of the file.

    Raises:
        FetchError: the hub does not send it.
        FileError: it lacks a layer, names no categories, or is not a model.
    """
    names = [f"{layer}.weight" for layer in layers]
    if has_tensors(path, names):
        return 0, 0
    commit = resolve_commit(api, repository)
    size = next((entry.size for entry in list_files(api, repository, commit) if entry.path == WEIGHTS_NAME), None)
    if size is None:
        raise FetchError(f"{api.endpoint}/{repository}: expected {WEIGHTS_NAME}, found none; check --revision")
    remote = HttpFile(
        f"{repository}/{WEIGHTS_NAME}",
        hf_hub_url(repository, WEIGHTS_NAME, revision=commit, endpoint=api.endpoint),
        size,
        headers,
    )
    header = RemoteHeader.fetch(remote)
    with located(remote.name):
        missing = [name for name in names if name not in header.tensors]
        if missing or parse_categories(header.metadata) is None:
            found = f"none of {missing[0]}" if missing else "a header without categories"
            raise FileUnsupported(
                f"expected the requested layers and the categories in the header, found {found}; name layers that the files have"
            )
    data = header.fetch_tensors(names)
    tensors = {name: (header.tensors[name], data[name]) for name in names}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(join_file(make_header(tensors, header.metadata), tensors))
    temporary.replace(path)
    return remote.received, size


def has_tensors(path: Path, names: list[str]) -> bool:
    """Whether a file exists and has all the tensors."""
    try:
        return set(names) <= Header.read(path).tensors.keys()
    except FileError:
        return False
