"""``python -m scripts.model_j fetch | protocol | reproduce``: fetches Model-J and runs the papers' protocols on it.

``reproduce SD_200``, or ``reproduce SupViT`` for classifiers, fetches the one layer that the papers use and measures
every encoder on it. Exit status: 0 success; 1 failure, with one line on stderr; 2 wrong usage; 3 some files were
refused, each named on stderr.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

from loradex.app.commands.progress import progress_bar
from loradex.retrieval.errors import LoradexError
from scripts.model_j import CLASSIFIER_LAYERS, LAYER, REPOSITORIES, TEXT_ENCODER
from scripts.model_j.classifiers import fetch_classifiers
from scripts.model_j.fetch import FetchOptions, FetchResult, fetch

FOLDER: Final = Path("build/model_j")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; prints nothing but its result to stdout."""
    options = make_parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except LoradexError as error:
        print_error(str(error))
        return 1


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m scripts.model_j", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="fetch | protocol | reproduce")
    hub_options, protocol_options = argparse.ArgumentParser(add_help=False), argparse.ArgumentParser(add_help=False)
    hub_options.add_argument("subset", choices=(*REPOSITORIES, *CLASSIFIER_LAYERS))
    hub_options.add_argument("--out", type=Path, help=f"folder to fill; default: {FOLDER}/SUBSET")
    hub_options.add_argument("--endpoint", help="another hub or a mirror; default: $HF_ENDPOINT, else the public one")
    hub_options.add_argument("--revision", help="a commit of the hub's repository; default: the newest")
    hub_options.add_argument("--limit", type=positive_int, metavar="N", help="number of models of each split")
    hub_options.add_argument("--jobs", type=positive_int, default=8, metavar="N", help="number of files at a time")
    protocol_options.add_argument(
        "--text-encoder", default=TEXT_ENCODER, help=f"its name in open_clip; default: {TEXT_ENCODER}"
    )
    protocol_options.add_argument(
        "--layer",
        metavar="NAME",
        help=f"default: the papers' layer 46, {LAYER}; of classifiers the best on val of those in the files",
    )
    protocol_options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    protocol_options.add_argument("--device", help="for probes; default: cuda if available")
    protocol_options.add_argument(
        "--epochs",
        type=positive_int,
        metavar="N",
        help="of probes; default: the papers' 200, 400, and 500 for classifiers",
    )
    fetch_parser = commands.add_parser(
        "fetch", parents=[hub_options], help="fetch a subset: whole files, or some layers of each"
    )
    fetch_parser.add_argument(
        "--layers", nargs="+", default=[], metavar="NAME", help="names in diffusers; default: whole files"
    )
    fetch_parser.set_defaults(run=run_fetch)
    protocol_parser = commands.add_parser(
        "protocol", parents=[protocol_options], help="measure every encoder on a folder in Model-J's layout"
    )
    protocol_parser.add_argument("folder", type=Path)
    protocol_parser.add_argument(
        "--out",
        type=Path,
        dest="document",
        metavar="FILE",
        help="write the document there too; a stopped run continues from it",
    )
    protocol_parser.set_defaults(run=run_measure)
    reproduce_parser = commands.add_parser(
        "reproduce", parents=[hub_options, protocol_options], help="fetch the layer and measure every encoder on it"
    )
    reproduce_parser.set_defaults(run=run_reproduce)
    return parser


def positive_int(text: str) -> int:
    """Parse an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, found {text!r}")
    return int(text)


def run_fetch(options: argparse.Namespace) -> int:
    """Run ``fetch``."""
    result = fetch_subset(options, options.layers)
    sys.stdout.write(f"{result}\n")
    return exit_status(result)


def run_measure(options: argparse.Namespace) -> int:
    """Run ``protocol``, for LoRAs or classifiers as the folder has them."""
    import torch

    from loradex.retrieval.training.labelled_classifiers import find_classifiers
    from scripts.model_j.category_protocol import CategoryOptions, run_categories
    from scripts.model_j.encoders import ProtocolOptions
    from scripts.model_j.protocol import run_protocol

    seeds, device = tuple(options.seeds), options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    with progress_bar() as progress:
        if find_classifiers(options.folder):
            document = run_categories(
                CategoryOptions(options.folder, options.layer, seeds, device, options.epochs, options.document),
                progress,
            )
        else:
            layer = options.layer or LAYER
            document = run_protocol(
                ProtocolOptions(
                    options.folder, options.text_encoder, layer, seeds, device, options.epochs, options.document
                ),
                progress,
            )
    sys.stdout.write(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return 0


def run_reproduce(options: argparse.Namespace) -> int:
    """Run ``reproduce``; the document is also written to the folder."""
    result = fetch_subset(options, [options.layer or CLASSIFIER_LAYERS.get(options.subset, LAYER)])
    print_error(str(result))
    if exit_status(result) == 1:
        return 1
    options.folder = options.out or FOLDER / options.subset
    options.document = options.folder / "protocol.json"
    return run_measure(options) or exit_status(result)


def fetch_subset(options: argparse.Namespace, layers: Sequence[str]) -> FetchResult:
    """Fetch a subset, and print the reason for each refused file."""
    folder = options.out or FOLDER / options.subset
    fetch_options = FetchOptions(
        options.subset, folder, tuple(layers), options.endpoint, options.revision, options.limit, options.jobs
    )
    disable_progress_bars()  # huggingface_hub's, one for each file
    with progress_bar() as progress:
        result = (
            fetch_classifiers(fetch_options, progress)
            if options.subset in CLASSIFIER_LAYERS
            else fetch(fetch_options, progress)
        )
    for reason in result.refused.values():
        print_error(reason)
    return result


def exit_status(result: FetchResult) -> int:
    """0 when nothing was refused, 3 when some files were, 1 when all were."""
    return 0 if not result.refused else 3 if result.fetched + result.present else 1


def print_error(line: str) -> None:
    """Print a line to stderr."""
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
