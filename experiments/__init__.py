"""The study: what structured noise does to a CIFAR-10 network."""

import importlib.util
import sys

NEEDED = (
    *("filelock", "jinja2", "librosa", "matplotlib", "optax", "orbax", "PIL"),
    *("platformdirs", "pydantic", "rich", "scipy", "sklearn", "soundfile"),
    *("tensorflow_datasets", "tyro"),
)

# What python -m puts there while it looks for a command. Some of these are imported at
# a command's end, and what is missing is better said before anything is trained.
if sys.argv[:1] == ["-m"]:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"error: needs {', '.join(missing)}: pip install -e '.[experiments]'",
            file=sys.stderr,
        )
        sys.exit(2)
