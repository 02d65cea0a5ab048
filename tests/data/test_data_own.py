"""Data of one's own: a CSV file, numpy arrays, logic gates, map-style datasets, tensors; and a class of one's own."""

import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image

from deeptrain.analysis.check_data import check
from deeptrain.data import array_source
from deeptrain.data.array_source import ArraySource
from deeptrain.data.csv_file import CSVFile
from deeptrain.data.gates import Gates
from deeptrain.data.image_folder import ImageFolder
from deeptrain.data.map_style import MapStyleSource, TorchvisionDataset
from deeptrain.data.npz_file import NPZFile
from deeptrain.data.tensors import tensor_loader


@pytest.fixture
def pictures(tmp_path):
    for index in range(20):
        pixels = np.random.default_rng(index).integers(0, 256, (9, 8, 3), np.uint8)
        file = tmp_path / ("cat", "dog")[index % 2] / f"{index:02}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(file)
    return tmp_path


def write_csv(root, *rows, name="labels.csv"):
    (root / name).write_text("\n".join(rows) + "\n")
    return str(root / name)


def rows_of(root):
    return [f"{file.parent.name}/{file.name},{file.parent.name}" for file in sorted(root.rglob("*.png"))]


def refusal(make, start):
    with pytest.raises(ValueError) as error:
        make()
    message = str(error.value)
    assert message.startswith(start) and "\n" not in message
    return message


# --- CSV -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [[], ["file,label"], ["File , LABEL"], ["\ufefffile,label"]])
def test_a_csv_gives_what_the_folder_gives(pictures, header):
    listed = CSVFile(file=write_csv(pictures, *header, *rows_of(pictures))).load()
    folder = ImageFolder(root=str(pictures)).load()
    assert listed.classes == folder.classes and listed.split == folder.split
    assert np.array_equal(np.asarray(listed.train.images), np.asarray(folder.train.images))
    assert np.array_equal(listed.train.labels, folder.train.labels) and np.array_equal(listed.mean, folder.mean)


def test_columns_may_come_in_any_order_and_splits_are_kept_apart(pictures):
    rows = [f"{('train', 'val', 'test')[index % 3]},{row}" for index, row in enumerate(rows_of(pictures))]
    source = CSVFile(file=write_csv(pictures, "split,file,label", *rows))
    dataset = source.load()
    files = [*dataset.train.files, *dataset.val.files, *source.test().files]
    assert len(files) == len(set(files)) == 20
    assert [len(part) for part in (dataset.train, dataset.val, source.test())] == [7, 7, 6]
    assert "train 7 (split train), val 7 (split val), test 6 (split test) kept shut" in dataset.summary


def test_another_label_in_the_csv_is_not_hidden_by_the_cache(pictures):
    rows = rows_of(pictures)
    before = CSVFile(file=write_csv(pictures, *rows)).load()
    after = CSVFile(file=write_csv(pictures, rows[0].replace(",cat", ",dog"), *rows[1:])).load()
    counts = [np.bincount(np.concatenate([data.train.labels, data.val.labels])).tolist() for data in (before, after)]
    assert counts == [[10, 10], [9, 11]] and before.fingerprint != after.fingerprint


def test_paths_are_relative_to_the_csv_or_to_root_or_absolute(pictures, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("lists")
    file = write_csv(elsewhere, *rows_of(pictures))
    assert len(CSVFile(file=file, root=str(pictures)).load().train) == 18
    absolute = write_csv(elsewhere, *(f"{pictures}/{row}" for row in rows_of(pictures)), name="absolute.csv")
    assert len(CSVFile(file=absolute, loader="stream").load().train) == 18


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [*rows, rows[3]], "line 21: cat/06.png is in line 4 too; keep one of them"),
        (lambda rows: [*rows, "./" + rows[0]], "line 21: cat/00.png is in line 1 too"),
        (lambda rows: [*rows, "cat/no.png,cat"], "line 21: "),
        (lambda rows: [*rows, f"{'x' * 300}.png,cat"], "cannot be read (File name too long)"),
        (lambda rows: ["file,label,weight", *rows], "unknown column 'weight'; the columns are file, label"),
        (lambda rows: ["file,split", *rows], "the header is file,split; it must have file and label once each"),
        (lambda rows: ["file,label,split", *rows], "line 2: has 2 columns; expected file,label,split"),
        (lambda rows: [*rows, "cat/00.png"], "line 21: has 1 columns; expected file,label,split"),
        (lambda rows: [f"{row},trian" for row in rows], "line 1: split 'trian'; choose from train, val, test"),
        (lambda rows: [*rows[:-1], rows[-1].partition(",")[0] + ","], "line 20: label is empty"),
        (lambda rows: rows[:10], "train has only the label cat; training needs two classes"),
        (lambda rows: ["file,label"], "train has no images"),
        (lambda rows: [*rows[:-1], rows[-1].replace(",dog", ",emu,val")], "line 20: label emu of val is no class of"),
    ],
)
def test_a_wrong_csv_is_one_line_with_the_line_number(pictures, change, message):
    file = write_csv(pictures, *change(rows_of(pictures)))
    assert message in refusal(lambda: CSVFile(file=file), f"file={file}: ")


