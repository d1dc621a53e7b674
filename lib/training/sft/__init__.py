"""Fine-tuning LoRA adapters on programs that ran (RSFT paper, Algorithm 2), through Unsloth on CPU and CUDA.

Differs from the paper in: the loss is on the completion and its end token only; the completion continues the prompt's
prefill, as it did when it was sampled, and is tokenised apart from it, as it was then; rows longer than `max_length`
are left out, not cut; the order of rows is a function of the seed alone, so that a run which was cut off goes on as it
would have.
"""

from lib.training.sft.rows import Solution as Solution
from lib.training.sft.rows import batch_order as batch_order
from lib.training.sft.rows import encode as encode
from lib.training.sft.rows import examples as examples
from lib.training.sft.rows import within_length as within_length
from lib.training.sft.rows import write_rows as write_rows
from lib.training.sft.run import out_of_memory as out_of_memory
from lib.training.sft.run import run_identity as run_identity
from lib.training.sft.run import train as train
from lib.training.sft.run import train_once as train_once
from lib.training.sft.settings import TARGET_MODULES as TARGET_MODULES
from lib.training.sft.settings import EvalFn as EvalFn
from lib.training.sft.settings import OnLog as OnLog
from lib.training.sft.settings import Row as Row
from lib.training.sft.settings import SftSettings as SftSettings
from lib.training.sft.settings import device_in_words as device_in_words
