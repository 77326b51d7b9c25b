"""The report on a study or a set of runs: best configuration, what to run next, ranking, history, cost.  Pure."""

import math
import os
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from tunelab.analysis.configurations import SEED, Configuration, Setting, Trial, format_value
from tunelab.analysis.next_space import SettingChange, suggest_next_space
from tunelab.analysis.number_format import format_duration
from tunelab.config.overrides import override_key
from tunelab.config.quoting import path_text, path_word
from tunelab.config.schema import legal_ranges
from tunelab.language.translation import message, messages, translate
from tunelab.report.charts.axes import ReferenceLine, Series
from tunelab.report.charts.lines import line_chart, scatter
from tunelab.report.document import (
    Block,
    BulletList,
    CellValue,
    Chart,
    Command,
    Document,
    Fold,
    Paragraph,
    Section,
    Table,
    Verdict,
    build_section,
    lift_warnings,
)
from tunelab.report.formatting import format_cell, format_count, format_percent, join_names, to_cell
from tunelab.report.importance_sections import (
    TRUSTED_SHARE,
    ImportanceAnalysis,
    effects_section,
    importance_section,
    parallel_coordinates_charts,
)
from tunelab.report.study_checks import budget_verdict, checks_section, study_boundary_hits, study_failure_limits
from tunelab.report.study_reader import StudyResults
from tunelab.runs import console
from tunelab.runs.entry_script import script_option
from tunelab.runs.study_folder import StudyFolder

STUDY_KEYS = ("search.trials", "search.hours", "search.warm_start", "search.effect", "hydra.sweep.dir", "search.seed")
MIN_TRIALS, MAX_TRIALS = 10, 60  # trials of the next search
MIN_JUDGED = 6  # configurations from which on it is judged whether more of them pay


def suggest_changes(analysis: ImportanceAnalysis) -> list[SettingChange]:
    """The change of each setting for the next search; conditional settings stay as they are."""
    study = analysis.study
    if len(study.configurations) < 4:
        return []
    settings = [one for one in study.varied_settings if one.name not in study.conditional]
    return suggest_next_space(
        settings, study.configurations, study_boundary_hits(study), study_failure_limits(study),
        weight=analysis.larger_importance, explained=analysis.explained_variance, legal=legal_ranges(),
        noise=study.seed_noise,
    )  # fmt: skip


def next_search_section(analysis: ImportanceAnalysis) -> list[Section]:
    """The section on what to run next."""
    study = analysis.study
    if not study.configurations:
        text = translate(
            "Nothing came through: read the reasons in the table of trials, and run one configuration by itself first."
        )
        return [Section("What to run next", [Paragraph(text, "bad")])]
    steps = suggest_changes(analysis)
    blocks: list[Block] = [BulletList(suggestion_reasons(analysis, steps))]
    if study.is_search and not study.confirmation and not study.default_is_best:
        text = translate(
            "First, whether it was luck: the three best and the default once more, with five new seeds each:"
        )
        blocks.append(Command(f"tunelab confirm {shlex.quote(study_path(study))}{script_option(study.script)}", text))
    if steps:
        says = next_search_heading(study, {step.action for step in steps})
        if says and (command := search_command(study, steps)):
            blocks.append(Command(command, says))
        rows: list[list[CellValue]] = [
            [
                step.setting.name,
                ACTION_WORDS.get(step.action, message(step.action)),
                format_setting_range(step.setting),
                format_setting_range(step.new_setting) if step.new_setting else format_value(step.value),
                step.reason,
            ]
            for step in steps
        ]
        blocks.append(
            Table("next", messages("setting", "do", "now", "then", "why"), rows, translate("Setting by setting:"))
        )
    if study.is_search:
        best = StudyFolder(study.root).best
        if best.is_file():
            name = os.path.relpath(best).removesuffix(".yaml")
            blocks.append(
                Command(
                    f"{console.train_command(study.script)} {shlex.quote(path_word('experiment', name))}",
                    translate("The best configuration by itself, scored on the test split and exported:"),
                )
            )
    return [Section("What to run next", blocks)]


ACTION_WORDS = {"widen": message("move"), "bound": message("keep")}  # at the end of what is legal it stays


