"""anomalib's subcommands, and their short help: theirs is about other data, and takes seconds of imports."""

from anomalib_medical.cli.parser import PROGRAM

ANOMALIB = {
    "train": "Train a model, then test it: checkpoint, scores and heatmaps.",
    "fit": "Train a model without testing it.",
    "test": "Score the test images of a data set with a trained model.",
    "validate": "Run a trained model on the validation images.",
    "predict": "Score images, of a folder or of a data set, with a trained model.",
    "export": "Write a trained model as OpenVINO, ONNX or torch file.",
    "install": "anomalib's own: install the packages that optional features of it need.",
}
_EXAMPLES = {
    "train": "--model Scrd --data MedicalFolder --data.root IMAGES --trainer.max_epochs 20",
    "fit": "--model Scrd --data MedicalFolder --data.root IMAGES --trainer.max_epochs 20",
    "test": "--ckpt_path model.ckpt --data MedicalFolder --data.root IMAGES",
    "validate": "--ckpt_path model.ckpt --data MedicalFolder --data.root IMAGES",
    "predict": "--ckpt_path model.ckpt --data IMAGES",
    "export": "--ckpt_path model.ckpt --export_type openvino",
}
_MODEL = {
    "--model CLASS": "Scrd, Ddad, D24fad, any of anomalib's, or a class path.",
    "--model.ARGUMENT VALUE": "Its arguments: {command} --model.help Scrd.",
}
_TRAINED = {
    "--ckpt_path FILE": "Checkpoint of a training: class and arguments of the model, and how to read files.",
    "--model, --model.ARGUMENT": "What the checkpoint does not say; another than it has is an error.",
}
_DATA = {
    "--data CLASS": "MedicalFolder for images of your own, Phantom for generated ones, a published data set.",
    "--data.ARGUMENT VALUE": "Its arguments: {command} --data.help MedicalFolder.",
}
_FOLDER = {
    "--data FOLDER": "PNG, JPEG, TIFF, DICOM and NIfTI files at any depth; or a CLASS with --data.ARGUMENT VALUE.",
    "--window, --axis, --slice_range": "How DICOM and NIfTI files are read, if the checkpoint does not say it.",
    "--part K --parts N --resume": "Score one part of a large archive, and go on with it after a stop.",
}
_EXPORT = {
    "--export_type TYPE": "openvino, onnx or torch.",
    "--export_root FOLDER": "Where to; beside the other results if not given.",
}
_FURTHER = {
    "--resume": "Go on where the last such run stopped, in its folder.",
    "--ckpt_path FILE": "Go on from this checkpoint, into a new folder.",
}
_OTHERS = {
    "--trainer.OPTION VALUE": "Of Lightning's trainer: max_epochs, accelerator, devices, precision, ...",
    "--default_root_dir FOLDER": "For the results; results if not given.",
    "--config FILE": "YAML file with any of these; those of the command line win. See {program} configs.",
    "--print_config": "Print all arguments as such a file, and do nothing.",
}


def guide(name: str) -> str:
    """The short help of one of anomalib's subcommands."""
    if name not in _EXAMPLES:
        return f"usage: {PROGRAM} {name} [--option full|core|dev|loggers|notebooks|openvino]\n\n{ANOMALIB[name]}"
    command = f"{PROGRAM} {name}"
    trains = name in {"train", "fit"}
    data = {"predict": _FOLDER, "export": _EXPORT}.get(name, _DATA)
    options = (_MODEL | data | _FURTHER if trains else _TRAINED | data) | _OTHERS
    lines = [f"usage: {command} {_EXAMPLES[name]}", "", ANOMALIB[name], ""]
    for option, text in options.items():
        lines.append(f"  {option:<32}{text.format(command=command, program=PROGRAM)}")
    return "\n".join([*lines, "", f"All options: {command} --help -vv"])
