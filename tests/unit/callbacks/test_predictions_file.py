"""Files of predictions: names, growth, and merging those of several processes."""

import os

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomalib_medical.callbacks.predictions_file import (
    PartialFile,
    Prediction,
    check_writable,
    claim_number,
    merge_ranks,
    publish,
    read_predictions,
)


def row(path: str) -> Prediction:
    return Prediction(path, "1", "0.5", "normal", "2", "")


def test_rows_are_on_disk_before_the_file_is_closed(tmp_path):
    partial = PartialFile.first_free(tmp_path)
    partial.write([row("a,b\n.png"), row("脑.png"), row(os.fsdecode(b"\xff.png"))])
    assert [prediction.path for prediction in read_predictions(partial.path)] == ["a,b\n.png", "脑.png", "\\udcff.png"]
    assert list(pd.read_csv(partial.path).path) == ["a,b\n.png", "脑.png", "\\udcff.png"]
    partial.close()


def test_files_of_earlier_versions_can_be_read(tmp_path):
    columns = "path,raw_score,score,label,threshold,gt_label"
    for name, header, line in (("first", columns, "a,1,,,,"), ("second", f"{columns},patient", "a,1,,,,,p")):
        file = tmp_path / name
        file.write_text(f"{header}\n{line}\n")
        (prediction,) = read_predictions(file)
        assert (prediction.path, prediction.raw_score, prediction.uncertainty) == ("a", "1", "")
        assert prediction.patient == ("p" if name == "second" else "")


def test_neither_partial_nor_final_files_are_overwritten(tmp_path):
    published = []
    for content in "abc":
        partial = PartialFile.first_free(tmp_path)
        partial.write([row(content)])
        partial.close()
        if content != "b":  # interrupted
            published.append(publish(partial.path))
    assert [path.name for path in published] == ["predictions.csv", "predictions_1.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "predictions.csv",
        "predictions_1.csv",
        "predictions_partial.csv",
    ]
    assert [read_predictions(path)[0].path for path in published] == ["a", "c"]


def test_a_number_is_claimed_once_and_only_if_both_names_are_free(tmp_path):
    (tmp_path / "predictions_1.csv").touch()
    (tmp_path / "images_2").mkdir()
    assert [claim_number(tmp_path, "images") for _ in range(3)] == [0, 3, 4]
    partial = PartialFile.first_free(tmp_path)
    partial.close()
    assert publish(partial.path, 3).name == "predictions_3.csv"


def test_publishing_works_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "predictions.csv").write_text("mine")
    partial = PartialFile.first_free(tmp_path)
    partial.close()
    assert publish(partial.path).name == "predictions_1.csv"
    assert (tmp_path / "predictions.csv").read_text() == "mine"


def test_an_unusable_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"Cannot write predictions to .*file.*--default_root_dir"):
        check_writable(tmp_path / "file" / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="Cannot write predictions"):
        check_writable(tmp_path)


@given(images=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12), world_size=st.integers(1, 4))
def test_merging_undoes_the_distributed_sampler(images, world_size):
    # torch's DistributedSampler repeats from the start, then deals in turn. Paths may repeat in the data, too.
    padded = [images[index % len(images)] for index in range(-(-len(images) // world_size) * world_size)]
    ranks = [[row(path) for path in padded[rank::world_size]] for rank in range(world_size)]
    assert [prediction.path for prediction in merge_ranks(ranks, len(images))] == images


def test_merging_data_of_unknown_size_keeps_everything():
    assert len(merge_ranks([[row("a"), row("c")], [row("b"), row("a")]], None)) == 4
