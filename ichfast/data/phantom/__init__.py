"""A procedural head CT with haemorrhages, written in the layouts of the published data sets.

`write_phantom` (cohort.py) draws patients one by one (patient.py): a head (head.py) with skull and
scalp (skull.py) and brain (brain.py), lesions (lesions.py), bright things that are none
(confounders.py), and a scanner's faults (scanner.py), drawn with the tools of geometry.py.
ct_ich.py and rsna.py write the files; picture.py shows some.
"""

from ichfast.data.phantom.cohort import write_phantom

__all__ = ["write_phantom"]