def next_search_heading(study: StudyResults, actions: set[str]) -> str:
    """What the next search is, by what is done to its settings; empty where none would pay."""
    if "widen" in actions:
        return translate("The same search, moved to where the best points:")
    if "narrow" in actions:
        return translate("The same search, without what is worse beyond noise:")
    if "fix" in actions:
        return translate("The same search, with what hardly matters fixed:")
    few = len(study.configurations) < MIN_JUDGED or budget_verdict(study)[1] == "warn"
    ranges = any(setting.is_range for setting in study.varied_settings)
    return translate("The same space, with as many trials again:") if few and ranges else ""


def suggestion_reasons(analysis: ImportanceAnalysis, steps: Sequence[SettingChange]) -> list[Paragraph]:
    """The reasons for each change, the weightiest first."""
    study = analysis.study
    lines = [
        Paragraph(
            translate(
                "{name}: {reason}. Try {new_setting}.",
                name=step.setting.name,
                reason=step.reason,
                new_setting=format_setting_range(step.new_setting),
            )
        )
        for step in steps
        if step.action == "widen" and step.new_setting
    ]
    lines += [
        Paragraph(translate("{name}: {reason}.", name=step.setting.name, reason=step.reason))
        for step in steps
        if step.action == "bound"
    ]
    fixed = [f"{step.setting.name}={format_value(step.value)}" for step in steps if step.action == "fix"]
    if fixed:
        lines.append(Paragraph(translate("Fix {names}: the score hardly depends on it here.", names=", ".join(fixed))))
    lines += confirmation_verdicts(study)
    if study.default_is_best:
        lines.append(
            Paragraph(translate("The default configuration is the best: the search found nothing better to confirm."))
        )
    if len(study.configurations) < 4:
        lines.append(Paragraph(translate("Too few configurations to point anywhere: run more of them.")))
    return lines or [Paragraph(translate("Nothing points beyond the space that was searched."))]


def confirmation_verdicts(study: StudyResults) -> list[Paragraph]:
    """The verdicts of `tunelab confirm`."""
    verdicts = study.confirmation.get("verdicts") or {}
    lines = []
    for label, verdict in verdicts.items():
        sure = bool(verdict.get("adopt"))
        ends = translate(
            "{gain} ({low} to {high})",
            gain=format_value(float(verdict["gain"])),
            low=format_value(float(verdict["low"])),
            high=format_value(float(verdict["high"])),
        )
        word = translate("worth adopting") if sure else translate("not proven better than the default")
        lines.append(
            Paragraph(
                translate(
                    "Confirmed with fresh seeds, {label} is {word}: gain {ends}.", label=label, word=word, ends=ends
                ),
                "good" if sure else "warn",
            )
        )
    return lines


def search_command(study: StudyResults, steps: Sequence[SettingChange]) -> str:
    """The next search as one command; empty for a set of runs, whose commands are unknown."""
    if not study.is_search:
        return ""
    typed = [line for line in study.arguments if not any(line.lstrip("+~").startswith(one) for one in STUDY_KEYS)]
    swept = {step.setting.name for step in steps} | {SEED}
    kept = [line for line in typed if setting_key(line) not in swept] or list(study.fixed_overrides)
    ranges = any(step.new_setting is not None and step.new_setting.is_range for step in steps)
    if not study.arguments and study.sampler != "grid":
        kept.append(f"search.sampler={study.sampler}")
    words = [*kept]
    for step in steps:
        name = step.setting.name
        if step.new_setting is None:
            shipped = bool(study.arguments) and not any(setting_key(line) == name for line in typed)
            words += [f"search.space.params.{name}=null"] * shipped + [
                f"{name}={override_text(step.setting, step.value)}"
            ]
        else:
            words.append(f"{name}={override_value(step.new_setting)}")
    if seeds := study_seeds(study):
        words.append(f"{SEED}={','.join(map(str, seeds))}")
    if ranges:
        words.append(f"search.trials={min(MAX_TRIALS, max(MIN_TRIALS, len(study.configurations)))}")
        words.append(f"search.warm_start=[{path_text(study.root)}]")
    words.append(path_word("hydra.sweep.dir", next_study_path(study_path(study))))
    return f"{console.train_command(study.script)} -m {shlex.join(words)}"


def setting_key(line: str) -> str:
    """The setting that an override gives a value or a range of values."""
    return override_key(line).removeprefix("search.space.params.")


