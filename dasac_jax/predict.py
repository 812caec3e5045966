"""The command `python -m dasac_jax.predict CHECKPOINT --images IMAGES --output DIR`."""

from __future__ import annotations

from dasac_jax.runtime import garbage, malloc

if __name__ == "__main__":
    malloc.prepare()  # before anything else, since it may start the command once more
    garbage.collect_seldom()  # importing makes much that stays

import argparse
import re
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from dasac_jax.cli import Parser, code_of, leave
from dasac_jax.errors import UserError
from dasac_jax.files import PREDICTIONS

_OVERLAP, _FPS = 0.25, 10.0


def run(arguments: argparse.Namespace) -> str:
    """Predict the images that the command line names. Returns a report; raises UserError."""
    # Imported only now, so that a mistake on the command line is answered without loading JAX.
    from dasac_jax.inference import image_files, prediction_files, predictor, trained_network, video
    from dasac_jax.runtime import lock, logs, program_cache

    folder = Path(arguments.output)
    if arguments.overlap is not None and not arguments.window:
        raise UserError("--overlap is for --window: give that too, or leave it out")
    if arguments.fps is not None and not arguments.video:
        raise UserError("--fps is for --video: give that too, or leave it out")
    kinds = _kinds(arguments)
    options = predictor.Options(
        scales=arguments.scales,
        flip=arguments.flip,
        window=arguments.window,
        overlap=_OVERLAP if arguments.overlap is None else arguments.overlap,
        batch=arguments.batch,
        probabilities=arguments.probabilities,
    )
    if arguments.video:
        video.check_video(arguments.video)
    with logs.logging_to(None, console=Console(stderr=True)):
        program_cache.keep_programs()
        results = [folder / kind for kind in PREDICTIONS]
        images = image_files.find_images(arguments.images, outside=results)
        model, networks, facts = trained_network.open_checkpoint(arguments.checkpoint)
        variables = trained_network.choose(
            networks, arguments.checkpoint, teacher=arguments.teacher
        )
        classes = trained_network.classes(facts)
        names = [entry.name for entry in classes]
        prediction_files.check_server_names(images, kinds, names, zipped=arguments.zip)
        with lock.held(folder, flag="--output"):
            work = prediction_files.open_work(folder, images, kinds)
            prediction_files.write_record(folder, _record(facts, variables, options, names))
            existing, started = len(images) - len(work.remaining), time.monotonic()
            with logs.progress("predict", len(images), existing, log_every=10) as update:
                predict = predictor.create(model, variables, options)
                del networks, variables  # the devices have their own
                batch = predictor.batch_size(options)
                for done in prediction_files.predict_files(
                    predict, work, folder, kinds, classes, batch=batch
                ):
                    update(existing + done)
            seconds = time.monotonic() - started
            return "\n".join(
                [_told(folder, kinds, work, existing, seconds), *_joined(arguments, folder, images)]
            )


def _told(folder: Path, kinds: Sequence[str], work: Any, existing: int, seconds: float) -> str:
    """How many images were predicted, and why."""
    text = f"{len(work.remaining)} images predicted in {seconds:.1f} s, {existing} were there"
    changed, unrecorded = map(len, work.compared)
    if changed:
        text += f", {changed} predicted anew because their images have changed"
    if unrecorded:
        text += f", {unrecorded} predicted again to find out whether they are of these images: yes"
    return f"{text}: {folder}/" + (kinds[0] if len(kinds) == 1 else "{" + ",".join(kinds) + "}")


def _joined(arguments: argparse.Namespace, folder: Path, images: Sequence[Any]) -> Iterator[str]:
    """Write the archive and the video that are wanted; yields a line on each."""
    from dasac_jax.inference import prediction_files, video

    if arguments.zip:
        yield f"for upload: {prediction_files.write_zip(folder, images)}"
    if arguments.video:
        frames = [prediction_files.output_path(folder, image, "overlay") for image in images]
        video.write_video(arguments.video, frames, fps=arguments.fps or _FPS)
        yield f"video: {arguments.video}"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and print its report; exits with code 2 after a mistake, 130 after Ctrl-C."""
    leave(
        code_of(
            lambda: print(run(_parser().parse_args(argv))), "the same command goes on where it was"
        )
    )


def _kinds(arguments: argparse.Namespace) -> list[str]:
    """The kinds of files to write; --zip and --video imply one each."""
    wanted = {
        "labels": True,
        "cityscapes_ids": arguments.cityscapes_ids or arguments.zip,
        "overlay": arguments.overlay or bool(arguments.video),
        "confidence": arguments.confidence,
        "probabilities": arguments.probabilities,
    }
    return [kind for kind, is_wanted in wanted.items() if is_wanted]


def _record(facts, variables, options, class_names) -> dict[str, Any]:
    """What decides a prediction apart from the image: network, weights, classes and options."""
    import jax

    checksum = 0
    for leaf in jax.tree.leaves(variables):
        checksum = zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8), checksum)
    return {
        "network": facts["arch"],
        "weights": f"{checksum:08x}",
        "classes": class_names,
        "scales": options.scales,
        "flip": options.flip,
        "window": options.window,
        "overlap": options.overlap if options.window else None,
    }


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m dasac_jax.predict",
        description="Predict label maps of images at full resolution. The same command goes on "
        "where it was stopped; what is there is kept.",
    )
    add = parser.add_argument
    add("checkpoint", help="a run's work directory, a stage, a folder of steps, or one step")
    add("--images", nargs="+", required=True, metavar="IMAGES",
        help="files, folders, lists (.txt, .csv) or patterns")  # fmt: skip
    add("--output", required=True, metavar="DIR", help="folder to write to")
    add("--teacher", action="store_true", help="take the teacher instead of the student")
    add("--cityscapes-ids", action="store_true",
        help="also label maps in Cityscapes ids, named for the evaluation server")  # fmt: skip
    add("--zip", action="store_true", help="also these in one archive, to be uploaded")
    add("--overlay", action="store_true", help="also pictures: image under colours, with legend")
    add("--confidence", action="store_true", help="also the labels' probabilities as grey PNG")
    add("--probabilities", action="store_true", help="also those of all classes, float16 .npz")
    add("--scales", type=_scales, default=(1.0,), metavar="S,S,…",
        help="resize by each and average the probabilities, as in 0.5,0.75,1,1.25")  # fmt: skip
    add("--flip", action="store_true", help="average with the mirror image")
    add("--window", type=_window, metavar="HxW",
        help="cut images into windows, as in 512x1024, where whole ones do not fit")  # fmt: skip
    add("--overlap", type=float, metavar="SHARE",
        help=f"least share of a window in common with the next, averaged ({_OVERLAP})")  # fmt: skip
    add("--batch", type=int, default=1, metavar="N",
        help="images, or windows, per device at a time (1)")  # fmt: skip
    add("--video", metavar="FILE", help="also the overlays as a .gif or .mp4, in order")
    add("--fps", type=_fps, metavar="N", help=f"frames per second of it ({_FPS:g})")
    return parser


def _scales(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} are no numbers like 0.5,1,1.25") from None


def _window(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no height and width like 512x1024")
    return int(match[1]), int(match[2])


def _fps(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no number between 0.1 and 100")
    return value


if __name__ == "__main__":
    garbage.collect_seldom()  # once more, for what has been imported
    main()
