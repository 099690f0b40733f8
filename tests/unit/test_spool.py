"""Frames on disk: what goes in comes out, what does not fit is refused with a remedy."""

import errno
import threading
from collections import namedtuple

import pytest
import torch

from liveditor.liveditor_core.footage import spool
from liveditor.liveditor_core.footage.errors import FootageError
from liveditor.liveditor_core.footage.spool import Spool

STEP = 1 / 65535


def frames(count, height=6, width=10, seed=0):
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


def near(frame, expected, steps=0.5):
    torch.testing.assert_close(frame, expected, atol=(steps + 0.01) * STEP, rtol=0)


def test_frames_come_back_in_any_order(tmp_path):
    kept, clip = Spool(tmp_path / "made" / "here", 6, 10), frames(5)
    kept.append(clip[:1])
    kept.append(clip[1:].movedim(-1, 0).contiguous().movedim(0, -1))  # as a decoder gives them
    assert len(kept) == 5
    for i in (4, 0, 0, 3, 1, 2):
        assert kept[i].shape == (6, 10, 3) and kept[i].dtype == torch.float32
        near(kept[i], clip[i])
    for index in (-1, 5):
        with pytest.raises(IndexError):
            kept[index]


def test_values_outside_and_half_precision(tmp_path):
    kept = Spool(tmp_path, 1, 2)
    kept.append(torch.tensor([-0.5, float("nan"), 1.5, float("inf"), 0.0, 1.0]).view(1, 1, 2, 3))
    kept.append(torch.full((1, 1, 2, 3), 0.25, dtype=torch.float16))
    assert kept[0].flatten().tolist() == [0, 0, 1, 1, 0, 1]
    near(kept[1], torch.full((1, 2, 3), 0.25))


def test_tiles_whose_shares_sum_to_one(tmp_path):
    kept, clip = Spool(tmp_path, 6, 10), frames(4)
    kept.append(clip[:1])
    kept.set_length(4)
    share = torch.linspace(0, 1, 4).view(1, 1, 4, 1)
    kept.add(1, 0, 0, clip[1:, :, :3])
    kept.add(1, 0, 3, clip[1:, :, 3:7] * (1 - share))
    kept.add(1, 0, 3, clip[1:, :4, 3:7] * share)
    kept.add(1, 4, 3, clip[1:, 4:, 3:7] * share)
    kept.add(1, 0, 7, clip[1:, :, 7:])
    near(kept[0], clip[0])
    for i in (1, 2, 3):
        near(kept[i], clip[i], steps=1)


def test_what_was_cut_off_is_black_again(tmp_path):
    kept, clip = Spool(tmp_path, 6, 10), frames(3)
    kept.append(clip)
    kept.set_length(1)
    assert len(kept) == 1
    kept.set_length(3)
    assert len(kept) == 3 and not kept[1].any() and not kept[2].any()
    near(kept[0], clip[0])
    kept.append(clip[1:])
    near(kept[3], clip[1])


def test_nothing_is_left_on_disk(tmp_path):
    kept = Spool(tmp_path, 6, 10)
    kept.append(frames(2))
    del kept
    assert list(tmp_path.iterdir()) == []


def test_read_while_it_is_written(tmp_path):
    kept, clip, wrong = Spool(tmp_path, 32, 48), frames(8, 32, 48), []
    kept.append(clip)

    def read():
        for i in range(300):
            if (kept[i % 8] - clip[i % 8]).abs().max() > STEP:
                wrong.append(i)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        kept.append(clip)
    for thread in threads:
        thread.join()
    assert not wrong and len(kept) == 8 + 320


def test_no_room_for_what_is_expected(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(spool.shutil, "disk_usage", lambda folder: usage(10**12, 0, 5 * 10**9))
    Spool(tmp_path, 1000, 1000, expected=800)
    with pytest.raises(FootageError, match=r"^needs 6 GB in .* for 1000 frames .*, got 5 GB free\. Start ComfyUI"):
        Spool(tmp_path, 1000, 1000, expected=1000)
    kept = Spool(tmp_path, 1000, 1000)
    with pytest.raises(FootageError, match="--temp-directory"):
        kept.set_length(1000)


def test_the_disk_is_full_halfway(tmp_path, monkeypatch):
    kept = Spool(tmp_path, 6, 10)
    kept.append(frames(2))

    class Full:
        def __getattr__(self, name):
            return getattr(file, name)

        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    file, kept._file = kept._file, Full()
    with pytest.raises(FootageError, match=r"for 3 frames .* edit less at a time"):
        kept.append(frames(1))
    kept._file = file
    near(kept[1], frames(2)[1])
