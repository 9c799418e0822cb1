from __future__ import annotations

from datetime import date

import pytest

from cloudtrain.catalog.gpu import packaged

GPUS_OF_EVERY_SIZE = {"T4": 16384, "A10G": 22888, "L4": 22888, "L40S": 45776, "V100": 32768, "H100": 81920}


def test_one_by_name() -> None:
    (found,) = packaged(("g4dn.12xlarge",))
    assert (found.gpu_name, found.gpu_count, found.gpu_memory_mib) == ("T4", 4, 65536)
    assert (found.vcpus, found.memory_mib, found.price_hour) == (48, 192 * 1024, 3.912)


def test_the_size_in_a_name_says_nothing_about_gpus() -> None:
    twelve, sixteen = packaged(("g4dn.12xlarge",)) + packaged(("g4dn.16xlarge",))
    assert (twelve.gpu_count, sixteen.gpu_count) == (4, 1)


def test_unknown_types_have_no_entry() -> None:
    assert packaged(("m5.large",)) == ()
    assert packaged(()) == ()


def test_all_are_distinct_and_priced_on_a_day() -> None:
    every = packaged()
    assert len({entry.type for entry in every}) == len(every) > 30
    for entry in every:
        assert entry.price_hour > 0
        assert entry.gpu_count in (1, 4, 8)
        assert date.fromisoformat(entry.priced) <= date(2027, 12, 31)


@pytest.mark.parametrize(("name", "memory"), GPUS_OF_EVERY_SIZE.items())
def test_memory_is_of_all_gpus_together(name: str, memory: int) -> None:
    entries = [entry for entry in packaged() if entry.gpu_name == name]
    assert entries
    assert all(entry.gpu_memory_mib == memory * entry.gpu_count for entry in entries)
