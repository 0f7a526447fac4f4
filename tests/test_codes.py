"""Good files come back as they were saved; whatever else is in a file, one line says so."""

import io
import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest

from bvae_jax.errors import UserError
from bvae_jax.files import codes_file
from bvae_jax.metrics.codes import read_codes

N, LATENT, FACTORS = 12, 5, 3
NAN_CODES = np.zeros((N, LATENT), np.float32)
NAN_CODES[4, 1:3] = np.nan, -np.inf


def good(**changes):
    """Arrays of a valid file with every key; None leaves a key out."""
    rng = np.random.default_rng(0)
    arrays = {
        "codes": rng.normal(size=(N, LATENT)).astype(np.float32),
        "factors": rng.integers(0, 4, (N, FACTORS)),
        "logvars": rng.normal(size=(N, LATENT)).astype(np.float32),
        "kl": rng.random(LATENT),
        "factor_sizes": np.array([4, 5, 6]),
        "factor_names": np.array(["shape", "größe", "x"]),
        "codes_test": rng.normal(size=(7, LATENT)),
        "factors_test": rng.integers(0, 4, (7, FACTORS)).astype(np.uint8),
    } | changes
    return {key: value for key, value in arrays.items() if value is not None}


def read(path):
    """The arrays of a file by name."""
    found = vars(read_codes(path))
    return {k: v for k, v in found.items() if not (v is None or isinstance(v, str))}


def npy(header, data=b"", version=1, length=None):
    """The bytes of an .npy file with any header and any claim about its length."""
    length = len(header) if length is None else length
    size = length.to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + header + data


def header(shape, descr="'<f4'", fortran="False"):
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()


def array_bytes(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write(path, method=zipfile.ZIP_STORED, edit=None, **members):
    """An archive of raw members; `edit` changes the directory entry of `codes` before it is
    written, so that it may lie."""
    default = {key: array_bytes(value) for key, value in good().items()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for key, data in (default | members).items():
            archive.writestr(f"{key}.npy", data)
        if edit:
            edit(archive.getinfo("codes.npy"))
    return path


def refused(path, pattern):
    with pytest.raises(UserError, match=pattern) as caught:
        read_codes(path)
    message = str(caught.value)
    assert message.isprintable(), "one line, and nothing that a terminal obeys"
    assert message.startswith(str(path))
    assert len(message) < len(str(path)) + 550


def peak(function, *args):
    tracemalloc.start()
    try:
        function(*args)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("layout", ["C", "F", "big"])
def test_a_good_file_comes_back(tmp_path, save, layout, capsys):
    arrays = saved = good()
    if layout == "F":
        saved = {key: np.asfortranarray(value) for key, value in arrays.items()}
    if layout == "big":
        saved = {key: value.astype(value.dtype.newbyteorder(">")) for key, value in arrays.items()}
    save(tmp_path / "a.npz", **saved)
    points = read(tmp_path / "a.npz")
    assert points.keys() == arrays.keys()
    for key, value in points.items():
        np.testing.assert_array_equal(value, arrays[key])
        assert value.dtype.isnative
        assert value.flags.c_contiguous
        assert value.dtype == (np.int32 if arrays[key].dtype.kind in "iu" else arrays[key].dtype)
    assert capsys.readouterr().err == ""


def test_labels_in_one_column_or_as_strings(tmp_path):
    """As class indices in the order of the labels, the same in the points to test on."""
    codes, labels = good()["codes"], np.array(["dog", "cat", "eel"])[np.arange(N) % 3]
    for kind in (str, "S3"):
        tests = {"codes_test": codes[:2], "factors_test": np.array(["eel", "cat"]).astype(kind)}
        np.savez(tmp_path / "a.npz", codes=codes, factors=labels.astype(kind), **tests)
        points = read(tmp_path / "a.npz")
        assert points["factors"][:3].tolist() == [[1], [0], [2]]
        assert points["factors_test"].tolist() == [[2], [0]]
    both = np.stack([labels, labels[::-1]], axis=1)
    np.savez(tmp_path / "a.npz", codes=codes, factors=both)
    assert read(tmp_path / "a.npz")["factors"][:2].tolist() == [[1, 2], [0, 0]]
    sizes = np.arange(N) + 1  # 10 comes after 2, also beside numbers that are no texts
    tests = {"codes_test": codes[:3], "factors_test": np.array([10, 2, 12])}
    np.savez(tmp_path / "a.npz", codes=codes, factors=sizes.astype(str), **tests)
    points = read(tmp_path / "a.npz")
    assert points["factors"].ravel().tolist() == list(range(N))
    assert points["factors_test"].tolist() == [[9], [1], [11]]
    np.savez(tmp_path / "a.npz", codes=codes, factors=np.arange(N))
    assert read(tmp_path / "a.npz")["factors"].shape == (N, 1)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("f2", "f4"), (">f2", "f4"), ("f4", "f4"), ("f8", "f8"), ("i1", "f4"), ("u8", "f4")],
)
def test_types_of_codes(tmp_path, given, wanted):
    codes = np.arange(N * LATENT).reshape(N, LATENT).astype(given)
    np.savez(tmp_path / "a.npz", codes=codes, factors=good()["factors"])
    points = read(tmp_path / "a.npz")
    assert list(points) == ["codes", "factors"]
    assert points["codes"].dtype == wanted
    np.testing.assert_array_equal(points["codes"], codes)


