"""DICOM objects of a whole series: one of each kind, in its place, the same again, and read back by others."""

import shutil
import subprocess

import highdicom
import numpy as np
import pytest
import SimpleITK
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    EnhancedCTImageStorage,
    MRImageStorage,
    UltrasoundImageStorage,
)

from anomalib_medical.edge.dicom_objects import KINDS, DicomObjects
from anomalib_medical.edge.manifest import Calibration, Manifest, ModelFacts, PostProcessing, Reading, SelfTest
from anomalib_medical.edge.predictor import Predictor
from anomalib_medical.edge.processing import Processor
from anomalib_medical.edge.series import SeriesScorer
from anomalib_medical.io import group_series, list_folder, sha256
from tests.helpers.dicom_files import PLACE, write_dicom

VALIDATOR = shutil.which("dciodvfy")
IMAGES = Calibration(threshold=0.4, minimum=0.1, maximum=0.6, limit=0.5)
FACTS = PostProcessing("softsign", IMAGES, IMAGES, series=Calibration(0.5, 0.2, 0.7, 0.5))
WHO = {
    "PatientName": "DOE^JANE",
    "PatientID": "4711",
    "StudyDate": "20200101",
    "StudyTime": "101112",
    "Manufacturer": "Scanner",
    "ManufacturerModelName": "S1",
    "SoftwareVersions": "7",
}
SHAPE = (20, 30)
PLACES = (4.0, 0.0, 2.0, 6.0)  # in the order of their names


class Scorer:
    """The mean as score, the first channel as map."""

    def score(self, image):
        return float(image.mean()), image[0]


def slices(folder, *, count=4, **tags):
    """Slices whose brightest one is the second by name, the first in space."""
    made = []
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 120, SHAPE).astype(np.uint8)
        pixels[4:9, 10:14] = 60 if index == 0 else 200
        if index == 1:
            pixels[:] = 240
        given = PLACE | WHO | {"ImagePositionPatient": [-7, 8, PLACES[index]], "SOPInstanceUID": f"1.2.3.{index + 1}"}
        given |= {"InstanceNumber": index + 1} | tags
        made.append(write_dicom(folder / f"{index}.dcm", pixels, **{k: v for k, v in given.items() if v is not None}))
    return made


def score(files, output, kinds=KINDS, facts=FACTS):
    bundle = output.parent / "bundle"
    if not bundle.exists():
        bundle.mkdir()
        about = {"created": "", "model": ModelFacts("Scrd"), "precision": "fp32", "reading": Reading()}
        versions = {"anomalib-medical": "0.9.1"}
        Manifest(**about, post_processing=facts, self_test=SelfTest("", 0, 0, 0), versions=versions).write(bundle)
    output.mkdir(exist_ok=True)
    objects = DicomObjects(bundle, output, kinds) if kinds else None
    processor = Processor(Predictor(Scorer(), facts), Reading(), output, heatmaps=False, dicom=objects)
    return list(SeriesScorer(processor, facts, output, volumes=False, dicom=objects)(group_series(files)))


def read(output, kind):
    (path,) = (output / "dicom").glob(f"*_{kind}.dcm")
    return dcmread(path)


def errors_of(path):
    command = [VALIDATOR, path]
    found = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False).stderr
    return [line for line in found.splitlines() if line.startswith("Error")]


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    root = tmp_path_factory.mktemp("series")
    files = slices(root / "in")
    (result,) = score(files, root / "out")
    return files, root / "out", result


def uids_of(output, kind, keyword):
    return {dcmread(path)[keyword].value for path in (output / "dicom").glob(f"*_{kind}.dcm")}


def places_of(made):
    """Where each frame lies along the axis of the slices."""
    groups = made.PerFrameFunctionalGroupsSequence
    return [float(group.PlanePositionSequence[0].ImagePositionPatient[2]) for group in groups]


def test_there_is_one_object_of_each_kind_and_a_capture_a_slice(scored):
    _, output, result = scored
    kinds = sorted(path.stem.rpartition("_")[2] for path in (output / "dicom").iterdir())
    assert kinds == ["capture"] * 4 + ["map", "report", "segmentation"]
    assert not result.rows[0].note
    series = [uids_of(output, kind, "SeriesInstanceUID") for kind in KINDS]
    assert [len(uids) for uids in series] == [1] * 4
    assert len(set.union(*series)) == 4
    assert uids_of(output, "capture", "InstanceNumber") == {1, 2, 3, 4}