def test_a_csv_that_is_absent_or_no_text(tmp_path):
    refusal(lambda: CSVFile(file=str(tmp_path / "no.csv")), f"file={tmp_path}/no.csv: does not exist")
    (tmp_path / "bytes.csv").write_bytes(b"caf\xe9.png,cat\n")
    assert "save it as UTF-8" in refusal(lambda: CSVFile(file=str(tmp_path / "bytes.csv")), "file=")


def test_classes_of_a_csv_are_in_natural_order_and_a_run_keeps_its_own(pictures):
    labels = ["10", "9", "1"]
    rows = [f"{row.partition(',')[0]},{labels[index % 3]}" for index, row in enumerate(rows_of(pictures))]
    file = write_csv(pictures, *rows)
    assert CSVFile(file=file).layout.classes == ["1", "9", "10"]
    assert CSVFile(file=file, learned_classes=["1", "10", "9"]).layout.classes == ["1", "10", "9"]
    assert CSVFile(file=file, learned_classes=["1", "10"]).layout.classes == ["1", "9", "10"]


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("header", [["file,label"], []])
def test_columns_may_be_separated_by_semicolons_or_tabs(pictures, separator, header):
    rows = [row.replace(",", separator) for row in [*header, *rows_of(pictures)]]
    plain, other = write_csv(pictures, *rows_of(pictures)), write_csv(pictures, *rows, name="other.csv")
    assert CSVFile(file=other).layout.splits["train"].names == CSVFile(file=plain).layout.splits["train"].names


def test_a_comma_in_a_name_separates_nothing_where_semicolons_do(pictures):
    first = rows_of(pictures)[0].partition(",")[0]
    (pictures / first).rename(pictures / "a, b.png")
    rows = ["a, b.png;cat", *(row.replace(",", ";") for row in rows_of(pictures)[1:])]
    assert CSVFile(file=write_csv(pictures, *rows)).layout.splits["train"].names[0] == "a, b.png"


def test_check_data_reads_a_csv_too(pictures):
    file = write_csv(pictures, *rows_of(pictures))
    assert check(pictures / "labels.csv").is_intact and file
    (pictures / "cat" / "00.png").write_bytes(b"")
    assert len(check(pictures / "labels.csv").broken) == 1


# --- numpy arrays ----------------------------------------------------------------------------------------------------


def arrays(count=40, shape=(6, 5), seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *shape), np.uint8), np.arange(count) % 4


def write_npz(root, **content):
    np.savez(root / "data.npz", **content)
    return str(root / "data.npz")


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 3), (1, 6, 5), (3, 6, 5)])
@pytest.mark.parametrize("column", [False, True])
def test_npz_layouts_come_out_as_height_width_channels(tmp_path, shape, column):
    images, labels = arrays(shape=shape)
    dataset = NPZFile(file=write_npz(tmp_path, images=images, labels=labels[:, None] if column else labels)).load()
    expected = images[..., None] if len(shape) == 2 else images
    expected = expected.transpose(0, 2, 3, 1) if shape[0] in (1, 3) else expected
    held = dataset.split["val"]
    assert np.array_equal(np.asarray(dataset.val.images), expected[held])
    assert np.array_equal(dataset.val.labels, labels[held]) and dataset.classes == ["0", "1", "2", "3"]


