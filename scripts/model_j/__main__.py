"""``python -m scripts.model_j fetch | protocol | reproduce``: Model-J's Stable Diffusion LoRAs and its classifiers, and the papers' protocols on them.

``reproduce SD_200``, or ``reproduce SupViT`` of the classifiers, fetches the one layer that the papers use and measures every encoder on it.
Exit status: 0 done; 1 could not, with one line on stderr; 2 wrong usage; 3 done in part, each file that was refused named on stderr.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

from loradex.app.commands.tables import progress_bar
from loradex.retrieval.errors import LoradexError
from scripts.model_j import CLASSIFIERS, LAYER, REPOSITORIES, TEXT_ENCODER
from scripts.model_j.classifiers import fetch_classifiers
from scripts.model_j.fetch import Fetched, FetchOptions, fetch

FOLDER: Final = Path("build/model_j")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its result is all that goes to stdout."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except LoradexError as error:
        note(str(error))
        return 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m scripts.model_j", description=__doc__)
    commands = made.add_subparsers(required=True, metavar="fetch | protocol | reproduce")
    hub, measure = argparse.ArgumentParser(add_help=False), argparse.ArgumentParser(add_help=False)
    hub.add_argument("subset", choices=(*REPOSITORIES, *CLASSIFIERS))
    hub.add_argument("--out", type=Path, help=f"folder to fill; default: {FOLDER}/SUBSET")
    hub.add_argument("--endpoint", help="another hub or a mirror; default: $HF_ENDPOINT, else the public one")
    hub.add_argument("--revision", help="a commit of the hub's repository; default: the newest")
    hub.add_argument("--limit", type=positive, metavar="N", help="models of each split")
    hub.add_argument("--jobs", type=positive, default=8, metavar="N", help="files at a time")
    measure.add_argument("--text-encoder", default=TEXT_ENCODER, help=f"by open_clip's name; default: {TEXT_ENCODER}")
    measure.add_argument(
        "--layer",
        metavar="NAME",
        help=f"default: the papers' layer 46, {LAYER}; of classifiers the best on val of those in the files",
    )
    measure.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    measure.add_argument("--device", help="of probes; default: cuda where there is one")
    measure.add_argument(
        "--epochs", type=positive, metavar="N", help="of probes; default: the papers' 200, 400, and 500 for classifiers"
    )
    one = commands.add_parser("fetch", parents=[hub], help="fetch a subset, whole or some layers of each LoRA")
    one.add_argument(
        "--layers", nargs="+", default=[], metavar="NAME", help="by diffusers' names; default: whole files"
    )
    one.set_defaults(run=run_fetch)
    two = commands.add_parser(
        "protocol", parents=[measure], help="measure every encoder on a folder in Model-J's layout"
    )
    two.add_argument("folder", type=Path)
    two.add_argument(
        "--out",
        type=Path,
        dest="document",
        metavar="FILE",
        help="keep the document there too; a run that was stopped goes on from it",
    )
    two.set_defaults(run=run_measure)
    three = commands.add_parser("reproduce", parents=[hub, measure], help="fetch the layer and measure")
    three.set_defaults(run=run_reproduce)
    return made


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, found {text!r}")
    return int(text)


def run_fetch(options: argparse.Namespace) -> int:
    """``fetch``."""
    done = fetched(options, options.layers)
    sys.stdout.write(f"{done}\n")
    return status(done)


def run_measure(options: argparse.Namespace) -> int:
    """``protocol``."""
    import torch

    from loradex.retrieval.training.category_dataset import find_classifiers
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
    """``reproduce``; the document is kept in the folder too."""
    done = fetched(options, [options.layer or CLASSIFIERS.get(options.subset, LAYER)])
    note(str(done))
    if status(done) == 1:
        return 1
    options.folder = options.out or FOLDER / options.subset
    options.document = options.folder / "protocol.json"
    return run_measure(options) or status(done)


def fetched(options: argparse.Namespace, layers: Sequence[str]) -> Fetched:
    """Fetch, and name what was refused."""
    out = options.out or FOLDER / options.subset
    chosen = FetchOptions(
        options.subset, out, tuple(layers), options.endpoint, options.revision, options.limit, options.jobs
    )
    disable_progress_bars()  # one of each file
    with progress_bar() as progress:
        done = fetch_classifiers(chosen, progress) if options.subset in CLASSIFIERS else fetch(chosen, progress)
    for reason in done.refused.values():
        note(reason)
    return done


def status(done: Fetched) -> int:
    """0 when nothing was refused, 3 when some files were, 1 when all were."""
    return 0 if not done.refused else 3 if done.fetched + done.there else 1


def note(line: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
