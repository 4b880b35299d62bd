"""Plans as YAML files: read, checked, compared."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from anomalib_medical.benchmark.plan import DatasetPlan, Limits, ModelPlan, Plan, PlanError
from anomalib_medical.io import sha256

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# What may change in a run folder without making results incomparable.
_FREE = ("devices", "keep_weights", "limits.job_minutes", "limits.memory_gib", "weights_folder")

_T = TypeVar("_T")


def load_plan(path: Path) -> Plan:
    """Read and check a plan.

    Raises:
        PlanError: If something in it is unknown, missing or impossible.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        msg = f"There is no plan {path}. `anomalib-medical configs` lists those that come with the package."
        raise PlanError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{path} is no YAML file: {' '.join(str(error).split())}"
        raise PlanError(msg) from error
    return make_plan(content, str(path))


def load_run_plan(run: Path) -> Plan:
    """Read the plan of a run folder."""
    content = yaml.safe_load((run / "plan.yaml").read_text(encoding="utf-8"))
    digest = content.pop("teacher_sha256", "")
    return replace(make_plan(content, str(run / "plan.yaml")), teacher_sha256=digest)


def make_plan(content: object, source: str) -> Plan:
    """Check the content of a plan; ``source`` is for errors."""
    known = {each.name for each in fields(Plan)} - {"teacher_sha256"}
    values = _section(content, known, source)
    for required in ("models", "datasets"):
        if not values.get(required):
            msg = f"{source} names no {required}, expected at least one under `{required}:`."
            raise PlanError(msg)
        _section(values[required], None, f"{source}: {required}")
    values["models"] = {
        name: _build(ModelPlan, entry, f"{source}: models.{name}") for name, entry in values["models"].items()
    }
    values["datasets"] = {
        name: _build(DatasetPlan, entry, f"{source}: datasets.{name}") for name, entry in values["datasets"].items()
    }
    values["limits"] = _build(Limits, values.get("limits") or {}, f"{source}: limits")
    for key in ("seeds", "devices"):
        if isinstance(values.get(key), Sequence) and not isinstance(values[key], str):
            values[key] = tuple(values[key])
    plan = Plan(**values)
    _check(plan, source)
    return plan


