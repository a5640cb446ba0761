"""The command that performs surgeries: operate."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from onnxsurgeon.choices import DATA, WIDEN_MODES
from onnxsurgeon.cli.field_options import one_of, pop_fields, with_fields
from onnxsurgeon.cli.help import CONTEXT, Command
from onnxsurgeon.cli.interrupt import interruptible
from onnxsurgeon.cli.options import (
    ForceOption,
    JsonOption,
    ModelArgument,
    OutOption,
    ReadingOptions,
    SeedOption,
    data_names,
    with_settings_file,
    with_trust,
)
from onnxsurgeon.errors import SettingsError, SurgeryError


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command(
        cls=OperateCommand,
        context_settings=CONTEXT,
        epilog="Examples: onnxsurgeon operate model.onnx widen:1:8 merge:2 -o wider.onnx; "
        "onnxsurgeon operate model.onnx prune:1:16 --data digits -o smaller.onnx",
    )(operate)


def _surgery_names(incomplete: str) -> list[str]:
    from onnxsurgeon.surgery import SURGERIES

    return [f"{name}:" for name, kind in SURGERIES.items() if kind.is_for_one and name.startswith(incomplete)]


class OperateCommand(Command):
    """A command whose help lists the surgeries."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the help of every command, and before it the effect of each surgery on the layer that it names."""
        from onnxsurgeon.surgery import SURGERIES
        from onnxsurgeon.surgery.base import usage

        kinds = sorted((kind for kind in SURGERIES.values() if kind.is_for_one), key=lambda kind: kind.needs > 0)
        rows = [(usage(kind), kind.summary + (" (goes by --data)" if kind.needs else "")) for kind in kinds]
        with formatter.section("Surgeries"):
            formatter.write_dl(rows)
        super().format_options(ctx, formatter)


def _layers_meant(model: Path, surgeries: list[str]) -> str:
    """Say what to give where a surgery names a layer, or nearly so, and not its number; "" where none does."""
    from onnxsurgeon.graph.reader import load
    from onnxsurgeon.suggestions import nearest
    from onnxsurgeon.surgery import SURGERIES

    for text in surgeries:
        operation, _, rest = text.partition(":")
        name, _, amount = rest.partition(":")
        if operation not in SURGERIES or not name or name.isdigit():
            continue
        network = load(model)
        numbers = {network.hidden(i).names.node: i for i in range(1, network.hidden_count + 1)}
        for meant in nearest(name, numbers)[:1]:
            given = ":".join([operation, str(numbers[meant]), *([amount] if amount else [])])
            return f"; '{meant}' is layer {numbers[meant]}: did you mean '{given}'?"
    return ""


@interruptible
@with_settings_file
@with_trust
@with_fields(ReadingOptions)
def operate(
    model: ModelArgument,
    surgeries: Annotated[
        list[str],
        typer.Argument(
            help="In order; hidden layers and residual blocks are counted from 1 at the input.",
            metavar="SURGERY...",
            autocompletion=_surgery_names,
        ),
    ],
    out: OutOption,
    widen: Annotated[str, typer.Option(**one_of("--widen", "How units are added.", WIDEN_MODES))] = "split",
    exact: Annotated[bool, typer.Option("--exact", help="Refuse a surgery that would change the function.")] = False,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DATA",
            autocompletion=data_names,
            rich_help_panel=DATA,
            help="Show each surgery's error on rows of this data set, as for evaluate; some need it, and go by 4,096 "
            "training rows.",
        ),
    ] = "",
    seed: SeedOption = 0,
    force: ForceOption = False,
    as_json: JsonOption = False,
    **settings: Any,
) -> None:
    """Perform surgeries on a model, in order, and report how far its outputs moved."""
    from onnxsurgeon.cli import console
    from onnxsurgeon.data.told import data_notes
    from onnxsurgeon.graph.files import require_writable
    from onnxsurgeon.graph.reader import load
    from onnxsurgeon.graph.writer import save
    from onnxsurgeon.operating.perform import draw_sample, perform
    from onnxsurgeon.surgery import parse, spell

    reading = pop_fields(ReadingOptions, settings)
    options = reading.inputs
    try:
        chosen = [parse(text, mode=widen) for text in surgeries]
    except SurgeryError as error:
        raise SurgeryError(f"{error}{_layers_meant(model, surgeries)}", error.kind) from error
    for surgery in chosen:
        if surgery.needs and not data:
            raise SettingsError(
                f"{spell(surgery)}: --data is needed: this surgery goes by what the data show", "needs-data"
            )
    require_writable(out, overwrite=force)
    network = load(model)
    dataset = reading.load(data, network) if data else None
    sample = None if dataset is None else draw_sample(network, dataset, options, seed=seed)
    network, performed = perform(network, chosen, sample, seed=seed, require_exact=exact)
    console.remarks(save(network, out, overwrite=force), as_json=as_json)
    if dataset is not None:
        console.remarks(data_notes(network, dataset, options), as_json=as_json)
    if as_json:
        records = [{**asdict(each.record), "found": each.found} for each in performed]
        console.print_json({"topology": network.topology, "surgeries": records})
        return
    console.operations(performed)
    console.out.print(f"{out}: {console.network_summary(network)}", markup=False, soft_wrap=True)
