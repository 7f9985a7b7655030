from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evengrad.errors import InputError, UnknownNameError
from evengrad.lab import data

X = np.random.RandomState(0).normal(size=(50, 3))
Y = np.repeat([0, 1], [30, 20])


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def make(text: str) -> Path:
        path = tmp_path / "own.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return make


def table(header: str = "", separator: str = ",", labels: tuple[str, ...] = ("no", "yes")) -> str:
    rows = [separator.join((str(i), str(i / 8), labels[i % len(labels)])) for i in range(20)]
    return "\n".join(([header] if header else []) + rows) + "\n"


def test_own_arrays_are_split_class_by_class_and_nothing_is_lost() -> None:
    split = data.own(X, Y)
    assert split.y_train.bincount().tolist() == [24, 16]
    assert split.y_test.bincount().tolist() == [6, 4]
    assert split.classes == ("0", "1")
    assert split.name == "own"
    x = torch.cat((split.x_train, split.x_test)).numpy()
    y = torch.cat((split.y_train, split.y_test)).numpy()
    row = {tuple(r): label for r, label in zip(X.astype(np.float32).tolist(), Y, strict=True)}
    assert [row[tuple(r)] for r in x.tolist()] == y.tolist()
    assert len(np.unique(x, axis=0)) == 50


def test_the_seed_says_which_samples_are_tested_on() -> None:
    assert torch.equal(data.own(X, Y, seed=1).x_test, data.own(X, Y, seed=1).x_test)
    assert not torch.equal(data.own(X, Y, seed=1).x_test, data.own(X, Y, seed=2).x_test)


@pytest.mark.parametrize(
    "kind", [np.asarray, torch.tensor, lambda a: a.tolist(), lambda a: torch.tensor(a, requires_grad=a.dtype == float)]
)
def test_arrays_tensors_and_lists_are_the_same_and_are_copied(kind: Callable[[Any], Any]) -> None:
    x, y = kind(X.astype(np.float32).astype(float)), kind(Y)
    test = (kind(X[:5].astype(np.float32).astype(float)), kind(Y[28:33]))
    split = data.own(x, y, test=test)
    split.x_train.zero_()
    split.y_train.zero_()
    assert data.own(x, y, test=test).x_train.abs().sum() > 0
    assert torch.equal(data.own(x, y).x_train, data.own(X, Y).x_train)


def test_float32_inputs_to_test_on_are_copied_too() -> None:
    x = X.astype(np.float32)
    split = data.own(x, Y, test=(x, Y))
    split.x_test.zero_()
    split.x_train.zero_()
    assert np.abs(x).min() > 0


@pytest.mark.parametrize(
    ("y", "classes", "named", "first"),
    [
        (np.where(Y == 1, "cat", "dog"), None, ("cat", "dog"), 1),
        (Y.astype(bool), None, ("False", "True"), 0),
        (Y * 5 + 2, None, ("2", "7"), 0),
        (Y, ("left", "right", "neither"), ("left", "right", "neither"), 0),
        (Y.astype(float), ("left", "right"), ("left", "right"), 0),
        (np.where(Y == 1, "cat", "dog"), ["dog", "cat"], ("dog", "cat"), 0),
        (np.where(Y == 1, "cat", "dog").astype(object), None, ("cat", "dog"), 1),
        (Y[:, None], None, ("0", "1"), 0),
    ],
)
def test_labels_become_classes(y: np.ndarray, classes: Any, named: tuple[str, ...], first: int) -> None:
    split = data.own(X, y, classes=classes, test=(X, y))
    assert split.classes == named
    assert split.y_train.tolist() == split.y_test.tolist() == [first] * 30 + [1 - first] * 20


@pytest.mark.parametrize("y", [X[:, 0], X[:, :1], torch.tensor(X[:, 0])])
def test_fractions_are_numbers_to_come_near_to(y: Any) -> None:
    split = data.own(X, y, test=(X, y))
    assert split.classes == ()
    assert split.y_train.dtype == torch.float32
    np.testing.assert_array_equal(split.y_train, X[:, 0].astype(np.float32))


def test_integers_are_numbers_to_come_near_to_if_classes_are_none_at_all() -> None:
    split = data.own(X, np.arange(50), classes=(), test=0.1)
    assert split.y_train.dtype == torch.float32
    assert len(split.y_test) == 5


def test_several_fractions_a_sample_and_images_keep_their_shape() -> None:
    split = data.own(X.reshape(50, 1, 3, 1), X, standardize=True)
    assert split.x_train.shape == (40, 1, 3, 1)
    assert split.y_test.shape == (10, 3)


