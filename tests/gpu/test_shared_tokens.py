"""What GPUs of one call exchange, on as many as there are; one stands for two by threads and streams of its own."""

import threading

import pytest
import torch

from liveditor.liveditor_core.attention.token_layout import TokenLayout
from liveditor.liveditor_core.model.shared_tokens import Meeting, Seat

pytestmark = pytest.mark.gpu
LAYOUT, HEADS, HEAD_DIM = TokenLayout(5000, 4321), 6, 128


def devices(parties):
    return [torch.device("cuda", rank % torch.cuda.device_count()) for rank in range(parties)]


def busy(device):
    """Queue work for some milliseconds, so that what follows is not there yet when others ask for it."""
    x = torch.randn(4096, 4096, device=device)
    for _ in range(8):
        x = x @ x / 64
    return x


@pytest.mark.parametrize("prompts", [1, 2])
@pytest.mark.parametrize("parties", [2, 3])
def test_nothing_is_read_before_it_is_there(parties, prompts):
    whole = torch.randn(prompts, LAYOUT.tokens, HEADS, HEAD_DIM).bfloat16()
    meeting, failures = Meeting(parties), []

    def one(rank):
        device = devices(parties)[rank]
        try:
            with torch.inference_mode(), torch.cuda.device(device):
                part = Seat(rank, parties, meeting).part(LAYOUT, HEADS, device)
                mine = part.of_both(whole).to(device)
                heads = slice(HEADS * rank // parties, HEADS * (rank + 1) // parties)
                for turn in range(20):
                    rows = mine + turn + 0 * busy(device).mean().nan_to_num().bfloat16()
                    got = part.own_heads_of_all(rows)
                    per_token = part.all_tokens(rows[:, :, 0, 0])
                    del rows  # its memory may be written to again at once, by this GPU
                    scratch = torch.full_like(mine, 99)
                    part.arrive()
                    needed = LAYOUT.target if turn % 2 else LAYOUT.tokens
                    answered, numbers = part.answered(got[:, :needed]), list(range(got.shape[2]))
                    answers = torch.full_like(got, 99)
                    for some in (numbers[::2], numbers[1::2]):
                        late = (0 * busy(device).mean().nan_to_num()).bfloat16()
                        for head in some:
                            answers[:, :, head] = got[:, :, head] + late
                        if answered is not None:
                            answered(answers.transpose(1, 2), some)
                    back = part.own_tokens_of_all(answers[:, :needed])
                    del answers  # as that of rows
                    scratch_of_answers = torch.full_like(got, 99)
                    wanted = whole.to(device) + turn
                    assert torch.equal(got, wanted[:, :, heads])
                    assert torch.equal(per_token, wanted[:, :, 0, 0])
                    assert torch.equal(back, part.of_both(wanted[:, :needed]))
                    del scratch, scratch_of_answers
        except BaseException as error:
            failures.append(error)
            meeting.give_up()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in sorted(failures, key=lambda each: isinstance(each, threading.BrokenBarrierError)):
        raise error
