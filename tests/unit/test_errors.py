"""Which errors are the user's, and what is shown of them."""

import errno
import re
import subprocess
from pathlib import Path

import pytest
import torch
from anomalib.pipelines import Benchmark
from jsonargparse import ArgumentParser, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from PIL import Image
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader

from anomalib_medical.data import MedicalPredictDataset
from anomalib_medical.errors import MedicalError, is_user_error, out_of_memory, shell_argument, user_message
from anomalib_medical.io import ImageReadError


def test_a_workers_error_is_its_message_alone(tmp_path):
    path = tmp_path / "Größe_脑.png"
    Image.new("L", (32, 32)).save(path)
    data = MedicalPredictDataset(path)
    path.write_text("not an image")
    batches = iter(DataLoader(data, num_workers=1, collate_fn=data.collate_fn))
    with pytest.raises(ImageReadError, match="Traceback") as caught:
        next(batches)
    batches._shutdown_workers()  # or the garbage collector does, and waits for seconds
    assert is_user_error(caught.value)
    assert user_message(caught.value).startswith(f"Cannot read the image {path}: found text, expected")
    assert "\n" not in user_message(caught.value)


@pytest.mark.parametrize("kind", [MedicalError, FileNotFoundError])
def test_a_workers_message_may_have_several_lines(kind):
    error = kind("first: one\nsecond: two")
    error.__cause__ = KeyError("cause")
    with pytest.raises(kind, match="Caught") as caught:
        ExceptionWrapper((kind, error, None), where="in DataLoader worker process 0").reraise()
    assert user_message(caught.value) == "first: one\nsecond: two"


def test_other_messages_stay_as_they_are():
    for message in ("one line", "Caught nothing", "Caught MedicalError\nbut of another form", "two\nlines"):
        assert user_message(MedicalError(message)) == message


@pytest.mark.parametrize("kind", [MedicalError, ImageReadError])
def test_our_errors_are_the_users(kind):
    assert is_user_error(kind("x"))


def test_a_value_error_is_the_users_if_raised_by_anomalib():
    with pytest.raises(FileNotFoundError) as caught:
        Benchmark().run(Namespace(config="missing.yaml"))
    assert is_user_error(caught.value)
    with pytest.raises(ValueError, match="Unsupported accelerator") as unsupported:
        Benchmark()._setup_runners({"accelerator": "abacus"})
    assert is_user_error(unsupported.value)
    assert not is_user_error(ValueError("raised outside our packages"))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written_comes_with_a_way_out(number, tmp_path, monkeypatch):
    def refuse(path: Path, **_: object) -> None:
        raise OSError(number, "refused", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is what is tested
        (tmp_path / "results").mkdir(parents=True)
    message = user_message(caught.value)
    assert str(tmp_path / "results") in message
    assert "--default_root_dir" in message


@pytest.mark.parametrize("below", ["", "run"])
def test_a_file_in_the_place_of_a_folder_comes_with_a_way_out(below, tmp_path):
    file = tmp_path / "results"
    file.touch()
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the message is tested below
        (file / below).mkdir(parents=True, exist_ok=True)
    message = user_message(caught.value)
    assert str(file / below) in message
    assert "--default_root_dir" in message


def test_a_missing_file_needs_no_results_folder(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "nowhere").read_bytes()
    assert "default_root_dir" not in user_message(caught.value)


@pytest.mark.parametrize("accelerator", ["gpu", "cuda"])
@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_sentence_with_a_way_out(accelerator):
    with pytest.raises(MisconfigurationException) as caught:
        Trainer(accelerator=accelerator)
    assert is_user_error(caught.value)
    told = user_message(caught.value)
    assert "--trainer.accelerator asks for a GPU" in told
    assert "--trainer.accelerator auto" in told
    assert user_message(MisconfigurationException("something else")) == "something else"


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        (
            (33, 8),
            "with batches of 33 images.*--data.train_batch_size 16 --trainer.accumulate_grad_batches 3,",
        ),
        ((None, 8), "scoring with batches of 8 images.*--data.eval_batch_size 4, halved"),
        ((1, 8), "training with batches of 1 image.* Try --trainer.precision bf16-mixed"),
        ((None, None), r"in scoring\. .* Try --trainer.precision bf16-mixed, or a smaller --model.image_size;"),
    ],
)
def test_a_gpu_that_is_full_says_which_batches_would_be_smaller(sizes, told):
    error = out_of_memory(*sizes)
    assert is_user_error(error)
    assert re.search(told, str(error))
    assert "\n" not in str(error)


def test_a_checkpoint_that_does_not_fit_is_one_line():
    with pytest.raises(RuntimeError) as caught:
        torch.nn.Linear(2, 3).load_state_dict({"weight": torch.zeros(3, 4)})
    assert is_user_error(caught.value)
    message = user_message(caught.value)
    assert "The checkpoint does not fit this Linear (Missing key(s) in state_dict" in message
    assert "\n" not in message
    assert not is_user_error(RuntimeError("something of ours"))


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (tuple[float, float], (0.1, 0.4), "'[0.1,0.4]'"),
        (int | tuple[int, int], [64, 96], "'[64,96]'"),
        (float | None, None, "null"),
        (bool, True, "true"),
        (bool, False, "false"),
        (float, 1e-5, "1e-05"),
        (float, 1e38, "1e+38"),
        (float, -0.5, None),
        (dict[str, int], {"a": 1}, None),
        (list[str], ["a b", "c"], None),
        (str, "Größe_脑", None),
        (str, "a b'c$HOME `x`", None),
        (str, "-dash", None),
        (str, "", "''"),
        (str, "123", None),
        (str | None, "bone", "bone"),
        (Path, Path("two words"), "'two words'"),
    ],
)
def test_a_printed_argument_can_be_pasted_into_a_shell(kind, value, text, tmp_path):
    printed = shell_argument("model.a", value)
    if text is not None:
        assert printed == f"--model.a {text}"
    script = f"printf '%s\\0' {printed}"
    words = subprocess.run(["/bin/sh", "-c", script], cwd=tmp_path, capture_output=True, check=True).stdout.decode()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--model.a", type=kind)
    found = parser.parse_args(words.split("\0")[:-1]).model.a
    assert found == (tuple(value) if isinstance(value, list) and kind == int | tuple[int, int] else value)