@pytest.mark.parametrize("given", ["i1", "u1", ">i2", "u4", "i8", ">u8"])
def test_types_of_factors(tmp_path, given):
    factors = good()["factors"]
    np.savez(tmp_path / "a.npz", codes=good()["codes"], factors=factors.astype(given))
    points = read(tmp_path / "a.npz")
    assert points["factors"].dtype == np.int32
    np.testing.assert_array_equal(points["factors"], factors)


def test_other_keys_are_named_on_one_line_and_never_opened(tmp_path, capsys):
    danger = np.array([object], dtype=object)
    np.savez(tmp_path / "a.npz", **good(danger=danger, **{"b\n\x1b[2J": 1}))
    read(tmp_path / "a.npz")
    wanted = f"bvae: {tmp_path / 'a.npz'}: keys not used: danger, b \\x1b[2J\n"
    assert capsys.readouterr().err == wanted


def test_headers_of_python_2_and_of_version_2(tmp_path):
    codes = good()["codes"]
    for version in (1, 2):
        data = npy(header(f"({N}L, {LATENT}L)"), codes.tobytes(), version)
        points = read(write(tmp_path / "a.npz", codes=data))
        np.testing.assert_array_equal(points["codes"], codes)


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"codes": None}, r"no codes, wanted codes and factors. Its keys: factors, logvars, kl"),
        ({"factors": None}, r"no factors, .* Its keys: codes, "),
        ({"codes_test": None}, "only one of codes_test and factors_test, wanted both"),
        ({"factors_test": None}, "only one of codes_test and factors_test, wanted both"),
        # Shapes.
        ({"codes": np.zeros(N)}, r"codes has shape \(12,\), wanted \[n, latent\]"),
        ({"codes": np.float32(1)}, r"codes has shape \(\), wanted \[n, latent\]"),
        ({"factors": np.zeros((N, 3, 1), int)}, r"shape \(12, 3, 1\), wanted \[n, factor\]"),
        ({"kl": np.zeros((LATENT, 1))}, r"kl has shape \(5, 1\), wanted \[latent\]"),
        ({"codes": np.zeros((0, LATENT))}, r"codes has shape \(0, 5\).*none of them 0"),
        ({"codes": np.zeros((N, 0))}, r"codes has shape \(12, 0\).*none of them 0"),
        ({"factors": np.zeros((N, 0), int)}, r"factors has shape \(12, 0\)"),
        ({"factors": np.zeros((9, 3), int)}, r"factors .* n = 9, but codes has n = 12: .*same"),
        ({"logvars": np.zeros((N, 4))}, r"logvars .* latent = 4, but codes has latent = 5"),
        ({"codes_test": np.zeros((7, 4))}, r"codes_test .* latent = 4, but codes has latent = 5"),
        ({"factors_test": np.zeros((7, 2), int)}, r"factors_test .* factor = 2, but factors has "),
        ({"factors_test": np.zeros((6, 3), int)}, r"factors_test .* m = 6, but codes_test has m"),
        ({"kl": np.zeros(4)}, r"kl \[latent\] has latent = 4, but codes has latent = 5"),
        ({"factor_sizes": np.array([9, 9])}, "factor_sizes .* factor = 2, but factors has"),
        ({"factor_names": np.array(["a"])}, "factor_names .* factor = 1, but factors has"),
        # Types.
        ({"factors": np.ones((N, 3))}, r"factors is float64.*whole.*class.*save factors.astype"),
        ({"factors": np.full((N, 3), 0.5, ">f2")}, "factors is float16, wanted whole.*: bin the"),
        ({"factors": np.full((N, 3), np.nan)}, "factors has 36 NaN or inf values, wanted whole"),
        ({"factors": np.full((N, 3), b"\xff")}, "factors"),
        ({"codes": np.ones((N, LATENT), bool)}, "codes is bool, wanted float16, float32"),
        ({"codes": np.ones((N, LATENT), complex)}, "codes is complex128, wanted float16"),
        ({"codes": np.ones((N, LATENT), np.longdouble)}, r"codes is float\d+, wanted float16"),
        ({"codes": np.full((N, LATENT), "a")}, "codes is str32, wanted float16"),
        ({"codes": np.full((N, LATENT), b"a")}, "codes is bytes8, wanted float16"),
        ({"codes": np.zeros((N, LATENT), "M8[s]")}, r"codes is datetime64\[s\], wanted float16"),
        ({"codes": np.zeros((N, LATENT), "f4, f4")}, "codes is void64, wanted float16"),
        ({"codes": np.full((N, LATENT), None)}, "codes holds objects, which are never loaded"),
        ({"factor_names": np.array(["a", None, "b"])}, r"names holds objects.*dtype=str"),
        ({"factor_names": np.array([b"a", b"b", b"c"])}, "factor_names is bytes8, wanted unicode"),
        # Values.
        ({"codes": NAN_CODES}, r"codes has 2 NaN or inf values.*first in row 4 \(counted from 0"),
        ({"logvars": NAN_CODES.astype(">f2")}, "logvars has 2 NaN or inf values.*in row 4"),
        ({"codes_test": np.full((7, LATENT), np.inf)}, "codes_test has 35 NaN or inf.*in row 0"),
        ({"kl": np.array([0, 1, np.nan, 0, 0])}, "kl has 1 NaN or inf values.*in row 2"),
        ({"kl": np.array([0, 1, 0, -0.5, 0])}, "kl has 1 negative values.*in row 3"),
        ({"factors": np.full((N, 3), -1, np.int8)}, "factors has 36 negative values, wanted 0"),
        ({"factors": np.full((N, 3), 2**31)}, "factors has 36 values above 2147483647"),
        ({"factors": np.full((N, 3), 2**64 - 1, np.uint64)}, "has 36 values above 2147483647"),
        ({"factor_sizes": np.array([4, 0, 6])}, r"factor_sizes is \[4 0 6\], but factors has .*3"),
        ({"factors_test": np.full((7, 3), 5)}, r"but factors_test has values up to \[5 5\] in col"),
        ({"factor_names": np.array(["a", "b\nc", "d"])}, "1 names with unprintable characters"),
    ],
)
def test_wrong_arrays(tmp_path, changes, pattern):
    np.savez(tmp_path / "a.npz", **good(**changes))
    refused(tmp_path / "a.npz", pattern)