def override_value(setting: Setting) -> str:
    """A setting as Hydra's sweep syntax."""
    if not setting.is_range:
        return ",".join(setting.override_texts)
    ends = f"{format_bound(setting.low, setting.integer)},{format_bound(setting.high, setting.integer)}"
    inner = f"interval({ends})"
    kind = f"int({inner})" if setting.integer else inner
    far = setting.low > 0 and setting.high / setting.low >= 100
    tagged = "log" if setting.log and not far else "linear" if far and not setting.log else ""
    if not tagged:
        return kind
    return f"int(tag({tagged},{inner}))" if setting.integer else f"tag({tagged},{inner})"


def format_bound(value: float, integer: bool) -> str:
    """An end of a range as text."""
    return (
        str(int(value))
        if integer
        else f"{value:.6g}"
        if "e" in f"{value:.6g}" or "." in f"{value:.6g}"
        else f"{value:.1f}"
    )


def override_text(setting: Setting, value: object) -> str:
    """A value as it stands on a command line."""
    known = dict(zip(map(repr, setting.values), setting.override_texts, strict=True))
    return known.get(repr(value), format_value(value) if not isinstance(value, float) else repr(value))


def format_setting_range(setting: Setting) -> str:
    """The range or values of a setting in words."""
    if not setting.is_range:
        return ", ".join(setting.override_texts)
    return translate("{low} to {high}", low=format_value(setting.low), high=format_value(setting.high))


def study_seeds(study: StudyResults) -> list[int]:
    """The seeds of the trials, if the seed varied."""
    seeds = {trial.params[SEED] for trial in study.trials if isinstance(trial.params.get(SEED), int)}
    return sorted(seeds) if len(seeds) > 1 else []


def study_path(study: StudyResults) -> str:
    """The study's folder, relative if that is shorter."""
    return min(os.path.relpath(study.root), str(study.root), key=len)


def next_study_path(folder: str) -> str:
    """A new folder beside it: study, study_2, study_3."""
    head, _, last = folder.rpartition("_")
    return f"{head}_{int(last) + 1}" if head and last.isdigit() and len(last) < 4 else f"{folder}_2"


NOISE_DRAWS = 4000  # of noise, for the chance of being the best
Z_95 = 1.96


def study_overview(analysis: ImportanceAnalysis) -> Section:
    """The first section: whether the search was worth it, and what mattered."""
    study = analysis.study
    states = Counter(trial.state for trial in study.trials)
    seconds = [trial.seconds for trial in study.trials if trial.seconds is not None]
    kind = "trial" if study.is_search else "run"
    facts = [
        f"{format_count(len(study.trials), kind)} "
        f"({', '.join(f'{many} {translate(state)}' for state, many in states.items())})"
    ]
    facts.append(
        translate(
            "{configurations}, seeds counted once",
            configurations=format_count(len(study.configurations), "configuration"),
        )
    )
    facts += [translate("{seconds} of training", seconds=format_duration(sum(seconds)))] if seconds else []
    lines = test_verdict(study)
    if len(study.objectives) > 1:
        text = translate(
            "The search has {count} [objective|objectives]; this report follows the first, {score}.",
            count=len(study.objectives),
            score=study.score,
        )
        lines.append(Paragraph(text, "warn"))
    lines += [Paragraph(translate("{value}.", value=text), "warn") for text in study.read_faults]
    return Section(
        "Summary",
        [
            study_verdict(study),
            Paragraph(translate("{value}.", value=what_mattered(analysis)), "lead"),
            BulletList(lines),
            Paragraph(translate("{value}.", value=translate("; ").join(facts)), "soft"),
        ],
    )


def what_mattered(analysis: ImportanceAnalysis) -> str:
    """The settings by their importance, in a sentence without its full stop."""
    shares = analysis.total_shares if analysis.explained_variance >= TRUSTED_SHARE else {}
    known = shares or analysis.ped_anova
    if len(analysis.settings) == 1:
        return translate("Only {name} varied", name=analysis.settings[0].name)
    if not known:
        return translate("Which setting mattered is not known: too few trials, or too noisy ones")
    of = translate("the variance between trials, alone and with others" if shares else "what sets the best tenth apart")
    ordered = sorted(known, key=lambda name: -known[name])
    named = [f"{name} ({format_percent(known[name])})" for name in ordered if known[name] >= SMALL_SHARE]
    rest = [name for name in ordered if known[name] < SMALL_SHARE]
    text = (
        translate("What mattered: {names} of {of}", names=join_names(named), of=of)
        if named
        else translate("No setting stands out")
    )
    return text + (translate("; {names} hardly", names=join_names(rest)) if rest else "")


SMALL_SHARE = 0.05  # importance below which a setting is said to matter hardly


