"""The command line."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import threading
import traceback
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console

from reluflow import _cli_sweep, _cli_verify, _dispatch
from reluflow._provenance import __version__
from reluflow._results import Status
from reluflow._threads import available_threads
from reluflow.experiments import shipped_studies

if TYPE_CHECKING:
    from reluflow.data import ClusterModel, Dataset
    from reluflow.experiments import DoubleEdge

_T = TypeVar("_T")

EXIT_CODES = (
    "Exit codes: 0 when the result is complete; 1 when the flow ended before its target (the "
    "report is written all the same, and says so) or something unexpected happened; 2 when an "
    "argument, a file or a folder cannot be used; 130 when interrupted."
)

_UNEXPECTED, _BAD_INPUT, _INTERRUPTED = 1, 2, 130
# The problem of `reluflow demo`, and of `reluflow run` where nothing else is said.
_DIM, _CLUSTERS, _NOISE, _EXAMPLES, _WIDTH = 2000, 10, 0.2, 200, 100

app = typer.Typer(
    name="reluflow",
    help="Implicit bias of gradient flow in two-layer ReLU networks: how well they generalise, "
    "and how easily they are fooled.",
    epilog=EXIT_CODES,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


class Means(str, Enum):
    """How cluster means lie."""

    orthogonal = "orthogonal"
    random = "random"
    equicorrelated = "equicorrelated"


class Loss(str, Enum):
    """Loss of a margin."""

    exponential = "exponential"
    logistic = "logistic"


def _clusters(text: str, default: bool | str, **more: Any) -> Any:
    return typer.Option(
        help=text, show_default=default, rich_help_panel="Clusters, where no data are given", **more
    )


def _training(*names: str, text: str, default: bool | str = True, **more: Any) -> Any:
    return typer.Option(
        *names, help=text, show_default=default, rich_help_panel="Training and testing", **more
    )


StudyName = Annotated[
    str | None,
    typer.Argument(
        metavar="[STUDY]",
        help=f"A study instead: one of {', '.join(shipped_studies())}; or a .toml file.",
        show_default=False,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="digits|FILE",
        help="The handwritten digits, even against odd; or a .npz file with X, y and optionally "
        "cluster; or a .csv or .parquet file with columns x0, x1, ..., y and optionally cluster. "
        "Labels are -1 and +1.",
        show_default=False,
    ),
]
Dim = Annotated[int | None, _clusters("Dimension d.", f"{_DIM}")]
Clusters = Annotated[int | None, _clusters("Number of clusters k.", f"{_CLUSTERS}")]
Noise = Annotated[float | None, _clusters("Standard deviation around each mean.", f"{_NOISE}")]
MeansOption = Annotated[
    Means | None,
    _clusters(
        "How the means, of norm sqrt(d), lie: orthogonal, random or equicorrelated.",
        "orthogonal",
        metavar="KIND",
    ),
]
Correlation = Annotated[
    float | None, _clusters("Cosine between any two equicorrelated means.", False)
]
Examples = Annotated[
    int | None,
    _training(
        "--examples", "-n", text="Training examples.", default=f"{_EXAMPLES}, or 80 % of the data"
    ),
]
Width = Annotated[int, _training(text="Hidden neurons m.")]
InitScale = Annotated[float, _training(text="Size of the initial network.")]
LossOption = Annotated[
    Loss, _training(text="Loss of a margin: exponential or logistic.", metavar="NAME")
]
LogInverseLoss = Annotated[
    float | None,
    _training(
        text="Follow the flow to this log(1/L).",
        default="10,000 for clusters, 100 for data and for more than 1,000 examples",
    ),
]
Limit = Annotated[
    bool | None,
    _training(
        "--limit/--no-limit",
        text="Compute the KKT point that the flow tends to, and measure it too.",
        default="for clusters, where it takes about a minute of one core at most",
    ),
]
Bias = Annotated[bool, _training("--bias/--no-bias", text="Train the biases, or keep them at 0.")]
TestPoints = Annotated[
    int, _training(text="Fresh examples whose smallest perturbation is searched for.")
]
Seed = Annotated[int, typer.Option(help="Everything random follows from it.")]
Threads = Annotated[
    int | None,
    typer.Option(help="Threads; the numbers do not depend on it.", show_default="all cores"),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Folder for a report.", show_default=False),
]
DemoOut = Annotated[Path, typer.Option(metavar="DIR", help="Folder for the report.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON alone on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the command: runs it and leaves with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal without the mathematical signs shows a question mark, not an error.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    code = run_command(sys.argv[1:] if arguments is None else arguments)
    if code == _INTERRUPTED and _threads_under_way():
        # The interpreter would wait for them, and nobody wants their results any more.
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)


def _threads_under_way() -> bool:
    others = (one for one in threading.enumerate() if one is not threading.main_thread())
    return any(not thread.daemon for thread in others)


def run_command(arguments: Sequence[str]) -> int:
    """Runs the command line and returns its exit code; errors are one line on standard error."""
    try:
        code = app(
            args=list(arguments),
            prog_name="reluflow",
            standalone_mode=False,
            # What was typed, for the report to quote.
            obj=shlex.join(["reluflow", *arguments]),
        )
        sys.stdout.flush()
        return int(code or 0)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", _INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing may be flushed into the pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _UNEXPECTED
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        return _explain(error)


def _explain(error: Exception) -> int:
    if hasattr(error, "format_message"):
        path = getattr(getattr(error, "ctx", None), "command_path", "reluflow")
        message = error.format_message().rstrip(".")
        return _fail(f"{message}; see '{path} --help'", _BAD_INPUT)
    if isinstance(error, ValueError | TypeError | OSError | MemoryError):
        return _fail(str(error) or "not enough memory", _BAD_INPUT)
    problem = f"unexpected {type(error).__name__}: {error}"
    return _fail(f"{problem} (--debug shows where)", _UNEXPECTED)


def _fail(message: str, code: int) -> int:
    print("reluflow:", " ".join(message.split()), file=sys.stderr)
    return code


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"reluflow {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    if context.invoked_subcommand is None:
        raise typer.Exit(_fail("no command given; see 'reluflow --help'", _BAD_INPUT))


@app.command(epilog=EXIT_CODES)
def demo(
    context: typer.Context,
    out: DemoOut = Path("double-edge"),
    seed: Seed = 0,
    threads: Threads = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Run the whole experiment on ten clusters in 2,000 dimensions and write its report.

    Under a minute on two cores. Samples 200 examples of 10 orthogonal clusters, follows gradient
    flow of a network of 100 neurons to log(1/L) = 10,000, and measures its distance to a KKT point,
    its test error, the one shift that flips nearly all examples, and the smallest perturbation of
    each of 200 fresh ones, beside those of a robust network and what theory says.
    """
    from reluflow.data import ClusterModel

    clusters = ClusterModel.orthogonal(_CLUSTERS, _DIM, _NOISE)
    settings = {"n": _EXAMPLES, "width": _WIDTH, "seed": seed, "num_threads": threads}
    _experiment(clusters, "clusters", settings, out, json_, context.obj)