def test_large_inputs_are_standardized_before_they_lose_their_digits() -> None:
    x = 1.7e9 + np.arange(50.0)[:, None]  # times in seconds: float32 tells 128 of them apart
    split = data.own(x, Y, standardize=True)
    assert len(split.x_train.unique()) == 40


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.own(X, Y[:9]), r"a target for each sample; got inputs of shape \(50, 3\) and targets of shape \(9,\)"),
        (lambda: data.own(X[:, 0], Y), r"got inputs of shape \(50,\)"),
        (lambda: data.own(X[:0], Y[:0]), r"got inputs of shape \(0, 3\)"),
        (lambda: data.own(X, Y * 0), "at least two classes to tell apart; all 50 targets are '0'"),
        (lambda: data.own(X, Y * 0, classes=("a", "b")), "at least two classes to tell apart; all 50 targets are '0'"),
        (lambda: data.own(X, np.arange(50)), r"class '0' of 50 has one sample.*pass classes=\(\)"),
        (lambda: data.own(X[29:31], Y[29:31]), "class '0' of 2 has one sample"),
        (lambda: data.own(X[:3], X[:3, 0], test=0.1), "samples on both sides; got 0.1 of 3"),
        (lambda: data.own(X, Y, test=1.0), "got 1.0 of 50"),
        (lambda: data.own(X, Y, classes=("one",)), r"labels out of \[0\], the 1 classes; got 1"),
        (lambda: data.own(X, Y + 0.5, classes=("a", "b")), r"out of \[0, 1\], the 2 classes; got 0.5"),
        (lambda: data.own(X, np.where(Y, "a", "b"), classes=("a", "c")), r"out of \['a', 'c'\], the 2 classes; got 'b'"),
        (lambda: data.own(X, np.where(Y, "a", "b"), classes=()), r"targets are text, such as 'b'"),
        (lambda: data.own(X, np.eye(2, dtype=int)[Y]), r"\(50, 2\). One-hot labels become that by argmax"),
        (lambda: data.own(X), r"own\(x, y\)"),
        (lambda: data.own(X, Y, target="y"), r"own\(x, y\)"),
        (lambda: data.own(5, Y), "inputs are not an array: got 5"),
        (lambda: data.own([[1.0], [2.0, 3.0]], [0, 1]), "inputs are not an array"),
        (lambda: data.own([["1", "red"]] * 4, [0, 1, 0, 1]), "inputs are not all numbers: .*'red'"),
        (lambda: data.own(X, Y, test=(X[:, :2], Y)), r"to train on has the shape \(3,\), one to test on \(2,\)"),
        (lambda: data.own(X, Y, test=(X, Y[:4])), r"own \(test\): expected inputs .* targets of shape \(4,\)"),
        (lambda: data.own(np.where(X > 1, np.nan, X), Y, finite=False, standardize=True), "inputs to train on are missing or infinite"),
        (lambda: data.own(X, [None, *["a", "b"] * 24, "a"]), r"1 of 50 values are missing or infinite: sample 0 \(None\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_missing_values_are_counted_and_placed_unless_allowed() -> None:
    x = X.copy()
    x[4, 2], x[7, 0], x[8, 0], x[9, 1] = np.nan, np.inf, 1e300, -np.inf  # float32 holds no 1e300
    with pytest.raises(
        InputError, match=r"4 of 150 values .*: sample 4, place 2 \(nan\); sample 7, place 0 \(inf\); sample 8, .*; …\. Fill"
    ):
        data.own(x, Y)
    y = X[:, 0].copy()
    y[3] = np.nan
    with pytest.raises(InputError, match=r"1 of 50 values .*: sample 3 \(nan\)\."):
        data.own(X, y)
    with pytest.raises(InputError, match=r"own \(test\): 4 of 150"):
        data.own(X, Y, test=(x, Y))
    x[8, 0] = 0
    split = data.own(x, Y, finite=False)
    assert torch.cat((split.x_train, split.x_test)).isnan().sum() == 1


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("header", ["", "age,weight,answer"])
def test_csv_with_and_without_header_and_by_any_separator(write: Callable[[str], Path], separator: str, header: str) -> None:
    path = write(table(header.replace(",", separator), separator))
    split = data.own(path)
    assert split.classes == ("no", "yes")
    assert split.name == str(path)
    x = torch.cat((split.x_train, split.x_test))
    y = torch.cat((split.y_train, split.y_test))
    assert sorted(x[:, 0].tolist()) == list(range(20))
    torch.testing.assert_close(x[:, 1], x[:, 0] / 8)
    assert torch.equal(y, x[:, 0].long() % 2)


@pytest.mark.parametrize(
    ("target", "left"), [("age", [1, 2]), (0, [1, 2]), ("0", [1, 2]), ("weight", [0, 2]), (-2, [0, 2]), (None, [0, 1])]
)
def test_any_column_can_be_the_target(write: Callable[[str], Path], target: str | int | None, left: list[int]) -> None:
    rows = np.array([[i, i / 8 + 0.5, 100.25 - i] for i in range(20)])
    path = write("age,weight,height\n" + "\n".join(",".join(map(str, row)) for row in rows))
    split = data.own(path, target=target)
    assert split.classes == ()
    both = torch.cat((split.x_train, split.x_test)).numpy()
    y = torch.cat((split.y_train, split.y_test)).numpy()
    order = np.argsort(both[:, 0])
    expected = rows[np.argsort(rows[:, left[0]])]
    np.testing.assert_array_equal(both[order], expected[:, left])
    column = next(i for i in range(3) if i not in left)
    np.testing.assert_array_equal(y[order], expected[:, column])


def test_a_header_of_numbers_is_known_by_the_target_in_it(write: Callable[[str], Path]) -> None:
    assert data.own(write(table("0,1,label")), target="label").classes == ("no", "yes")


def test_integers_in_a_csv_are_labels_and_its_quotes_blank_lines_and_byte_order_mark_are_no_matter(write: Callable[[str], Path]) -> None:
    split = data.own(write("\ufeff" + '\n"a, b",c\n\n' + "1.5, 3\n-2e3,4\n\n" * 5))
    assert split.classes == ("3", "4")
    assert split.x_train[split.y_train == 1].unique().tolist() == [-2000]


def test_load_takes_the_path_of_a_file(write: Callable[[str], Path]) -> None:
    path = write(table("a,b,c"))
    split = data.load(str(path), target="c", test=0.5, seed=4)
    assert len(split.y_test) == 10
    assert torch.equal(split.x_train, data.own(path, target="c", test=0.5, seed=4).x_train)
    assert torch.equal(data.load(path, target="c").x_test, data.own(path).x_test)
    with pytest.raises(UnknownNameError, match=r"no option of .*own.csv is called 'traget'\. Did you mean 'target'\?"):
        data.load(str(path), traget="c")


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("a,b\n1,x\nred,y\n", None, r"own.csv, line 3, column 'a': expected a number; found 'red'"),
        ("1,x\n\nred,y\n", None, r"line 3, column '0': expected a number; found 'red'"),
        ("a,b\n1,x\n2\n", None, r"line 3: expected 2 values, as in the first line; found 1"),
        (
            "a,b\n1,0\n,1\n3,1\nNA,0\n",
            None,
            r"2 of 4 values are missing or infinite: line 3, column 'a' \(nan\); line 5, column 'a' \(nan\)\. Fill",
        ),
        ("a,b\n1,0\n2,\n3,1\n", None, r"1 of 3 values .* line 3, column 'b' \(nan\)"),
        ("a,b\n1,x\n2,\n3,y\n", None, r"column 'b': 1 of 3 labels are missing, the first in line 3"),
        ("a,b\n1,x\n", 2, r"columns 0 to 1; got target=2"),
        ("1,x\n2,y\n", "b", r"has no header: its first line holds numbers.*got 'b'"),
        ("a,a,b\n1,2,x\n", "a", r"2 columns called 'a'; give the target's index"),
        ("a\n1\n", None, r"found 1 of 1 columns"),
        ("a,b\n", None, r"found 0 of 2 columns"),
        ("", None, r"own.csv is empty"),
        ('a,b\n1,"x\n', None, r"own.csv cannot be read: "),
    ],
)
def test_a_csv_that_is_no_table_of_numbers_is_refused_by_line_and_column(
    write: Callable[[str], Path], text: str, target: str | int | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        data.own(write(text), target=target)


def test_a_target_that_is_no_column_offers_the_nearest(write: Callable[[str], Path]) -> None:
    with pytest.raises(UnknownNameError, match=r"no column of .*own.csv is called 'anwser'\. Did you mean 'answer'\?"):
        data.own(write(table("age,weight,answer")), target="anwser")


def test_a_csv_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("grün,b\n1,2\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"a\.csv cannot be read: 'utf-8'"):
        data.own(tmp_path / "a.csv")


def test_npz_with_inputs_and_targets_is_split(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=np.where(Y, "a", "b"))
    split = data.load(str(tmp_path / "a.npz"), name="mine")
    assert split.name == "mine"
    assert split.classes == ("a", "b")
    assert torch.equal(split.x_train, data.own(X, 1 - Y).x_train)


def test_npz_that_is_split_stays_so(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "A.NPZ.npz", x_train=X[10:], y_train=Y[10:], x_test=X[:10], y_test=Y[20:30])
    split = data.own(tmp_path / "A.NPZ.npz")
    np.testing.assert_array_equal(split.x_test, X[:10].astype(np.float32))
    np.testing.assert_array_equal(split.y_train, Y[10:])


def test_files_that_are_not_npz_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(InputError, match="there is no file"):
        data.load(str(path))
    path.write_bytes(b"no zip")
    with pytest.raises(InputError, match=r"a\.npz is not an NPZ file of plain arrays"):
        data.own(path)
    np.savez(path, x=X, z=Y)
    with pytest.raises(InputError, match="expected arrays x and y, or x_train, y_train, x_test and y_test; found x, z"):
        data.own(path)
    with pytest.raises(InputError, match="no target column"):
        data.own(path, target="y")
    np.savez(path, x=np.array([{}, {}]), y=Y)  # objects are pickled: reading them would run what is in them
    with pytest.raises(InputError, match="not an NPZ file of plain arrays: Object arrays"):
        data.own(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY")
        archive.writestr("y.npy", b"")
    with pytest.raises(InputError, match="not an NPZ file of plain arrays"):
        data.own(path)
    with pytest.raises(InputError, match=r"ends in \.csv or \.npz; got a\.txt"):
        data.own("a.txt")
    with pytest.raises(InputError, match="and targets besides"):
        data.own(path, Y)