def study_verdict(study: StudyResults) -> Verdict:
    """The best configuration, and whether it beats the default beyond noise."""
    best = study.best
    if best is None:
        return Verdict(translate("No trial left a score; the reasons are in the table of trials."), "bad")
    settings = ", ".join(f"{name}={format_value(value)}" for name, value in best.params.items())
    text = translate(
        "Best of {count:,} [configuration|configurations]: {trial}, {score} {value}",
        count=len(study.configurations),
        trial=study.trial(best.trial_numbers[0]).name,
        score=study.score,
        value=format_cell(study.cost_to_score(best.cost)),
    )
    text += f" ({settings})" if settings else ""
    if study.default_is_best:
        return Verdict(translate("{best}. It is the default: the search found nothing better.", best=text), "warn")
    unknown = translate("Not proven: seed variance unknown, as each configuration ran once.")
    if study.is_search:
        unknown += " " + translate("The first command under What to run next re-runs the best with new seeds.")
    default = next((t for t in study.trials if t.origin == "default" and t.done), None)
    if default is None:
        stop = translate("{value}.", value=text)
        return Verdict(f"{stop} {unknown}" if math.isnan(study.seed_noise) else stop, "plain")
    gain = (default.value or 0.0) * (1 if study.lower_is_better else -1) - best.cost
    text = translate(
        "{best}, {gain} better than the default (trial {number}, {value})",
        best=text,
        gain=format_cell(gain),
        number=default.number,
        value=format_cell(default.value),
    )
    if math.isnan(study.seed_noise):
        return Verdict(f"{translate('{value}.', value=text)} {unknown}", "warn")
    if not study.seed_noise:
        return Verdict(translate("{value}.", value=text), "good")
    clear = gain > 2 * math.sqrt(2) * study.seed_noise
    ratio = f"{gain / study.seed_noise:.2g}"
    return Verdict(
        translate("{best}: {ratio} times what two seeds differ by.", best=text, ratio=ratio),
        "good" if clear else "warn",
    )


def test_verdict(study: StudyResults) -> list[Paragraph]:
    """A verdict on the test scores of the best, and on how often the test split was used."""
    scores = (study.summary.get("test") or {}).get("scores") or {}
    test_scores = {name: value for name, value in scores.items() if name.startswith("test/")}
    if not test_scores:
        return []
    told_of = ", ".join(
        f"{name.removeprefix('test/')} {format_cell(value)}" for name, value in list(test_scores.items())[:5]
    )
    looks = int(study.summary.get("test_looks") or 0)
    lines = [Paragraph(translate("Test scores of the best: {told_of}.", told_of=told_of), "plain")]
    if looks > 1:
        lines.append(
            Paragraph(
                translate("The test split was evaluated {looks} [time|times]: its scores are optimistic.", looks=looks),
                "warn",
            )
        )
    return lines


def ranking_section(study: StudyResults) -> Section:
    """The section with the ranked configurations and the confidence in each rank."""
    names = [one.name for one in study.varied_settings]
    chances = probability_best(study.configurations, study.seed_noise)
    known = not math.isnan(study.seed_noise)
    rows: list[list[CellValue]] = []
    for place, point in enumerate(study.configurations):
        half = Z_95 * study.seed_noise / math.sqrt(len(point.costs))
        ends = sorted((study.cost_to_score(point.cost - half), study.cost_to_score(point.cost + half)))
        noise = [len(point.costs), *ends, chances[place]] if known else []
        rows.append(
            [place + 1, ", ".join(map(str, point.trial_numbers)), study.cost_to_score(point.cost), *noise,
             *(to_cell(point.params.get(name)) for name in names)]
        )  # fmt: skip
    words = translate("Configurations, the best first; over several seeds the mean.")
    words += (
        translate(
            " The 95 % interval and the chance to be the best come from how much seeds differ ({noise}).",
            noise=format_cell(study.seed_noise),
        )
        if known
        else translate(" Seed variance unknown: each configuration ran once.")
    )
    noise_columns = messages("seeds", "low", "high", "p(best)") if known else []
    columns = [*messages("rank", "trial"), study.score, *noise_columns, *names]
    keys = [str(point.trial_numbers[0]) for point in study.configurations]
    grid = Table("ranked", columns, rows, words, row_keys=keys, highlighted_rows=frozenset({0} if rows else ()))
    return Section("Ranks", [grid], translate("Rows within the noise of the first cannot be told from it."))


