"""What a trained model is worth on a set of slices, in numbers and in pictures."""

from ichfast.evaluation.confidence import find_intervals
from ichfast.evaluation.evaluate import Evaluation, evaluate
from ichfast.evaluation.examples import pick_examples
from ichfast.evaluation.table import tabulate

__all__ = ["Evaluation", "evaluate", "find_intervals", "pick_examples", "tabulate"]
