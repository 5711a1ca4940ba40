"""The sections of a recipe: every key with its default, meaning and range."""

from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from ichfast.data import SCHEMES
from ichfast.training.registry import STRATEGIES


class Settings(BaseModel):
    """A section. Strict: True is no number, "3" neither, and a whole number may stand for a real
    one."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False, extra="forbid")


LARGEST: dict[type, float] = {int: 2**63 - 1, float: 1e12}
"""of a key without a limit of its own: what TOML has, and whose square float32 has"""
LEVELS = 13
"""at most: then the deepest is one pixel of the largest slice"""
SIDE = 4096
"""of the largest slice: beyond any CT"""
BATCH = 65_536
"""slices of the largest batch"""


def key(default: Any, meaning: str, **limits: Any) -> Any:
    """A key; ``limits`` as those of :func:`pydantic.Field`: ge ≤ value ≤ le, value > gt."""
    largest = LARGEST.get(type(default))
    if largest is not None and not limits.keys() & {"le", "lt"}:
        limits["le"] = largest
    return Field(default, description=meaning, **limits)


def check_text(value: str) -> str:
    """A folder's name that a recipe, a text in UTF-8, can hold."""
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise PydanticCustomError("string_unicode", "")
    return value


FolderName = Annotated[str, AfterValidator(check_text)]
HU = Annotated[float, Field(ge=-1e6, le=1e6)]


class OneOf:
    """The rule that a value is one of ``choices``, for those that a Literal cannot list."""

    def __init__(self, choices: Collection[Any]) -> None:
        self.choices = choices

    def __call__(self, value: Any) -> Any:
        if value not in self.choices:
            raise PydanticCustomError("literal_error", "")
        return value


def list_choices(field: FieldInfo) -> Sequence[Any]:
    """What a key may be, where it is a choice."""
    if get_origin(field.annotation) is Literal:
        return get_args(field.annotation)
    rules = [rule.func for rule in field.metadata if isinstance(rule, AfterValidator)]
    return [choice for rule in rules if isinstance(rule, OneOf) for choice in rule.choices]


class TrainingSettings(Settings):
    strategy: Annotated[str, AfterValidator(OneOf(STRATEGIES))] = key(
        "curriculum", "which step an epoch takes"
    )
    turn: Literal["epoch", "step"] = key(
        "epoch", "what a strategy that switches chooses a step for: a whole epoch, or each update"
    )
    epochs: int = key(
        4000,
        "number of epochs; the one key that may grow on resume, unless adam.decay or together.ramp "
        "spans them",
        ge=1,
    )
    seed: int = key(0, "seed of weights, schedule, shuffling and sampling", ge=0)
    validate_every: int = key(
        1, "epochs between validations; the best validated epoch is kept", ge=1
    )
    checkpoint_every: int = key(1, "epochs between checkpoints", ge=1)
    select: Literal["best", "last", "ema"] = key(
        "best",
        "weights that a run ends with: of the best validated epoch, the last, or their moving "
        "average",
    )
    ema: float = key(0.995, "decay of that average, per update", ge=0, lt=1)
    statistics: Literal["labelled", "running"] = key(
        "labelled",
        "batch normalisation's statistics for inference, after steps that see unlabelled slices or "
        "by L-BFGS: taken anew from the labelled slices as they are, or those of training",
    )
    divergence: float = key(
        100.0,
        "diverged when a loss exceeds this many times the best of its step, or the weights' norm "
        "this many times its start",
        gt=1,
    )
    grace: int = key(5, "epochs of a step before its loss is compared with its best", ge=1)


class ModelSettings(Settings):
    channels: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = key(
        (64, 128, 256, 512),
        "feature maps per level; poolings between them",
        min_length=1,
        max_length=LEVELS,
        strict=False,  # TOML has lists
    )
    convolutions: int = key(
        1, "3×3 convolutions per level: 1 in the reduced U-Net, 2 in the classic one", ge=1, le=16
    )


