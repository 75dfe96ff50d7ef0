import torch
from torch import nn

from vdsm_bench.models.vdsm.parts import StackedLSTM


def test_equals_torchs_stack_of_layers():
    torch.manual_seed(0)
    mine = StackedLSTM(5, 4, 3, 0.0)
    torch.manual_seed(0)
    torchs = nn.LSTM(5, 4, 3, batch_first=True, bidirectional=True)
    for index, layer in enumerate(mine.layers):
        for name, value in layer.named_parameters():
            assert torch.equal(value, torchs.get_parameter(name.replace("_l0", f"_l{index}")))
    sequence = torch.rand(2, 7, 5)
    _, (hidden, _) = torchs(sequence)
    torch.testing.assert_close(mine(sequence), hidden, rtol=1e-6, atol=1e-7)


def test_dropout_lies_between_the_layers_while_training_and_follows_the_seed():
    lstm = StackedLSTM(5, 4, 2, 0.5)
    sequence = torch.rand(2, 7, 5)

    def draw(seed):
        torch.manual_seed(seed)
        return lstm(sequence)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1)[2:], draw(2)[2:])
    assert torch.equal(draw(1)[:2], draw(2)[:2])  # nothing before the first layer
    lstm.eval()
    assert torch.equal(draw(1), draw(2))
