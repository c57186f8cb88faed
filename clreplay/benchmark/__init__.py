"""The companion: every cell of the DDM paper's static tables, measured and set beside the published number.

``python runs/static_tables.py --table 1 --dataset cifar10 --ipc 10 --method dm ddm`` expands a table into cells
(:mod:`.cells`), plans what has to be measured for them (:mod:`.plan`), runs what is missing (:mod:`.run`)
unit by unit (:mod:`.units`, :mod:`.executors`), keeps every result in one file (:mod:`.store`) and renders tables of
what is there (:mod:`.results`, :mod:`.render`).
"""
