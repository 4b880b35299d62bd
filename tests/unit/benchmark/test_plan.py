"""Plans: what is refused and how, which jobs they give, what differs between two."""

import copy
from dataclasses import asdict

import pytest

from anomalib_medical.benchmark.build import build_datamodule, model_class
from anomalib_medical.benchmark.plan import differences, expand, load_plan, make_plan
from anomalib_medical.errors import MedicalError

PLAN = {
    "seeds": [0, 1],
    "models": {
        "random": {"class_path": "RandomScore"},
        "near": {"class_path": "NearestThumbnail"},
        "rd": {"class_path": "ReverseDistillation"},
    },
    "datasets": {"a": {"class_path": "Phantom"}, "b": {"class_path": "Phantom", "models": {"rd": {"skip": True}}}},
}


ONE = {"a": {"class_path": "Phantom"}}


def plan(**changes):
    return make_plan(copy.deepcopy(PLAN) | changes, "plan.yaml")


def test_jobs_are_models_times_datasets_times_seeds():
    names = list(plan().jobs)
    # A trivial score that is not random needs one seed.
    assert names == [
        "a__random__seed0",
        "a__near__seed0",
        "a__rd__seed0",
        "b__random__seed0",
        "b__near__seed0",
        "a__random__seed1",
        "a__rd__seed1",
        "b__random__seed1",
    ]


def test_a_dataset_changes_a_model():
    models = {
        "rd": {"class_path": "ReverseDistillation", "trainer": {"max_epochs": 3}, "init_args": {"layers": ["layer1"]}}
    }
    datasets = {"a": {"class_path": "Phantom", "models": {"rd": {"trainer": {"max_steps": 9}, "image_size": 32}}}}
    settings = plan(models=models, datasets=datasets).settings("rd", "a")
    assert settings.trainer == {"max_epochs": 3, "max_steps": 9}
    assert settings.init_args == {"layers": ["layer1"]}
    assert settings.image_size == 32


def test_a_result_depends_on_its_own_data_and_of_few_shot_models_on_the_others_too():
    models = {"rd": {"class_path": "ReverseDistillation"}, "few": {"class_path": "D24fad", "few_shot": 4}}
    datasets = {"a": {"class_path": "Phantom"}, "b": {"class_path": "Phantom"}}
    changed = datasets | {"a": {"class_path": "Phantom", "init_args": {"train_count": 9}}}
    before, after = (
        {name: whole.spec(job) for name, job in whole.jobs.items()}
        for whole in (plan(models=models, datasets=each, seeds=[0]) for each in (datasets, changed))
    )
    differing = {name for name in before if before[name] != after[name]}
    assert differing == {"a__rd__seed0", "a__few__seed0", "b__few__seed0"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modles": {}}, "has 'modles', which is unknown: did you mean 'models'"),
        ({"models": {}}, r"plan\.yaml: models is missing"),
        ({"models": {"a/b": {"class_path": "x"}}}, "the name 'a/b', expected letters"),
        ({"models": {"a": {}}}, r"plan\.yaml: models\.a\.class_path is missing"),
        ({"models": {"a": {"class_path": "x", "init_arg": {}}}}, "did you mean 'init_args'"),
        (
            {"models": {"a": {"class_path": "x", "trainer": {"max_time": 1}}}, "datasets": ONE},
            r"the cap is limits\.train_minutes",
        ),
        (
            {"datasets": {"a": {"class_path": "x", "models": {"c": {}}}}},
            "has 'c', which is unknown: expected one of near",
        ),
        (
            {"datasets": {"a": {"class_path": "x", "models": {"rd": {"image_size": -1}}}}},
            r"plan\.yaml: datasets\.a\.models\.rd\.image_size is -1, expected PositiveInt",
        ),
        ({"seeds": 3}, r"seeds is 3, expected list\[int\]"),
        ({"seeds": [1, 1]}, "expected each seed once"),
        ({"protocol": "dirty"}, "protocol is 'dirty', expected .*clean.*published"),
        ({"limits": {"train_minutes": 0}}, r"limits\.train_minutes is 0, expected PositiveFloat"),
        ({"limits": {"minutes": 1}}, "did you mean 'job_minutes'|did you mean 'train_minutes'"),
        ({"pre_trained": True, "teacher_weights": "x"}, "both pre_trained: true and teacher_weights"),
        (
            {"models": {"d": {"class_path": "D24fad", "few_shot": 4}}, "datasets": {"a": {"class_path": "Phantom"}}},
            "only one",
        ),
    ],
)
def test_a_bad_plan_is_refused(changes, message):
    with pytest.raises(MedicalError, match=message):
        plan(**changes)


def test_a_file_that_is_no_plan_is_refused(tmp_path):
    with pytest.raises(MedicalError, match=r"There is no plan .*gone\.yaml"):
        load_plan(tmp_path / "gone.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(MedicalError, match=r"is \[1\], expected names"):
        load_plan(tmp_path / "list.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(MedicalError, match="is no YAML file"):
        load_plan(tmp_path / "bad.yaml")


def test_variables_are_expanded_late_and_must_be_set(monkeypatch):
    monkeypatch.setenv("SOME_DATA", "/data")
    assert expand({"root": ["${SOME_DATA}/a", "^(\\d+)$", 1]}) == {"root": ["/data/a", "^(\\d+)$", 1]}
    monkeypatch.delenv("SOME_DATA")
    with pytest.raises(MedicalError, match="export SOME_DATA="):
        expand("${SOME_DATA}")


def test_a_missing_teacher_is_refused():
    with pytest.raises(MedicalError, match=r"there is no file gone\.pth\. Give a"):
        plan(teacher_weights="gone.pth").with_teacher_digest()


def test_differences_name_the_keys_that_matter():
    other = plan(limits={"train_minutes": 3, "memory_gib": 2}, devices=["cpu"], seeds=[0])
    found = differences(asdict(plan()), asdict(other))
    assert found == ["limits.train_minutes: 10.0 -> 3.0", "seeds: [0, 1] -> [0]"]


def test_unknown_classes_and_arguments_are_refused():
    with pytest.raises(MedicalError, match=r"datasets\.a: Phantom has no argument 'roots'. It has root"):
        build_datamodule(plan(datasets={"a": {"class_path": "Phantom", "init_args": {"roots": "x"}}}), "a")
    with pytest.raises(MedicalError, match="Folder is anomalib's own, which knows no patients"):
        build_datamodule(plan(datasets={"a": {"class_path": "Folder", "init_args": {"name": "x"}}}), "a")
    unknown = {"nowhere.Model": "nowhere cannot be imported", "RandomScores": "mean 'RandomScore'"}
    for class_path, message in unknown.items():
        made = plan(models={"m": {"class_path": class_path}}, datasets=ONE, seeds=[0])
        (job,) = made.jobs.values()
        with pytest.raises(MedicalError, match=rf"models\.m: class_path is '{class_path}', .*{message}"):
            model_class(made, job)