def probability_best(configurations: Sequence[Configuration], noise: float) -> list[float | None]:
    """The probability of each configuration to be the best under the seeds' noise."""
    if math.isnan(noise) or not configurations:
        return [None] * len(configurations)
    centre = np.array([point.cost for point in configurations])
    spread = noise / np.sqrt(np.array([len(point.costs) for point in configurations]))
    draws = np.random.default_rng(0).normal(centre, spread, (NOISE_DRAWS, len(configurations)))
    wins = np.bincount(draws.argmin(axis=1), minlength=len(configurations))
    return [float(win) / NOISE_DRAWS for win in wins]


def trials_section(study: StudyResults) -> Section:
    """The section with every trial."""
    names = list(dict.fromkeys(name for trial in study.trials for name in trial.params))
    rows: list[list[CellValue]] = [
        [
            t.number,
            t.name,
            message(t.state),
            t.value,
            t.seconds,
            message(t.kind) or None,
            t.reason or None,
            *(to_cell(t.params.get(n)) for n in names),
        ]
        for t in study.trials
    ]
    columns = [
        *messages("number", "name", "state"),
        study.score,
        *messages("seconds", "kind", "reason"),
        *names,
    ]
    keys = [str(trial.number) for trial in study.trials]
    table = Table("trials", columns, rows, translate("Every trial in the order it was started."), row_keys=keys)
    return Section(
        "Trials", [Fold(translate("every trial ({count}), with its state and reason", count=len(rows)), [table])]
    )


def history_section(analysis: ImportanceAnalysis) -> list[Section]:
    """The section with the best score so far, trial by trial, and all settings at once."""
    charts = [*history_charts(analysis.study), *parallel_coordinates_charts(analysis)]
    return [Section("History", charts)] if charts else []


def history_charts(study: StudyResults) -> list[Block]:
    """The best score so far, with every trial as a point that tells its settings."""
    done = [trial for trial in study.trials if trial.done]
    if len(done) < 2:
        return []
    best, so_far = math.inf, []
    for trial in done:
        best = min(best, (trial.value or 0.0) * (1 if study.lower_is_better else -1))
        so_far.append(study.cost_to_score(best))
    xs = [float(trial.number) for trial in done]
    kept = drop_outliers(study, done)
    points = [(float(trial.number), float(trial.value or 0.0)) for trial in kept]
    numbers = study.best.trial_numbers if study.best else ()
    ringed = next((at for at, trial in enumerate(kept) if trial.number in numbers), -1)
    series = [
        Series(
            translate("best so far"), xs, so_far, points=points, point_names=list(map(trial_words, kept)), best=ringed
        )
    ]
    title = translate("{score} by trial", score=study.score)
    svg = line_chart(series, title=title, x_label=translate("trial"), y_label="")
    last = next(x for x, value in zip(xs, so_far, strict=True) if value == so_far[-1])
    hidden = len(done) - len(kept)
    words = translate(
        "Points are trials, the line is the best so far. The best came at trial {last:g} of {xs:g}.",
        last=last,
        xs=xs[-1],
    )
    if hidden:
        words += translate(" Left out as outliers: {trials}.", trials=format_count(hidden, "trial"))
    return [Chart("history", svg, words, title)]


def trial_words(trial: Trial) -> str:
    """A trial with its score and its settings, for the pointer."""
    settings = ", ".join(f"{name}={format_value(value)}" for name, value in trial.params.items())
    return (
        f"{trial.name}: {format_cell(trial.value)}; {settings}"
        if settings
        else f"{trial.name}: {format_cell(trial.value)}"
    )


def drop_outliers(study: StudyResults, done: Sequence[Trial]) -> list[Trial]:
    """Trials without those so bad that they would flatten the chart."""
    costs = np.array([(t.value or 0.0) * (1 if study.lower_is_better else -1) for t in done])
    low, high = np.quantile(costs, [0.25, 0.75])
    limit = high + 4 * (high - low) if high > low else math.inf
    return [trial for trial, cost in zip(done, costs, strict=True) if cost <= limit]


