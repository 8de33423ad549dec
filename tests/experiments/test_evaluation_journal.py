"""The journal: what is there is not asked for again, however it was cut off; what is another's is not seen."""

import numpy as np
import pytest

from experiments.evaluation.journal import Journal


def write(journal, *numbers):
    numbers = np.array(numbers)
    journal.write(numbers, {"pool": np.stack([numbers, numbers**2], axis=1).astype(np.float32)})


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path, "samples", {"seed": 0})


def test_what_is_missing_is_asked_for_in_order(journal):
    np.testing.assert_array_equal(journal.missing(5), range(5))
    write(journal, 0, 1, 2)
    write(journal, 6, 4)  # as after a start with another number of devices
    np.testing.assert_array_equal(journal.missing(8), [3, 5, 7])
    np.testing.assert_array_equal(journal.missing(3), [])


def test_results_come_back_in_the_samples_order(journal):
    write(journal, 3, 1)
    write(journal, 0, 2)
    write(journal, 4, 5)
    np.testing.assert_array_equal(journal.column("pool", 5), [[i, i * i] for i in range(5)])
    assert journal.column("pool", 5).dtype == np.float32


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", "half"], ids=str)
def test_a_damaged_file_is_drawn_again(journal, damage):
    write(journal, 0, 1)
    write(journal, 2, 3)
    path = sorted(journal.folder.glob("*.npz"))[1]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if damage == "half" else damage)
    np.testing.assert_array_equal(journal.missing(4), [2, 3])
    write(journal, 3)  # as after a start with another number of devices
    write(journal, 2)
    np.testing.assert_array_equal(journal.column("pool", 4)[:, 0], range(4))


def test_a_flipped_bit_is_seen(journal):
    write(journal, *range(100))
    (path,) = journal.folder.glob("*.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    assert len(journal.missing(100)) == 100


def test_an_interrupted_write_leaves_nothing_behind(journal, monkeypatch):
    write(journal, 0, 1)

    def full(*arguments, **entries):
        arguments[0].write(b"the first bytes")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        write(journal, 2, 3)
    assert len(list(journal.folder.iterdir())) == 2  # one block, and whose it is
    np.testing.assert_array_equal(journal.missing(4), [2, 3])


def test_every_entry_of_the_identity_counts(tmp_path):
    one = Journal(tmp_path, "samples", {"seed": 0, "step": 40, "rho": float("inf")})
    write(one, 0)
    assert len(Journal(tmp_path, "samples", {"rho": float("inf"), "step": 40, "seed": 0}).missing(1)) == 0
    for other in ({"seed": 1, "step": 40, "rho": float("inf")}, {"seed": 0, "step": 32, "rho": 7.0}):
        assert len(Journal(tmp_path, "samples", other).missing(1)) == 1
    assert len(Journal(tmp_path, "likelihood", {"seed": 0, "step": 40, "rho": float("inf")}).missing(1)) == 1


def test_removed(journal, tmp_path):
    journal.remove()  # nothing there yet
    write(journal, 0)
    journal.remove()
    assert not list(tmp_path.iterdir())


def test_blocks_of_one_first_number_are_two_files(journal):
    """The names sort by the first number; what is no block of results is not read."""
    write(journal, 7, 8, 9)
    write(journal, 7)
    write(journal, 123_456_789)
    (journal.folder / "other.npz").write_bytes(b"not a block")
    names = [path.name for path in journal._files()]
    assert names == ["000000007_1.npz", "000000007_3.npz", "123456789_1.npz"]
    np.testing.assert_array_equal(journal.missing(10), range(7))
    assert [list(numbers) for numbers, _ in journal.blocks()] == [[7], [7, 8, 9], [123_456_789]]
    assert (journal.folder / "other.npz").exists()