def test_npz_splits_are_those_of_medmnist_and_labels_may_be_any_integers(tmp_path):
    content = {}
    for seed, (split, count) in enumerate({"train": 40, "val": 8, "test": 12}.items()):
        images, labels = arrays(count, seed=seed)
        content |= {f"{split}_images": images, f"{split}_labels": 10 * labels[:, None] - 5}
    source = NPZFile(file=write_npz(tmp_path, **content), names=["a", "b", "c", "d"])
    dataset, test = source.load(), source.test()
    assert [len(part) for part in (dataset.train, dataset.val, test)] == [40, 8, 12]
    assert np.array_equal(np.asarray(test.images)[..., 0], content["test_images"])
    assert test.labels.tolist() == (np.arange(12) % 4).tolist() and dataset.classes == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": arrays()[0]}, "has images but no labels"),
        ({"pixels": arrays()[0]}, "holds pixels; expected images and labels"),
        ({"images": arrays()[0], "labels": np.zeros(40, int)}, "all labels are 0; training needs two classes"),
        ({"images": arrays()[0], "labels": arrays()[1] / 2}, "labels must be integers (N,) or (N, 1)"),
        ({"images": arrays()[0], "labels": arrays()[1].astype(object)}, "labels cannot be read (Object arrays"),
    ],
)
def test_wrong_arrays_are_refused_at_once(tmp_path, content, message):
    file = write_npz(tmp_path, **content)
    assert message in refusal(lambda: NPZFile(file=file), f"file={file}: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": arrays()[0] / 255, "labels": arrays()[1]}, "images must be uint8, it is float64; save (images *"),
        ({"images": arrays(shape=(6, 5, 2))[0], "labels": arrays()[1]}, "with 1 or 3 channels, it is (40, 6, 5, 2)"),
        ({"images": arrays()[0], "labels": arrays(39)[1]}, "40 images but 39 labels of train"),
    ],
)
def test_wrong_images_are_refused_when_they_are_read(tmp_path, content, message):
    file = write_npz(tmp_path, **content)
    assert message in refusal(lambda: NPZFile(file=file).load(), f"file={file}: ")


def test_a_label_that_train_does_not_have(tmp_path):
    images, labels = arrays()
    file = write_npz(tmp_path, images=images, labels=labels, val_images=images, val_labels=labels + 1)
    assert "label 4 of val is no class of train" in refusal(lambda: NPZFile(file=file).load(), "file=")


@pytest.mark.parametrize("shape", [(5, 6), (12, 10), (6, 5, 3)])
def test_a_val_of_another_size_is_refused(tmp_path, shape):
    images, labels = arrays()
    file = write_npz(tmp_path, images=images, labels=labels, val_images=arrays(shape=shape)[0], val_labels=labels)
    refusal(lambda: NPZFile(file=file).load(), "images of val are ")


def test_images_without_pixels_are_refused(tmp_path):
    images, labels = arrays()
    file = write_npz(tmp_path, images=images[:, :0], labels=labels)
    refusal(lambda: NPZFile(file=file).load(), "images of train: must be uint8 (N, H, W, C)")


def test_npz_names_that_repeat_and_labels_that_would_wrap_are_refused(tmp_path):
    images, labels = arrays()
    file = write_npz(tmp_path, images=images, labels=labels)
    names = [f"name {value // 2}" for value in range(len(np.unique(labels)))]
    assert "'name 0' is there twice" in refusal(lambda: NPZFile(file=file, names=names), "names=")
    large = labels.astype(np.uint64)
    large[0] = 2**63
    file = write_npz(tmp_path, images=images, labels=large)
    assert "labels has 9223372036854775808; labels must be below 2**63" in refusal(lambda: NPZFile(file=file), "file=")


@pytest.mark.parametrize(("shape", "factor"), [((6, 5), 1), ((3, 6, 5), 2)])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_larger_than_memory_is_refused_by_its_header(tmp_path, monkeypatch, shape, factor, save):
    images, labels = arrays(shape=shape)
    save(tmp_path / "data.npz", images=images, labels=labels)
    source = NPZFile(file=str(tmp_path / "data.npz"))
    assert source.split_bytes("train") == factor * images.nbytes
    monkeypatch.setattr(array_source, "free_memory", lambda swap: factor * images.nbytes - 1)
    monkeypatch.setattr(source, "read_split", lambda split: pytest.fail("it was read"))
    with pytest.raises(ValueError, match=r"^data=npz: train needs .* are free; save the pictures as files"):
        source.load(tmp_path / "cache")


