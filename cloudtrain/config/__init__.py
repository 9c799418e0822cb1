"""cloudtrain.yaml: read with all its problems at once, kept as a snapshot, proposed for a folder.

Reading imports pydantic; taking up a snapshot (what every verb after `up` does) does not.
"""

from cloudtrain.config.load import defaults, find, load
from cloudtrain.config.propose import propose
from cloudtrain.config.schema import schema
from cloudtrain.config.snapshot import dump, from_dict

__all__ = ["defaults", "dump", "find", "from_dict", "load", "propose", "schema"]