@pytest.mark.parametrize(
    ("codes", "pattern"),
    [
        (b"", "codes cannot be read"),
        (b"hello world", "codes cannot be read .*magic string"),
        (npy(header((N, LATENT)), version=3), r"version \(3, 0\), wanted 1.0 or 2.0"),
        (npy(header((N, LATENT)), length=300), "codes cannot be read .*EOF"),
        (npy(b"{'descr': '<f4'}"), "codes cannot be read .*keys"),
        (npy(b"{[]: 1}"), "codes cannot be read"),
        (npy(b"(" * 5000), "codes cannot be read"),
        (npy(b"-" * 9000 + b"1"), "codes cannot be read"),
        (npy(b"1+" * 4000 + b"1"), "codes cannot be read"),
        (npy(header((N, LATENT), "'<q9'")), "codes cannot be read"),
        (npy(header((N, LATENT), "[('\\n', '<f4')]")), "codes is void32, wanted"),
        (npy(header((N, LATENT), "('<f4', (2,))")), "codes is void64, wanted"),
        (npy(header((N, LATENT), "'|O'"), pickle.dumps([1])), "codes holds objects, which"),
        (npy(header((-1, LATENT)), bytes(20)), "shape with negative or impossible numbers"),
        (npy(header((-N, -LATENT)), bytes(240)), "shape with negative or impossible numbers"),
        (npy(header((2**63, LATENT))), "shape with negative or impossible numbers"),
        (npy(header(f"(0x{'f' * 9000}, 5)")), "shape with negative or impossible numbers"),
        (npy(header((2**62, 4))), "0 bytes of data, but shape .* needs 73786976294838206464"),
        (npy(header((1,) * 3000)), "codes has shape"),
        (npy(header((N, LATENT)), bytes(239)), "239 bytes of data, but shape .* needs 240"),
        (npy(header((N, LATENT)), bytes(241)), "241 bytes of data, but shape .* needs 240"),
        (npy(header((5 * 10**8, LATENT)), bytes(240)), "240 bytes of data.* needs 10000000000"),
        (npy(b" " * 20_000), "codes has a header of 20000 bytes, wanted at most 10000"),
        (npy(b"{}", version=2, length=2**32 - 1), "a header of 4294967295 bytes, wanted at"),
    ],
)
def test_wrong_members_cost_no_memory(tmp_path, codes, pattern):
    write(tmp_path / "a.npz", codes=codes)
    assert peak(refused, tmp_path / "a.npz", pattern) < 5e6


