"""A run on disk: its folder, its finished stages, and files that are written whole or not at all.

This room knows no job. A job declares its outputs as a :class:`RunOutputs`, and
:class:`RunFolder` keeps unfinished work apart from results until the run is complete.
"""

from segmentation.storage.run_folder import RunFolder, RunOutputs, read_manifest

__all__ = ["RunFolder", "RunOutputs", "read_manifest"]
