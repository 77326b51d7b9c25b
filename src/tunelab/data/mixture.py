"""Sources of a data mixture with their weights, as `data.mix` names them.  Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tunelab.config.schema import DataConfig, InstructionDataConfig


@dataclass(frozen=True)
class SourceConfig:
    """One source of a mix.

    Attributes:
        name: As scores and reports call it; empty for the only source of a run without a mix.
        data: The `data` block as it holds for this source; its columns are those of the run.
        weight: How often an epoch sees each of its rows.
        columns: Name of a column in the run -> its name in this source; empty where they agree.
        format: Layout of its records, where the run knows several; "auto" detects it by the columns.
    """

    name: str
    data: DataConfig
    weight: float = 1.0
    columns: Mapping[str, str] = field(default_factory=dict)
    format: str = ""


def list_sources(data: DataConfig) -> list[SourceConfig]:
    """The sources of a run: those of `data.mix`, else the one that the `data` block itself names."""
    if data.mix is None:
        return [SourceConfig("", data)]
    return [
        SourceConfig(
            name,
            data.of_source(source),
            source.weight,
            {ours: theirs for ours, theirs in source.columns.items() if theirs},
            (source.format or data.format) if isinstance(data, InstructionDataConfig) else "",
        )
        for name, source in data.sources.items()
    ]
