"""Zero-cost scorers against closed forms on networks small enough to work out by hand."""

from __future__ import annotations

import copy
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.errors import UserError
from nas.models.backbone import BackboneModule
from nas.models.nasbench import CellNetwork
from nas.scorers import SCORERS
from nas.scorers.activation import jacov, meco, naswot, swap, zen
from nas.scorers.gradient import (
    aznas,
    first_order,
    grasp,
    largest_singular_value,
    spectrum_entropy,
    synflow,
    zico,
    zico_bc,
)
from nas.scorers.probe import task_loss
from nas.spec import Backbone, Residual, Stem

SHARED = tuple(SCORERS[name] for name in ("snip", "grad_norm", "fisher"))
SCALARS = (*SHARED, grasp, synflow, zico, zico_bc, naswot, swap, jacov, zen, meco)


def linear(inputs: int = 6, classes: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, classes, bias=False))


def pictures(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 6, 1, 1, generator=torch.Generator().manual_seed(seed))


def labels(count: int, classes: int, seed: int) -> Tensor:
    return torch.randint(classes, (count,), generator=torch.Generator().manual_seed(seed + 1))


def softmax_error(model: nn.Module, images: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Images (B, 6) and the derivative of the mean cross-entropy by the logits, (p - y) / B."""
    x = images.flatten(1)
    answer = x @ model[1].weight.detach().T  # type: ignore[index, union-attr]
    target = nn.functional.one_hot(labels(len(x), answer.shape[1], seed), answer.shape[1])
    return x, (answer.softmax(1) - target) / len(x)


def test_first_order_scores_of_softmax_regression() -> None:
    model, images = linear(), pictures(5)
    weight = model[1].weight.detach().clone()  # type: ignore[index, union-attr]
    x, error = softmax_error(model, images, seed=4)
    gradient = error.T @ x
    scores = first_order(model, images, seed=4)
    assert scores["snip"] == pytest.approx(float((weight * gradient).abs().sum()), rel=1e-5)
    assert scores["grad_norm"] == pytest.approx(float(gradient.norm()), rel=1e-5)
    carried = ((x @ weight.T) * error).pow(2).mean(0).sum() / 2
    assert scores["fisher"] == pytest.approx(float(carried), rel=1e-5)


def test_grasp_equals_the_explicit_hessian() -> None:
    model, images = linear(), pictures(4)
    layer = model[1]  # type: ignore[index]
    weight = layer.weight.detach().clone()

    def loss(flat: Tensor) -> Tensor:
        answer = images.flatten(1) @ flat.view_as(weight).T
        return nn.functional.cross_entropy(answer, labels(4, 3, 2))

    flat = weight.flatten()
    gradient = torch.autograd.functional.jacobian(loss, flat)
    hessian = torch.autograd.functional.hessian(loss, flat)
    assert grasp(model, images, seed=2) == pytest.approx(-float(flat @ hessian @ gradient), rel=1e-4)


def test_synflow_of_a_linear_chain_is_layers_times_flow() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    first, second = (model[i].weight.detach().double().abs().flatten(1) for i in (0, 3))
    flow = float((second @ first @ torch.ones(3, dtype=torch.float64)).sum()) / math.sqrt(1 + 1e-5)
    assert synflow(model, torch.zeros(1, 3, 5, 5)) == pytest.approx(math.log(2 * flow), abs=1e-9)


def test_synflow_survives_a_flow_beyond_float64() -> None:
    model = nn.Sequential(*(nn.Conv2d(64, 64, 1, bias=False) for _ in range(200)))
    for layer in model:
        nn.init.ones_(layer.weight)  # type: ignore[arg-type]
    expected = math.log(200) + 201 * math.log(64)
    assert synflow(model, torch.zeros(1, 64, 1, 1)) == pytest.approx(expected, rel=1e-12)


def test_zico_by_hand() -> None:
    model, images = linear(inputs=6, classes=2), pictures(2)
    per_image = []
    for number in range(2):
        x, error = softmax_error(model, images[number : number + 1], seed=2 * number)
        per_image.append((error.T @ x).detach().abs().numpy())
    stack = np.stack(per_image)
    expected = math.log((stack.mean(0) / stack.std(0)).sum())
    assert zico(model, images, seed=0) == pytest.approx(expected, rel=1e-4)


def test_zico_varies_images_and_labels_but_not_the_head() -> None:
    """On maps without logits: against the two gradients under one fixed head, in float64."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
    images = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    found = zico(copy.deepcopy(model), images, seed=3)
    double = copy.deepcopy(model).double().train()
    weights = [double[0].weight, double[3].weight]
    expected = 0.0
    parts = []
    for draw, part in ((0, images[:2]), (2, images[2:])):
        parts.append(torch.autograd.grad(task_loss(double, part.double(), 3, draw), weights))
    for first, second in zip(*parts, strict=True):
        a, b = first.abs(), second.abs()
        expected += math.log(float(((a + b) / (a - b).abs()).sum()))
    assert found == pytest.approx(expected, abs=0.02)


def test_zico_bc_pays_for_large_maps_and_thin_layers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 9, 3, 2), nn.Flatten(), nn.Linear(9 * 4 * 4, 5))
    images = torch.randn(4, 3, 12, 12)
    # Maps of 10 x 10 with 4 channels and of 4 x 4 with 9, and five logits.
    excess = math.log(100 / 2) + math.log(16 / 3) + math.log(1 / 5**0.5)
    plain = zico(copy.deepcopy(model), images)
    assert zico_bc(copy.deepcopy(model), images) == pytest.approx(plain - excess)
    assert zico_bc(copy.deepcopy(model), images, beta=2.0) == pytest.approx(plain - 2 * excess)
    assert zico_bc(copy.deepcopy(model), images, beta=0.0) == plain