def test_the_segmentation_lies_over_the_series(scored):
    """By highdicom's references, and at SimpleITK's physical points."""
    files, output, _ = scored
    (path,) = (output / "dicom").glob("*_segmentation.dcm")
    segmentation = highdicom.seg.segread(path)
    sources = [f"1.2.3.{number}" for number in range(1, 5)]
    found = segmentation.get_pixels_by_source_instance(
        sources, combine_segments=True, assert_missing_frames_are_empty=True
    )
    for pixels, file in zip(found, files, strict=True):
        np.testing.assert_array_equal(pixels, dcmread(file).pixel_array / 255 > 0.4)
    assert SimpleITK.ReadImage(str(path)).GetSize() == (30, 20, segmentation.NumberOfFrames)
    volume = segmentation.get_volume(combine_segments=True)
    np.testing.assert_allclose(volume.spacing, [2, 1, 1])
    compare_places(files, volume, lambda value, grey: bool(value) == (grey / 255 > 0.4))


def compare_places(files, volume, agree):
    """Look up the same physical points in the originals, by SimpleITK, and in an object, by highdicom."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(files[index]) for index in np.argsort(PLACES)])
    original = reader.Execute()
    for index in np.ndindex(*original.GetSize()):
        point = np.array([original.TransformIndexToPhysicalPoint(index)])
        (found,) = volume.map_reference_to_indices(point, round_output=True)
        assert agree(volume.array[tuple(found)], original[index])


def test_the_map_holds_the_scores_of_every_slice_at_its_place(scored):
    files, output, _ = scored
    made = read(output, "map")
    assert made.pixel_array.dtype == np.float32
    assert sorted(places_of(made)) == [0, 2, 4, 6]
    (mapping,) = made.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)

    def expected(grey):
        distance = (np.float32(grey) / 255 - 0.4) / 0.5
        return 0.5 * (1 + distance / (1 + abs(distance)))

    for frame, place in zip(made.pixel_array, places_of(made), strict=True):
        np.testing.assert_allclose(frame, expected(dcmread(files[PLACES.index(place)]).pixel_array), atol=1e-6)
    (path,) = (output / "dicom").glob("*_map.dcm")
    volume = highdicom.imread(path).get_volume()
    compare_places(files, volume, lambda value, grey: abs(value - expected(grey)) < 1e-6)


def items(dataset, name):
    """Content items of this meaning, at any depth."""
    for item in dataset.get("ContentSequence", []):
        concept = item.get("ConceptNameCodeSequence")
        if concept and concept[0].CodeMeaning == name:
            yield item
        yield from items(item, name)


def test_the_report_says_score_threshold_label_and_worst_slice(scored):
    _, output, result = scored
    row = result.rows[0]
    report = read(output, "report")
    names = ("Raw anomaly score", "Anomaly score", "Threshold of the raw anomaly score", "Number of slices scored")
    values = [float(next(items(report, name)).MeasuredValueSequence[0].NumericValue) for name in names]
    assert values == pytest.approx([row.raw_score, row.score, 0.5, 4], rel=1e-6)
    label = next(items(report, "Label by the threshold of the anomaly score"))
    assert label.ConceptCodeSequence[0].CodeMeaning == "Abnormal"
    (worst,) = items(report, "Source of Measurement")
    assert worst.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.2"
    said = {name: {item.TextValue for item in items(report, f"Algorithm {name}")} for name in ("Name", "Version")}
    assert said == {"Name": {"Scrd"}, "Version": {"0.9.1"}}
    (parameters,) = {item.TextValue for item in items(report, "Algorithm Parameters")}
    assert parameters == f"bundle SHA-256 {sha256(output.parent / 'bundle' / 'manifest.json')}"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert len(evidence) == 4
    groups = highdicom.sr.srread(next((output / "dicom").glob("*_report.dcm"))).content.get_image_measurement_groups()
    assert [measurement.value for measurement in groups[0].get_measurements()] == pytest.approx(values)


@pytest.mark.parametrize("kind", KINDS)
def test_every_object_says_what_made_it(scored, kind):
    _, output, _ = scored
    made = dcmread(next((output / "dicom").glob(f"*_{kind}.dcm")))
    acquired, ours = made.ContributingEquipmentSequence
    assert acquired.Manufacturer == "Scanner"
    assert ours.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Processing Equipment"
    digest = sha256(output.parent / "bundle" / "manifest.json")
    assert ours.ManufacturerModelName == "Scrd"
    assert list(ours.SoftwareVersions) == ["0.9.1", f"bundle {digest[:16]}"]
    assert (made.PatientID, made.Manufacturer) == ("4711", "anomalib-medical")
    assert made.StudyInstanceUID == dcmread(scored[0][0]).StudyInstanceUID
    if kind == "segmentation":
        (algorithm,) = made.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("Scrd", "0.9.1")
        assert digest in algorithm.AlgorithmParameters


def test_doing_it_again_in_any_order_gives_the_same_uids(scored, tmp_path):
    files, output, _ = scored
    shutil.copytree(output.parent / "bundle", tmp_path / "bundle")
    score(files[::-1], tmp_path / "again")
    first, again = (
        {path.name: dcmread(path).SOPInstanceUID for path in (folder / "dicom").iterdir()}
        for folder in (output, tmp_path / "again")
    )
    assert first == again
    assert len(set(first.values())) == len(first)


def test_another_bundle_gives_other_uids(scored, tmp_path):
    files, output, _ = scored
    score(files, tmp_path / "out", ["report"], PostProcessing("softsign", IMAGES, IMAGES))
    assert read(tmp_path / "out", "report").SOPInstanceUID != read(output, "report").SOPInstanceUID


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_alone(scored, tmp_path, kind):
    score(scored[0], tmp_path / "out", [kind])
    assert {path.stem.rpartition("_")[2] for path in (tmp_path / "out" / "dicom").iterdir()} == {kind}


def test_without_a_threshold_the_report_names_none(scored, tmp_path):
    score(scored[0], tmp_path / "out", ["report", "segmentation"], PostProcessing())
    report = read(tmp_path / "out", "report")
    assert list(items(report, "Raw anomaly score"))
    for name in ("Threshold of the raw anomaly score", "Label by the threshold of the anomaly score", "Anomaly score"):
        assert not list(items(report, name))
    assert not list((tmp_path / "out" / "dicom").glob("*_segmentation.dcm"))


def test_nothing_found_is_no_segmentation(scored, tmp_path):
    facts = PostProcessing("softsign", IMAGES, Calibration(2.0, 0.1, 0.6, 0.5))
    (result,) = score(scored[0], tmp_path / "out", ["segmentation"], facts)
    assert not list((tmp_path / "out" / "dicom").iterdir())
    assert not result.rows[0].note


def test_they_are_never_scored_again(scored):
    _, output, _ = scored
    listing = list_folder(output / "dicom")
    assert not listing.images
    assert {kind: len(paths) for kind, paths in listing.no_images.items()} == {
        "Comprehensive 3D SR": 1,
        "Parametric Map": 1,
        "Segmentation": 1,
        "result of anomalib-medical": 4,
    }
    assert [bool(series.key) for series in group_series(sorted((output / "dicom").iterdir()))] == [False] * 7


def enhanced(folder):
    """An enhanced CT: one file, whose frames have their places in functional groups."""
    pixels = np.stack([np.full(SHAPE, grey, np.uint8) for grey in (20, 220, 90)])
    path = write_dicom(folder / "enhanced.dcm", pixels, FrameOfReferenceUID="1.2.3.9", **WHO)
    data = dcmread(path)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    shared, measures, turned = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [1, 1], 2
    turned.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([turned])
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for index in range(len(pixels)):
        group, place = Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, 2.0 * index]
        group.PlanePositionSequence = Sequence([place])
        groups.append(group)
    data.PerFrameFunctionalGroupsSequence = Sequence(groups)
    data.save_as(path)
    return path


def test_an_enhanced_file_is_a_series(tmp_path):
    (result,) = score([enhanced(tmp_path / "in")], tmp_path / "out")
    (row,) = result.rows
    assert not row.note
    assert row.worst.endswith("#frame=1")
    (worst,) = items(read(tmp_path / "out", "report"), "Source of Measurement")
    assert worst.ReferencedSOPSequence[0].ReferencedFrameNumber == 2
    assert places_of(read(tmp_path / "out", "segmentation")) == [2]
    made = read(tmp_path / "out", "map")
    brightest = made.pixel_array.max(axis=(1, 2)).argmax()
    assert places_of(made)[brightest] == 2
    assert sorted(places_of(made)) == [0, 2, 4]
    assert len(list((tmp_path / "out" / "dicom").glob("*_capture.dcm"))) == 3
    if VALIDATOR:
        assert not [line for path in (tmp_path / "out" / "dicom").iterdir() for line in errors_of(path)]


@pytest.mark.parametrize(
    ("tags", "note"),
    [
        ({"FrameOfReferenceUID": None}, "no Segmentation: the places of the slices lack FrameOfReferenceUID"),
        ({"StudyInstanceUID": ""}, "no DICOM objects: the original has no StudyInstanceUID"),
        ({"PixelSpacing": None}, "no Segmentation: the places of the slices lack PixelSpacing"),
        ({"SOPInstanceUID": "1.2.9"}, "no DICOM objects of the series: its 4 slices share 1 SOPInstanceUID"),
    ],
)
def test_what_cannot_be_made_is_one_sentence_and_every_slice_is_scored(tmp_path, tags, note):
    (result,) = score(slices(tmp_path / "in", **tags), tmp_path / "out")
    assert len([row for file in result.files for row in file.rows]) == 4
    assert result.rows[0].slices == 4
    assert note in result.rows[0].note
    assert "DOE" not in result.rows[0].note


@pytest.mark.parametrize(
    ("sop_class", "modality"), [(UltrasoundImageStorage, "US"), (ComputedRadiographyImageStorage, "CR")]
)
def test_images_without_a_common_space_have_a_segmentation_each(tmp_path, sop_class, modality):
    nowhere = dict.fromkeys(PLACE)
    files = slices(tmp_path / "in", count=3, SOPClassUID=sop_class, Modality=modality, **nowhere)
    (result,) = score(files, tmp_path / "out")
    assert "no Parametric Map: it needs a place in the patient" in result.rows[0].note
    found = [dcmread(path) for path in sorted((tmp_path / "out" / "dicom").glob("*_segmentation.dcm"))]
    assert len({made.SOPInstanceUID for made in found}) == len(found) == 3
    assert len({made.SeriesInstanceUID for made in found}) == 1


def test_slices_of_several_phases_have_an_object_a_phase(tmp_path):
    """Viewers show one frame at a place, and highdicom makes no other."""
    files = slices(tmp_path / "in")
    for number, path in enumerate(slices(tmp_path / "later"), start=11):
        data = dcmread(path)
        data.SOPInstanceUID, data.InstanceNumber = f"1.2.3.{number}", number
        data.save_as(path)
        files.append(path)
    (result,) = score(files, tmp_path / "out")
    (row,) = result.rows
    assert (row.slices, row.note) == (8, "4 slices lie where another does")
    for kind in ("segmentation", "map"):
        made = [dcmread(path) for path in sorted((tmp_path / "out" / "dicom").glob(f"*_{kind}.dcm"))]
        assert [sorted(places_of(each)) for each in made] == [[0, 2, 4, 6]] * 2
        assert len({each.SOPInstanceUID for each in made}) == 2
    assert len(list((tmp_path / "out" / "dicom").glob("*_report.dcm"))) == 1


def test_slices_without_thickness_have_their_distance(tmp_path):
    (result,) = score(slices(tmp_path / "in", SliceThickness=None), tmp_path / "out")
    assert not result.rows[0].note
    (measures,) = read(tmp_path / "out", "segmentation").SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert measures.SliceThickness == 2


@pytest.mark.skipif(not VALIDATOR, reason="dciodvfy (Debian's dicom3tools) is not installed")
@pytest.mark.parametrize(
    "tags", [{}, {"SOPClassUID": MRImageStorage, "Modality": "MR"}, {"SliceThickness": None}, {"Manufacturer": None}]
)
def test_a_validator_of_the_standard_finds_no_error(tmp_path, tags):
    score(slices(tmp_path / "in", **tags), tmp_path / "out")
    found = sorted((tmp_path / "out" / "dicom").iterdir())
    assert len(found) == 7
    assert {path.name: errors_of(path) for path in found} == {path.name: [] for path in found}


@pytest.mark.skipif(not VALIDATOR, reason="dciodvfy (Debian's dicom3tools) is not installed")
def test_the_validator_finds_an_error_where_there_is_one(scored, tmp_path):
    for kind in KINDS:
        made = dcmread(next((scored[1] / "dicom").glob(f"*_{kind}.dcm")))
        del made.StudyInstanceUID
        made.save_as(tmp_path / "broken.dcm")
        assert errors_of(tmp_path / "broken.dcm")