class SupervisedSettings(Settings):
    optimizer: Literal["lbfgs", "adam"] = key("lbfgs", "optimizer of the supervised step")
    alpha: float = key(1.0, "weight of false positives in the supervised Tversky loss", ge=0)
    beta: float = key(1.0, "weight of false negatives; both 1: soft Jaccard, both ½: Dice", ge=0)
    cross_entropy: float = key(
        0.0, "weight of the binary cross-entropy beside the Tversky loss", ge=0
    )
    batch_size: int = key(
        16, "slices per batch (Adam), or at most per micro-batch (L-BFGS)", ge=1, le=BATCH
    )
    draws: int = key(
        0, "labelled slices drawn for an epoch of Adam; 0: each once", ge=0, le=10_000_000
    )
    positive: float = key(
        0.0, "share of them that has haemorrhage; 0: as in the labelled set", ge=0, le=1
    )


class UnsupervisedSettings(Settings):
    batch_size: int = key(16, "unlabelled slices per update", ge=1, le=BATCH)
    ratio: float = key(
        1.0,
        "unlabelled slices of an unsupervised epoch, per labelled slice of an epoch",
        gt=0,
        le=1000,
    )
    learning_rate: float = key(0.0, "learning rate of L_u's Adam; 0: adam.learning_rate", ge=0)
    balance: Literal["paper", "region"] = key(
        "paper",
        "weight of the two errors of L_u: by the area of their regions, or the same, each a mean "
        "over both regions whatever their areas",
    )
    attention_gradient: Literal["stop", "encoder", "full"] = key(
        "stop",
        "gradient of L_u through the mask: none, into the encoder, or into the segmentation "
        "decoder too",
    )


class CurriculumSettings(Settings):
    k: float = key(40.0, "how slowly the supervised probability falls", gt=0)
    floor: float = key(0.5, "the lowest supervised probability", ge=0, le=1)
    decay: Literal["paper", "exponential", "linear"] = key(
        "paper", "how it falls with epoch x: k/(k + exp(x/k)), exp(−x/k), or 1 − x/k"
    )


class PretrainingSettings(Settings):
    epochs: int = key(
        20, "epochs of pretrained before the labelled ones: passes over the unlabelled set", ge=1
    )


class TogetherSettings(Settings):
    """Of strategies that see labelled and unlabelled slices in every update."""

    weight: float = key(1.0, "weight of the unlabelled loss beside the supervised one", ge=0)
    ramp: float = key(
        0.01, "share of the epochs over which that weight is reached; 0: from the start", ge=0, le=1
    )
    ema: float = key(0.99, "decay of the mean teacher's moving average, per update", ge=0, le=1)
    confidence: float = key(0.95, "lowest confidence of a pseudo label", ge=0.5, le=1)
    dropout: float = key(
        0.5,
        "probability with which a feature map is dropped, in the view that unimatch perturbs there",
        ge=0,
        lt=1,
    )
    slice_labels: Literal["ignore", "use"] = key(
        "ignore", "use: an unlabelled slice that its table calls negative has an empty mask"
    )


class LBFGSSettings(Settings):
    learning_rate: float = key(1.0, "first trial step, or the step itself", gt=0)
    line_search: Literal["strong_wolfe", "none"] = key("strong_wolfe", "line search")
    max_iter: int = key(20, "iterations per epoch", ge=1)
    history: int = key(10, "curvature pairs kept", ge=1, le=1000)


class AdamSettings(Settings):
    learning_rate: float = key(1e-4, "learning rate of Adam, in every step that uses it", gt=0)
    decay: Literal["none", "cosine"] = key(
        "none",
        "how it falls with epoch x of n, which may not grow then: as (1 + cos(π·x/n)) / 2, or not",
    )


class AugmentationSettings(Settings):
    """Drawn anew for each slice and epoch; the defaults change nothing."""

    flip: float = key(0.0, "probability of mirroring left to right", ge=0, le=1)
    rotation: float = key(0.0, "largest rotation either way, in degrees", ge=0, le=180)
    scale: float = key(1.0, "largest zoom in or out, as a factor", ge=1, le=100)
    shift: float = key(0.0, "largest shift, as a share of the side", ge=0, le=1)
    level: float = key(0.0, "largest change of the window's level, in HU", ge=0)
    width: float = key(1.0, "largest change of the window's width, as a factor", ge=1)
    gamma: float = key(1.0, "largest exponent of the grey levels, or its reciprocal", ge=1)
    blur: float = key(0.0, "largest standard deviation of a blur, in pixels", ge=0, le=3)
    noise: float = key(0.0, "largest standard deviation of white noise, in HU", ge=0)
    paste: float = key(
        0.0, "probability that another labelled slice's lesions are pasted in", ge=0, le=1
    )
    paste_shift: float = key(
        0.0, "largest shift of these from their own place, as a share of the side", ge=0, le=1
    )