def test_naswot_counts_shared_states() -> None:
    images = torch.tensor([[1.0, 1.0, -1.0, -1.0], [1.0, -1.0, -1.0, -1.0]]).view(2, 4, 1, 1)
    assert naswot(nn.Sequential(nn.ReLU(), nn.Flatten()), images) == pytest.approx(math.log(4 * 4 - 3 * 3))
    assert naswot(nn.Sequential(nn.ReLU(), nn.Flatten()), images[[0, 0]]) == -math.inf


def test_swap_counts_different_patterns_over_all_layers() -> None:
    images = torch.tensor([[1.0, 1.0, -1.0, -1.0], [1.0, -1.0, -1.0, -1.0]]).view(2, 4, 1, 1)
    one = nn.Sequential(nn.ReLU(), nn.Flatten())
    assert swap(one, images) == 3  # on-on, on-off, off-off twice
    assert swap(one, images[[0, 0]]) == 2

    class Negated(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return -x

    assert swap(nn.Sequential(nn.SiLU(), Negated(), nn.SiLU(), nn.Flatten()), images) == 4  # off-on is new
    many = torch.randn(64, 300, 1, 1, generator=torch.Generator().manual_seed(0))
    assert swap(one, many) == 300
    with pytest.raises(UserError, match="at most 64 images"):
        swap(one, torch.randn(65, 3, 1, 1))
    with pytest.raises(UserError, match="at least 2, got 1"):
        swap(one, images[:1])


def test_jacov_of_a_linear_network_is_that_of_equal_jacobians() -> None:
    eigenvalues = np.array([1e-5, 1e-5, 1e-5, 4 + 1e-5])
    expected = -float((np.log(eigenvalues) + 1 / eigenvalues).sum())
    assert jacov(linear(), pictures(4)) == pytest.approx(expected, rel=1e-3)


def test_zen_is_logarithmic_in_the_step_of_a_linear_network() -> None:
    model, images = nn.Sequential(nn.Conv2d(3, 4, 3)), torch.zeros(2, 3, 8, 8)
    assert zen(model, images, 0, 0.02) - zen(model, images, 0, 0.01) == pytest.approx(math.log(2), abs=1e-4)


def test_meco_of_two_channels_is_one_minus_their_correlation() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -2.0]).view(2, 1, 1, 1))
    assert meco(model, torch.zeros(1, 1, 8, 8)) == pytest.approx(0, abs=1e-6)
    wide = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False))
    with torch.no_grad():
        wide[0].weight.copy_(torch.eye(2).view(2, 2, 1, 1))
    image = torch.randn((2, 2, 8, 8), generator=torch.Generator().manual_seed(3))
    correlation = float(torch.corrcoef(image[0].flatten(1))[0, 1])
    assert meco(wide, torch.zeros(1, 2, 8, 8), seed=3) == pytest.approx(1 - abs(correlation), abs=1e-5)


