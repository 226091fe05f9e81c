"""An Optuna study as a `SweepTable`, with the importance of its parameters."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from verbalize.report.trials import Objective, State, SweepTable, Trial

if TYPE_CHECKING:
    import optuna

FEWEST = 8  # complete trials below which a forest's importances say nothing


def table_of_study(study: "optuna.Study", objectives: Sequence[Objective]) -> SweepTable:
    """The study's trials; `objectives` name its values in the study's order, with its directions.

    A failed trial has the user attribute `error`, its note; without that its worker was killed, and it is lost. A trial
    with the attribute `refused` was given a number and never run: it is left out.
    """
    from optuna.distributions import FloatDistribution, IntDistribution
    from optuna.trial import TrialState

    states: dict[TrialState, State] = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
        TrialState.RUNNING: "running",
        TrialState.WAITING: "waiting",
    }
    trials, logarithmic = [], set()
    for one in study.get_trials(deepcopy=False):
        if "refused" in one.user_attrs:
            continue
        complete = one.state == TrialState.COMPLETE
        lost = one.state == TrialState.FAIL and "error" not in one.user_attrs
        trials.append(
            Trial(
                number=one.number,
                state="lost" if lost else states[one.state],
                params=dict(one.params),
                values={o.name: float(v) for o, v in zip(objectives, one.values, strict=True)} if complete else {},
                seconds=one.duration.total_seconds() if one.duration is not None else None,
                intermediate=dict(one.intermediate_values),
                note=str(one.user_attrs.get("error", "")),
            )
        )
        for name, kind in one.distributions.items():
            if isinstance(kind, FloatDistribution | IntDistribution) and kind.log:
                logarithmic.add(name)
    importance = {o.name: importances(study, i) for i, o in enumerate(objectives)}
    return SweepTable(study.study_name, tuple(objectives), tuple(trials), importance, frozenset(logarithmic))


def importances(study: "optuna.Study", objective: int = 0) -> dict[str, float]:
    """Parameter -> share of the objective's variance that a random forest ascribes to it (fANOVA: Hutter et al. 2014).

    Only parameters that every complete trial drew take part. Empty below FEWEST complete trials, and where nothing or
    no parameter varies. Cost: a forest of 64 trees over the complete trials; the same trials give the same shares.
    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(done) < FEWEST or len({trial.values[objective] for trial in done}) < 2:
        return {}
    common = set.intersection(*({*trial.params} for trial in done))
    varied = sorted(name for name in common if len({trial.params[name] for trial in done}) > 1)
    if not varied:
        return {}
    evaluator = FanovaImportanceEvaluator(seed=0)
    shares = get_param_importances(
        study, evaluator=evaluator, params=varied, target=lambda trial: trial.values[objective]
    )
    return {name: float(share) for name, share in shares.items()}
