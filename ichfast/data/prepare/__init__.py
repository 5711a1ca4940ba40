"""Any data set -> a pool: every slice as int16 HU at one size, in one file.

`prepare_pool` (job.py) has the layout list the set as units, writes down what is to be done
(plan.py), makes parts of a few units each, in parallel (part.py), each at its place in the pool
where that is known beforehand, and completes the pool (assemble.py). A part's rows come last and
have a checksum of every slice, so a kill costs only the parts under way; the order is the plan's,
so the pool has the same bytes whatever happened on the way.
"""

from ichfast.data.prepare.job import prepare_pool

__all__ = ["prepare_pool"]