def test_spectrum_entropy_of_isotropic_and_of_rank_one_maps() -> None:
    generator = torch.Generator().manual_seed(0)
    isotropic = torch.randn(64, 8, 16, 16, generator=generator)
    assert spectrum_entropy(isotropic) == pytest.approx(math.log(8), abs=1e-3)
    assert spectrum_entropy(isotropic[:, :1].repeat(1, 8, 1, 1)) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_singular_value_of_a_convolution(stride: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 5, stride, stride, bias=False)
    source = torch.randn(64, 6, 16, 16, requires_grad=True)
    estimate = largest_singular_value(source, layer(source), torch.Generator().manual_seed(0))
    assert estimate == pytest.approx(float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)), rel=0.03)


def networks() -> list[nn.Module]:
    torch.manual_seed(0)
    blocks = tuple(Residual("k1kx", width, 8, 1, 2) for width in (8, 16, 16, 24))
    spec = Backbone(Stem("conv", 8), blocks, (1, 2, 3))
    mixed = ("nor_conv_3x3", "skip_connect", "none", "avg_pool_3x3", "nor_conv_1x1", "skip_connect")
    return [CellNetwork(mixed, width=8, depth=1), BackboneModule(spec)]


@pytest.mark.parametrize("score", SCALARS, ids=lambda score: getattr(score, "name", "") or score.__name__)
def test_scores_of_classifier_and_backbone_are_finite_and_repeat(score) -> None:  # type: ignore[no-untyped-def]
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    first, second = ([score(model, images=images, seed=5) for model in networks()] for _ in range(2))
    assert all(map(math.isfinite, first)) and first == pytest.approx(second, rel=1e-4)


def test_aznas_of_classifier_and_backbone() -> None:
    for model in networks():
        measures = aznas(model, torch.zeros(8, 3, 32, 32), 0)
        assert set(measures) == {"az_expressivity", "az_progressivity", "az_trainability"}
        assert measures["az_expressivity"] > 0 > measures["az_trainability"]


def test_a_dead_cell_gets_the_worst_score_instead_of_an_error() -> None:
    images = torch.randn(4, 3, 32, 32)
    for score in (synflow, naswot, jacov, zen):
        assert score(CellNetwork(("none",) * 6, width=4, depth=1), images, 0) == -math.inf
    assert first_order(CellNetwork(("none",) * 6, width=4, depth=1), images)["snip"] == 0
    measures = aznas(CellNetwork(("none",) * 6, width=4, depth=2), images)
    assert measures["az_trainability"] == -math.inf


def test_backbone_loss_is_a_classification_of_pooled_levels() -> None:
    loss = task_loss(networks()[1], torch.randn(4, 3, 32, 32), 0)
    assert loss.dim() == 0 and 0.5 < float(loss.detach()) < 10


def test_wrong_networks_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="at least 2"):
        naswot(nn.Sequential(nn.ReLU()), torch.zeros(1, 3, 4, 4))
    with pytest.raises(UserError, match="no activation module"):
        naswot(nn.Sequential(nn.Conv2d(3, 3, 1)), torch.zeros(2, 3, 4, 4))
    with pytest.raises(UserError, match="no convolution"):
        first_order(nn.Sequential(nn.ReLU()), torch.zeros(2, 3, 4, 4))
    with pytest.raises(UserError, match="no sequence of blocks"):
        aznas(nn.Sequential(nn.Conv2d(3, 3, 1)), torch.zeros(2, 3, 4, 4))


def test_the_package_does_not_import_torch() -> None:
    code = "import sys, nas.scorers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
