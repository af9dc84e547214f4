"""Registry of models, and the contract of its members."""

import inspect
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import torch
from fvcore.common.registry import Registry
from torch import nn

from slowfast.utils.errors import UserError

logger = logging.getLogger(__name__)

MODEL_REGISTRY = Registry("MODEL")  # subclasses of Model by the name that MODEL.MODEL_NAME gives


class Model(nn.Module):
    """Contract of a registered model.

    Called with normalised RGB clips (B, 3, T, H, W) it returns logits (B, MODEL.NUM_CLASSES), also in evaluation mode.
    A classmethod ``from_config(cfg)`` builds it, and its classifier is called ``head``.

    Attributes:
        SECTIONS: sections of the configuration that define what the model computes; MODEL.ARGS for :func:`construct`.
        TRAINING_ONLY: keys of these sections that do not change what trained weights mean.
        LIBRARY: the part of MODEL.MODEL_NAME before a slash, for networks of another library by name.
        TINY: settings of a model that tests train in a moment, on clips of any length unless DATA.NUM_FRAMES is there.
    """

    SECTIONS: ClassVar[tuple[str, ...]] = ()
    TRAINING_ONLY: ClassVar[tuple[str, ...]] = ()
    LIBRARY: ClassVar[str] = ""
    TINY: ClassVar[dict[str, Any]] = {}

    head: nn.Module
    # Settings of the data under which the model was published; a run warns where its own are others.
    preferred: ClassVar[dict[str, Any]] = {}
    # Of the last training step, added to the loss of each of its clips.
    penalty: torch.Tensor | float = 0.0

    @classmethod
    def from_config(cls, cfg) -> "Model":
        raise NotImplementedError

    def train(self, mode: bool = True) -> "Model":
        """Choose the mode; batch norms whose parameters are all frozen (MODEL.FREEZE) always evaluate."""
        super().train(mode)
        for module in self.modules():
            is_norm = isinstance(module, nn.modules.batchnorm._NormBase) and module.affine
            if is_norm and not any(parameter.requires_grad for parameter in module.parameters()):
                module.eval()
        return self

    def forward_features(self, clips: torch.Tensor) -> torch.Tensor:
        """Return the map (B, C, T', H', W') whose mean the classifier sees, of clips (B, 3, T, H, W)."""
        found: list[torch.Tensor] = []
        with self.watch_map(found.append):
            self(clips)
        return self.as_map(found[0], len(clips))

    def map_source(self) -> tuple[nn.Module, str]:
        """Return a module and the name of a method that a forward pass calls for the last map, or for a list of maps.

        Raises:
            UserError: the classifier sees no map.
        """
        if hasattr(self, "forward_stages"):
            return self, "forward_stages"
        raise UserError(f"{type(self).__name__} has no features to give and no map to explain")

    def as_map(self, x: torch.Tensor, num_clips: int) -> torch.Tensor:
        """Return as map (B, C, T', H', W') what the method of :meth:`map_source` returned for so many clips (B)."""
        return x

    @contextmanager
    def watch_map(self, watch: Callable[[torch.Tensor], object]) -> Iterator[None]:
        """Call ``watch`` in a forward pass with the last map, as it is before :meth:`as_map` and what comes after."""
        module, name = self.map_source()
        method, was_called = getattr(module, name), False

        def watched(*args: Any, **others: Any) -> Any:
            nonlocal was_called
            result, was_called = method(*args, **others), True
            watch(result[-1] if isinstance(result, list) else result)
            return result

        setattr(module, name, watched)
        try:
            yield
        finally:
            delattr(module, name)
        if not was_called:
            raise UserError(f"{type(self).__name__} has no map to explain: its forward pass does not call {name}")

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return all parameters by depth, from stem to head; [] where SOLVER.LAYER_DECAY is not supported."""
        return []

    def position_grids(self, name: str) -> list[tuple[int, ...]]:
        """Return the grid of the position table ``name``, such as (T', H', W'); [] where the tensor is none.

        Files whose tables have another grid are resized; what a table has besides, such as a class token, comes first.
        A second grid is that of published weights, which a file does not tell.
        """
        return []

    def scalars(self) -> dict[str, float]:
        """Return numbers of the model that are worth a curve, by name; they are recorded once per epoch."""
        return {}

    def stage_of(self, name: str) -> str:
        """Return the part of the network, for tables of costs, that the module or parameter ``name`` belongs to."""
        return name.partition(".")[0] or "other"


def model_class(cfg) -> type[Model]:
    """Return the class that MODEL.MODEL_NAME names."""
    name = cfg.MODEL.MODEL_NAME
    known = {f"{kind.LIBRARY}/NAME" if kind.LIBRARY else key: kind for key, kind in MODEL_REGISTRY}
    library, has_library, _ = name.partition("/")
    key = f"{library}/NAME" if has_library else name
    if key not in known:
        raise UserError(f"MODEL.MODEL_NAME {name!r} is not a registered model; known: {', '.join(sorted(known))}")
    return known[key]


def construct(make: Callable[..., Any], cfg, allowed: Collection[str] = (), **settings: Any) -> Any:
    """Return ``make(**settings)`` with MODEL.ARGS over its defaults.

    Args:
        make: a constructor; MODEL.ARGS may name the parameters that it spells out and ``settings`` does not give.
        allowed: more names that it takes.
        settings: arguments that are the configuration's.

    Raises:
        UserError: another name, or values that the constructor refuses.
    """
    model, args = cfg.MODEL.MODEL_NAME, dict(cfg.MODEL.ARGS)
    spelled = {name for name, one in inspect.signature(make).parameters.items() if one.kind is not one.VAR_KEYWORD}
    known = sorted({*spelled, *allowed} - {*settings})
    for name in args:
        if name in settings:
            raise UserError(f"MODEL.ARGS: {name!r} of {model} is taken from other settings, not to be given here")
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"allowed: {', '.join(known)}"
            raise UserError(f"MODEL.ARGS: {model} takes no argument {name!r}; {hint}")
    try:
        return make(**settings, **args)
    except UserError:
        raise
    except Exception as error:  # of a library, which fails somewhere inside
        if not args:
            raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"MODEL.ARGS {args}: {model} cannot be built with them ({reason})") from error


def different_data(model: Model, cfg) -> str:
    """Return in which settings of the data a run differs from those that the model prefers, "" for none."""
    pairs = ((key, cfg.DATA[key.removeprefix("DATA.")], value) for key, value in model.preferred.items())
    return "; ".join(
        f"{key} is {found}, it was published with {value}" for key, found, value in pairs if found != value
    )


def build_model(cfg) -> Model:
    """Return the model that ``cfg`` describes, with fresh weights, on the current default device."""
    if not cfg.MODEL.NUM_CLASSES:
        raise UserError("MODEL.NUM_CLASSES is 0, which runs find out from their data: set it to build a model alone")
    kind = model_class(cfg)
    if cfg.MODEL.ARGS and "MODEL.ARGS" not in kind.SECTIONS:
        raise UserError(f"MODEL.ARGS is {dict(cfg.MODEL.ARGS)}, but {cfg.MODEL.MODEL_NAME} takes none")
    model = kind.from_config(cfg)
    if cfg.VMP.ENABLE:
        from slowfast.models.motion_prompt import with_prompts

        model = with_prompts(model, cfg)
    return model


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Train no parameter whose name fits one of the ``patterns`` (as of file names), and log how many those are."""
    parameters = dict(model.named_parameters())
    for pattern in patterns:
        names = [name for name in parameters if fnmatchcase(name, pattern)]
        if not names:
            near = ", ".join(get_close_matches(pattern, parameters, cutoff=0.3)) or ", ".join([*parameters][:3])
            raise UserError(f"MODEL.FREEZE: no parameter of {type(model).__name__} fits {pattern!r}; near it: {near}")
        for name in names:
            parameters[name].requires_grad_(False)
    frozen = [parameter for parameter in parameters.values() if not parameter.requires_grad]
    if len(frozen) == len(parameters):
        raise UserError(f"MODEL.FREEZE is {list(patterns)}: nothing is left to train")
    if patterns:
        sizes = [sum(parameter.numel() for parameter in some) for some in (frozen, parameters.values())]
        facts = (len(frozen), len(parameters), f"{sizes[0]:,}", f"{sizes[1]:,}")
        logger.info("frozen: %d of %d parameters, %s of %s values", *facts)
