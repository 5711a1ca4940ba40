"""Any data set -> a pool: every slice as int16 HU at one size, in one file.

`prepare_pool` (job.py) lists the set as units (units.py), writes down what is to be done (plan.py),
makes parts of a few units each, in parallel (part.py), and puts them together (assemble.py).
Whatever is on the disk under its own name is complete (durable.py), so a kill costs the parts under
way, and the order is the plan's, so the pool has the same bytes however it came about.
"""

from ichfast.data.prepare.job import prepare_pool

__all__ = ["prepare_pool"]
