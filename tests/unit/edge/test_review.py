"""Results put together to be looked at, verdicts, the manifest made of them, and the server."""

import http.client
import io
import json
import re
import shutil
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from anomalib_medical.data.folder.manifest import read_manifest
from anomalib_medical.edge import EdgeError
from anomalib_medical.edge.heatmap import picture_size
from anomalib_medical.edge.manifest import PostProcessing
from anomalib_medical.edge.review import VERDICTS, Review
from anomalib_medical.edge.review_pages import ReviewPages, ReviewServer
from anomalib_medical.edge.review_pictures import read_values
from anomalib_medical.io import ImageAddress, ImageReadError
from tests.helpers.dicom_files import write_dicom
from tests.helpers.file_server import answering
from tests.helpers.nifti_files import save_nifti
from tests.helpers.results import score, write_originals

MODEL = "Scrd fp32, bundle 0123"


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """The folder of the originals, and that of the results."""
    folder = tmp_path_factory.mktemp("scored")
    write_originals(folder / "in")
    return folder / "in", score(folder / "in", folder / "out")


@pytest.fixture
def output(scored, tmp_path):
    """A copy of the results."""
    return shutil.copytree(scored[1], tmp_path / "out")


def serving(output, **settings):
    return answering(ReviewServer(ReviewPages(Review(output, **settings), MODEL, None)))


