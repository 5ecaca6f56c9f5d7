"""The recipe of a supervised fine-tuning run (``thinkprm train``): every option, its type, default and meaning."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from thinkprm_jax.arithmetic.task import ArithmeticSource
from thinkprm_jax.recipe import MeshConfig, at_least
from thinkprm_jax.seeds import check_seeds


@dataclass(frozen=True)
class ScratchModel:
    """A new model with random weights. The vocabulary is the tokenizer's."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int | None = None  # default hidden_size / num_heads
    model_type: Literal["qwen2", "qwen3", "llama"] = "qwen2"
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    tie_embeddings: bool = True
    max_position_embeddings: int = 4096
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        sizes = ("hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads", "head_dim")
        at_least(1, self, *sizes, "max_position_embeddings")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads {self.num_heads} is no multiple of num_kv_heads {self.num_kv_heads}")
        if self.head_dim is None and self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of num_heads {self.num_heads}")
        if (self.head_dim or self.hidden_size // self.num_heads) % 2:
            raise ValueError("head_dim must be even: rotary embeddings turn pairs")


@dataclass(frozen=True)
class ModelSource:
    """Exactly one of ``pretrained`` and ``scratch``. Weights are float32 in training, whatever they were."""

    pretrained: str | None = None  # a folder or a Hugging Face id
    scratch: ScratchModel | None = None
    tokenizer: str | None = None  # "mini" (bundled), a folder or an id; default: the pretrained model's
    dtype: Literal["float32", "bfloat16"] = "bfloat16"  # of the inputs of matrix products
    frozen_dtype: Literal["float32", "bfloat16"] = "bfloat16"  # of weights that do not train (beside LoRA)
    attention: Literal["auto", "xla", "cudnn", "splash"] = "auto"  # the kernel; auto: by platform, and logged
    # What the backward pass finds in memory: everything; products with weights only; each layer's input only.
    remat: Literal["none", "products", "layer"] = "none"
    # Layers in a loop that is compiled once, over stacked weights; None: on TPUs. Checkpoints stay as they are.
    scan_layers: bool | None = None

    def __post_init__(self) -> None:
        if (self.pretrained is None) == (self.scratch is None):
            raise ValueError("give one of pretrained and scratch")
        if self.scratch is not None and self.tokenizer is None:
            raise ValueError("tokenizer is needed with scratch")


LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (Hu et al., 2021; peft's arithmetic): W x + alpha / rank * B A x, only A and B train."""

    rank: int = 32
    alpha: float = 16.0
    targets: tuple[str, ...] = LORA_TARGETS  # linear maps of every layer, by their Hugging Face names
    dropout: float = 0.0  # of the inputs of A

    def __post_init__(self) -> None:
        at_least(1, self, "rank")
        at_least(0, self, "alpha", "dropout")
        if self.dropout >= 1:
            raise ValueError(f"dropout must be below 1, not {self.dropout}")
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise ValueError("targets must name at least one linear map, each once")
        for target in self.targets:
            if target not in LORA_TARGETS:
                raise ValueError(f"targets: {target} is none of {', '.join(LORA_TARGETS)}")


@dataclass(frozen=True)
class PartSource:
    """Exactly one of ``arithmetic``, ``chains``, ``prm800k`` and ``solutions``."""

    arithmetic: ArithmeticSource | None = None
    chains: str | None = None  # a JSON, JSON Lines or parquet file, or a Hugging Face data set id
    prm800k: str | None = None  # a JSON Lines file in PRM800K's schema; it has no chains: discriminative task only
    solutions: str | None = None  # a JSON Lines file with `problem` and `solution`: solver task only
    limit: int | None = (
        None  # the first so many rows of a file that can be used (label efficiency); not of arithmetic
    )

    def __post_init__(self) -> None:
        at_least(1, self, "limit")
        if self.limit is not None and self.arithmetic is not None:
            raise ValueError("limit is for files; arithmetic has examples")
        given = self._given()
        if sum(value is not None for value in given.values()) != 1:
            *names, last = given
            raise ValueError(f"give one of {', '.join(names)} and {last}")

    def _given(self) -> dict[str, object]:
        names = ("arithmetic", "chains", "prm800k", "solutions")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class MixturePart(PartSource):
    """A source, and how much of what is read is from it: its weight over the sum of all."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.weight > 0:
            raise ValueError(f"weight must be positive, not {self.weight}")


@dataclass(frozen=True)
class DataSource(PartSource):
    """One source, or a ``mixture`` of several, in a stream without an end."""

    mixture: tuple[MixturePart, ...] | None = None  # of data.train only, with steps

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mixture is not None and not self.mixture:
            raise ValueError("mixture must name at least one source")
        if self.mixture is not None and self.limit is not None:
            raise ValueError("limit belongs to a part of the mixture")

    def _given(self) -> dict[str, object]:
        return {**super()._given(), "mixture": self.mixture}

    @property
    def parts(self) -> tuple[PartSource, ...]:
        """The sources that it is made of."""
        return (self,) if self.mixture is None else self.mixture


@dataclass(frozen=True)
class DataConfig:
    """What is trained on, and in which shapes: one compiled step per bucket."""

    train: DataSource
    evaluation: DataSource | None = None
    # Row lengths. An example longer than the last is left out, counted and named; none is cut.
    buckets: tuple[int, ...] = (256, 512, 1024, 2048, 4096)
    rows: int | None = None  # rows of a batch, whatever its length; or:
    tokens: int | None = None  # places of a batch: its rows are tokens // bucket
    packing: bool = False  # several examples in a row of one length (a single bucket), none seeing another
    examples: int | None = None  # packing only: a batch holds at most so many examples
    shuffle: bool = True  # a new order each epoch, a pure function of (seed, epoch)
    prefetch: int = 8  # batches prepared ahead

    def __post_init__(self) -> None:
        if (self.rows is None) == (self.tokens is None):
            raise ValueError("give one of rows and tokens")
        if not self.buckets or self.buckets[0] < 1 or list(self.buckets) != sorted(set(self.buckets)):
            raise ValueError("buckets must be lengths in rising order")
        at_least(1, self, "rows", "examples")
        at_least(0, self, "prefetch")
        if self.packing and len(self.buckets) != 1:
            raise ValueError("packing needs a single bucket: the length of every row")
        if self.examples is not None and not self.packing:
            raise ValueError("examples is for packing only")
        if self.tokens is not None and self.tokens < self.buckets[-1]:
            raise ValueError(f"tokens must be at least the longest bucket, {self.buckets[-1]}")

    def rows_of(self, bucket: int) -> int:
        if self.rows is not None:
            return self.rows
        assert self.tokens is not None
        return self.tokens // bucket


@dataclass(frozen=True)
class OptimizerConfig:
    """``muon`` moves the matrices of the layers by Muon and everything else by Adam; ``adamw`` all by AdamW."""

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 6e-5
    adam_learning_rate: float | None = None  # muon only: of what Adam moves
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.95  # muon only
    weight_decay: float = 0.0  # of matrices only, embeddings and head included, times the learning rate
    clip_norm: float | None = 1.0  # of the global gradient norm
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = 0  # or:
    warmup_ratio: float = 0.0  # the share of the run's steps
    decay_from: float = 0.0  # the share of the steps after which a linear or cosine schedule starts to fall
    final_factor: float = 0.0  # the learning rate at the last step, as a share of the peak

    def __post_init__(self) -> None:
        if self.name != "muon" and self.adam_learning_rate is not None:
            raise ValueError("adam_learning_rate is for muon only")
        for name in ("decay_from", "warmup_ratio"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1")
        if self.warmup_steps and self.warmup_ratio:
            raise ValueError("give one of warmup_steps and warmup_ratio")
        rates = ("learning_rate", "adam_learning_rate", "weight_decay", "eps", "final_factor", "warmup_steps")
        at_least(0, self, *rates, "b1", "b2", "momentum")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm must be positive, or null for no clipping, not {self.clip_norm}")
        for name in ("b1", "b2", "momentum"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be below 1")


@dataclass(frozen=True)
class LossConfig:
    verdict_weight: float = 1.0  # of the tokens `correct`, `incorrect`, ` Yes`, ` No` of a chain; others weigh 1
    chunk: int | None = None  # tokens of a device whose logits exist at once; default: 512 MB of them

    def __post_init__(self) -> None:
        at_least(0, self, "verdict_weight")
        at_least(1, self, "chunk")


@dataclass(frozen=True)
class CheckpointConfig:
    every_steps: int | None = None
    every_seconds: float | None = 300.0
    keep: int = 3  # the last ones; older ones are deleted
    keep_every: int | None = None  # but those of a step that is a multiple of this stay

    def __post_init__(self) -> None:
        at_least(1, self, "every_steps", "keep", "keep_every")
        at_least(0, self, "every_seconds")


@dataclass(frozen=True)
class VerdictConfig:
    """Verification of held-out solutions by the model under training, with the sampler: first-error F1."""

    every: int  # steps; also after the last one
    examples: int = 64  # the first ones of data.evaluation
    max_length: int = 4096  # of prompt and chain together
    slots: int = 16

    def __post_init__(self) -> None:
        at_least(1, self, "every", "examples", "max_length", "slots")


@dataclass(frozen=True)
class TrackingConfig:
    """metrics.jsonl is always written; these are beside it."""

    tensorboard: bool = False  # event files in the run's folder
    wandb_project: str | None = None
    peak_tflops: float | None = None  # of one device, for MFU; default: known devices by name, else no MFU

    def __post_init__(self) -> None:
        if self.peak_tflops is not None and not self.peak_tflops > 0:
            raise ValueError(f"peak_tflops must be positive, not {self.peak_tflops}")


@dataclass(frozen=True)
class ProfileConfig:
    """A trace of some steps, for xprof (`pip install xprof; xprof OUTPUT/profile`)."""

    steps: str | None = None  # such as 10..12: the first and the last one

    def __post_init__(self) -> None:
        self.bounds()

    def bounds(self) -> tuple[int, int] | None:
        """First and last step; None: no trace."""
        if self.steps is None:
            return None
        found = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", self.steps)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"steps must be FIRST..LAST, such as 10..12, not {self.steps!r}")
        return int(found[1]), int(found[2])


@dataclass(frozen=True)
class TrainRecipe:
    output: str  # the run's folder; a run found there is continued
    model: ModelSource
    data: DataConfig
    steps: int | None = None  # exactly one of steps and epochs
    epochs: int | None = None
    # generative: write the chain and the verdict. discriminative: `+` or `-` after every step (DiscPRM).
    # solver: write the solution of a problem, in the model's chat template (a generator for search).
    task: Literal["generative", "discriminative", "solver"] = "generative"
    system_prompt: str | None = None  # solver task: the system turn before the problem
    lora: LoraConfig | None = None  # None: all weights train
    seed: int = 0  # of the initial weights, the order of the data and dropout
    micro_batches: int = 1  # a step's rows are run in so many parts, one after the other
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    log_every: int = 10  # steps between lines of metrics.jsonl
    evaluate_every: int | None = None  # steps between held-out losses; also after the last one
    verdicts: VerdictConfig | None = None
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give one of steps and epochs")
        if self.evaluate_every is not None and self.data.evaluation is None:
            raise ValueError("evaluate_every needs data.evaluation")
        self._check_task()
        at_least(1, self, "steps", "epochs", "micro_batches", "log_every", "evaluate_every")
        check_seeds(self, "seed")
        for bucket in self.data.buckets:
            if self.data.rows_of(bucket) % self.micro_batches:
                raise ValueError(
                    f"micro_batches {self.micro_batches} does not divide the {self.data.rows_of(bucket)} rows "
                    f"of bucket {bucket}"
                )

    def _check_task(self) -> None:
        generative, solver = self.task == "generative", self.task == "solver"
        held_out = self.data.evaluation
        if held_out is not None and held_out.mixture is not None:
            raise ValueError("data.evaluation is one source; mixture is for data.train")
        if self.data.train.mixture is not None and self.epochs is not None:
            raise ValueError("a mixture has no end, so epochs says nothing; give steps")
        sources = [*self.data.train.parts, *([held_out] if held_out else [])]
        if self.task != "discriminative" and any(source.prm800k is not None for source in sources):
            raise ValueError("prm800k holds no chains; it needs task: discriminative")
        if solver and any(source.chains is not None for source in sources):
            raise ValueError("chains are no solutions; task: solver needs solutions or arithmetic")
        if not solver and any(source.solutions is not None for source in sources):
            raise ValueError("solutions are for task: solver")
        if not solver and self.system_prompt is not None:
            raise ValueError("system_prompt is for task: solver")
        if not generative and self.loss.verdict_weight != 1.0:
            raise ValueError("loss.verdict_weight is for the generative task only")
        if self.verdicts is not None and (not generative or self.data.evaluation is None):
            raise ValueError("verdicts needs the generative task and data.evaluation")
        if self.lora is not None and self.model.pretrained is None:
            raise ValueError("lora needs model.pretrained: random frozen weights learn nothing")
        if self.lora is not None and self.optimizer.name == "muon":
            raise ValueError("lora needs optimizer.name: adamw")
        if self.model.scan_layers and self.optimizer.name == "muon":
            raise ValueError("model.scan_layers needs optimizer.name: adamw")


# Fields that may change between the parts of one run: they change no number but by rounding.
FREE_FIELDS = (
    "output",
    "log_every",
    "evaluate_every",
    "verdicts",
    "tracking.",
    "profile.",
    "checkpoint.",
    "mesh.",
    "model.attention",
    "model.remat",
    "model.scan_layers",
    "loss.chunk",
    "data.evaluation",
    "data.prefetch",
)
