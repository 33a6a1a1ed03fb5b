"""The tracer: right on modules it has never seen, never unsound, clear when it cannot."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.reference.traced_modules import CASES, Function, draw
from tests.reference.traced_programs import Program
from tests.reference.zoo_equivalence import count_permuted, symmetry_of
from zoo.symmetry.action import act, sample
from zoo.tracing.tracer import TraceError, TraceWarning, module_params, trace, verify_space
from zoo.weight_space import NeuronGroup, WeightSpace


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def change(traced, module, inputs, seed: int = 0) -> float:
    """How far outputs move, by a float64 copy of the params, `apply` and one sampled element."""
    params = {name: p.double() for name, p in module_params(traced.space, module).items()}
    source = generator(seed)
    params = {
        name: p
        + 0.1
        * (
            torch.rand(p.shape, generator=source)
            if p.dim() < 2
            else torch.randn(p.shape, generator=source)
        )
        for name, p in params.items()
    }
    inputs = [x.double() if x.is_floating_point() else x for x in inputs]
    moved = act(traced.space, sample(traced.space, source), params)
    return float((traced.apply(moved, inputs) - traced.apply(params, inputs)).abs().max())


@pytest.mark.parametrize("name", CASES)
def test_modules_counted_by_hand(name):
    case = CASES[name]
    torch_state = torch.get_rng_state()
    module, inputs = case.build(), case.inputs()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    torch.set_rng_state(torch_state)
    traced = trace(module, inputs)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert module.training
    groups, permuted = count_permuted(traced.space)
    assert (groups, permuted) == (case.groups, case.permuted)
    params = module_params(traced.space, module)
    assert {key: tuple(p.shape) for key, p in params.items()} == dict(traced.space.shapes)
    assert all(torch.equal(p, module.state_dict()[key]) for key, p in params.items())
    torch.testing.assert_close(traced.apply(params, inputs), module.eval()(*inputs))
    if name != "gru":  # its zeros are float32
        assert change(traced, module, inputs) < 1e-9


def test_patterns_of_a_multilayer_perceptron():
    traced = trace(CASES["mlp"].build(), CASES["mlp"].inputs())
    assert list(traced.space.tensors.values()) == [
        "h1 <- x",
        "h1",
        "h2 <- h1",
        "h2",
        "h3 <- h2",
        "h3",
        "y <- h3",
        "y",
    ]
    kinds = {
        name: (g.size, g.permutable, g.scaling, g.activation)
        for name, g in traced.space.groups.items()
    }
    assert kinds == {
        "x": (5, False, "none", "linear"),
        "h1": (8, True, "positive", "relu"),
        "h2": (6, True, "sign", "tanh"),
        "h3": (4, True, "none", "gelu"),
        "y": (3, False, "none", "linear"),
    }


def test_patterns_of_attention():
    space = trace(CASES["attention"].build(), CASES["attention"].inputs()).space
    assert space.tensors["attention.in_proj_weight"] == "(h2 h3 + h2 h3^-1 + h2 h4) <- h1"
    assert space.tensors["attention.out_proj.weight"] == "h5 <- (h2 h4)"
    assert {name: group.scaling for name, group in space.groups.items()} == {
        **dict.fromkeys(("h1", "h3", "h4", "h5"), "any"),
        **dict.fromkeys(("x", "h2", "y"), "none"),
    }


def test_batch_norm_scales_behind_the_statistics():
    space = trace(CASES["resnet"].build(), CASES["resnet"].inputs()).space
    assert space.tensors["0.0.weight"] == "h1^0 <- x 3 3"
    assert space.tensors["0.1.weight"] == "h1"
    assert space.tensors["0.1.running_var"] == "h1^0"
    assert space.tensors["1.conv1.weight"] == "h2^0 <- h1 3 3"
    assert {group.scaling for group in space.groups.values() if group.permutable} == {"positive"}


def test_a_variance_scales_with_the_square_where_no_eps_breaks_it():
    def module(eps):
        return nn.Sequential(
            nn.Linear(5, 6), nn.BatchNorm1d(6, affine=False, eps=eps), nn.ReLU(), nn.Linear(6, 3)
        )

    exact, usual = (trace(module(eps), draw(4, 5)()).space for eps in (0.0, 1e-5))
    assert exact.groups["h1"].scaling == "positive"
    assert list(exact.tensors.values()) == ["h1 <- x", "h1", "y <- h1^0", "y", "h1", "h1^2"]
    assert usual.groups["h1"].scaling == "none"


SCALINGS = [
    *((nn.ReLU(), "positive"), (nn.LeakyReLU(), "positive"), (nn.ReLU6(), "none")),
    *((nn.Tanh(), "sign"), (nn.ELU(), "none"), (nn.GELU(), "none"), (nn.SiLU(), "none")),
    *((nn.Identity(), "any"), (nn.Hardtanh(), "sign"), (nn.Softplus(), "none")),
    *((nn.Softsign(), "sign"), (nn.Sigmoid(), "none"), (nn.Tanhshrink(), "sign")),
    *((nn.Hardswish(), "none"), (nn.Softshrink(), "sign"), (nn.CELU(), "none")),
    *((nn.Threshold(0.0, 0.0), "positive"), (nn.Softmax(1), "none"), (nn.PReLU(), "positive")),
    *((nn.Mish(), "none"), (nn.LogSigmoid(), "none")),
]


@pytest.fixture(scope="module")
def branches():
    """The space of a module that has a branch for each non-linearity."""
    layers = [nn.Sequential(nn.Linear(4, 6), each, nn.Linear(6, 3)) for each, _ in SCALINGS]
    module = Function(lambda self, x: sum(e(x) for e in self.each), each=nn.ModuleList(layers))
    return trace(module, torch.randn(5, 4)).space


@pytest.mark.parametrize("at", range(len(SCALINGS)), ids=lambda at: type(SCALINGS[at][0]).__name__)
def test_non_linearities_decide_the_scaling(branches, at):
    hidden, _, read = branches.tensors[f"each.{at}.0.weight"].split()
    assert (read, branches.tensors[f"each.{at}.0.bias"]) == ("x", hidden)
    assert branches.groups[hidden].permutable
    assert branches.groups[hidden].scaling == SCALINGS[at][1]


def test_powers_follow_the_degree_of_the_non_linearity():
    square = Function(
        lambda self, x: self.out(self.inner(x) ** 2), inner=nn.Linear(4, 6), out=nn.Linear(6, 3)
    )
    space = trace(square, torch.randn(5, 4)).space
    assert space.tensors["out.weight"] == "y <- h1^2"
    assert space.groups["h1"].scaling == "any"


# what cannot be known is fixed, with a warning


def sorted_module():
    return Function(
        lambda self, x: self.out(F.relu(self.after(self.before(x).sort(1)[0]))),
        before=nn.Linear(5, 6),
        after=nn.Linear(6, 7),
        out=nn.Linear(7, 3),
    )


def test_an_unknown_operator_fixes_what_it_touches_and_is_named_with_its_line():
    with pytest.warns(
        TraceWarning,
        match=r"no rule for sort\.default, File .*: the neurons that it touches are taken to be "
        r"fixed",
    ):
        space = trace(sorted_module(), torch.randn(2, 5)).space
    assert [group.size for group in space.groups.values() if group.permutable] == [7]


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: self.out(torch.cumsum(self.inner(x), 1)),
        lambda self, x: self.out(self.inner(x).roll(1, 1)),
        lambda self, x: self.out(self.inner(x).flip(1)),
        lambda self, x: self.out(self.inner(x) * torch.arange(6.0)),
        lambda self, x: self.out(self.inner(x)[:, [1, 0, 3, 2, 5, 4]]),
        lambda self, x: self.out(self.inner(x) + F.pad(x, (0, 1))),
        lambda self, x: (
            (self.out(self.inner(x)), self.inner(x))[0] + self.inner(x).argmax(1, keepdim=True)
        ),
        lambda self, x: self.out(F.local_response_norm(self.inner(x)[..., None], 3)[..., 0]),
    ],
)
def test_operators_that_know_positions_leave_no_symmetry(forward):
    module = Function(forward, inner=nn.Linear(5, 6), out=nn.Linear(6, 3))
    space = trace(module, torch.randn(2, 5)).space
    assert not any(group.permutable for group in space.groups.values())
    assert {group.scaling for group in space.groups.values()} <= {"none"}


def test_parts_of_a_layer_that_go_separate_ways_are_groups_of_their_own():
    def forward(self, x):
        h = F.relu(self.inner(x))
        return self.one(h[:, :4]) + self.other(h[:, 4:])

    space = trace(
        Function(forward, inner=nn.Linear(5, 7), one=nn.Linear(4, 3), other=nn.Linear(3, 3)),
        torch.randn(2, 5),
    ).space
    assert space.tensors["inner.weight"] == "(h1 + h2) <- x"


def test_what_is_returned_is_fixed_unless_left_out():
    module = Function(
        lambda self, x: {"logits": self.out(self.inner(x)), "hidden": self.inner(x)},
        inner=nn.Linear(4, 6),
        out=nn.Linear(6, 3),
    )
    x = torch.randn(2, 4)
    assert count_permuted(trace(module, x).space) == (0, 0)
    assert count_permuted(trace(module, x, output=lambda out: out["logits"]).space) == (
        1,
        24 + 6 + 18,
    )


def test_parameters_without_use_have_no_symmetry():
    module = Function(lambda self, x: self.out(x), out=nn.Linear(4, 3), idle=nn.Linear(5, 6))
    space = trace(module, torch.randn(2, 4)).space
    assert space.tensors["idle.weight"] == "6 5"
    assert count_permuted(space) == (0, 0)


def test_buffers_are_constants_and_statistics_are_parameters():
    def forward(self, x):
        return self.out(torch.sigmoid(self.inner(x) @ self.mixing) * self.inner(x))

    module = Function(forward, inner=nn.Linear(4, 6), out=nn.Linear(6, 3))
    module.register_buffer("mixing", torch.randn(6, 6))
    x = torch.randn(2, 4)
    fixed = trace(module, x)
    assert not any(group.permutable for group in fixed.space.groups.values())
    assert "mixing" not in fixed.space.tensors
    free = trace(module, x, statistics=["mixing"])
    assert free.space.tensors["mixing"] == "h1 -> h1^0"
    assert [group.size for group in free.space.groups.values() if group.permutable] == [6]
    with pytest.raises(
        TraceError, match=r"\['nothing'\] are not buffers; buffers are \['mixing'\]"
    ):
        trace(module, x, statistics=["nothing"])


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(4, 6), nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, left, right):
        return self.out(F.relu(self.a(left) + self.b(right)))


@pytest.mark.parametrize(
    ("layer", "shape", "pattern"),
    [
        (nn.Conv2d(1, 6, 3), (2, 1, 5, 5), "y <- 1 3 3"),
        (nn.Conv2d(1, 6, (1, 3)), (2, 1, 5, 5), "y <- 1 1 3"),
        (nn.Conv1d(1, 1, 3), (2, 1, 5), "1 <- 1 3"),
        (nn.ConvTranspose2d(1, 6, 3), (2, 1, 5, 5), "1 -> y 3 3"),
        (nn.Linear(1, 6), (2, 1), "y <- 1"),
        (nn.Linear(4, 1), (2, 4), "1 <- x"),
    ],
    ids=str,
)
def test_a_weight_with_one_input_channel_reads_it(layer, shape, pattern):
    space = trace(nn.Sequential(layer, nn.ReLU()), torch.randn(shape)).space
    assert space.tensors["0.weight"] == pattern
    assert not space.pattern("0.bias").read


def test_named_inputs_and_many_networks_at_once():
    module, inputs = TwoInputs(), {"left": torch.randn(2, 4), "right": torch.randn(2, 5)}
    traced = trace(module, inputs)
    assert symmetry_of(traced.space) == symmetry_of(trace(module, tuple(inputs.values())).space)
    assert count_permuted(traced.space) == (1, 6 * 4 + 6 + 6 * 5 + 6 + 18)
    params = module_params(traced.space, module)
    many = act(traced.space, sample(traced.space, generator(), (5,)), params)
    together = torch.func.vmap(lambda params: traced.apply(params, inputs))(many)
    for i in range(5):
        alone = traced.apply({name: p[i] for name, p in many.items()}, tuple(inputs.values()))
        torch.testing.assert_close(together[i], alone)


# errors


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 6)

    def forward(self, x):
        h = self.inner(x)
        if h.sum() > 0:
            return h
        return -h


def test_control_flow_on_data_names_the_call():
    with pytest.raises(TraceError) as error:
        trace(Branches(), torch.randn(2, 4))
    message = str(error.value)
    assert message.startswith('Branches cannot be exported at "if h.sum() > 0:" (')
    assert "test_trace.py" in message
    assert "in forward" in message


def test_a_shape_that_depends_on_data_names_the_operator_and_its_line():
    module = Function(lambda self, x: self.out(x[x.sum(1) > 0]), out=nn.Linear(4, 3))
    with pytest.raises(
        TraceError,
        match=r"the shape of index\.Tensor depends on the values of the inputs, File .*line \d+",
    ):
        trace(module, torch.randn(2, 4))


def test_wrong_inputs_are_reported_as_the_module_reports_them():
    with pytest.raises(TraceError, match=r"Sequential cannot be exported.*: .*\[2, 5\] X \[4, 6\]"):
        trace(nn.Sequential(nn.Linear(4, 6)), torch.randn(2, 5))


def test_apply_names_missing_tensors_and_wrong_shapes():
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    traced = trace(module, torch.randn(2, 4))
    params = module_params(traced.space, module)
    with pytest.raises(ValueError, match=r"missing \['0.bias'\]"):
        traced.apply({k: v for k, v in params.items() if k != "0.bias"}, torch.randn(2, 4))
    with pytest.raises(
        ValueError, match=r"tensor '0.bias': expected shape \[\*batch, 6\], got \[5\]"
    ):
        traced.apply({**params, "0.bias": torch.zeros(5)}, torch.randn(2, 4))


def test_verify_names_the_groups_that_are_wrong():
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 3))
    traced = trace(module, torch.randn(2, 4))
    params = module_params(traced.space, module)
    x = torch.randn(2, 4, dtype=torch.float64)
    apply = lambda params: traced.apply(params, x)  # noqa: E731
    verify_space(traced.space, apply, params)
    wrong = {**traced.space.groups, "h2": NeuronGroup(5, True, "positive", "gelu")}
    with pytest.raises(
        TraceError,
        match=r"not one of this function: outputs change by .* change by neuron group: \{'h2'",
    ):
        verify_space(WeightSpace(wrong, traced.space.tensors), apply, params)


# random programs


@pytest.mark.parametrize(("first", "last"), [(0, 6), pytest.param(6, 40, marks=pytest.mark.deep)])
@pytest.mark.filterwarnings("ignore::zoo.tracing.tracer.TraceWarning")
def test_random_programs_are_traced_and_proved(first, last):
    num_groups = 0
    for seed in range(first, last):
        program = Program(seed)
        if torch.isfinite(program(program.example())).all():
            space = trace(
                program, program.example()
            ).space  # raises if the space is not one of the function
            num_groups += count_permuted(space)[0]
    assert num_groups > last - first