@app.command(epilog=EXIT_CODES)
def run(
    context: typer.Context,
    study: StudyName = None,
    data: Data = None,
    dim: Dim = None,
    clusters: Clusters = None,
    noise: Noise = None,
    means: MeansOption = None,
    correlation: Correlation = None,
    n: Examples = None,
    width: Width = _WIDTH,
    init_scale: InitScale = 1e-3,
    loss: LossOption = Loss.exponential,
    log_inverse_loss: LogInverseLoss = None,
    limit: Limit = None,
    bias: Bias = True,
    test_points: TestPoints = 200,
    seed: Seed = 0,
    threads: Threads = None,
    out: Out = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Run the whole experiment on your clusters, your data, or the handwritten digits.

    With the name of a study, such as theorem, run that study and write its page.
    """
    if study is not None:
        _run_study(context, study, threads, out, json_)
        return
    given = {
        "--dim": dim,
        "--clusters": clusters,
        "--noise": noise,
        "--means": means,
        "--correlation": correlation,
    }
    source: ClusterModel | Dataset
    if data is None:
        source = _cluster_model(
            _or(clusters, _CLUSTERS),
            _or(dim, _DIM),
            _or(noise, _NOISE),
            _or(means, Means.orthogonal),
            correlation,
            seed,
        )
        n = _or(n, _EXAMPLES)
    else:
        unused = [option for option, value in given.items() if value is not None]
        if unused:
            raise typer.BadParameter(f"{', '.join(unused)} cannot be combined with --data")
        source = _dataset(data)
    settings = {
        "n": n,
        "width": width,
        "init_scale": init_scale,
        "loss": loss.value,
        "log_inverse_loss": log_inverse_loss,
        "limit": limit,
        "bias": bias,
        "test_points": test_points,
        "seed": seed,
        "num_threads": threads,
    }
    _experiment(source, data or "clusters", settings, out, json_, context.obj)


_cli_sweep.register(app, EXIT_CODES)
_cli_verify.register(app)


def _was_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _run_study(
    context: typer.Context, study: str, threads: int | None, out: Path | None, json_: bool
) -> None:
    """A study has settings of its own, so that others are refused."""
    taken = {"study", "threads", "out", "json_", "debug"}
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name and parameter.name not in taken and _was_typed(context, parameter.name)
    ]
    if given:
        raise typer.BadParameter(f"{', '.join(given)} cannot be combined with a study")
    _cli_sweep.run_study(study, threads, out, json_, context.obj)


@app.command()
def info(json_: Json = False, debug: Debug = False) -> None:
    """Say how this installation was built and what it uses on this machine."""
    from importlib.metadata import version

    build = _dispatch.core.build_info()
    found = {
        "version": __version__,
        "instruction_set": _dispatch.instruction_set,
        "instruction_sets_built": _dispatch.built_levels(),
        "instruction_sets_usable": _dispatch.usable_levels(),
        "compiler": build["compiler"],
        "eigen": build["eigen"],
        "openmp": build["openmp"],
        "threads": available_threads() if build["openmp"] else 1,
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "platform": platform.platform(),
    }
    if json_:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name.replace('_', ' '):<26}{_in_words(name, value)}")


def _in_words(name: str, value: Any) -> str:
    if name == "openmp":
        return "yes" if value else "no: the kernels are single-threaded"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _cluster_model(
    n_clusters: int,
    dim: int,
    noise: float,
    means: Means,
    correlation: float | None,
    seed: int,
) -> ClusterModel:
    from reluflow.data import ClusterModel

    if (means is Means.equicorrelated) != (correlation is not None):
        raise typer.BadParameter("--means equicorrelated and --correlation go together")
    if correlation is not None:
        return ClusterModel.equicorrelated(n_clusters, dim, noise, correlation=correlation)
    if means is Means.random:
        return ClusterModel.random(n_clusters, dim, noise, seed=seed)
    return ClusterModel.orthogonal(n_clusters, dim, noise)


def _dataset(data: str) -> Dataset:
    from reluflow.data import load_dataset, load_digits

    return load_digits() if data == "digits" else load_dataset(data)


def _or(value: _T | None, default: _T) -> _T:
    return default if value is None else value


def _experiment(
    source: ClusterModel | Dataset,
    name: str,
    settings: dict[str, Any],
    out: Path | None,
    as_json: bool,
    command: str,
) -> None:
    """Runs the experiment, writes its report, prints what was found, and leaves with a code."""
    from reluflow.report.terminal import print_result

    log = Console(stderr=True, highlight=False)
    try:
        result, folder = _run_and_report(source, name, settings, out, command, log)
    except KeyboardInterrupt:
        raise typer.Exit(_fail("interrupted", _INTERRUPTED)) from None
    print_result(log if as_json else Console(highlight=False), result)
    if as_json:
        print(json.dumps({**result.summary, "report": folder and str(folder)}, allow_nan=False))
    _conclude(result, folder, log)


def _run_and_report(
    source: ClusterModel | Dataset,
    name: str,
    settings: dict[str, Any],
    out: Path | None,
    command: str,
    log: Console,
) -> tuple[DoubleEdge, Path | None]:
    from reluflow.experiments import double_edge
    from reluflow.report import check_writable, write_report

    def announce(step: str) -> None:
        if log.is_terminal:
            log.print(f"{step} ...", style="dim")

    if out is not None:
        check_writable(out)
    result = double_edge(source, name=name, progress=log.is_terminal, announce=announce, **settings)
    if out is None:
        return result, None
    announce("writing the report")
    return result, write_report(result, out, command=command)


def _conclude(result: DoubleEdge, folder: Path | None, log: Console) -> None:
    if folder is None:
        log.print("\nNo report was asked for; --out DIR writes one.")
    else:
        log.print(f"\nReport: {folder / 'index.html'}", soft_wrap=True)
    if result.flow.status != Status.CONVERGED:
        raise typer.Exit(_fail(result.flow.status.sentence, _UNEXPECTED))
