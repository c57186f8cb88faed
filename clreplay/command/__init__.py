"""The ``clreplay`` command: one door to everything, one file a sub-command.

It hands on no names, and no file of it imports PyTorch before there is work: ``--help`` and completion must not wait.
"""
