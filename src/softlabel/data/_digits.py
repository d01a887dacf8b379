"""The 8x8 digits that ship with scikit-learn: a real data set that needs no download."""

import torch

from softlabel.core import Split
from softlabel.data._raw import Raw
from softlabel.data._splits import carve

CLASS_NAMES = tuple(str(digit) for digit in range(10))
TEST_FRACTION = 0.2


def read_digits() -> Raw:
    """1,797 grey images of 8x8 pixels; a fifth of each class, always the same one, is the test split."""
    from sklearn.datasets import load_digits  # scikit-learn takes a second to import

    bunch = load_digits()
    # Pixels are whole numbers from 0 to 16: counts of ink in 4x4 blocks.
    pixels = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8)
    whole = Split(pixels[:, None].contiguous(), torch.from_numpy(bunch.target).long())
    train, test = carve(whole, TEST_FRACTION, CLASS_NAMES, seed=0, purpose="digits-test")
    return Raw(
        class_names=CLASS_NAMES,
        train=train,
        test=test,
        origin="UCI optical digits, scikit-learn's copy, pixels scaled from 0..16 to 0..255; it has no test "
        "split of its own: a fixed fifth of each class was set aside",
    )