def cost_section(study: StudyResults) -> list[Section]:
    """The section on time; none where no times are known."""
    timed = [trial for trial in study.trials if trial.seconds is not None]
    if not timed:
        return []
    whole = sum(trial.seconds or 0.0 for trial in timed)
    groups: dict[str, list[float]] = defaultdict(list)
    for trial in timed:
        groups[trial.kind or trial.state].append(trial.seconds or 0.0)
    rows: list[list[CellValue]] = [
        [
            message(how),
            len(durations),
            sum(durations),
            sum(durations) / len(durations),
            sum(durations) / whole if whole else None,
        ]
        for how, durations in groups.items()
    ]
    columns = messages("how it ended", "trials", "seconds", "mean seconds", "share")
    lost = sum(sum(durations) for how, durations in groups.items() if how not in ("complete", "pruned"))
    text = translate(
        "{trials} trained for {whole} in all", trials=format_count(len(timed), "trial"), whole=format_duration(whole)
    )
    if lost and whole:
        text = translate("{time}, {share} of it in trials that broke", time=text, share=format_percent(lost / whole))
    text = translate("{value}.", value=text)
    blocks: list[Block] = [
        Paragraph(text),
        Table("cost", columns, rows, translate("Training time by how the trials ended.")),
    ]
    done = [trial for trial in drop_outliers(study, [t for t in timed if t.done])] if any(t.done for t in timed) else []
    if len(done) > 2:
        title = translate("Score against time")
        series = [
            Series(
                translate("trials"),
                [t.seconds or 0.0 for t in done],
                [t.value or 0.0 for t in done],
                tooltip_names=list(map(trial_words, done)),
            )
        ]
        best = (
            [ReferenceLine(study.cost_to_score(study.configurations[0].cost), translate("best"), "y")]
            if study.configurations
            else []
        )
        svg = scatter(series, title=title, x_label=translate("seconds"), y_label=study.score, marks=best)
        blocks.append(Chart("cost", svg, translate("Cheap trials near the best line are worth a look."), title))
    return [Section("Time and cost", blocks)]


def origin_section(study: StudyResults) -> list[Section]:
    """The section on command, space and files of the study."""
    blocks: list[Block] = []
    if study.arguments:
        folder = path_word("hydra.sweep.dir", study_path(study))
        typed = [line for line in study.arguments if not line.startswith("hydra.sweep.dir=")]
        blocks.append(
            Command(
                f"{console.train_command(study.script)} -m {shlex.join([*typed, folder])}",
                translate("The command; the same again continues the search:"),
            )
        )
    rows: list[list[CellValue]] = [
        [
            one.name,
            format_setting_range(one),
            message("log" if one.log else "linear" if one.numeric else "choice"),
            message("search space" if one.from_search_space else "seen in the trials"),
        ]
        for one in study.varied_settings
    ]
    blocks.append(Table("space", messages("setting", "values", "scale", "known from"), rows, translate("What varied:")))
    facts: list[list[CellValue]] = [
        [message("folder"), str(study.root)],
        [message("sampler"), study.sampler or None],
        [message("pruner"), study.summary.get("pruner")],
        [message("fixed"), " ".join(study.fixed_overrides) or None],
    ]
    blocks.append(Table("study", messages("what", "value"), [row for row in facts if row[1] is not None]))
    return [Section("Provenance", blocks)]


STUDY_SECTIONS: Sequence[tuple[str, Callable[[ImportanceAnalysis], Section | list[Section]]]] = (
    ("Summary", study_overview),
    ("Effect of each setting", effects_section),
    ("Importance", importance_section),
    ("What to run next", next_search_section),
    ("Ranks", lambda analysis: ranking_section(analysis.study)),
    ("History", history_section),
    ("Checks", checks_section),
    ("Time and cost", lambda analysis: cost_section(analysis.study)),
    ("Trials", lambda analysis: trials_section(analysis.study)),
    ("Provenance", lambda analysis: origin_section(analysis.study)),
)


def build_study_report(study: StudyResults, more: Sequence[Section] = ()) -> Document:
    """The report on a study or a set of runs.

    Args:
        study: The search, or the set of runs.
        more: Further sections, before how it came to be.
    """
    analysis = ImportanceAnalysis(study)
    sections = [section for title, part in STUDY_SECTIONS for section in build_section(title, part, analysis)]
    last = [section for section in sections if section.title == "Provenance"]
    body = [section for section in sections if section not in last]
    kind = translate("Study" if study.is_search else "Set of runs")
    name = "/".join(study.root.absolute().parts[-2:])
    return Document(
        f"{kind} {name}",
        translate(
            "{score}, {way} is better, {root}",
            score=study.score,
            way=translate("lower" if study.lower_is_better else "higher"),
            root=study.root,
        ),
        lift_warnings([*body, *more, *last]),
    )
