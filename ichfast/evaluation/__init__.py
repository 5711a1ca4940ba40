"""What a trained model is worth on a set of slices, in numbers and in pictures."""

from ichfast.evaluation.evaluate import Evaluation, evaluate
from ichfast.evaluation.examples import examples
from ichfast.evaluation.table import table

__all__ = ["Evaluation", "evaluate", "examples", "table"]