def test_names_that_are_no_characters(tmp_path):
    names = npy(header("(3,)", "'<U1'"), np.array([65, 2**31, 66], "<u4").tobytes())
    refused(write(tmp_path / "a.npz", factor_names=names), "factor_names cannot be read")
    empty = npy(header("(3,)", "'<U0'"))
    refused(write(tmp_path / "a.npz", factor_names=empty), "factor_names is str.*, wanted unicode")


def test_numbers_that_signal_do_not_warn(tmp_path):
    codes = npy(header((N, LATENT), "'<f2'"), np.full(N * LATENT, 0x7D01, "<u2").tobytes())
    refused(write(tmp_path / "a.npz", codes=codes), "codes has 60 NaN or inf values")


@pytest.mark.parametrize(
    ("edit", "pattern"),
    [
        ({"flag_bits": 1}, "codes is encrypted, wanted an archive without a password"),
        ({"flag_bits": 64}, "codes cannot be read"),
        ({"compress_type": 99}, "codes has a foreign compression, wanted"),
        ({"CRC": 1}, "codes cannot be read .*CRC"),
        ({"compress_size": 10}, "codes cannot be read"),
        ({"file_size": 10**10}, "codes has 9999999872 bytes of data, but .* needs 240"),
        ({"header_offset": 5}, "the archive cannot be read|codes cannot be read"),
        ({"header_offset": 2**40}, "the archive cannot be read|codes cannot be read"),
    ],
)
def test_wrong_entries_cost_no_memory(tmp_path, edit, pattern):
    def change(info):
        for name, value in edit.items():
            setattr(info, name, value)

    write(tmp_path / "a.npz", edit=change)
    assert peak(refused, tmp_path / "a.npz", pattern) < 5e6


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("packed", [0, 10**10])
def test_ten_gigabytes_that_are_not_there(tmp_path, monkeypatch, method, packed):
    """Header and directory agree with each other, but not with the file."""
    monkeypatch.setattr(codes_file, "LIMIT", 10**12)
    path, rows = tmp_path / "a.npz", 10**10 // (4 * LATENT)
    with zipfile.ZipFile(path, "w", method) as archive:
        for key, columns, descr in (("codes", LATENT, "'<f4'"), ("factors", FACTORS, "'|i1'")):
            archive.writestr(f"{key}.npy", npy(header((rows, columns), descr)))
            info = archive.getinfo(f"{key}.npy")
            info.file_size += rows * columns * np.dtype(descr.strip("'")).itemsize
            info.compress_size += packed
    assert peak(refused, path, "codes cannot be read") < 5e6


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(codes_file, "LIMIT", 5 * 10**7)
    path, rows = tmp_path / "a.npz", 10**8 // (4 * LATENT)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("codes.npy", "w") as member:
            member.write(npy(header((rows, LATENT))))
            for _ in range(100):
                member.write(bytes(10**6))
        with archive.open("factors.npy", "w") as member:
            member.write(npy(header((rows, 1), "'|u1'")))
            member.write(bytes(rows))
    assert path.stat().st_size < 1e6
    wanted = r"arrays take 0.1\d* GB, wanted at most 0.05 GB .*fewer rows"
    assert peak(refused, path, wanted) < 5e6


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(tmp_path, method):
    refused(write(tmp_path / "a.npz", method), "codes has a foreign compression")