def test_a_file_that_is_no_npz(tmp_path):
    refusal(lambda: NPZFile(file=str(tmp_path / "no.npz")), f"file={tmp_path}/no.npz: does not exist")
    (tmp_path / "no.npz").write_bytes(b"garbage")
    assert "no readable .npz file" in refusal(lambda: NPZFile(file=str(tmp_path / "no.npz")), "file=")


# --- gates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gate", "function"),
    [("and", lambda a, b: a & b), ("or", lambda a, b: a | b), ("xor", lambda a, b: a ^ b), ("not", lambda a: 1 - a)],
)
def test_gates_are_their_truth_tables(gate, function):
    dataset = Gates(gate=gate, repeats=3).load()
    inputs = np.asarray(dataset.train.images).reshape(len(dataset.train), -1) // 255
    assert [function(*map(int, row)) for row in inputs] == dataset.train.labels.tolist()
    assert len(dataset.train) == 3 * len(dataset.val) == 3 * len({tuple(row) for row in inputs.tolist()})
    assert dataset.image_shape == (1, 1, inputs.shape[1]) and dataset.val.labels.tolist() == [
        function(*map(int, row)) for row in np.asarray(dataset.val.images).reshape(len(dataset.val), -1) // 255
    ]


# --- map-style datasets ----------------------------------------------------------------------------------------------


class Pairs:
    """A dataset in the style of torchvision: (PIL image, class)."""

    def __init__(self, size=(6, 5), count=30):
        self.images = np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return Image.fromarray(self.images[index]), index % 3


@dataclass
class OwnPairs(MapStyleSource):
    pairs: object = None
    name = "pairs"

    def open_split(self, split):
        return self.pairs

    def class_names(self):
        return ["a", "b", "c"]


def test_a_map_style_dataset_is_read_once_in_order():
    pairs = Pairs()
    dataset = OwnPairs(pairs=pairs).load()
    held = dataset.split["val"]
    assert np.array_equal(np.asarray(dataset.val.images), pairs.images[held])
    assert dataset.val.labels.tolist() == [index % 3 for index in held]
    assert OwnPairs(pairs=pairs, image_size=4).load().image_shape == (3, 4, 4)


def test_items_that_do_not_fit_are_one_line():
    class Mixed(Pairs):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return (image if index < 20 else image.resize((9, 9))), label

    class Deep(Pairs):
        def __getitem__(self, index):
            return Image.fromarray(np.zeros((8, 8), np.uint16)), 0

    class Wrong(Pairs):
        def __getitem__(self, index):
            return {"image": 1}

    assert "write data.image_size=" in refusal(lambda: OwnPairs(pairs=Mixed()).load(), "image_size=null: image 20")
    assert "mode I;16 has more than 8 bits" in refusal(lambda: OwnPairs(pairs=Deep()).load(), "data=pairs: item 0")
    assert "must be (image, int)" in refusal(lambda: OwnPairs(pairs=Wrong()).load(), "data=pairs: item 0")


@pytest.mark.slow
def test_torchvision_datasets_by_name(tmp_path):
    for index in range(12):
        file = tmp_path / "eurosat" / "2750" / ("Forest", "River")[index % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), index, np.uint8)).save(file)
    dataset = TorchvisionDataset(dataset="EuroSAT", root=str(tmp_path)).load()
    assert dataset.classes == ["Forest", "River"] and len(dataset.train) + len(dataset.val) == 12
    refusal(lambda: TorchvisionDataset(dataset="Eurosat", root=str(tmp_path)).load(), "dataset=Eurosat: is no class of")
    missing = refusal(
        lambda: TorchvisionDataset(dataset="CIFAR10", root=str(tmp_path)).load(), "dataset=CIFAR10: cannot be"
    )
    assert missing.endswith("data.download=true downloads it, if the dataset can")


# --- from Python -----------------------------------------------------------------------------------------------------