def ask(server, path, method="GET", body=None, **headers):
    """Ask below the token, or, with a slash in front, at the root."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    address = path if path.startswith("/") else urlsplit(server.address).path + path
    connection.request(method, address, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), content


def said(review, verdict, place=0, comment="", image=None):
    item = review.worklist()[place]
    return {"item": item["name"], "verdict": verdict, "comment": comment, "image": image or item["worst"]}


def test_the_worklist_is_sorted_by_score_and_series_are_one(output):
    review = Review(output)
    items = review.worklist()
    assert [item["score"] for item in items] == sorted((item["score"] for item in items), reverse=True)
    assert [len(item["slices"]) for item in items] == [1, 5, 1, 1]
    series = items[1]
    # In their order in space, which is not that of their names.
    raw = [each["raw_score"] for each in series["slices"]]
    assert np.argmax(raw) == 2
    assert raw == pytest.approx(raw[::-1])
    assert series["worst"] == series["slices"][2]["image"]
    assert [item["label"] for item in items] == ["abnormal", "abnormal", "normal", "normal"]
    assert {item["threshold"] for item in items} == {0.5}


def test_a_copy_of_a_slice_leaves_the_series_whole(scored, tmp_path):
    originals = shutil.copytree(scored[0], tmp_path / "in")
    shutil.copy(originals / "DOE_JANE" / "a.dcm", originals / "DOE_JANE" / "z.dcm")
    items = Review(score(originals, tmp_path / "results")).worklist()
    assert sorted(len(item["slices"]) for item in items) == [1, 1, 1, 5]


def test_results_that_grow_are_read_again(output):
    review = Review(output)
    assert len(review.worklist()) == 4
    (line, *_) = (output / "predictions.jsonl").read_text().splitlines()
    with (output / "predictions.jsonl").open("a") as file:
        file.write(json.dumps(json.loads(line) | {"image": "0123456789abcdef", "series": ""}) + '\n{"half a li')
    assert len(review.worklist()) == 5


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(EdgeError, match="give the folder that was the --output of run or watch"):
        Review(tmp_path)


def test_a_verdict_is_a_line_more_and_the_last_one_counts(output):
    review = Review(output)
    for verdict, comment in (("agree", "clear"), ("disagree", "an artefact\nof motion")):
        before = (output / VERDICTS).read_bytes() if (output / VERDICTS).exists() else b""
        review.add_verdict(said(review, verdict, comment=comment), MODEL)
        assert (output / VERDICTS).read_bytes().startswith(before)
    assert [(each["verdict"], each["label"]) for each in review.verdicts()] == [
        ("agree", "abnormal"),
        ("disagree", "normal"),
    ]
    shown = Review(output).worklist()[0]["verdict"]
    assert shown["comment"] == "an artefact\nof motion"
    assert next(iter(review.verdicts()))["model"] == MODEL


def test_what_a_power_cut_has_left_spoils_no_other_verdict(output):
    review = Review(output)
    review.add_verdict(said(review, "agree"), MODEL)
    with (output / VERDICTS).open("a") as file:
        file.write('{"time": "2026')
    review.add_verdict(said(review, "agree", 1), MODEL)
    assert len(list(review.verdicts())) == 2


@pytest.mark.parametrize(
    "change", [{"verdict": "normal"}, {"verdict": ""}, {"image": "x"}, {"item": "x"}, {"comment": "x" * 4001}]
)
def test_what_is_no_verdict_is_not_kept(output, change):
    review = Review(output)
    with pytest.raises(EdgeError, match=r"Got the verdict|no such item"):
        review.add_verdict(said(review, "agree") | change, MODEL)
    assert not (output / VERDICTS).exists()


def test_without_a_threshold_the_reader_says_the_label(scored, tmp_path):
    review = Review(score(scored[0], tmp_path / "results", PostProcessing()))
    assert review.add_verdict(said(review, "abnormal"), MODEL)["label"] == "abnormal"
    with pytest.raises(EdgeError, match="expected normal or abnormal"):
        review.add_verdict(said(review, "agree"), MODEL)


def test_verdicts_are_read_back_as_a_manifest(scored, output, tmp_path):
    originals, _ = scored
    review = Review(output)
    slices = review.worklist()[1]["slices"]
    for verdict, place, image in (
        ("disagree", 0, None),  # the bright picture is normal
        ("agree", 1, slices[0]["image"]),  # the series is abnormal: its worst slice, whichever was looked at
        ("disagree", 2, None),  # the one in colour is abnormal
        ("agree", 3, None),
    ):
        review.add_verdict(said(review, verdict, place, image=image), MODEL)
    assert review.export(tmp_path / "labels.csv") == "4 images of 4 items with a verdict"
    entries = {str(each.path.path.name): each for each in read_manifest(tmp_path / "labels.csv", originals)}
    labels = {name: each.label for name, each in entries.items()}
    assert labels["e.dcm"] == labels["DOE_colour.png"] == "abnormal"
    assert labels["DOE_bright.png"] == labels["DOE_dark.png"] != "abnormal"
    assert entries["e.dcm"].patient
    with pytest.raises(EdgeError, match="choose another --export"):
        review.export(tmp_path / "labels.csv")


def test_a_normal_series_is_normal_in_all_slices_and_a_missed_one_where_it_was_seen(output, tmp_path):
    review = Review(output)
    slices = [each["image"] for each in review.worklist()[1]["slices"]]
    review.add_verdict(said(review, "disagree", 1), MODEL)
    assert review.export(tmp_path / "normal.csv").startswith("5 images")
    series = output / "series.jsonl"
    series.write_text(series.read_text().replace('"label": "abnormal"', '"label": "normal"'))
    review.add_verdict(said(review, "disagree", 1, image=slices[4]), MODEL)
    review.export(tmp_path / "missed.csv")
    ((_, abnormal),) = [line.split(",", 1) for line in (tmp_path / "missed.csv").read_text().splitlines()[1:]]
    assert abnormal.startswith("abnormal,")
    assert str(review.address(slices[4]).path) in (tmp_path / "missed.csv").read_text()


def test_nothing_is_exported_without_verdicts_and_of_files_that_changed(scored, tmp_path):
    originals = shutil.copytree(scored[0], tmp_path / "in")
    review = Review(score(originals, tmp_path / "results"))
    with pytest.raises(EdgeError, match="no verdict"):
        review.export(tmp_path / "labels.csv")
    review.add_verdict(said(review, "agree"), MODEL)
    image = review.worklist()[0]["worst"]
    Image.new("L", (20, 30)).save(originals / "DOE_bright.png")
    with pytest.raises(ImageReadError, match="not the one that was scored"):
        review.address(image)
    assert "1 image left out" in review.export(tmp_path / "labels.csv")
    # `watch` moves files and names them by their content.
    (tmp_path / "results" / "processed").mkdir()
    kept = shutil.copy(scored[0] / "DOE_bright.png", tmp_path / "results" / "processed" / f"{image}.png")
    assert review.address(image).path == kept


STORED = np.random.default_rng(0).integers(0, 4096, (20, 30)).astype(np.uint16)


@pytest.mark.parametrize(
    ("tags", "low", "high", "window"),
    [
        (
            {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 400},
            -1024,
            3071,
            (39.5, 399),
        ),
        ({"RescaleSlope": 0.5, "RescaleIntercept": 0}, 0, 2047.5, None),
        ({"RescaleSlope": 1000, "RescaleIntercept": 0, "WindowCenter": 2e6, "WindowWidth": 1e6}, 0, 4095e3, (2e6, 1e6)),
        ({"RescaleSlope": 1e-5, "RescaleIntercept": 0}, 0, 0.04095, None),
    ],
)
def test_values_are_those_of_the_file(tmp_path, tags, low, high, window):
    stored = STORED.copy()
    stored[0, :2] = (0, 4095)
    path = write_dicom(tmp_path / "a.dcm", stored, **tags)
    found = read_values(ImageAddress(path), None)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-4, abs=abs(high) * 1e-4)
    values = found.low + found.pixels / 65535 * (found.high - found.low)
    expected = stored.astype(float) * tags["RescaleSlope"] + tags["RescaleIntercept"]
    np.testing.assert_allclose(values, expected, atol=abs(high - low) / 30000)
    center, width = window or ((low + high) / 2, high - low)
    assert (found.center, found.width) == pytest.approx((center, width), rel=2e-3, abs=abs(high) * 2e-3)


def test_padding_is_black_and_counts_for_no_range(tmp_path):
    stored = STORED.copy()
    stored[:5] = 60000
    path = write_dicom(tmp_path / "a.dcm", stored, PixelPaddingValue=60000)
    found = read_values(ImageAddress(path), None)
    assert found.high < 4100
    assert not found.pixels[:5].any()


def test_monochrome1_keeps_its_way_up(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", STORED, PhotometricInterpretation="MONOCHROME1")
    found = read_values(ImageAddress(path), None)
    assert np.corrcoef(found.pixels.ravel(), STORED.ravel())[0, 1] < -0.99
    shown = (found.low + found.pixels / 65535 * (found.high - found.low) - found.center) / found.width + 0.5
    assert np.clip(shown, 0, 1).max() > 0.95


@pytest.mark.parametrize("scale", [1, 1e-4])
def test_values_of_a_volume(tmp_path, scale):
    voxels = (np.random.default_rng(0).permutation(120).reshape(4, 5, 6) * scale).astype(np.float32)
    path = save_nifti(tmp_path / "a.nii.gz", voxels)
    found = read_values(ImageAddress(path, (("axial", 3),)), None)
    values = found.low + found.pixels / 65535 * (found.high - found.low)
    np.testing.assert_allclose(sorted(values.ravel()), sorted(voxels[..., 3].ravel()), atol=0.01 * scale)


def test_pictures_without_units_are_of_255_and_colours_of_8_bits(tmp_path):
    Image.fromarray(np.uint16([[0, 0x4000], [0x8000, 0xFFFF]])).save(tmp_path / "deep.png")
    found = read_values(ImageAddress(tmp_path / "deep.png"), None)
    assert (found.low, found.high) == (0, 255)
    assert found.pixels.tolist() == [[0, 0x4000], [0x8000, 0xFFFF]]
    Image.fromarray(np.uint8([[[1, 2, 3]]])).save(tmp_path / "colour.png")
    assert read_values(ImageAddress(tmp_path / "colour.png"), None).pixels.tolist() == [[[1, 2, 3]]]


def test_the_page_and_its_files_come_with_a_strict_policy(output):
    with serving(output) as server:
        for path, kind in (("", "text/html"), ("review.css", "text/css"), ("review.js", "text/javascript")):
            status, headers, content = ask(server, path)
            assert status == 200
            assert headers["Content-Type"].startswith(kind)
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert "unsafe" not in headers["Content-Security-Policy"]
            assert headers["Referrer-Policy"] == "same-origin"
            assert headers["Cache-Control"] == "no-store"
            # No outside resource, no style and no script in the page, which the policy would refuse.
            assert not re.search(rb"https?://|\sstyle=|\son\w+=|<script>", content)


def test_only_who_has_the_token_gets_an_answer(output):
    with serving(output) as server, serving(output) as other:
        assert server.server_address[0] == "127.0.0.1"
        assert len(server.token) > 20
        assert server.token != other.token
        for path in (
            "/",
            "/worklist",
            f"/{other.token}/worklist",
            f"/{server.token}",
            f"/{server.token[:-1]}/",
            "/%C3%A4/",
        ):
            assert ask(server, path)[0] == 404
        assert ask(server, f"/{other.token}/verdict", "POST", b"{}")[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "evil.example:80", "127.0.0.1.evil.example:{port}", ""])
def test_a_name_that_was_led_here_is_refused(output, host):
    with serving(output) as server:
        assert ask(server, "worklist", Host=host.format(port=server.server_port))[0] == 403
        assert ask(server, "worklist", Host=f"localhost:{server.server_port}")[0] == 200


@pytest.mark.parametrize(
    "path",
    ["../predictions.jsonl", "heatmap/../../predictions", "heatmap/..%2f..%2fsecret", "heatmap//etc/passwd", "values/"],
)
def test_paths_lead_nowhere_else(output, path):
    (output.parent / "secret.png").write_bytes(b"secret")
    with serving(output) as server:
        status, _, content = ask(server, path)
    assert (status, content) == (404, b"There is nothing of this name.")


def test_a_link_out_of_the_folder_is_no_heatmap(output):
    image = Review(output).worklist()[0]["worst"]
    outside = output.parent / "outside.png"
    Image.new("RGB", (9, 9)).save(outside)
    (output / "heatmaps" / f"{image}.png").unlink()
    (output / "heatmaps" / f"{image}.png").symlink_to(outside)
    with serving(output) as server:
        assert ask(server, f"heatmap/{image}")[0] == 404


def test_a_verdict_is_sent_and_kept(output):
    with serving(output) as server:
        verdict = json.dumps(said(Review(output), "agree", comment="yes")).encode()
        for headers, status in (
            ({"Content-Type": "text/plain"}, 415),
            ({"Content-Type": "application/json", "Origin": "http://evil.example"}, 403),
            ({"Content-Type": "application/json", "Content-Length": str(2**30)}, 413),
        ):
            assert ask(server, "verdict", "POST", verdict, **headers)[0] == status
        for body in (b"[]", b"{", b"{}"):
            assert ask(server, "verdict", "POST", body, **{"Content-Type": "application/json"})[0] == 400
        assert not (output / VERDICTS).exists()
        origin = f"http://127.0.0.1:{server.server_port}"
        status, _, content = ask(
            server, "verdict", "POST", verdict, **{"Content-Type": "application/json", "Origin": origin}
        )
        assert (status, json.loads(content)["label"]) == (200, "abnormal")
        found = json.loads(ask(server, "worklist")[2])
    assert found["model"] == MODEL
    assert found["items"][0]["verdict"]["comment"] == "yes"
    assert len((output / VERDICTS).read_text().splitlines()) == 1


def test_a_full_disk_is_said(output, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    review = Review(output)
    body = json.dumps(said(review, "agree")).encode()
    monkeypatch.setattr("anomalib_medical.edge.review.os.fsync", fail)
    answer = ReviewPages(review, MODEL, None).post("verdict", body)
    assert (answer.status, answer.content) == (507, b"The verdict could not be kept: No space left on device.")


def test_pictures_of_every_slice(output):
    with serving(output) as server:
        items = json.loads(ask(server, "worklist")[2])["items"]
        image = items[1]["worst"]
        _, headers, content = ask(server, f"values/{image}")
        facts = json.loads(headers["X-Values"])
        pixels = np.frombuffer(content, "<u2").reshape(facts["shape"])
        assert facts["shape"] == [40, 30]
        assert (facts["low"], facts["high"]) == pytest.approx((300, 600), abs=0.1)
        assert pixels[0, 0] > pixels[0, 29]
        heatmap, legend, layer = (
            Image.open(io.BytesIO(ask(server, f"{kind}/{image}")[2])) for kind in ("heatmap", "legend", "layer")
        )
        assert heatmap.size == layer.size == picture_size((40, 30))[::-1]
        whole = Image.open(output / "heatmaps" / f"{image}.png")
        assert whole.height == heatmap.height + legend.height
        # Of the first slice the right half is bare: there the image's window can be changed.
        layer = Image.open(io.BytesIO(ask(server, f"layer/{items[1]['slices'][0]['image']}")[2]))
        opacity = np.asarray(layer.getchannel("A"))
        assert (opacity[:, :80] == 255).all()
        assert not opacity[:, -60:].any()
        for item in items:
            assert max(Image.open(io.BytesIO(ask(server, f"thumbnail/{item['worst']}")[2])).size) == 96


def test_without_heatmaps_and_without_originals_the_rest_is_shown(scored, tmp_path):
    originals = shutil.copytree(scored[0], tmp_path / "in")
    drawn, bare = score(originals, tmp_path / "drawn"), score(originals, tmp_path / "bare", heatmaps=False)
    image = Review(bare).worklist()[0]["worst"]
    with serving(bare) as server:
        assert ask(server, f"thumbnail/{image}")[0] == 200
        assert ask(server, f"heatmap/{image}")[0] == ask(server, f"layer/{image}")[0] == 404
    shutil.rmtree(originals)
    with serving(drawn) as server:
        status, _, content = ask(server, f"values/{image}")
        assert (status, content) == (404, b"The original is gone, was changed since it was scored, or is damaged.")
        assert ask(server, f"thumbnail/{image}")[0] == 200
        assert ask(server, f"heatmap/{image}")[2] == (drawn / "heatmaps" / f"{image}.png").read_bytes()


@pytest.mark.parametrize("shown", [False, True])
def test_no_answer_names_anybody_unless_asked_for(output, shown, caplog, capfd):
    with serving(output, show_identifiers=shown) as server:
        items = json.loads(ask(server, "worklist")[2])["items"]
        images = [each["image"] for item in items for each in item["slices"]]
        paths = [
            "",
            "worklist",
            *(f"{kind}/{image}" for image in images for kind in ("values", "heatmap", "thumbnail")),
        ]
        answers = [ask(server, path) for path in paths]
        verdict = json.dumps(said(Review(output), "agree")).encode()
        answers.append(ask(server, "verdict", "POST", verdict, **{"Content-Type": "application/json"}))
    everything = b"".join(content + str(headers).encode() for _, headers, content in answers)
    names = [name for name in (b"DOE", b"4711", b"JANE", str(output.parent).encode()) if name in everything]
    assert names == ([b"DOE", b"JANE"] if shown else [])
    logged = "".join(capfd.readouterr()) + caplog.text
    assert "DOE" not in logged
    assert server.token not in logged


@pytest.mark.parametrize("port", [None, 99999])
def test_a_port_that_is_taken_or_none_is_told(tmp_path, port):
    pages = ReviewPages(Review(score(write_originals(tmp_path / "in"), tmp_path / "out")), MODEL, None)
    with ReviewServer(pages) as server, pytest.raises(EdgeError, match=r"^Port \d+ cannot be listened on \(.+\)"):
        ReviewServer(pages, port or server.server_port)