class StrongSettings(Settings):
    """Of the view that a network learns from, where another view of the same unlabelled slice
    teaches it: on top of that slice's augmentation."""

    level: float = key(0.0, "largest change of the window's level, in HU", ge=0)
    width: float = key(1.0, "largest change of the window's width, as a factor", ge=1)
    gamma: float = key(1.0, "largest exponent of the grey levels, or its reciprocal", ge=1)
    blur: float = key(0.0, "largest standard deviation of a blur, in pixels", ge=0, le=3)
    noise: float = key(12.0, "standard deviation of white noise, in HU", ge=0)
    cutmix: float = key(
        0.0, "probability that a rectangle comes from another slice of the batch", ge=0, le=1
    )


class DataSettings(Settings):
    labelled: FolderName = key("", "folder with CT and masks, or its pool; empty: the phantom")
    unlabelled: FolderName = key(
        "", "folder with CT, or its pool; empty: the phantom's, where labelled is empty too"
    )
    size: int = key(256, "side of the square slices, in pixels", ge=1, le=SIDE)
    window: tuple[HU, HU] = key((40.0, 120.0), "level and width in HU; width above 1", strict=False)
    slices: Literal["positive", "all"] = key(
        "positive", "labelled slices with haemorrhage only, or all"
    )
    unlabelled_slices: Literal["positive", "all"] = key(
        "positive", "unlabelled slices that their table calls positive, where it has one, or all"
    )
    test_slices: Literal["positive", "all"] = key(
        "positive", "slices tested on, where data.slices is positive; all gives a specificity"
    )
    unlabelled_limit: int = key(0, "largest number of unlabelled slices; 0: all", ge=0)
    scheme: Annotated[int, AfterValidator(OneOf((0, *sorted(SCHEMES))))] = key(
        0,
        "percentage of the patients in the folds' training sides, as in the paper's Table 1: 5, 2 "
        "and 5 folds; 0: one split, by the shares below",
    )
    fold: int = key(0, "which fold of the scheme, counted from 0", ge=0)
    split_by: Literal["patient", "slice"] = key(
        "patient", "what folds are made of; slices of one patient on both sides flatter the result"
    )
    labelled_share: float = key(
        1.0,
        "share of the training patients whose masks are used; without data.unlabelled, the slices "
        "of the others are the unlabelled set",
        gt=0,
        le=1,
    )
    train: float = key(0.7, "share of the patients trained on", gt=0, le=1)
    validation: float = key(
        0.1,
        "share of the patients, or of a fold's training side, that chooses the best epoch; may be "
        "0 where training.select is not best",
        ge=0,
        le=1,
    )
    test: float = key(
        0.2, "share of the patients tested on; 0: nobody, as for weights that ship", ge=0, le=1
    )
    split_seed: int = key(0, "seed of the split; runs to be compared share it", ge=0)


class PhantomSettings(Settings):
    patients: int = key(75, "labelled patients", ge=3)
    unlabelled: int = key(300, "unlabelled patients", ge=1)
    slices: int = key(30, "slices per patient", ge=3)
    size: int = key(512, "side of its slices, in pixels", ge=64, le=512)
    seed: int = key(0, "seed of the phantom", ge=0)


class ComputeSettings(Settings):
    """Of training; validation and test are always plain float32."""

    precision: Literal["float32", "bfloat16", "auto"] = key(
        "float32",
        "dtype of the layers in Adam's steps; weights, optimizers, losses and L-BFGS stay float32; "
        "auto: bfloat16 where processor or GPU computes in it, float32 elsewhere",
    )
    memory_format: Literal["channels_last", "contiguous"] = key(
        "channels_last", "layout of the feature maps"
    )
    normalisation: Literal["fused", "plain"] = key(
        "fused",
        "batch normalisation with the ReLU, pooling or concatenation behind it: fused, in one pass "
        "where features are channels-last; plain, by torch's modules",
    )
    compile: Literal["off", "on", "cuda_graphs"] = key(
        "off", "torch.compile the networks; cuda_graphs also replays them as CUDA graphs, on a GPU"
    )


class EvaluationSettings(Settings):
    threshold: float = key(0.5, "probability above which a pixel is haemorrhage", ge=0, le=1)
    batch_size: int = key(16, "slices per batch", ge=1, le=BATCH)