def test_a_tensor_loader_shuffles_by_its_seed_and_keeps_every_image(device):
    images = torch.randint(0, 256, (50, 3, 4, 5), dtype=torch.uint8, device=device)
    loader = tensor_loader(images, torch.arange(50), 8, seed=3)
    batches = list(loader.epoch(0))
    order = torch.cat([labels for _, labels in batches]).cpu()
    assert sorted(order.tolist()) == list(range(50)) and order.tolist() != list(range(50))
    assert torch.equal(torch.cat([x for x, _ in batches]), images[order.to(images.device)])
    again = tensor_loader(images, torch.arange(50), 8, seed=3)
    assert torch.equal(order, torch.cat([labels for _, labels in again.epoch(0)]).cpu())
    fixed = tensor_loader(images, torch.arange(50), 9, train=False)
    assert torch.cat([labels for _, labels in fixed.epoch(0)]).tolist() == list(range(50))


def test_a_tensor_loader_evaluates_fewer_images_than_a_batch():
    loader = tensor_loader(torch.zeros(5, 1, 2, 2, dtype=torch.uint8), torch.arange(5), train=False)
    assert loader.sizes == [5]


CLASSES = torch.zeros(6, dtype=torch.int64)


@pytest.mark.parametrize(
    ("images", "labels", "hint"),
    [
        (torch.rand(6, 1, 2, 2), CLASSES, "; write (images * 255).round().byte()"),
        (torch.rand(6, 1, 2, 2) * 200 + 50, CLASSES, "; write images.round().byte()"),
        (torch.randn(6, 1, 2, 2) - 9, CLASSES, "; these go from -"),
        (torch.full((6, 1, 2, 2), 7), CLASSES, "; write images.byte()"),
        (torch.zeros(6, 2, 2), CLASSES, "; write images.unsqueeze(1)"),
        (torch.zeros(6, 8, 9, 3, dtype=torch.uint8), CLASSES, "; write images.permute(0, 3, 1, 2)"),
        (torch.zeros(6, 1, 2, 2, dtype=torch.uint8).numpy(), CLASSES, "; write torch.as_tensor(images)"),
        (torch.zeros(6, 1, 2, 2, dtype=torch.uint8), CLASSES[:, None], "; write labels.flatten()"),
        (torch.zeros(6, 1, 2, 2, dtype=torch.uint8), CLASSES - 1, "the smallest is -1"),
    ],
)
def test_a_tensor_loader_says_how_to_convert(images, labels, hint):
    with pytest.raises(ValueError, match=re.escape(hint)) as refused:
        tensor_loader(images, labels, 2)
    written = hint.removeprefix("; write ")
    if written != hint:
        converted = eval(written, {"torch": torch, "images": images, "labels": labels})
        key = "labels" if "labels" in written else "images"
        settings = {"images": images, "labels": labels} | {key: converted}
        try:
            tensor_loader(**settings, batch_size=2)
        except ValueError as error:
            assert str(error) != str(refused.value), "what it says leads on"


@pytest.mark.parametrize(
    ("images", "labels", "batch_size", "message"),
    [
        (torch.zeros(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64), 2, "images=torch.float32 (4, 1, 2, 2): must be"),
        (torch.zeros(4, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), 2, "images=torch.uint8 (4, 2, 2)"),
        (torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.zeros(4), 2, "labels=torch.float32 (4,): must be integers"),
        (torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), 2, "labels=torch.int64 (3,)"),
        (
            torch.zeros(4, 1, 2, 2, dtype=torch.uint8),
            torch.zeros(4, dtype=torch.int64),
            5,
            "batch_size=5: must be",
        ),
    ],
)
def test_tensors_that_do_not_fit_together_are_refused(images, labels, batch_size, message):
    refusal(lambda: tensor_loader(images, labels, batch_size), message)


def test_a_source_of_ones_own_is_one_method_and_its_arrays_are_checked():
    @dataclass
    class Stripes(ArraySource):
        dtype: type = np.uint8
        name = "stripes"

        def class_names(self):
            return ["down", "across"]

        def read_split(self, split):
            images = np.zeros((40, 8, 8, 1), self.dtype)
            images[::2, ::2], images[1::2, :, ::2] = 255, 255
            return images, np.arange(40) % 2

    dataset = Stripes(val_fraction=0.25).load()
    assert len(dataset.val) == 10 and dataset.summary.endswith("no test split")
    refusal(lambda: Stripes(dtype=np.int32).load(), "images of train: must be uint8")
    assert not Stripes().has_test()
    refusal(
        lambda: Stripes().test(),
        "data=stripes: has no test split; add split=val for the images that the run has held out",
    )
