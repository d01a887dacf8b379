"""Losses of a student against a teacher and a hard label.

Every loss is a pure function `loss(*, student, teacher, target) -> [B]`: student and teacher are *logits*
[B, C] in the same class order, target is the class index [B]; the result is per example and the caller
takes the mean. The teacher side never receives a gradient.

The table of losses is that of the released GIFT code (`validate/losses_benchmark.py`), restated from the
formulas; where papers and libraries differ, the docstring says what we do.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

CODE_GAMMA = 0.1 / 1.1
"""The convex weight that equals the released GIFT code's additive coefficient 0.1 (see `gift`)."""

_EPS = 1e-8


def ce(*, student: Tensor, teacher: Tensor | None, target: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy against the class index, smoothed: (1 - smoothing) onehot + smoothing / C. No teacher is asked."""
    return F.cross_entropy(student, target, reduction="none", label_smoothing=smoothing)


def mse(*, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """Squared distance of logits, averaged over the classes."""
    return (student - teacher.detach()).square().mean(dim=-1)


def soft_ce(*, student: Tensor, teacher: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
    """Cross-entropy against the teacher's softmax at `temperature`; the student's softmax is taken at 1.

    No-distillation's code multiplies the logits instead: its `--temp` is 1 / temperature.
    """
    soft = F.softmax(teacher.detach() / temperature, dim=-1)
    return -(soft * F.log_softmax(student, dim=-1)).sum(dim=-1)


def soft_ce_mass(*, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy against probabilities as they are, whatever they sum to; `teacher` is their logarithm.

    Labels whose sum is m < 1 pull m times as hard as their renormalised form: CE = m x CE(renormalised). That is how
    the ablations of "A label is worth a thousand images" train on the largest entries of a label.
    """
    return -(teacher.detach().exp() * F.log_softmax(student, dim=-1)).sum(dim=-1)


def kl(*, student: Tensor, teacher: Tensor, target: Tensor, temperature: float = 20.0, scale: bool = False) -> Tensor:
    """KL(teacher || student), both softened at `temperature`; summed over the classes.

    With `scale` the result is multiplied by temperature squared (Hinton et al. 2015, section 2), which keeps the
    gradient's size; the SRe2L, RDED and GIFT codes all leave it out, so `scale` is False by default. For a large
    temperature the unscaled gradient is about (z - t - mean(z - t)) / (C T^2).
    """
    log_student = F.log_softmax(student / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher.detach() / temperature, dim=-1)
    loss = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=-1)
    return loss * temperature**2 if scale else loss


def kl_apart(student: Tensor, teacher: Tensor, *, student_temperature: float, teacher_temperature: float) -> Tensor:
    """KL(teacher || student), each softened at its own temperature, without a factor; [B]. No loss of the table.

    LPQLD (2604.18135) moves both over a training (`softlabel.training.Tempering`).
    """
    log_student = F.log_softmax(student / student_temperature, dim=-1)
    log_teacher = F.log_softmax(teacher.detach() / teacher_temperature, dim=-1)
    return F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=-1)


def kl_scaled(*, student: Tensor, teacher: Tensor, target: Tensor, temperature: float = 20.0) -> Tensor:
    """`kl` with the factor temperature squared: an arm of its own in every comparison of optimizers."""
    return kl(student=student, teacher=teacher, target=target, temperature=temperature, scale=True)


def mse_ce(*, student: Tensor, teacher: Tensor, target: Tensor, weight: float = 0.1) -> Tensor:
    """`mse` + weight x `ce` (G-VBSM's loss, with the weight 0.1 of the GIFT code)."""
    return mse(student=student, teacher=teacher, target=target) + weight * ce(
        student=student, teacher=None, target=target
    )


def soft_ce_ce(*, student: Tensor, teacher: Tensor, target: Tensor, weight: float = 0.1) -> Tensor:
    """`soft_ce` + weight x `ce`."""
    return soft_ce(student=student, teacher=teacher, target=target) + weight * ce(
        student=student, teacher=None, target=target
    )


def cosine(*, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """1 - cos(student logits, teacher logits). Not shift invariant: the teacher's mean logit counts."""
    return 1 - F.cosine_similarity(student, teacher.detach(), dim=-1, eps=_EPS)


def smoothed_one_hot(target: Tensor, classes: int, alpha: float) -> Tensor:
    """Label smoothing as in GIFT: 1 - alpha on the class, alpha / (C - 1) on each other one [B, C], float32.

    torch and optax instead spread alpha over all C classes, the true one included.
    """
    off = alpha / (classes - 1) if classes > 1 else 0.0
    smooth = torch.full((*target.shape, classes), off, device=target.device, dtype=torch.float32)
    return smooth.scatter_(-1, target.unsqueeze(-1), 1.0 - alpha)


def refine(*, teacher: Tensor, target: Tensor, gamma: float = CODE_GAMMA, alpha: float = 0.1) -> Tensor:
    """GIFT's label refinement: gamma n(LS_alpha(y)) + (1 - gamma) n(teacher logits), n = unit length [B, C].

    This is the paper's convex mix. The released code adds instead, n(t) + w n(LS_alpha(y)) with w = 0.1; a cosine
    does not see the length of its target, so both are one family with gamma = w / (1 + w). The paper's gamma 0.1
    is therefore not the code's (1/11); the default here follows the code, which made the published numbers.
    """
    soft = F.normalize(teacher.detach(), dim=-1, eps=_EPS)
    hard = F.normalize(smoothed_one_hot(target, teacher.shape[-1], alpha).to(soft.dtype), dim=-1, eps=_EPS)
    return gamma * hard + (1 - gamma) * soft


def gift(*, student: Tensor, teacher: Tensor, target: Tensor, gamma: float = CODE_GAMMA, alpha: float = 0.1) -> Tensor:
    """1 - cos(student logits, refined label): GIFT (Shang et al., ICLR 2025), the convex form.

    Works on *logits*: a label store that kept probabilities or top-k entries cannot feed it. The student's logit
    length is free, so its probabilities are not calibrated. See `refine` for gamma and alpha.
    """
    refined = refine(teacher=teacher, target=target, gamma=gamma, alpha=alpha)
    return 1 - F.cosine_similarity(student, refined, dim=-1, eps=_EPS)


def gift_softmax(
    *,
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    gamma: float = CODE_GAMMA,
    alpha: float = 0.1,
    temperature: float = 1.0,
) -> Tensor:
    """GIFT with the teacher's *probabilities* at a temperature where `gift` has its logits: another method.

    GIFT's text calls what it refines "the soft label", its released code takes logits. This is the other reading, to be
    measured beside it; the student's output stays logits.
    """
    probabilities = F.softmax(teacher.detach() / temperature, dim=-1)
    return gift(student=student, teacher=probabilities, target=target, gamma=gamma, alpha=alpha)


def gift_additive(
    *, student: Tensor, teacher: Tensor, target: Tensor, weight: float = 0.1, alpha: float = 0.1
) -> Tensor:
    """GIFT as its released code writes it: the target n(t) + weight n(LS_alpha(y)).

    Equal to `gift` with gamma = weight / (1 + weight).
    """
    return gift(student=student, teacher=teacher, target=target, gamma=weight / (1 + weight), alpha=alpha)