def expand(value: Any) -> Any:  # noqa: ANN401 - any YAML
    """Replace ``${NAME}`` in texts by the environment variable.

    Raises:
        PlanError: If it is not set.
    """
    if isinstance(value, Mapping):
        return {key: expand(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [expand(entry) for entry in value]
    return _VARIABLE.sub(_variable, value) if isinstance(value, str) else value


def check_variables(plan: Plan, source: Path) -> None:
    """Refuse a plan that uses environment variables that are not set, all of them at once.

    Raises:
        PlanError: If one is not set.
    """
    names = dict.fromkeys(_VARIABLE.findall(yaml.safe_dump(plan.as_dict())))
    unset = [name for name in names if not os.environ.get(name)]
    if unset:
        exports = " ".join(f"{name}=/path/to/it" for name in unset)
        msg = (
            f"{source} uses environment variables that are not set: {', '.join(unset)}. Set them first, such as "
            f"`export {exports}`; what they are, the head of the file says."
        )
        raise PlanError(msg)


def teacher_digest(plan: Plan) -> str:
    """sha256 of the plan's teacher file, "" without one.

    Raises:
        PlanError: If it is not there.
    """
    if plan.teacher_weights is None:
        return ""
    path = Path(expand(plan.teacher_weights))
    if not path.is_file():
        msg = (
            f"teacher_weights: there is no file {path}. Give a .safetensors or .pth file of {plan.backbone}, or leave "
            "teacher_weights out for random weights (results are then floors)."
        )
        raise PlanError(msg)
    return sha256(path)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two plans, as ``key: old -> new``, less what makes no difference to results."""
    found = []
    for key in sorted({*old, *new}):
        path = f"{prefix}{key}"
        before, after = old.get(key), new.get(key)
        if path in _FREE or before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{path}.")
        else:
            found.append(f"{path}: {_short(before)} -> {_short(after)}")
    return found


def _variable(match: re.Match[str]) -> str:
    name = match[1]
    value = os.environ.get(name)
    if not value:
        msg = f"The plan uses ${{{name}}}, and this environment variable is not set. Set it: export {name}=/path/to/it"
        raise PlanError(msg)
    return value


def _section(content: object, known: set[str] | None, where: str) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        msg = f"{where} is {_short(content)}, expected names with values below them."
        raise PlanError(msg)
    for key in content:
        if known is not None and key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(sorted(known))}."
            msg = f"{where} has {key!r}, which is unknown: {hint}"
            raise PlanError(msg)
        if known is None and not _NAME.fullmatch(str(key)):
            msg = f"{where} has the name {key!r}, expected letters, digits, '_', '-' and '.': folders are named so."
            raise PlanError(msg)
    return {str(key): value for key, value in content.items()}


def _build(kind: type[_T], content: object, where: str) -> _T:
    values = _section(content, {each.name for each in fields(kind)}, where)  # type: ignore[arg-type]  # a dataclass
    try:
        return kind(**values)
    except TypeError as error:
        msg = f"{where}: class_path is missing."
        raise PlanError(msg) from error


def _check(plan: Plan, source: str) -> None:
    numbers = {
        "limits.train_minutes": plan.limits.train_minutes,
        "limits.job_minutes": plan.limits.job_minutes,
        "limits.memory_gib": plan.limits.memory_gib,
        "image_size": plan.image_size,
        "train_batch_size": plan.train_batch_size,
        "eval_batch_size": plan.eval_batch_size,
        "latency_repeats": plan.latency_repeats,
        "threads": plan.threads,
    }
    for key, value in numbers.items():
        if value is not None and (isinstance(value, bool | str) or not value > 0):
            msg = f"{source}: {key} is {_short(value)}, expected a number above 0."
            raise PlanError(msg)
    if plan.protocol not in {"clean", "published"}:
        msg = f"{source}: protocol is {plan.protocol!r}, expected 'clean' or 'published'."
        raise PlanError(msg)
    if not isinstance(plan.keep_weights, bool):
        msg = f"{source}: keep_weights is {_short(plan.keep_weights)}, expected true or false."
        raise PlanError(msg)
    if plan.weights_folder is not None and (not isinstance(plan.weights_folder, str) or not plan.weights_folder):
        msg = f"{source}: weights_folder is {_short(plan.weights_folder)}, expected the path of a folder."
        raise PlanError(msg)
    if not plan.seeds or isinstance(plan.seeds, int) or not all(isinstance(seed, int) for seed in plan.seeds):
        msg = f"{source}: seeds is {_short(plan.seeds)}, expected a list of whole numbers such as [0, 1]."
        raise PlanError(msg)
    if len(set(plan.seeds)) < len(plan.seeds):
        msg = f"{source}: seeds is {_short(list(plan.seeds))}, expected each seed once."
        raise PlanError(msg)
    if plan.pre_trained and plan.teacher_weights:
        msg = f"{source} has both pre_trained: true and teacher_weights: give one of them."
        raise PlanError(msg)
    model_keys = {each.name for each in fields(ModelPlan)} | {"skip"}
    for name, data in plan.datasets.items():
        for changed, changes in _section(data.models, None, f"{source}: datasets.{name}.models").items():
            if changed not in plan.models:
                msg = (
                    f"{source}: datasets.{name}.models changes {changed!r}, which is not in models: "
                    f"{', '.join(plan.models)}."
                )
                raise PlanError(msg)
            _section(changes, model_keys, f"{source}: datasets.{name}.models.{changed}")
    for name, model in plan.models.items():
        if "max_time" in model.trainer:
            msg = f"{source}: models.{name}.trainer has max_time: the cap is limits.train_minutes, the same for all."
            raise PlanError(msg)
        if model.few_shot and len(plan.datasets) < 2:
            msg = f"{source}: models.{name} learns on the other datasets (few_shot), and there is only one dataset."
            raise PlanError(msg)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