def test_a_header_that_is_really_long_is_not_unpacked(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("codes.npy", "w") as member:
            member.write(npy(b"", version=2, length=5 * 10**7))
            for _ in range(50):
                member.write(b" " * 10**6)
        archive.writestr("factors.npy", array_bytes(good()["factors"]))
    assert peak(refused, path, "codes has a header of 50000000 bytes") < 5e6


def test_the_limit_counts_what_is_returned(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", codes=np.zeros((N, 5), "f2"), factors=np.zeros((N, 3), "u1"))
    monkeypatch.setattr(codes_file, "LIMIT", N * 8 * 4)
    read_codes(tmp_path / "a.npz")
    monkeypatch.setattr(codes_file, "LIMIT", N * 8 * 4 - 1)
    refused(tmp_path / "a.npz", "fewer rows")


def test_what_is_no_archive(tmp_path):
    refused(tmp_path / "none.npz", "no such file, wanted an .npz")
    refused(tmp_path, "is a directory")
    os.mkfifo(tmp_path / "pipe.npz")
    refused(tmp_path / "pipe.npz", "a device")
    np.save(tmp_path / "a.npy", np.zeros(3))
    refused(tmp_path / "a.npy", r"is a single array \(.npy\), wanted what np.savez")
    for name, content in {"empty": b"", "text": b"1, 2\n", "pickle": pickle.dumps([1])}.items():
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, "is no .npz file, wanted what np.savez")
    whole = write(tmp_path / "a.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-30])
    refused(tmp_path / "cut.npz", r"archive cannot be read .*\). Is the file whole\?")
    with zipfile.ZipFile(tmp_path / "b.npz", "w"):
        pass
    refused(tmp_path / "b.npz", "holds no codes, wanted codes and factors. Its keys: none")
    with pytest.raises(UserError, match=r"a\\nb.npz: no such file") as caught:
        read_codes(tmp_path / "a\nb.npz")
    assert "\n" not in str(caught.value)


def test_keys_that_are_there_twice(tmp_path):
    path = write(tmp_path / "a.npz")
    with (
        zipfile.ZipFile(path, "a") as archive,
        pytest.warns(UserWarning, match="Duplicate"),
    ):
        archive.writestr("codes.npy", b"")
    refused(path, "holds codes twice")
    path = write(tmp_path / "a.npz")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("codes", b"")
    refused(path, "holds codes twice")


def outcome(path):
    """Either a result of the right shapes or one line."""
    shapes = {key: value.shape for key, value in good().items()}
    try:
        points = read(path)
    except UserError as error:
        message = str(error)
    else:
        message = ""
        assert {"codes", "factors"} <= points.keys()
        assert all(value.shape == shapes[key] for key, value in points.items())
    assert message.isprintable()
    return not message


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_anywhere_in_a_file(tmp_path, save):
    path, rng = tmp_path / "a.npz", np.random.default_rng(0)
    save(path, **good())
    whole = path.read_bytes()
    directory = whole.index(b"PK\x01\x02")
    for trial in range(200):
        data = bytearray(whole)
        place = int(rng.integers(directory if trial % 2 else 0, len(data)))
        data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data if trial % 4 else data[:place])
        outcome(path)
    path.write_bytes(whole)
    assert outcome(path)


def test_damage_in_a_header_with_a_fitting_checksum(tmp_path):
    rng = np.random.default_rng(0)
    whole = array_bytes(good()["codes"])
    for _ in range(200):
        data = bytearray(whole)
        data[rng.integers(80)] = rng.integers(256)
        outcome(write(tmp_path / "a.npz", codes=bytes(data)))
