"""How likely an epoch is to be supervised (Wang et al. 2020, section 5.3)."""

import math


def supervised_probability(epoch: int, k: float, floor: float = 0.5) -> float:
    """p(x) = max(k / (k + exp(x/k)), floor).

    Written as the logistic function of ln k − x/k, whose exponential underflows where that of the
    formula would overflow (x/k > 709).
    """
    z = math.log(k) - epoch / k
    p = 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))
    return max(p, floor)
